# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The reference's log-probs of the offline pairs, on disk between runs.

    <folder>/<key>/parts.json       what the log-probs depend on, as digests
    <folder>/<key>/<split>.npy      float32 [pairs, 2], chosen and rejected

The key is a digest of the parts: model, tokenizer, data, lengths, and the
tokens that came of these. Runs whose parts agree share an entry, in whatever
work directory; others stand beside it. Log-probs are nan for pairs that no run
has needed yet. Entries and files are written aside and renamed, so what a kill
leaves is whole or absent.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from hypo_jax.checkpoint import write_json

Arrays = dict[str, np.ndarray]

_PARTS = "parts.json"
_NAMES = {
  "model": "the model",
  "tokenizer": "the tokenizer",
  "data": "the data",
  "lengths": "prompt_length or completion_length",
  "tokens": "the way text becomes tokens",
}


def digest(value: Any) -> str:
  """Returns hex digits for JSON-like values, bytes or arrays by name."""
  found = hashlib.sha256()
  if isinstance(value, dict) and any(
    isinstance(x, np.ndarray) for x in value.values()
  ):
    for name in sorted(value):
      array = np.ascontiguousarray(value[name])
      found.update(f"{name}{array.dtype}{array.shape}".encode())
      found.update(array.tobytes())
  else:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    found.update(text.encode("utf-8", "surrogatepass"))
  return found.hexdigest()[:16]


class ReferenceCache:
  """The entry of one set of parts.

  Args:
    folder: holds the entries; created when one is written.
    parts: digest by name: model, tokenizer, data, lengths, tokens.
  """

  def __init__(self, folder: pathlib.Path, parts: dict[str, str]):
    self._folder = folder
    self._parts = parts
    self._entry = folder / digest(parts)

  def read(self, split: str, num_pairs: int) -> np.ndarray:
    """Returns float32 [num_pairs, 2], memory-mapped where it is on disk."""
    path = self._entry / f"{split}.npy"
    if not path.exists():
      return np.full((num_pairs, 2), np.nan, np.float32)
    return np.load(path, mmap_mode="r")

  def why_not(self) -> str:
    """Returns why there is no entry, against the nearest one; else ""."""
    if self._entry.exists() or not self._folder.is_dir():
      return ""
    others = [
      json.loads(path.read_text())
      for path in sorted(self._folder.glob(f"*/{_PARTS}"))
    ]
    differing = [
      [name for name in self._parts if other.get(name) != self._parts[name]]
      for other in others
    ]
    if not differing:
      return ""
    names = min(differing, key=len)
    if len(names) > 1:  # Tokens follow from the other parts.
      names = [name for name in names if name != "tokens"]
    what = " and ".join(_NAMES[name] for name in names)
    return f"other than in {self._folder}: {what}"

  def write(self, tables: Arrays) -> None:
    """Writes the splits' log-probs, whole or not at all."""
    if not self._entry.exists():
      aside = self._folder / f"aside.{os.getpid()}"
      shutil.rmtree(aside, ignore_errors=True)
      aside.mkdir(parents=True)
      write_json(aside / _PARTS, self._parts)
      try:
        aside.rename(self._entry)
      except OSError:  # Another run has just made it.
        shutil.rmtree(aside)
    for split, log_probs in tables.items():
      aside = self._entry / f"{split}.{os.getpid()}.aside"
      with aside.open("wb") as file:
        np.save(file, log_probs)
      os.replace(aside, self._entry / f"{split}.npy")


def fill(
  cache: ReferenceCache,
  needed: dict[str, np.ndarray],
  num_pairs: dict[str, int],
  score: Callable[[str, np.ndarray], np.ndarray],
) -> tuple[Arrays, Arrays]:
  """Returns each split's log-probs, scoring what is needed and not there.

  Args:
    cache: where they are looked for.
    needed: by split, the numbers of the pairs that must be known.
    num_pairs: by split.
    score: (split, numbers) -> float32 [len(numbers), 2].

  Returns:
    Log-probs by split, and those splits of them that gained any.
  """
  found, gained = {}, {}
  for split, rows in needed.items():
    found[split] = cache.read(split, num_pairs[split])
    missing = rows[np.isnan(found[split][rows]).any(axis=1)]
    if len(missing):
      log_probs = np.array(found[split])
      log_probs[missing] = score(split, missing)
      found[split] = gained[split] = log_probs
  return found, gained
