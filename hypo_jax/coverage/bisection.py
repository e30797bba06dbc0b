# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Roots of many increasing functions of one number at once."""

from collections.abc import Callable

import numpy as np

# An interval halved so often is as short as float64 can tell, unless its root
# is many orders of magnitude below its ends.
_STEPS = 200


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
  for _ in range(_STEPS):
    middle = low + (high - low) / 2
    below = ~(function(middle) >= 0)
    low, high = np.where(below, middle, low), np.where(below, high, middle)
  return high
