# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's account by coverage, on problems that can be solved exactly.

coefficients   how badly data can miss what a policy may say
optimum        online RL: J*, its policy, the ball that it stays in
minimisers     of DPO and HyPO, when pairs leave something out
population     the library's losses in expectation; trees, all completions
descent        what gradient descent reaches in tabular policies
extrapolation  random log-linear problems; world, a listed language
gallery        plots of all that: python -m hypo_jax.coverage
support        signs of lost coverage in rollouts; monitor, a verdict
"""

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
