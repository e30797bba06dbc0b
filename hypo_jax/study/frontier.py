# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A training curve scored at equal KL (numpy).

A curve is a method's evaluations in order of training: the KL to the reference
and a score, a win rate or a reward. Two ways to read it at a KL of x:

    first crossing   the score where the curve first reaches x, linear in the KL
                     between the two evaluations around the crossing
    selected         the score of the best evaluation with KL <= x, chosen on
                     half of the prompts and read off the other half, averaged
                     over both ways round

The first chooses nothing by its score, so noise doesn't flatter it; but a
policy that improves while its KL stays is read before it improved. The second
is what one gets who stops by validation; choosing and reading on different
prompts keeps the luck of the choice out of it. A curve that never reaches x is
read at its largest KL by the first, and whole by the second.
"""

from collections.abc import Sequence

import numpy as np


def check_curve(kl: np.ndarray, score: np.ndarray) -> None:
  """Raises ValueError unless both are finite [m], m >= 1, and begin at KL 0."""
  kl, score = np.asarray(kl), np.asarray(score)
  if kl.ndim != 1 or not len(kl) or kl.shape != score.shape:
    raise ValueError(
      "kl, score: expected two arrays of one length, at least 1, got shapes "
      f"{kl.shape} and {score.shape}"
    )
  broken = np.flatnonzero(~(np.isfinite(kl) & np.isfinite(score)))
  if len(broken):
    i = broken[0]
    raise ValueError(
      f"kl, score: expected finite numbers, got {kl[i]} and {score[i]} at "
      f"evaluation {i}"
    )
  if abs(kl[0]) > 1e-3:
    raise ValueError(f"kl: expected a curve that begins at 0, got {kl[0]}")


def at_kl(kl: np.ndarray, score: np.ndarray, level: float) -> float:
  """Returns the score where the curve first reaches a KL.

  Args:
    kl: float [m], nats, in order of training, beginning at 0.
    score: float [m].
    level: nats, >= 0.

  Returns:
    The score, that at the largest KL where the level is never reached.
  """
  check_curve(kl, score)
  reached = np.flatnonzero(np.asarray(kl) >= level)
  if not len(reached):
    return float(score[np.argmax(kl)])
  return _between(kl, score, int(reached[0]), level)


def area(kl: np.ndarray, score: np.ndarray, limit: float) -> float:
  """Returns the mean of `at_kl` over levels from 0 to `limit`, exactly.

  It is the area under the first-crossing curve over `limit`, so a score.

  Args:
    kl: as `at_kl`.
    score: as `at_kl`.
    limit: nats, > 0.
  """
  check_curve(kl, score)
  total, reached = 0.0, 0.0
  for i in range(1, len(kl)):
    until = min(kl[i], limit)
    if until <= reached:
      continue
    # The curve first passes here from `reached` on.
    ends = [_between(kl, score, i, level) for level in (reached, until)]
    total += (until - reached) * sum(ends) / 2
    reached = until
  return (total + (limit - reached) * float(score[np.argmax(kl)])) / limit


def _between(kl, score, i: int, level: float) -> float:
  """Returns the score at a KL on the line from evaluation i - 1 to i."""
  if i == 0:
    return float(score[0])
  weight = (level - kl[i - 1]) / (kl[i] - kl[i - 1])
  return float((1 - weight) * score[i - 1] + weight * score[i])


def selected_at(kl: np.ndarray, scores: np.ndarray, level: float) -> float:
  """Returns the score of the best evaluation up to a KL, read where not chosen.

  Args:
    kl: float [m], as `at_kl`.
    scores: float [m, n], by prompt, n >= 2. Prompts of even and odd number are
      the two halves.
    level: nats, >= 0.
  """
  scores = np.asarray(scores, np.float64)
  check_curve(kl, scores[:, 0])
  halves = [scores[:, start::2].mean(axis=1) for start in (0, 1)]
  # The curve begins at the reference, which no level is too low for.
  allowed = np.flatnonzero(
    (np.asarray(kl) <= level) | (np.arange(len(kl)) == 0)
  )
  read = [
    other[allowed[np.argmax(chooser[allowed])]]
    for chooser, other in (halves, reversed(halves))
  ]
  return float(np.mean(read))


def selected_area(kl: np.ndarray, scores: np.ndarray, limit: float) -> float:
  """Returns the mean of `selected_at` over levels from 0 to `limit`, exactly.

  It changes only where another evaluation's KL is reached.
  """
  edges = [0.0, *sorted(k for k in kl if 0 < k < limit), limit]
  pieces = [
    (high - low) * selected_at(kl, scores, low)
    for low, high in zip(edges, edges[1:], strict=False)
  ]
  return sum(pieces) / limit


def largest_kl(kl: Sequence[float]) -> float:
  """Returns the largest KL that a curve reached, nats."""
  return float(np.max(kl))
