# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's account by coverage, on problems that can be solved exactly."""

from hypo_jax.coverage.coefficients import (
  Listed,
  LogLinear,
  Tabular,
  global_coefficient,
  local_coefficient,
)

__all__ = [
  "Listed",
  "LogLinear",
  "Tabular",
  "global_coefficient",
  "local_coefficient",
]
