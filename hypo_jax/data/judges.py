# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Judges of completions as text, for data that has none of its own.

A judge is a Python function as rewards come from (`hypo_jax.rewards`):

    def judge(prompts: list, completions: list[str]) -> list[float]: ...

`--config.data.judge=module:function` names it. It labels the pairs that a
reference samples, says which completion wins in evaluations, and is what
`--config.reward=judge` stands for.
"""

import functools
from collections.abc import Callable
from typing import Any

from hypo_jax import rewards
from hypo_jax.data.reviews import Judgement


def text_judge(function: rewards.RewardFunction) -> Callable[..., Judgement]:
  """Returns judge(prompt, completion) -> Judgement.

  A completion without a word is invalid, whatever its reward; `num_clauses`,
  by which completions are matched in length, is its number of words.

  Args:
    function: (prompts, completions) -> floats.

  Raises:
    ValueError: when called, where the function fails; see `rewards.call`.
  """

  def judge(prompt: Any, completion: str) -> Judgement:
    reward = rewards.call(function, [prompt], [completion])[0]
    words = len(completion.split())
    return Judgement(float(reward), words > 0, words)

  return judge


def vader(prompts: list[Any], completions: list[str]) -> list[float]:
  """Returns VADER's compound sentiment of each completion, in [-1, 1].

  The completion alone is scored, not what it goes on from: a prompt's own words
  would count the same for every policy. The compound score sums valences over
  words and then squashes the sum, so longer texts reach further from 0.

  Args:
    prompts: not looked at.
    completions: texts.

  Raises:
    ImportError: without the package vaderSentiment.

  Source: Hutto and Gilbert 2014 (ICWSM), as the package computes it.
  """
  del prompts
  analyzer = _analyzer()
  return [analyzer.polarity_scores(text)["compound"] for text in completions]


@functools.cache
def _analyzer():
  try:
    # Not a requirement: this function alone needs it.
    from vaderSentiment import vaderSentiment
  except ImportError as error:
    raise ImportError(
      "vaderSentiment: expected this package for the judge vader, got "
      f"{error}; pip install vaderSentiment"
    ) from error
  return vaderSentiment.SentimentIntensityAnalyzer()
