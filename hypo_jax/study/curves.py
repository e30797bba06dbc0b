# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Mean curves over seeds, with intervals, for the plots of a study."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hypo_jax.study import frontier, inference, scores
from hypo_jax.study.plan import Row

# Curves over KL are drawn up to so many nats, at so many points.
_LIMIT, _POINTS = 5.0, 41


class Mean(NamedTuple):
  """A curve over seeds.

  Attributes:
    x: [m].
    y: [m], means.
    low: [m], of the 95% t interval; `y` with fewer than two seeds.
    high: [m].
  """

  x: np.ndarray
  y: np.ndarray
  low: np.ndarray
  high: np.ndarray


def over_seeds(
  x: np.ndarray, values: np.ndarray, *, gained: bool = False
) -> Mean:
  """Returns the mean curve of values [seeds, m].

  Args:
    x: [m].
    values: [seeds, m].
    gained: take each seed's from its own first value.
  """
  if gained:
    values = values - values[:, :1]
  found = [inference.estimate(column) for column in values.T]
  mean = np.array([f.mean for f in found])
  low, high = (
    np.array([m if e is None else e for m, e in zip(mean, ends, strict=True)])
    for ends in ([f.low for f in found], [f.high for f in found])
  )
  return Mean(x, mean, low, high)


def histories(
  row: Row, results: scores.Results
) -> list[Sequence[Mapping[str, Any]]]:
  """Returns the history of each seed that is done."""
  return [
    results[seed, row.cell]["history"]
    for seed in row.seeds
    if (seed, row.cell) in results
  ]


def at_equal_kl(
  row: Row, results: scores.Results, field: str, *, gained: bool = False
) -> Mean | None:
  """Returns a field by KL, as far as most seeds reach.

  Args:
    row: of a table.
    results: of the cells that are done.
    field: of the evaluations: "wins" for the frontier of the win rate, any
      other is read at first crossing.
    gained: as of `over_seeds`.

  Returns:
    A curve from KL 0 to the median over seeds of the largest KL, or None
    without a seed. A seed that ends before is taken at its largest KL.
  """
  found = [scores.curve(h, field) for h in histories(row, results)]
  if not found:
    return None
  x = _levels(np.median([kl.max() for kl, _ in found]))
  read = frontier.selected_at if field == "wins" else frontier.at_kl
  values = [[read(kl, y, level) for level in x] for kl, y in found]
  return over_seeds(x, np.array(values), gained=gained)


def _levels(largest: float) -> np.ndarray:
  """Returns the KLs of a curve that reaches so far, nats."""
  return np.linspace(0.0, min(_LIMIT, float(largest)), _POINTS)


def by_step(
  row: Row, results: scores.Results, field: str, *, gained: bool = False
) -> Mean | None:
  """Returns a field by step, up to where a seed diverged; None without one."""
  found = histories(row, results)
  if not found:
    return None
  steps = np.array([entry["step"] for entry in found[0]], np.float64)
  values = np.array([[e[field] for e in h] for h in found], np.float64)
  whole = np.logical_and.accumulate(np.isfinite(values).all(axis=0))
  return over_seeds(steps[whole], values[:, whole], gained=gained)


def of_optimum(
  optima: Mapping[int, Mapping[str, Any]],
  seeds: Sequence[int],
  field: str,
  *,
  gained: bool = False,
) -> Mean | None:
  """Returns the frontier of J's optimum as beta varies, by KL.

  Args:
    optima: by seed, "frontier": points with "kl" and the field.
    seeds: those to take the mean over.
    field: "win_rate" or "reward".
    gained: as of `over_seeds`.

  Returns:
    A curve as far as all seeds' samples carry it, or None without a seed.
  """
  found = [optima[seed]["frontier"] for seed in seeds if seed in optima]
  found = [points for points in found if points]
  if not found:
    return None
  kls = [np.array([p["kl"] for p in points]) for points in found]
  x = _levels(min(kl[-1] for kl in kls))
  values = [
    np.interp(x, kl, [p[field] for p in points])
    for kl, points in zip(kls, found, strict=True)
  ]
  return over_seeds(x, np.array(values), gained=gained)
