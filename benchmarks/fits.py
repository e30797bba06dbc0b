# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How a cost grows: the exponent of a power law, and a line's slope.

    y = factor * x ** exponent        least squares of log y on log x
    y = start + slope * x             least squares of y on x

Both come with the standard error of the fit: the scatter of the points about
the line, not that of a point's own timing. A cost with a fixed part has no one
exponent; `last`, the exponent between the two largest x, says where it goes.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Power:
  """A power law.

  Attributes:
    exponent: slope of log y over log x.
    stderr: its standard error; nan of two points.
    last: the exponent between the two largest x.
  """

  exponent: float
  stderr: float
  last: float

  def __str__(self) -> str:
    return f"{self.exponent:.2f} ± {self.stderr:.2f}, last {self.last:.2f}"


@dataclasses.dataclass(frozen=True)
class Line:
  """A line.

  Attributes:
    slope: y a unit of x.
    stderr: its standard error; nan of two points.
    start: y at x = 0.
  """

  slope: float
  stderr: float
  start: float


def power(x: Sequence[float], y: Sequence[float]) -> Power:
  """Fits a power law.

  Raises:
    ValueError: fewer than two points, or one that isn't above 0.
  """
  _check(x, y)
  if min(*x, *y) <= 0:
    raise ValueError(f"x, y: expected numbers > 0, got {list(x)}, {list(y)}")
  x, y = np.log(x), np.log(y)
  slope, stderr, _ = _fit(x, y)
  order = np.argsort(x)[-2:]
  (x0, x1), (y0, y1) = x[order], y[order]
  return Power(slope, stderr, float((y1 - y0) / (x1 - x0)))


def line(x: Sequence[float], y: Sequence[float]) -> Line:
  """Fits a line.

  Raises:
    ValueError: fewer than two points.
  """
  _check(x, y)
  return Line(*_fit(np.asarray(x, float), np.asarray(y, float)))


def _check(x: Sequence[float], y: Sequence[float]) -> None:
  if len(x) != len(y) or len(set(x)) < 2:
    raise ValueError(
      f"x, y: expected as many of each, at two x at least, got {list(x)}, "
      f"{list(y)}"
    )


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
  """Returns slope, its standard error, and y at x = 0."""
  centred = x - x.mean()
  spread = (centred**2).sum()
  slope = (centred * y).sum() / spread
  rest = y - y.mean() - slope * centred
  freedom = len(x) - 2
  stderr = math.nan
  if freedom:
    stderr = math.sqrt((rest**2).sum() / freedom / spread)
  return float(slope), stderr, float(y.mean() - slope * x.mean())
