# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Models by hub name: fetched where there is a network, else from the cache."""

import pathlib
import re

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Weights in safetensors alone, and whatever describes them.
_FILES = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.json")


def is_name(text: str) -> bool:
  """Whether `text` looks like "owner/model"."""
  return _NAME.fullmatch(text) is not None


def model_folder(name: str) -> pathlib.Path:
  """Returns the folder of a model's files, fetched or from the hub's cache.

  Raises:
    FileNotFoundError: where neither a network nor the cache has the model.
  """
  import huggingface_hub  # Slow to import, and seldom needed.
  from huggingface_hub import errors

  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(name, allow_patterns=_FILES)
    )
  except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as e:
    reason = str(e).strip().splitlines()[0]
  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        name, allow_patterns=_FILES, local_files_only=True
      )
    )
  except errors.LocalEntryNotFoundError:
    raise FileNotFoundError(
      f"path_or_name: expected a folder, a .gguf file or a model on the hub or "
      f"in its cache, got {name!r} (no such path; the hub says: {reason})"
    ) from None
