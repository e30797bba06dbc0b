# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The best that any policy can do at a price on its KL, from samples (numpy).

    J(pi) = E_pi[r] - beta KL(pi || reference)

is largest for pi* = reference * exp(r / beta) / Z, where it is

    J* = beta log Z,   Z = E_reference[exp(r / beta)],

so completions of the reference with their rewards are all it takes: pi* weighs
each by exp(r / beta). As beta falls, reward and KL of pi* trace the frontier
that no policy crosses (`coverage.optimum` has the same where completions can be
listed).

Samples of all prompts are pooled, as if every prompt offered the same rewards
with the same chances: a prompt's own few samples would say next to nothing of
its best completions. Where prompts differ, J* so pooled is too high, by about
beta / 2 times the squared coefficient of variation of Z over prompts: `excess`.
The smaller beta, the fewer samples carry the weight: what their number comes to
in effect, (sum w)^2 / sum w^2, says how far a figure can be trusted. It also
bounds the KL that can be seen, at about log(samples / effective samples).

Standard errors are by linearisation, over prompts. Shapes: n prompts, m
completions of the reference each.
"""

from typing import NamedTuple

import numpy as np

# Effective samples below which a point is not told: means are then off by a
# tenth of their weights' spread, and biased by a hundredth.
LEAST_EFFECTIVE = 100.0
# Of the frontier: beta begins at so many standard deviations of the rewards,
# where the KL is 0.005 nats, and falls by this factor until the reward gains
# less than so many standard deviations.
_FIRST, _FACTOR, _LEAST_GAIN = 10.0, 0.85, 1e-4
_SIDES = ("left", "right")


class Tilted(NamedTuple):
  """pi* at one beta, with standard errors.

  Attributes:
    beta: reward per nat.
    value: J*, in units of reward.
    value_stderr: its standard error.
    excess: how much too high pooling makes `value`, estimated; >= 0.
    reward: E[r] under pi*.
    reward_stderr: its standard error.
    kl: KL(pi* || reference), nats a completion.
    kl_stderr: its standard error.
    win_rate: chance to beat a completion of the reference, a tie being half.
    win_rate_stderr: its standard error.
    effective_samples: in [1, n m].
  """

  beta: float
  value: float
  value_stderr: float
  excess: float
  reward: float
  reward_stderr: float
  kl: float
  kl_stderr: float
  win_rate: float
  win_rate_stderr: float
  effective_samples: float

  @property
  def reliable(self) -> bool:
    return self.effective_samples >= LEAST_EFFECTIVE


def tilted(rewards: np.ndarray, *, beta: float) -> Tilted:
  """Estimates the optimum of J at one beta.

  Args:
    rewards: float [n, m], both at least 2, of the reference's completions.
    beta: > 0, reward per nat.

  Raises:
    ValueError: a shape or range is wrong, or a reward is not finite.

  Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 4, for pi*;
    self-normalised importance sampling for its estimates.
  """
  rewards = _checked(rewards)
  if not 0 < beta < np.inf:
    raise ValueError(f"beta: expected a number > 0, got {beta}")
  return _tilted(rewards, _wins(rewards), beta)


def _tilted(rewards: np.ndarray, won: np.ndarray, beta: float) -> Tilted:
  peak = rewards.max()
  weights = np.exp((rewards - peak) / beta)
  z = weights.mean()
  weights /= z  # Mean 1, so that means of products are pi*'s expectations.
  reward, win_rate = ((weights * x).mean() for x in (rewards, won))
  log_z = np.log(z) + peak / beta
  off_reward = weights * (rewards - reward)
  return Tilted(
    beta=float(beta),
    value=float(beta * log_z),
    value_stderr=beta * _stderr(weights),
    excess=float(beta / 2 * _variance_between(weights)),
    reward=float(reward),
    reward_stderr=_stderr(off_reward),
    kl=float(reward / beta - log_z),
    kl_stderr=_stderr(off_reward / beta - weights),
    win_rate=float(win_rate),
    win_rate_stderr=_stderr(weights * (won - win_rate)),
    effective_samples=float(weights.sum() ** 2 / (weights**2).sum()),
  )


def frontier(rewards: np.ndarray) -> list[Tilted]:
  """Returns the optimum as beta falls, as far as the samples carry it.

  Args:
    rewards: as in `tilted`.

  Returns:
    Points of growing KL, the last with at least LEAST_EFFECTIVE effective
    samples; none where all rewards are equal, or samples are fewer.
  """
  rewards = _checked(rewards)
  spread, won = rewards.std(), _wins(rewards)
  points: list[Tilted] = []
  beta, before = _FIRST * spread, rewards.mean()
  while spread:
    point = _tilted(rewards, won, beta)
    gain = point.reward - before
    if not point.reliable or gain < _LEAST_GAIN * spread:
      break
    points.append(point)
    beta, before = _FACTOR * beta, point.reward
  return points


def recovered(
  value: float, reference: float, *, optimum: float
) -> float | None:
  """Returns which share of what there is to gain a policy has gained.

  Args:
    value: J of the policy.
    reference: J of the reference, its mean reward.
    optimum: J*.

  Returns:
    1 at the optimum, 0 at the reference; None where the two are equal.
  """
  gain = optimum - reference
  return (value - reference) / gain if gain > 0 else None


def _checked(rewards: np.ndarray) -> np.ndarray:
  rewards = np.asarray(rewards, np.float64)
  if rewards.ndim != 2 or min(rewards.shape) < 2:
    raise ValueError(
      "rewards: expected shape [n, m], both at least 2, got shape "
      f"{rewards.shape}"
    )
  if len(bad := np.argwhere(~np.isfinite(rewards))):
    row, column = bad[0]
    raise ValueError(
      f"rewards: expected finite numbers, got {rewards[row, column]} in row "
      f"{row}, column {column}"
    )
  return rewards


def _wins(rewards: np.ndarray) -> np.ndarray:
  """Returns [n, m]: the share of the prompt's others that each one beats."""
  ranks = []
  for row in rewards:
    ends = (np.searchsorted(np.sort(row), row, side) for side in _SIDES)
    ranks.append(sum(ends) / 2)  # Fewer, and half of the equal ones.
  return (np.array(ranks) - 0.5) / (rewards.shape[1] - 1)  # Not itself.


def _stderr(values: np.ndarray) -> float:
  """Returns the standard error of the mean, over prompts."""
  means = values.mean(axis=1)
  return float(means.std(ddof=1) / np.sqrt(len(means)))


def _variance_between(weights: np.ndarray) -> float:
  """Returns the variance over prompts of their true means, at least 0."""
  within = weights.var(axis=1, ddof=1).mean() / weights.shape[1]
  return max(weights.mean(axis=1).var(ddof=1) - within, 0.0)
