# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Roots of many increasing functions of one number at once."""

from collections.abc import Callable

import numpy as np

# About 60 halvings reach neighbouring numbers, more where the root is orders of
# magnitude below the ends.
_MOST = 1100


def bisect(
  function: Callable[[np.ndarray], np.ndarray],
  low: np.ndarray,
  high: np.ndarray,
) -> np.ndarray:
  """Returns where an increasing function crosses 0, element by element.

  Args:
    function: float64 [...] -> [...], increasing between the ends; nan counts as
      below 0.
    low: [...], where it is below 0.
    high: [...], where it is not; also what is returned if it is below 0 there.
  """
  low, high = np.broadcast_arrays(
    np.asarray(low, np.float64), np.asarray(high, np.float64)
  )
  for _ in range(_MOST):
    middle = low + (high - low) / 2
    if ((middle <= low) | (middle >= high)).all():
      break
    below = ~(function(middle) >= 0)
    low, high = np.where(below, middle, low), np.where(below, high, middle)
  return high
