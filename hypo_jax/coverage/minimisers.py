# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Where DPO's and HyPO's losses are smallest, when pairs leave something out.

Pairs compare the seen completions only. DPO's loss depends on the ratios of the
policy there and on nothing else, so its minimisers are a family: the seen
completions share 1 - a in proportion to reference * exp(r / beta), and the
unseen ones have any mass a in [0, 1). The reverse KL of a member is

    KL(a) = d(a, q) + (1 - a) K,

with q the reference's mass on the unseen, d the binary KL and K the KL of the
policy to the reference, both given that a seen one is drawn. It is smallest at

    a*(K) = q / (q + (1 - q) exp(-K)),
    KL(a*) = -log(q + (1 - q) exp(-K)) <= K,

and grows to -log q as a goes to 1. HyPO pays for the KL, so each of its
minimisers has a = a*(K); but the KL prices K too, so they are no minimisers of
DPO. With two seen completions one number is left, the log-ratio h of the first
minus that of the second, and everything is solved in it exactly.

numpy, float64; `beta`, `kl_coef` > 0, probabilities of preferences in (0, 1].
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, softmax, xlog1py, xlogy

from hypo_jax.coverage.bisection import bisect

# Points between which a minimum of HyPO's loss is looked for.
_GRID = 4001


def dpo_minimisers(
  reference: np.ndarray,
  seen: np.ndarray,
  rewards: np.ndarray,
  mass: np.ndarray,
  *,
  beta: float,
) -> np.ndarray:
  """Returns members of the family of DPO's minimisers.

  Preferences are Bradley-Terry in the rewards, and the pairs connect the seen
  completions. Within the unseen ones the mass lies as in the reference, or
  evenly where that has none: nearest to the reference among its equals.

  Args:
    reference: [M] probabilities, > 0 on the seen completions.
    seen: bool [M], some True and some False.
    rewards: [M]; those of unseen completions play no part.
    mass: [...], in [0, 1], what the unseen completions have.
    beta: > 0.

  Returns:
    [..., M] probabilities.
  """
  reference, seen = np.asarray(reference, np.float64), np.asarray(seen, bool)
  if seen.all() or not seen.any():
    raise ValueError(f"seen: expected some True and some False, got {seen}")
  logits = np.where(seen, np.asarray(rewards) / beta, -np.inf)
  with np.errstate(divide="ignore"):
    inside = softmax(np.log(reference) + logits)
  outside = np.where(seen, 0.0, reference)
  if not outside.any():
    outside = np.where(seen, 0.0, 1.0)
  outside = outside / outside.sum()
  mass = np.asarray(mass, np.float64)[..., None]
  return (1 - mass) * inside + mass * outside


def family_kl(
  mass: np.ndarray, unseen: np.ndarray, conditional_kl: np.ndarray
) -> np.ndarray:
  """Returns the reverse KL [...], nats, at mass a on the unseen.

  Args:
    mass: a [...], in [0, 1].
    unseen: q [...], in (0, 1), the reference's.
    conditional_kl: K [...], >= 0, nats.
  """
  a, q = np.asarray(mass), np.asarray(unseen)
  binary = xlogy(a, a / q) + xlog1py(1 - a, -a) - xlog1py(1 - a, -q)
  return binary + (1 - a) * conditional_kl


def least_kl_mass(unseen: np.ndarray, conditional_kl: np.ndarray) -> np.ndarray:
  """Returns a*(K) [...], the unseen mass at which the KL is smallest."""
  return expit(logit(unseen) + conditional_kl)


def least_kl(unseen: np.ndarray, conditional_kl: np.ndarray) -> np.ndarray:
  """Returns the KL at a*(K), nats; at most K, and less than -log q."""
  q = np.asarray(unseen, np.float64)
  return -np.logaddexp(np.log(q), np.log1p(-q) - conditional_kl)


