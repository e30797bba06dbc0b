# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Says in a line whether a run is losing coverage, from its diagnostics alone.

The monitor sees what every run has: no method's name, no reward, no judge.
Coverage is *being lost* at an evaluation where

    unlikely > UNLIKELY_LIMIT

unlikely being the share of rollouts that are less probable for the reference
than 95% of its own: of the policy's mass, what lies where the reference, and so
the pairs drawn from it, hardly go. It is 5% at the start. Coverage is *lost
since* the first evaluation of the last unbroken stretch of such ones that goes
on to the end: what came back is not held against a run. A KL that is not finite
is a loss.

The KL itself would not do: a policy can be far from the reference and still
within what it says, as HyPO's is. What was tried, and how early and how rightly
the rule warns on runs that it was not fitted to, is in docs/results/monitor.md.

`collapse` is what the monitor is judged by, and may see rewards.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Fitted by benchmarks/monitor to five seeds, and frozen.
UNLIKELY_LIMIT = 0.13

# What a collapse is.
_REWARD_FALL, _MOST_INVALID = 0.1, 0.2


class Diagnostics(NamedTuple):
  """One evaluation of a run, as the monitor sees it.

  Attributes:
    step: of the run.
    unlikely: share of rollouts less probable for the reference than 95% of its
      own.
    kl: KL(policy || reference), nats a sequence.
    outside: share of rollout tokens outside the pairs' support; told, not
      judged by.
  """

  step: int
  unlikely: float
  kl: float
  outside: float


class Verdict(NamedTuple):
  """What the monitor says.

  Attributes:
    lost_since: step of the first evaluation of the loss; None where there is
      none.
    stop_at: step of the last evaluation before it, None for the same reason.
    text: one line.
  """

  lost_since: int | None
  stop_at: int | None
  text: str


def verdict(
  history: Sequence[Diagnostics], *, unlikely_limit: float = UNLIKELY_LIMIT
) -> Verdict:
  """Judges a run by its evaluations so far.

  Args:
    history: in the order of steps, the start first.
    unlikely_limit: share of rollouts, in (0, 1).

  Raises:
    ValueError: history is empty or out of order, or a share is nan.
  """
  _check(history)
  losing = [
    not np.isfinite(e.kl) or e.unlikely > unlikely_limit for e in history[1:]
  ]
  first = len(history)
  while first > 1 and losing[first - 2]:
    first -= 1
  now = history[-1]
  found = (
    f"({now.unlikely:.1%} of rollouts are less probable for the reference than "
    f"95% of its own, {now.outside:.1%} of their tokens outside the pairs' "
    f"support; KL {now.kl:.1f} nats)"
  )
  if first == len(history):
    text = f"coverage is kept up to step {now.step} {found}"
    return Verdict(None, None, text)
  since, before = history[first].step, history[first - 1].step
  text = (
    f"coverage is being lost since step {since}: raise kl_coef or stop at step "
    f"{before} {found}"
  )
  return Verdict(since, before, text)


def collapse(
  steps: Sequence[int],
  rewards: Sequence[float],
  invalid: Sequence[float] | None = None,
) -> int | None:
  """Finds the step at which a run collapsed, by its validation reward.

  It is the first evaluation with the mean reward 0.1 or more below the largest
  so far, or with more than 20% of the completions invalid.

  Args:
    steps: of the evaluations, in order.
    rewards: mean validation rewards.
    invalid: shares of invalid completions; None where the task has no such.

  Returns:
    The step, or None.

  Raises:
    ValueError: lengths differ.
  """
  rewards = np.asarray(rewards, np.float64)
  invalid = np.zeros(len(rewards)) if invalid is None else np.asarray(invalid)
  if not len(steps) == len(rewards) == len(invalid):
    raise ValueError(
      f"rewards, invalid: expected {len(steps)} values, got {len(rewards)} and "
      f"{len(invalid)}"
    )
  if not len(rewards):
    return None
  fallen = np.maximum.accumulate(rewards) - rewards
  # A fall of 0.1 in decimals may be 0.09999999999999998.
  bad = (fallen > _REWARD_FALL - 1e-9) | (invalid > _MOST_INVALID)
  return int(steps[int(bad.argmax())]) if bad.any() else None


def _check(history: Sequence[Diagnostics]) -> None:
  if not history:
    raise ValueError("history: expected at least one evaluation, got none")
  steps = [e.step for e in history]
  if any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
    raise ValueError(f"history: expected rising steps, got {steps}")
  for entry in history:
    if np.isnan(entry.unlikely):
      raise ValueError(f"history: expected shares, got {entry}")
