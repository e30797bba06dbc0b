# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Preference files as tfds datasets in ArrayRecord, split by prompt.

Each layout has a builder, named after it: `Explicit`, `Implicit`,
`Ultrafeedback`, `HH`, `Tldr`, `Shp` and `Rated`. A data set lies in
<data_dir>/<builder>/<fingerprint>/<version>. The fingerprint covers the source
files' bytes and the settings, filters included, so that a change of either
builds another data set, and nothing else does. tfds writes aside, into
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
import dataclasses
import hashlib
import io
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hypo_jax.data import fields, formats, readers
from hypo_jax.data import filters as filters_lib

SPLITS = ("train", "validation", "test")
_TEXT_FIELDS = ("chosen", "rejected", "file")
_SCORES = ("chosen_score", "rejected_score")


class Preferences(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Builder over one file or folder; each layout has its own, see below.

      builder = preferences.Shp(path="shp.jsonl", data_dir="data")
      builder.download_and_prepare(file_format="array_record")

  `build_preferences` does the same for a layout that it recognises. Arguments
  are explained there.
  """

  VERSION = tfds.core.Version("3.0.0")
  LAYOUT: str  # name in `layouts`
  # tfds looks beside the code for checksums of downloads, by way of a package
  # (importlib_resources) that it doesn't install. Nothing is downloaded here.
  code_path = None

  def __init__(
    self,
    *,
    path: str | os.PathLike,
    data_dir: str | os.PathLike,
    split: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    on_bad: str = "auto",
    max_bad_fraction: float = 0.01,
    as_messages: bool = False,
    filters: filters_lib.Filters = filters_lib.NONE,
  ):
    if (
      min(validation_fraction, test_fraction) < 0
      or validation_fraction + test_fraction >= 1
    ):
      raise ValueError(
        "validation_fraction, test_fraction: expected shares of at least 0 "
        f"with a sum below 1, got {validation_fraction} and {test_fraction}"
      )
    self._path = formats.resolve(path)
    self._fractions = {
      "validation_fraction": float(validation_fraction),
      "test_fraction": float(test_fraction),
    }
    self._how = {
      "layout": self.LAYOUT,
      "split": split,
      "on_bad": on_bad,
      "max_bad_fraction": float(max_bad_fraction),
      "as_messages": as_messages,
    }
    self._filters = filters
    settings = self._fractions | self._how | dataclasses.asdict(filters)
    name = _fingerprint(formats.find(self._path, split), settings)
    super().__init__(
      data_dir=os.fspath(data_dir),
      config=tfds.core.BuilderConfig(name=name),
      file_format="array_record",
    )

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text
    return tfds.core.DatasetInfo(
      builder=self,
      description="Pairs of completions; `prompt` is JSON: text or messages. "
      "Scores are nan where a row has none.",
      features=tfds.features.FeaturesDict(
        {"prompt": text(), "line": np.int64}
        | {name: text() for name in _TEXT_FIELDS}
        | {name: np.float64 for name in _SCORES}
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    reading = readers.read_preferences(self._path, **self._how)
    records, counts = filters_lib.apply(reading.records, self._filters)
    splits = {name: [] for name in SPLITS}
    for record in records:
      splits[split_of(record["prompt"], **self._fractions)].append(record)
    self.info.metadata.update(
      layout=reading.layout,
      good_rows=reading.rows_read - len(reading.bad_rows),
      bad_rows=len(reading.bad_rows),
      first_bad_rows=[str(row) for row in reading.bad_rows[:10]],
      blank_lines=reading.blank_lines,
      unpaired_rows=reading.unpaired,
      filters=counts,
      leaked_prompts=count_leaked_prompts(splits),
    )
    # tfds refuses a split without examples.
    return {k: self._generate_examples(v) for k, v in splits.items() if v}

  def _generate_examples(self, records):
    for record in records:
      prompt = json.dumps(record["prompt"], ensure_ascii=False)
      scores = {name: record.get(name, np.nan) for name in _SCORES}
      key = f"{record['file']}:{record['line']}"
      yield key, record | {"prompt": prompt} | scores


class Explicit(Preferences):
  """prompt, chosen, rejected: texts or messages."""

  LAYOUT = "explicit"


class Implicit(Preferences):
  """Whole texts or conversations under chosen and rejected."""

  LAYOUT = "implicit"


class Ultrafeedback(Preferences):
  """UltraFeedback, binarized: conversations that repeat their prompt."""

  LAYOUT = "ultrafeedback"


class HH(Preferences):
  """Anthropic's helpful and harmless dialogues."""

  LAYOUT = "hh"


class Tldr(Preferences):
  """summarize_from_feedback's comparisons."""

  LAYOUT = "tldr"


class Shp(Preferences):
  """Stanford Human Preferences."""

  LAYOUT = "shp"


class Rated(Preferences):
  """Texts with a rating each."""

  LAYOUT = "rated"


BUILDERS = {
  builder.LAYOUT: builder
  for builder in (Explicit, Implicit, Ultrafeedback, HH, Tldr, Shp, Rated)
}


def build_preferences(
  path: str | os.PathLike,
  *,
  data_dir: str | os.PathLike,
  layout: str = "auto",
  split: str = "",
  **how: Any,
) -> Preferences:
  """Builds the data set of a file or folder, or finds it built.

  Args:
    path: what `readers.read_preferences` takes.
    data_dir: where data sets lie.
    layout: likewise; "auto" is recognised.
    split: which ready-made split of a folder, see `formats.find`. It is split
      anew by prompt: splits that stand ready may share prompts.
    **how: what the builder takes beside these:
      validation_fraction: expected share of the prompts, in [0, 1).
      test_fraction: likewise; the two leave some for training.
      on_bad, max_bad_fraction, as_messages: see `readers.read_preferences`.
      filters: pairs to leave out, see `filters.Filters`.

  Returns:
    The layout's builder. Its `info.metadata` holds layout, good_rows, bad_rows,
    first_bad_rows (text of at most ten), blank_lines, unpaired_rows ("rated"
    alone), filters ({"name", "before", "after"}) and leaked_prompts (0).

  Raises:
    ValueError: for wrong fractions, and what `readers.read_preferences` and
      `filters.apply` raise.
  """
  path = formats.resolve(path)
  layout = readers.recognise_layout(path, layout=layout, split=split)
  with _quiet_tfds():
    builder = BUILDERS[layout](path=path, data_dir=data_dir, split=split, **how)
    if not builder.is_prepared():
      builder.download_and_prepare(file_format="array_record")
  return builder


def read_split(builder: Preferences, split: str) -> list[dict[str, Any]]:
  """Reads one split as `readers.read_preferences` would give it.

  Args:
    builder: from `build_preferences`.
    split: "train", "validation" or "test".

  Returns:
    Records {"prompt", "chosen", "rejected", "file", "line"} and, where there
    are scores, {"chosen_score", "rejected_score"}, by file and line; none where
    no prompt fell into the split.

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
      **{n: float(row[n]) for n in _SCORES if not np.isnan(row[n])},
    }
    for row in rows
  ]
  return sorted(records, key=lambda record: (record["file"], record["line"]))


def split_of(
  prompt: readers.Prompt, *, validation_fraction: float, test_fraction: float
) -> str:
  """Returns the split of a prompt, from a hash of its text alone."""
  place = _place(prompt)
  if place < test_fraction:
    return "test"
  return (
    "validation" if place < test_fraction + validation_fraction else "train"
  )


def keep_apart(
  records: list[dict[str, Any]], share: float
) -> dict[str, list[dict[str, Any]]]:
  """Returns training pairs as "train" and "reward_model", split by prompt.

  Args:
    records: pairs.
    share: expected share of the prompts under "reward_model", in (0, 1).

  Raises:
    ValueError: for another share, or one that leaves either side without pairs.
  """
  if not 0 < share < 1:
    raise ValueError(
      f"evaluate.reward_model_share: expected 0 or a share below 1, got {share}"
    )
  parts: dict[str, list[dict[str, Any]]] = {"train": [], "reward_model": []}
  for record in records:
    # Salted: `split_of` has put these prompts at one end of the plain hash.
    apart = _place(record["prompt"], salt="reward model ") < share
    parts["reward_model" if apart else "train"].append(record)
  for name, kept in parts.items():
    if not kept:
      raise ValueError(
        f"evaluate.reward_model_share: expected a share of {len(records)} "
        f"training pairs that leaves some to both, got {share} and none under "
        f"{name}"
      )
  return parts


def _place(prompt: readers.Prompt, *, salt: str = "") -> float:
  """Returns a prompt's place in [0, 1), from a hash of its text."""
  identity = salt + fields.identity(prompt)
  digest = hashlib.sha256(identity.encode("utf-8")).digest()
  return int.from_bytes(digest[:8], "little") / 2**64


def count_leaked_prompts(splits: dict[str, list[dict[str, Any]]]) -> int:
  """Returns the number of prompts that stand in more than one split."""
  seen: dict[str, str] = {}
  leaked = set()
  for name, records in splits.items():
    for record in records:
      identity = fields.identity(record["prompt"])
      if seen.setdefault(identity, name) != name:
        leaked.add(identity)
  return len(leaked)


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


def _fingerprint(
  files: list[tuple[str, pathlib.Path]], settings: dict[str, Any]
) -> str:
  digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
  for name, path in files:
    digest.update(name.encode())  # It is part of each row.
    with open(path, "rb") as file:
      digest.update(hashlib.file_digest(file, "sha256").digest())
  return digest.hexdigest()[:20]