class OnePair(NamedTuple):
  """Two seen completions, compared with each other, and unseen ones beside.

  Attributes:
    first: the reference's probability of the first, given that one is seen.
    unseen: the reference's mass on the unseen, in (0, 1).
    preference: the probability that the first is preferred, in (0, 1].
    beta: of the loss.
  """

  first: float
  unseen: float
  preference: float
  beta: float

  def dpo_log_ratio(self) -> float:
    """Returns h of DPO's minimisers, logit(preference) / beta; may be inf."""
    return float(logit(self.preference)) / self.beta

  def conditional_kl(self, h: np.ndarray) -> np.ndarray:
    """Returns K [...] at log-ratio differences h [...], nats."""
    with np.errstate(invalid="ignore"):
      share = self._share(h)
      value = share * h - np.logaddexp(
        np.log(self.first) + h, np.log1p(-self.first)
      )
    # At the ends all mass is on one of the two.
    value = np.where(np.isposinf(h), -np.log(self.first), value)
    return np.where(np.isneginf(h), -np.log1p(-self.first), value)

  def kl(self, h: np.ndarray) -> np.ndarray:
    """Returns the smallest reverse KL at h [...], nats."""
    return least_kl(self.unseen, self.conditional_kl(h))

  def mass(self, h: np.ndarray) -> np.ndarray:
    """Returns the mass on the unseen there."""
    return least_kl_mass(self.unseen, self.conditional_kl(h))

  def policy(self, h: np.ndarray) -> np.ndarray:
    """Returns [..., 3]: first, second and (all) unseen, at the smallest KL."""
    mass, share = self.mass(h), self._share(h)
    return np.stack(
      [(1 - mass) * share, (1 - mass) * (1 - share), mass], axis=-1
    )

  def dpo_loss(self, h: np.ndarray) -> np.ndarray:
    """Returns the expected loss over labels at h [...]."""
    z = self.beta * np.asarray(h, np.float64)
    loss = self.preference * np.logaddexp(0, -z)
    # 0 * inf is no loss: a label that never comes costs nothing.
    flipped = 1 - self.preference
    return loss + (flipped * np.logaddexp(0, z) if flipped else 0.0)

  def hypo_loss(self, h: np.ndarray, kl_coef: float) -> np.ndarray:
    """Returns HyPO's loss at h [...] and the best unseen mass for it."""
    return self.dpo_loss(h) + kl_coef * self.kl(h)

  def slope(self, h: np.ndarray, kl_coef: float) -> np.ndarray:
    """Returns the derivative of `hypo_loss` in h [...]."""
    share = self._share(h)
    z = self.beta * np.asarray(h, np.float64)
    # Not expit(z) - preference, which loses what is left of a small slope.
    dpo = (1 - self.preference) * expit(z) - self.preference * expit(-z)
    kl = (1 - self.mass(h)) * h * share * (1 - share)
    return self.beta * dpo + kl_coef * kl

  def _share(self, h: np.ndarray) -> np.ndarray:
    return expit(logit(self.first) + h)


class Minimum(NamedTuple):
  """A local minimum of HyPO's loss.

  Attributes:
    h: log-ratio of the first minus that of the second, nats; inf where the loss
      falls to its infimum without reaching it.
    loss: HyPO's, there or in the limit.
    mass: the policy's mass on the unseen.
    kl: its reverse KL, nats.
  """

  h: float
  loss: float
  mass: float
  kl: float


def hypo_minima(pair: OnePair, kl_coef: float) -> list[Minimum]:
  """Finds all local minima of HyPO's loss, the best one first.

  They lie between h = 0 and DPO's h: beyond either, both terms grow. The
  interval is searched up to 60 / min(beta, 1), from where the loss differs from
  its limit by less than rounding. If it still falls at the end of that, DPO's h
  is listed: the minimum lies there to rounding, and for deterministic labels
  h is inf, with the limit.

  Args:
    pair: the problem.
    kl_coef: lambda, > 0.
  """
  if not kl_coef > 0:
    raise ValueError(f"kl_coef: expected > 0, got {kl_coef}")
  end = pair.dpo_log_ratio()
  if end == 0:  # Nobody prefers either: DPO's minimum is the reference's.
    return [_minimum(pair, 0.0, kl_coef)]
  sign = -1.0 if end < 0 else 1.0
  limit = min(abs(end), 60 / min(pair.beta, 1.0))

  def slope(distance):
    """Derivative of the loss when going from h = 0 towards DPO's h."""
    return sign * pair.slope(sign * distance, kl_coef)

  grid = np.append(0.0, np.geomspace(1e-6, 1.0, _GRID)) * limit
  slopes = slope(grid)
  turns = np.flatnonzero((slopes[:-1] < 0) & (slopes[1:] >= 0))
  roots = sign * bisect(slope, grid[turns], grid[turns + 1])
  if slopes[-1] < 0:
    roots = np.append(roots, end)
  minima = [_minimum(pair, h, kl_coef) for h in roots]
  return sorted(minima, key=lambda minimum: minimum.loss)


def tie(pair: OnePair, low: float, high: float) -> float:
  """Finds the kl_coef at which HyPO has two minimisers.

  Args:
    pair: the problem.
    low: a kl_coef whose best minimum has the larger |h|.
    high: one whose best minimum has the smaller |h|.

  Returns:
    The kl_coef between at which the best minimum jumps.

  Raises:
    ValueError: no two minima tie there.
  """
  far, near = (abs(hypo_minima(pair, c)[0].h) for c in (low, high))
  ends = (low, high)
  # |h| of the best minimum falls as kl_coef grows, slowly but for the jump.
  for _ in range(80):
    middle = (low + high) / 2
    h = abs(hypo_minima(pair, middle)[0].h)
    if far - h < h - near:
      low, far = middle, h
    else:
      high, near = middle, h
  minima = hypo_minima(pair, high)
  if len(minima) < 2 or minima[1].loss - minima[0].loss > 1e-9:
    raise ValueError(f"low, high: expected two minima to tie between {ends}")
  return high


def _minimum(pair: OnePair, h: float, kl_coef: float) -> Minimum:
  if np.isinf(h):
    kl = float(pair.kl(h))
    return Minimum(h, kl_coef * kl, float(pair.mass(h)), kl)
  values = (pair.hypo_loss(h, kl_coef), pair.mass(h), pair.kl(h))
  return Minimum(float(h), *map(float, values))
