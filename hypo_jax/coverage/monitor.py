# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Says in a line whether a run is losing coverage, from its diagnostics alone.

The monitor sees what every run has: no method's name, no reward, no judge. It
compares each evaluation with the run's first one, where the policy is the
reference. Coverage is *being lost* at an evaluation when both hold:

    outside   the share of rollout tokens outside the pairs' support has risen
              by more than `outside_rise` since the start
    kl        KL(policy || reference) exceeds `kl_limit` nats a sequence

and *lost since* the first evaluation of the last unbroken stretch of such ones
that goes on to the end: what came back is not held against a run. The first
condition alone fires on rare but harmless words, the second on a policy that
moved far within what the pairs cover. A KL that is not finite is a loss.

`collapse` is what the monitor is judged by, and may see rewards.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A first choice, calibrated on no run. With 10,000 rollout tokens of which 5%
# are outside at the start, 0.02 is about ten standard errors; and the default
# configuration's best DPO checkpoints are at a KL of 1.1 +- 0.4 nats
# (docs/results/default_seeds.md), short of 2.
OUTSIDE_RISE = 0.02
KL_LIMIT = 2.0

# What a collapse is.
_REWARD_FALL, _MOST_INVALID = 0.1, 0.2


class Diagnostics(NamedTuple):
  """One evaluation of a run, as the monitor sees it.

  Attributes:
    step: of the run.
    kl: KL(policy || reference), nats a sequence.
    outside: share of rollout tokens outside the pairs' support.
  """

  step: int
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
  history: Sequence[Diagnostics],
  *,
  outside_rise: float = OUTSIDE_RISE,
  kl_limit: float = KL_LIMIT,
) -> Verdict:
  """Judges a run by its evaluations so far.

  Args:
    history: in the order of steps, the start first.
    outside_rise: share of tokens, > 0.
    kl_limit: nats a sequence, > 0.

  Raises:
    ValueError: history is empty, out of order, or an outside share is nan.
  """
  _check(history)
  start = history[0].outside
  losing = [
    not np.isfinite(e.kl)
    or (e.kl > kl_limit and e.outside - start > outside_rise)
    for e in history[1:]
  ]
  first = len(history)
  while first > 1 and losing[first - 2]:
    first -= 1
  if first == len(history):
    return Verdict(None, None, _kept(history))
  since, before, now = history[first], history[first - 1], history[-1]
  text = (
    f"coverage is being lost since step {since.step}: raise kl_coef or stop at "
    f"step {before.step} ({now.outside:.1%} of rollout tokens are outside the "
    f"pairs' support, {start:.1%} at the start; KL {now.kl:.1f} nats)"
  )
  return Verdict(since.step, before.step, text)


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


def _kept(history: Sequence[Diagnostics]) -> str:
  now, start = history[-1], history[0]
  return (
    f"coverage is kept up to step {now.step} ({now.outside:.1%} of rollout "
    f"tokens are outside the pairs' support, {start.outside:.1%} at the start; "
    f"KL {now.kl:.1f} nats)"
  )


def _check(history: Sequence[Diagnostics]) -> None:
  if not history:
    raise ValueError("history: expected at least one evaluation, got none")
  steps = [e.step for e in history]
  if any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
    raise ValueError(f"history: expected rising steps, got {steps}")
  for entry in history:
    if np.isnan(entry.outside):
      raise ValueError(f"history: expected a share outside, got {entry}")
