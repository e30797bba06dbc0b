# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Preference files as tfds datasets in ArrayRecord, split by prompt.

A dataset lies in <data_dir>/preferences/<fingerprint>/<version>. The
fingerprint covers the source file's bytes and the settings, so that a change of
either builds another dataset, and nothing else does. tfds writes aside, into
`incomplete.*`, and renames at the end: a folder under its final name is whole,
and what a killed build leaves is never read. Only one process may build.

A row's split follows from a hash of its prompt alone, white space aside: the
same prompt always lands in the same split, in every file and run. That two
splits share no prompt is checked nevertheless, and the count kept. Dialogues
that only begin alike are different prompts.

tfds shuffles rows by key and returns bytes; `read_split` gives text, in the
source's order. TensorFlow is never imported: the `tfds build` command would,
so build from Python.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hypo_jax.data import readers

SPLITS = ("train", "validation", "test")
_TEXT_FIELDS = ("chosen", "rejected", "file")


class Preferences(tfds.core.GeneratorBasedBuilder):
  """Builder over one preference file; made by `build_preferences`."""

  VERSION = tfds.core.Version("1.0.0")
  # tfds looks beside the code for checksums of downloads, by way of a package
  # (importlib_resources) that it doesn't install. Nothing is downloaded here.
  code_path = None

  def __init__(self, *, path: str, settings: dict[str, Any], **kwargs):
    self._path = path
    self._settings = settings
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text
    return tfds.core.DatasetInfo(
      builder=self,
      description="Pairs of completions; `prompt` is JSON: text or messages.",
      features=tfds.features.FeaturesDict(
        {"prompt": text(), "line": np.int64} | {k: text() for k in _TEXT_FIELDS}
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    reading = readers.read_preferences(
      self._path,
      on_bad=self._settings["on_bad"],
      max_bad_fraction=self._settings["max_bad_fraction"],
      as_messages=self._settings["as_messages"],
    )
    splits = {name: [] for name in SPLITS}
    for record in reading.records:
      splits[self._split_of(record["prompt"])].append(record)
    self.info.metadata.update(
      good_rows=len(reading.records),
      bad_rows=len(reading.bad_rows),
      first_bad_rows=[str(row) for row in reading.bad_rows[:10]],
      blank_lines=reading.blank_lines,
      leaked_prompts=count_leaked_prompts(splits),
    )
    # tfds refuses a split without examples.
    return {k: self._generate_examples(v) for k, v in splits.items() if v}

  def _split_of(self, prompt: readers.Prompt) -> str:
    return split_of(
      prompt,
      validation_fraction=self._settings["validation_fraction"],
      test_fraction=self._settings["test_fraction"],
    )

  def _generate_examples(self, records):
    for record in records:
      prompt = json.dumps(record["prompt"], ensure_ascii=False)
      yield record["line"], record | {"prompt": prompt}


def build_preferences(
  path: str | os.PathLike,
  *,
  data_dir: str | os.PathLike,
  validation_fraction: float = 0.1,
  test_fraction: float = 0.1,
  on_bad: str = "auto",
  max_bad_fraction: float = 0.01,
  as_messages: bool = False,
) -> Preferences:
  """Builds the dataset of a file, or finds it built.

  Args:
    path: what `readers.read_preferences` takes.
    data_dir: where datasets lie.
    validation_fraction: expected share of the prompts, in [0, 1).
    test_fraction: likewise; the two leave some for training.
    on_bad: see `readers.read_preferences`.
    max_bad_fraction: likewise.
    as_messages: likewise.

  Returns:
    The builder. Its `info.metadata` holds good_rows, bad_rows, first_bad_rows
    (text of at most ten), blank_lines and leaked_prompts (0).

  Raises:
    ValueError: for wrong fractions, and what `readers.read_preferences` raises.
  """
  if (
    min(validation_fraction, test_fraction) < 0
    or validation_fraction + test_fraction >= 1
  ):
    raise ValueError(
      "validation_fraction, test_fraction: expected shares of at least 0 with "
      f"a sum below 1, got {validation_fraction} and {test_fraction}"
    )
  settings = {
    "validation_fraction": float(validation_fraction),
    "test_fraction": float(test_fraction),
    "on_bad": on_bad,
    "max_bad_fraction": float(max_bad_fraction),
    "as_messages": as_messages,
  }
  with _quiet_tfds():
    builder = Preferences(
      path=os.fspath(path),
      settings=settings,
      data_dir=os.fspath(data_dir),
      config=tfds.core.BuilderConfig(name=_fingerprint(path, settings)),
      file_format="array_record",
    )
    if not builder.is_prepared():
      builder.download_and_prepare(file_format="array_record")
  return builder


def read_split(builder: Preferences, split: str) -> list[dict[str, Any]]:
  """Reads one split as `readers.read_preferences` would give it.

  Args:
    builder: from `build_preferences`.
    split: "train", "validation" or "test".

  Returns:
    Records {"prompt", "chosen", "rejected", "file", "line"} by line; none
    where no prompt fell into the split.

  Raises:
    ValueError: for an unknown split.
  """
  if split not in SPLITS:
    raise ValueError(f"split: expected one of {SPLITS}, got {split!r}")
  if split not in builder.info.splits:
    return []
  rows = builder.as_data_source(split=split)
  records = [
    {
      "prompt": json.loads(row["prompt"]),
      "line": int(row["line"]),
      **{name: row[name].decode("utf-8") for name in _TEXT_FIELDS},
    }
    for row in rows
  ]
  return sorted(records, key=lambda record: record["line"])


def split_of(
  prompt: readers.Prompt, *, validation_fraction: float, test_fraction: float
) -> str:
  """Returns the split of a prompt, from a hash of its text alone."""
  digest = hashlib.sha256(_prompt_identity(prompt).encode("utf-8")).digest()
  place = int.from_bytes(digest[:8], "little") / 2**64
  if place < test_fraction:
    return "test"
  return (
    "validation" if place < test_fraction + validation_fraction else "train"
  )


def count_leaked_prompts(splits: dict[str, list[dict[str, Any]]]) -> int:
  """Returns the number of prompts that stand in more than one split."""
  seen: dict[str, str] = {}
  leaked = set()
  for name, records in splits.items():
    for record in records:
      identity = _prompt_identity(record["prompt"])
      if seen.setdefault(identity, name) != name:
        leaked.add(identity)
  return len(leaked)


def _prompt_identity(prompt: readers.Prompt) -> str:
  """Returns what two prompts share that should not be told apart."""
  if not isinstance(prompt, str):
    prompt = "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
  return " ".join(prompt.split())


@contextlib.contextmanager
def _quiet_tfds():
  """Keeps tfds' progress off standard output, which is for results, and its
  warnings that a data set isn't there yet off standard error."""
  logger = logging.getLogger("absl")
  level = logger.level
  tfds.disable_progress_bar()
  logger.setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logger.setLevel(level)


def _fingerprint(path: str | os.PathLike, settings: dict[str, Any]) -> str:
  digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
  digest.update(pathlib.Path(path).name.encode())  # It is part of each row.
  with open(path, "rb") as file:
    digest.update(hashlib.file_digest(file, "sha256").digest())
  return digest.hexdigest()[:20]
