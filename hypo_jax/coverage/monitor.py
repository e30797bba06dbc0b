# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Says in a line whether a run is losing coverage, from its diagnostics alone.

The monitor sees what every run has: no method's name, no reward, no judge.
Coverage is *being lost* at an evaluation where

    ref_log_prob(start) - ref_log_prob > max(FALL_LIMIT, 2 standard errors)

ref_log_prob being the mean log-prob of a rollout's token under the reference,
and the error that of the difference. (Few rollouts of a large model can differ
by more than the limit without any training. The two evaluations count as
independent; as they share their prompts, the error is rather less.)
KL(policy || reference) is the policy's cross-entropy to the reference minus its
entropy, so it grows in two ways. A policy that says less of what the reference
says has less entropy, and stays where the reference, and so pairs drawn from
it, go; HyPO's does. One that says what the reference hardly says has more
cross-entropy, and no pair holds that. Only the second is a loss, and only it
moves this statistic. Coverage is *lost since* the first evaluation of the last
unbroken stretch of such ones that goes on to the end: what came back is not
held against a run. A KL that is not finite is a loss.

What else was tried, and how early and how rightly the rule warns on runs that
it was not fitted to, is in docs/results/monitor.md.

`collapse` is what the monitor is judged by, and may see rewards.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Nats a token. Fitted by benchmarks/monitor, on other seeds than it is judged
# on.
FALL_LIMIT = 0.097
_ERRORS = 2.0  # Standard errors of a fall.

# What a collapse is.
_REWARD_FALL, _MOST_INVALID = 0.1, 0.2


class Diagnostics(NamedTuple):
  """One evaluation of a run, as the monitor sees it.

  The last two are told, not judged by.

  Attributes:
    step: of the run.
    ref_log_prob: mean log-prob of a rollout's token under the reference, nats.
    ref_log_prob_stderr: its standard error; nan where it isn't known.
    kl: KL(policy || reference), nats a sequence.
    unlikely: share of rollouts less probable for the reference than 95% of its
      own.
    outside: share of rollout tokens outside the pairs' support.
  """

  step: int
  ref_log_prob: float
  ref_log_prob_stderr: float
  kl: float
  unlikely: float
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
  history: Sequence[Diagnostics], *, fall_limit: float = FALL_LIMIT
) -> Verdict:
  """Judges a run by its evaluations so far.

  Args:
    history: in the order of steps, the start first.
    fall_limit: nats a token, > 0; falls within two standard errors are none
      either.

  Raises:
    ValueError: history is empty or out of order, or its start's log-prob is not
      finite.
  """
  _check(history)
  start, now = history[0], history[-1]
  losing = [
    not (
      np.isfinite(e.kl)
      and start.ref_log_prob - e.ref_log_prob <= _limit(start, e, fall_limit)
    )
    for e in history[1:]
  ]
  first = len(history)
  while first > 1 and losing[first - 2]:
    first -= 1
  size = f"{now.kl:.1f} nats" if np.isfinite(now.kl) else "not a number"
  found = (
    f"(log-prob of rollouts under the reference {_told(now)} nats a token, "
    f"{_told(start)} at the start; {now.unlikely:.1%} of them less "
    f"probable than 95% of its own, {now.outside:.1%} of their tokens outside "
    f"the pairs' support; KL {size})"
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


def _limit(start: Diagnostics, now: Diagnostics, fall_limit: float) -> float:
  error = np.hypot(start.ref_log_prob_stderr, now.ref_log_prob_stderr)
  return float(np.fmax(fall_limit, _ERRORS * error))  # Passes over nan.


def _told(e: Diagnostics) -> str:
  if np.isnan(e.ref_log_prob_stderr):
    return f"{e.ref_log_prob:.2f}"
  return f"{e.ref_log_prob:.2f} ± {e.ref_log_prob_stderr:.2f}"


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
  if not np.isfinite(history[0].ref_log_prob):
    raise ValueError(
      f"history: expected a finite log-prob at the start, got {history[0]}"
    )
