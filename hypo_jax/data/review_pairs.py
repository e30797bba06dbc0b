# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of the embedded world that no policy wrote.

Sampled from the reference policy, pairs say nothing of what it never says.
`with_even_share` buys coverage: a share of the pairs gets two completions that
no policy chose, labelled by the same judge with the same noise. Each of them
is, with equal chance,

    a review that the grammar allows for the prompt, as demonstrations are, or
    a string of words, each drawn evenly from all, of any length that fits,

so that every string of words has a probability, and a judge has something to
tell apart: of strings alone next to none would be a review, and two worthless
ones are labelled by a coin. (In `coverage.world`, where all completions can be
listed and drawn evenly, 36% keep the rule.)
"""

from typing import Any

import numpy as np

from hypo_jax.data import reviews

Records = list[dict[str, Any]]

_WORDS = reviews.WordTokenizer().words


def with_even_share(
  records: Records, *, share: float, max_words: int, seed: int
) -> Records:
  """Gives a share of the pairs other completions; see the module docstring.

  Args:
    records: pairs, which keep their prompts and places.
    share: in [0, 1], of the records, rounded to whole ones. A larger share
      only adds to those of a smaller one.
    max_words: the longest string, at least 1.
    seed: of all that is drawn.

  Raises:
    ValueError: for a share outside [0, 1].
  """
  if not 0 <= share <= 1:
    raise ValueError(
      f"data.uniform_share: expected a share in [0, 1], got {share}"
    )
  records = list(records)
  order = reviews.generator(seed, "even share").permutation(len(records))
  for i in order[: round(share * len(records))]:
    rng = reviews.generator(seed, f"even pair {i}")
    records[i] = _even_pair(records[i]["prompt"], rng, max_words)
  return records


def _even_pair(
  prompt: str, rng: np.random.Generator, max_words: int
) -> dict[str, str]:
  while True:
    both = [_even_completion(prompt, rng, max_words) for _ in range(2)]
    pair = reviews.label_pair(prompt, *both, uniform=rng.random())
    if pair is not None:
      return pair


def _even_completion(
  prompt: str, rng: np.random.Generator, max_words: int
) -> str:
  if rng.random() < 0.5:
    return reviews.write_review(prompt, rng)
  length = rng.integers(1, max_words + 1)
  return " ".join(_WORDS[i] for i in rng.integers(len(_WORDS), size=length))
