# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a job learns from: demonstrations, pairs, prompts and, if any, a judge.

Three kinds. The embedded world (`reviews`) makes its prompts and demonstrations
and has an exact judge; its pairs are sampled from the reference policy later,
by the job. Texts to be continued (`continuations`) give prompts and
demonstrations, and their pairs come likewise. A preference file brings pairs,
split by prompt; its demonstrations are the chosen completions, and nobody
judges but a function of the user's.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hypo_jax.data import filters as filters_lib
from hypo_jax.data import readers, reviews, tokenize

Arrays = dict[str, np.ndarray]
Records = list[dict[str, Any]]

SPLITS = ("train", "validation", "test")
# Held-out pairs that are sampled for validation and for test.
_NUM_HELD_OUT = 256


@dataclasses.dataclass(frozen=True)
class Task:
  """Texts of a job; `Tokens` turns them into arrays.

  Attributes:
    demonstrations: records {"prompt", "chosen"} for supervised fine-tuning.
    prompts: by split, what policies are evaluated on; the rollouts of training
      answer the prompts of "rollout", or of the pairs where that is missing.
    pairs: by split, records {"prompt", "chosen", "rejected"}, or None where
      the reference policy has yet to sample them. Pairs under "reward_model"
      are kept apart for a reward model that policies are measured by.
    pair_prompts: by split, the prompts that it then samples for.
    judge: (prompt, completion) -> reviews.Judgement, or None.
    notes: what was skipped while reading, for the terminal.
    counts: of the pairs' file, what JSON holds: "layout", "rows_read"
      (good and bad ones), "bad_rows", "blank_lines", "filters" (a list of
      {"name", "before", "after"}, pairs, in order), "leaked_prompts" (in more
      than one split) and "others" (a list of {"key", "rows_read", "bad_rows"}:
      the files of prompts and of demonstrations). The embedded world reads
      nothing: all are 0.
  """

  demonstrations: Records
  prompts: dict[str, list[Any]]
  pairs: dict[str, Records] | None
  judge: Callable[[str, str], Any] | None
  pair_prompts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  counts: dict[str, Any] = dataclasses.field(default_factory=dict)


def reviews_task(
  *,
  num_demonstrations: int,
  num_pairs: int,
  num_prompts: dict[str, int],
  seed: int,
  rollout_path: str = "",
) -> Task:
  """Returns the embedded world.

  Args:
    num_demonstrations: for supervised fine-tuning.
    num_pairs: to be sampled for training.
    num_prompts: "validation" and "test": prompts of the evaluations.
    seed: of what is drawn.
    rollout_path: "reviews" for the world's own prompts without pairs, or "".

  Raises:
    ValueError: for a file of prompts, which would be of another world.
  """
  if rollout_path not in ("", "reviews"):
    raise ValueError(
      'data.rollout_path: expected "" or "reviews" where data.path is '
      f'"reviews", got {rollout_path!r}'
    )
  if rollout_path:
    num_prompts = num_prompts | {"rollout": reviews.SPLIT_SIZES["rollout"]}
  return Task(
    demonstrations=reviews.demonstrations(num_demonstrations, seed=seed),
    prompts={
      split: reviews.prompts(split, count, seed=seed)
      for split, count in num_prompts.items()
    },
    pairs=None,
    pair_prompts={
      split: reviews.prompts(
        name,
        min(num_pair_prompts(num_pairs, split), reviews.SPLIT_SIZES[name]),
        seed=seed,
      )
      for split, name in zip(
        SPLITS, ("pairs", "validation_pairs", "test_pairs"), strict=True
      )
    },
    judge=reviews.judge,
    counts=counts("reviews"),
  )


def num_wanted_pairs(num_pairs: int, split: str) -> int:
  """Returns how many pairs of a split are sampled, num_pairs for training."""
  return num_pairs if split == "train" else _NUM_HELD_OUT


def num_pair_prompts(num_pairs: int, split: str, spare: float = 0.25) -> int:
  """Returns how many prompts are sampled for, some to spare.

  Completions of some prompts all agree, or do not end.
  """
  wanted = num_wanted_pairs(num_pairs, split)
  return wanted + int(spare * wanted)


