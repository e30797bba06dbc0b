# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Data sets by hub name: fetched where there is a network, or cached."""

import pathlib
import re

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_name(text: str) -> bool:
  """Whether `text` looks like "owner/name"."""
  return _NAME.fullmatch(text) is not None


def dataset_folder(name: str, patterns: list[str]) -> pathlib.Path:
  """Returns the folder of a data set's files.

  Args:
    name: "owner/name"; its default branch is taken.
    patterns: of the files that are wanted.

  Raises:
    ValueError: where neither a network nor the hub's cache has the data set.
  """
  import huggingface_hub  # Slow to import, and seldom needed.
  from huggingface_hub import errors

  how = {"repo_type": "dataset", "allow_patterns": patterns}
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(name, **how))
  except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as e:
    reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(name, local_files_only=True, **how)
    )
  except errors.LocalEntryNotFoundError:
    raise ValueError(
      f"path: expected a file, a folder or a data set on the hub or in its "
      f"cache, got {name!r} (no such path; the hub says: {reason})"
    ) from None
