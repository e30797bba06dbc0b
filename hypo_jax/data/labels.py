# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of sampled completions, labelled by a judge."""

from collections.abc import Callable
from typing import Any

import numpy as np

from hypo_jax.data import fields, reviews, tasks


def label_pairs(
  prompts: list[str],
  completions: list[list[str]],
  *,
  judge: Callable[[str, str], Any],
  num_pairs: int,
  least: int,
  seed: int,
  split: str,
  turn: int = 0,
) -> tasks.Records:
  """Labels the first two different completions of each prompt.

  Those that `readers` would refuse (blank, or with a NUL) are passed over.

  Args:
    prompts: texts.
    completions: by prompt, sampled from the reference; those that did not end,
      or hold what is no word, are left out by the caller.
    judge: (prompt, completion) -> reviews.Judgement.
    num_pairs: how many are wanted.
    least: how many there must be.
    seed: of the labels' noise.
    split: likewise.
    turn: likewise; how often the prompts were asked before.

  Raises:
    ValueError: if too few prompts have two different completions.
  """
  where = [seed, tasks.SPLITS.index(split)] + ([turn] if turn else [])
  uniform = np.random.default_rng(where).random
  pairs = []
  for prompt, texts in zip(prompts, completions, strict=True):
    distinct = list(dict.fromkeys(filter(_is_readable, texts)))
    draw = uniform()
    if len(distinct) > 1:
      pairs.append(
        reviews.label_pair(prompt, *distinct[:2], uniform=draw, judge=judge)
      )
  if len(pairs) < least:
    raise ValueError(
      f"data.num_pairs: expected {least} prompts of {split} with two different "
      f"completions that end, got {len(pairs)} of {len(prompts)}; fine-tune "
      "longer, raise data.completion_length or lower data.num_pairs"
    )
  return pairs[:num_pairs]


def _is_readable(text: str) -> bool:
  """Whether a file of pairs may hold this completion; see `readers`."""
  try:
    fields.check_text("completion", text)
    fields.check_not_blank("completion", text)
  except ValueError:
    return False
  return True
