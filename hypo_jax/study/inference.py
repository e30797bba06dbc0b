# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a few seeds say of a difference: t intervals, Holm's correction.

Seeds are the replicates: each has its own reference policy, pairs, order and
keys, shared by all methods, so methods are compared by the differences within a
seed. With ten of them the interval of a difference is mean -+ 2.26 standard
errors; nothing is assumed of the noise within a seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
  """A mean over seeds.

  Attributes:
    mean: None without a value.
    low: of the 95% interval; None with fewer than two values.
    high: likewise.
    p: two-sided, of the mean being 0; None likewise.
    count: of values.
  """

  mean: float | None
  low: float | None
  high: float | None
  p: float | None
  count: int


def estimate(values: Sequence[float]) -> Estimate:
  """Returns the mean with Student's 95% t interval and test.

  Args:
    values: one a seed, finite.

  Raises:
    ValueError: for a value that is not finite.

  Where all values are equal, the interval is a point and p is 0, or 1 at 0.
  """
  values = np.asarray(values, np.float64)
  if not np.isfinite(values).all():
    raise ValueError(f"values: expected finite numbers, got {values.tolist()}")
  count = len(values)
  if count < 2:
    return Estimate(
      float(values[0]) if count else None, None, None, None, count
    )
  mean = float(values.mean())
  stderr = float(values.std(ddof=1) / np.sqrt(count))
  half = float(stats.t.ppf(0.975, count - 1)) * stderr
  if stderr:
    p = float(2 * stats.t.sf(abs(mean) / stderr, count - 1))
  else:
    p = float(mean == 0)
  return Estimate(mean, mean - half, mean + half, p, count)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
  """Returns Holm's adjusted p values, in the same order.

  A comparison is significant at level a where its adjusted value is at most a;
  the chance of any false one among all of them is then at most a.

  Args:
    p_values: one a comparison; None, not known yet, counts as one of them with
      p 1, so that what is missing never makes the others look better.

  Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
  """
  known = [1.0 if p is None else p for p in p_values]
  adjusted, least = [0.0] * len(known), 0.0
  order = sorted(range(len(known)), key=known.__getitem__)
  for rank, i in enumerate(order):
    least = max(least, min(1.0, (len(known) - rank) * known[i]))
    adjusted[i] = least
  return [
    None if p is None else a for p, a in zip(p_values, adjusted, strict=True)
  ]
