# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A task from texts alone: go on from a text's first words.

    prompt          the first n words of a text
    demonstration   the rest of it, with the space before it

Pairs are sampled from the fine-tuned reference and labelled by a judge, as in
the embedded world. Texts are split by prompt, by the rule of preference files.
In a split, prompts are in an order fixed by hash: the first are evaluated on,
those after them make the held-out pairs. So they are the same for every seed.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

from hypo_jax.data import readers, tasks

# Share of prompts that are sampled beyond the pairs wanted: what a model writes
# need not end within the limit.
_SPARE = 0.5


def continuation_task(
  path: str,
  *,
  prompt_words: int,
  num_pairs: int,
  num_prompts: dict[str, int],
  validation_fraction: float,
  test_fraction: float,
  on_bad: str,
  judge: Callable[[str, str], Any],
) -> tasks.Task:
  """Returns the task of a file of texts.

  Args:
    path: rows {"text"}; see `readers` for files and folders.
    prompt_words: n. Texts of no more words are left out, and counted.
    num_pairs: to be sampled for training.
    num_prompts: "validation" and "test": most prompts that are evaluated on.
    validation_fraction: expected share of the prompts.
    test_fraction: likewise.
    on_bad: what bad rows do; see `readers.read_preferences`.
    judge: labels pairs and completions.

  Raises:
    ValueError: for n below 1, a split without prompts, or too few to train on.
  """
  from hypo_jax.data import preferences  # tfds is slow to import.

  if prompt_words < 1:
    raise ValueError(
      f"data.prompt_words: expected at least 1, got {prompt_words}"
    )
  reading = readers.read_texts(path, on_bad=on_bad)
  cut = [cut_text(record["text"], prompt_words) for record in reading.records]
  splits: dict[str, tasks.Records] = {split: [] for split in tasks.SPLITS}
  for record in filter(None, cut):
    split = preferences.split_of(
      record["prompt"],
      validation_fraction=validation_fraction,
      test_fraction=test_fraction,
    )
    splits[split].append(record)
  prompts = {split: _prompts(records) for split, records in splits.items()}
  evaluated = {s: prompts[s][: num_prompts[s]] for s in ("validation", "test")}
  held_out = {s: prompts[s][len(p) :] for s, p in evaluated.items()}
  pair_prompts = {
    split: some[: tasks.num_pair_prompts(num_pairs, split, _SPARE)]
    for split, some in ({"train": prompts["train"]} | held_out).items()
  }
  _check(path, pair_prompts, num_pairs)
  used = sum(map(len, splits.values()))
  return tasks.Task(
    demonstrations=splits["train"],
    prompts=evaluated,
    pairs=None,
    pair_prompts=pair_prompts,
    judge=judge,
    notes=(
      f"{path}: {used} texts of more than {prompt_words} words, "
      f"{len(cut) - used} left out; {len(splits['train'])} to fine-tune on",
      *map(str, reading.bad_rows[:10]),
    ),
    counts=tasks.counts(
      reading.layout,
      rows_read=reading.rows_read,
      bad_rows=len(reading.bad_rows),
      blank_lines=reading.blank_lines,
    ),
  )


def cut_text(text: str, prompt_words: int) -> dict[str, str] | None:
  """Returns a text as {"prompt", "chosen"}, or None where it is too short.

  White space within is kept, around the text it is dropped; the second part
  begins with that between the two.

  Args:
    text: any.
    prompt_words: of the first part, at least 1.
  """
  opening = re.match(
    rf"\S+(?:\s+\S+){{{prompt_words - 1}}}(?=\s)", text.strip()
  )
  if opening is None:
    return None
  prompt = opening[0]
  return {"prompt": prompt, "chosen": text.strip()[len(prompt) :]}


def _prompts(records: tasks.Records) -> list[str]:
  """Returns the different prompts in an order fixed by hash."""
  return sorted(
    {record["prompt"] for record in records},
    key=lambda prompt: hashlib.sha256(prompt.encode()).digest(),
  )


def _check(path: str, prompts: dict[str, list[str]], num_pairs: int) -> None:
  if len(prompts["train"]) < num_pairs:
    raise ValueError(
      f"data.num_pairs: expected at most the {len(prompts['train'])} different "
      f"prompts of {path} to train on, got {num_pairs}"
    )
  for split in ("validation", "test"):
    if not prompts[split]:
      raise ValueError(
        f"{path}: expected more prompts in {split} than are evaluated on, got "
        f"none; lower evaluate.num_prompts or evaluate.num_validation_prompts, "
        "change data.validation_fraction or data.test_fraction, or add texts"
      )
