# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Models and data sets by hub name: fetched over a network, or cached.

"owner/name" is taken from the hub's default branch; without a network, or for
what the hub doesn't give, from the cache that earlier downloads left.
"""

import pathlib
import re
from collections.abc import Sequence

# A letter, digit or underscore at both ends of a part, as the hub has it: so
# that "./model" and "../model" are paths.
_PART = r"\w(?:[\w.-]*\w)?"
_NAME = re.compile(f"{_PART}/{_PART}")


def is_name(text: str) -> bool:
  """Whether `text` looks like "owner/name" and is no path on this machine."""
  return bool(_NAME.fullmatch(text)) and not pathlib.Path(text).exists()


def folder(
  name: str, *, kind: str, patterns: Sequence[str]
) -> pathlib.Path | str:
  """Returns the folder of the files, or the hub's reason why there is none.

  Args:
    name: "owner/name".
    kind: "model" or "dataset".
    patterns: of the files that are wanted.
  """
  import huggingface_hub  # Slow to import, and seldom needed.
  from huggingface_hub import errors

  how = {"repo_type": kind, "allow_patterns": list(patterns)}
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(name, **how))
  except Exception as e:
    # A proxy or a dropped connection gives the http library's own errors,
    # which have no base in common; the cache below decides in any case.
    reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(name, local_files_only=True, **how)
    )
  except (errors.LocalEntryNotFoundError, errors.HFValidationError):
    return reason