def preference_file_task(
  path: str,
  *,
  data_dir: pathlib.Path,
  num_prompts: dict[str, int],
  validation_fraction: float,
  test_fraction: float,
  as_messages: bool,
  on_bad: str,
  rollout_path: str,
  demonstration_path: str = "",
  layout: str = "auto",
  split: str = "",
  filters: filters_lib.Filters = filters_lib.NONE,
  judge: Callable[[Any, str], Any] | None = None,
  reward_model_share: float = 0.0,
) -> Task:
  """Returns a preference file's task, its dataset built under data_dir.

  Args:
    path: a file, a folder or a hub name; see `formats`.
    data_dir: where the dataset is built.
    num_prompts: most prompts a split that are evaluated on.
    validation_fraction: expected share of the prompts.
    test_fraction: likewise.
    as_messages: make messages of prompts, so that the tokenizer's chat template
      applies.
    on_bad: what bad rows do; see `readers.read_preferences`.
    rollout_path: file of prompts for the KL term, or "".
    demonstration_path: file of demonstrations for supervised fine-tuning, in
      place of the chosen completions, or "". Those whose prompt a validation or
      test pair could have are left out.
    layout: of the pairs, or "auto"; see `layouts`.
    split: ready-made split of a folder or hub name that pairs are read from,
      or ""; a file is read whole.
    filters: pairs to leave out.
    judge: of completions, or None.
    reward_model_share: expected share of the training prompts whose pairs are
      kept apart, under "reward_model"; nothing else learns from them.
  """
  # tfds is slow to import, and the embedded world does without it.
  from hypo_jax.data import preferences

  fractions = {
    "validation_fraction": validation_fraction,
    "test_fraction": test_fraction,
  }
  builder = preferences.build_preferences(
    path,
    data_dir=data_dir,
    layout=layout,
    split=_of_folder(path, split),
    on_bad=on_bad,
    as_messages=as_messages,
    filters=filters,
    **fractions,
  )
  pairs = {split: preferences.read_split(builder, split) for split in SPLITS}
  if reward_model_share:
    pairs |= preferences.keep_apart(pairs["train"], reward_model_share)
  if empty := [name for name, records in pairs.items() if not records]:
    everything = [r["prompt"] for records in pairs.values() for r in records]
    raise ValueError(
      f"{path}: expected pairs in every split, got none in {empty[0]} of "
      f"{len(_distinct(everything))} distinct prompts; change "
      "data.validation_fraction or data.test_fraction, or add prompts"
    )
  prompts = {
    split: _distinct([r["prompt"] for r in pairs[split]])[: num_prompts[split]]
    for split in ("validation", "test")
  }
  others = []
  if rollout_path:
    reading = readers.read_prompts(
      rollout_path, on_bad=on_bad, as_messages=as_messages
    )
    prompts["rollout"] = [row["prompt"] for row in reading.records]
    others.append(_other("data.rollout_path", reading))
  about = builder.info.metadata
  demonstrations, notes = pairs["train"], _notes(path, about, pairs)
  if demonstration_path:
    reading = readers.read_demonstrations(
      demonstration_path, on_bad=on_bad, as_messages=as_messages
    )
    others.append(_other("data.demonstration_path", reading))
    rows = reading.records
    demonstrations = [
      row
      for row in rows
      if preferences.split_of(row["prompt"], **fractions) == "train"
    ]
    notes.append(
      f"{demonstration_path}: {len(demonstrations)} demonstrations; "
      f"{len(rows) - len(demonstrations)} left out, as their prompts belong to "
      "validation or test"
    )
  return Task(
    demonstrations=demonstrations,
    prompts=prompts,
    pairs=pairs,
    judge=judge,
    notes=tuple(notes),
    counts=counts(
      about["layout"],
      rows_read=about["good_rows"] + about["bad_rows"],
      bad_rows=about["bad_rows"],
      blank_lines=about["blank_lines"],
      filters=about["filters"],
      leaked_prompts=about["leaked_prompts"],
      others=others,
    ),
  )


def _other(key: str, reading: readers.Reading) -> dict[str, Any]:
  return {
    "key": key,
    "rows_read": reading.rows_read,
    "bad_rows": len(reading.bad_rows),
  }


def _of_folder(path: str, split: str) -> str:
  """Returns the split to read: files have none."""
  return "" if pathlib.Path(path).is_file() else split


def _notes(path: str, about: Any, pairs: dict[str, Records]) -> list[str]:
  """Returns what was read, for the terminal."""
  count = {split: len(records) for split, records in pairs.items()}
  apart = (
    f", {count['reward_model']} for the reward model"
    if "reward_model" in count
    else ""
  )
  left_over = (
    f"; {about['unpaired_rows']} texts without a pair"
    if about["unpaired_rows"]
    else ""
  )
  return [
    f"{path}: layout {about['layout']}; {count['train']} pairs to train on"
    f"{apart}, {count['validation']} to validate, {count['test']} held out; "
    f"{about['bad_rows']} bad rows skipped, {about['leaked_prompts']} prompts "
    f"in two splits{left_over}",
    *(
      f"data.filter.{f['name']}: {f['after']} of {f['before']} pairs left"
      for f in about["filters"]
    ),
    *about["first_bad_rows"],
  ]


def counts(
  layout: str,
  *,
  rows_read: int = 0,
  bad_rows: int = 0,
  blank_lines: int = 0,
  filters: Sequence[dict[str, Any]] = (),
  leaked_prompts: int = 0,
  others: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
  """Returns `Task.counts`."""
  return {
    "layout": layout,
    "rows_read": int(rows_read),
    "bad_rows": int(bad_rows),
    "blank_lines": int(blank_lines),
    "filters": [dict(entry) for entry in filters],
    "leaked_prompts": int(leaked_prompts),
    "others": [dict(entry) for entry in others],
  }


def _distinct(prompts: list[Any]) -> list[Any]:
  return list({json.dumps(p): p for p in prompts}.values())


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Turns records into arrays of fixed lengths; see `tokenize`."""

  tokenizer: Any
  prompt_length: int
  completion_length: int

  def pairs(self, records: Records) -> tuple[Arrays, tokenize.TokenCounts]:
    return self._stack(
      tokenize.tokenize_pair,
      records,
      completion_length=self.completion_length,
    )

  def demonstrations(self, records: Records):
    return self._stack(
      tokenize.tokenize_demonstration,
      records,
      completion_length=self.completion_length,
    )

  def prompts(self, prompts: list[Any]) -> Arrays:
    records = [{"prompt": prompt} for prompt in prompts]
    return self._stack(tokenize.tokenize_prompt, records)[0]

  def _stack(self, function, records, **lengths):
    return tokenize.stack_rows(
      tokenize.with_place(
        record,
        number,
        function,
        self.tokenizer,
        prompt_length=self.prompt_length,
        **lengths,
      )
      for number, record in enumerate(records)
    )


def write_records(path: pathlib.Path, records: Records) -> None:
  """Writes JSON lines aside and renames them."""
  aside = path.with_name(path.name + ".aside")
  with aside.open("w", encoding="utf-8") as file:
    for record in records:
      file.write(json.dumps(record, ensure_ascii=False) + "\n")
  os.replace(aside, path)


read_records = functools.partial(
  readers.read_preferences, layout="explicit", on_bad="fatal"
)
