# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How badly a data distribution can miss what a policy may say.

    global   sup over policies of a class, and completions y, of pi(y) / mu(y)
    local    the same over the policies with KL(pi || reference) <= radius

mu, the data distribution, is the denominator, and always an argument: with the
reference in its place one gets another number. x / 0 is inf for x > 0, and
0 / 0 is 0: what no policy says need not be covered.

The paper's claim is that offline contrastive methods need a finite global
coefficient to find the optimal policy, and online RL a finite local one. The
two come apart where mu leaves something out. If the reference never says it
either (mu = reference), no policy at a finite KL does: the local coefficient is
finite, the global one is not. If the reference may say it, both are infinite.

Leading axes are prompts or problems; a coefficient over prompts is the largest.
"""

from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import linprog, minimize
from scipy.special import logsumexp, rel_entr

from hypo_jax.coverage.bisection import bisect


class PolicyClass(Protocol):
  """A set of policies, known by the most that they say."""

  def largest_probabilities(self) -> np.ndarray:
    """Returns [..., M]: for each completion, sup of pi(y) over the class."""


class Tabular(NamedTuple):
  """All distributions over `size` completions."""

  size: int

  def largest_probabilities(self) -> np.ndarray:
    return np.ones(self.size)


class Listed(NamedTuple):
  """Finitely many policies: probabilities [P, ..., M]."""

  probabilities: np.ndarray

  def largest_probabilities(self) -> np.ndarray:
    return np.max(self.probabilities, axis=0)


class LogLinear(NamedTuple):
  """Policies proportional to reference(y) exp(features(y) . theta), any theta.

  Attributes:
    reference: [M] probabilities; where it is 0 every policy of the class is.
    features: [M, D].
  """

  reference: np.ndarray
  features: np.ndarray

  def largest_probabilities(self) -> np.ndarray:
    """Returns [M]; see `_log_linear_supremum`."""
    reference = _probabilities("reference", self.reference)
    features = np.asarray(self.features, np.float64)
    if features.ndim != 2 or len(features) != len(reference):
      raise ValueError(
        f"features: expected [{len(reference)}, D], got {features.shape}"
      )
    result = np.zeros(len(reference))
    said = reference > 0
    result[said] = [
      _log_linear_supremum(reference[said], features[said], y)
      for y in range(said.sum())
    ]
    return result


def global_coefficient(
  policy_class: PolicyClass, data_distribution: np.ndarray
) -> np.ndarray:
  """Computes the largest pi(y) / mu(y) over a class of policies.

  Args:
    policy_class: `Tabular`, `LogLinear`, `Listed`, or anything that has
      `largest_probabilities`.
    data_distribution: mu [..., M], probabilities: the denominator.

  Returns:
    float64 [...], inf where some policy says what mu leaves out. For all
    policies it is 1 / min mu.

  Raises:
    ValueError: mu is no distribution, or speaks of another M.
  """
  data = _probabilities("data_distribution", data_distribution)
  largest = policy_class.largest_probabilities()
  if largest.shape[-1] != data.shape[-1]:
    raise ValueError(
      f"data_distribution: expected {largest.shape[-1]} completions, as the "
      f"policy class has, got {data.shape[-1]}"
    )
  return _ratio(largest, data).max(axis=-1)


def local_coefficient(
  reference: np.ndarray, data_distribution: np.ndarray, kl_radius: np.ndarray
) -> np.ndarray:
  """Computes the largest pi(y) / mu(y) over pi with KL(pi || ref) <= radius.

  Args:
    reference: [..., M] probabilities.
    data_distribution: mu [..., M], probabilities: the denominator.
    kl_radius: [...], >= 0, nats.

  Returns:
    float64 [...], inf where mu leaves out what the reference may say.

  Raises:
    ValueError: an argument is no distribution, or a radius negative or nan.
  """
  data = _probabilities("data_distribution", data_distribution)
  reference = _probabilities("reference", reference)
  if reference.shape[-1] != data.shape[-1]:
    raise ValueError(
      f"data_distribution: expected {reference.shape[-1]} completions, as the "
      f"reference has, got {data.shape[-1]}"
    )
  radius = np.asarray(kl_radius, np.float64)[..., None]
  return _ratio(largest_mass(reference, radius), data).max(axis=-1)


def largest_mass(mass: np.ndarray, kl_radius: np.ndarray) -> np.ndarray:
  """Computes the most that a policy of a KL ball can put on a set.

  Of all policies with mass a on the set, the one that keeps the reference's
  proportions inside and outside is nearest, at the binary KL

      d(a, q) = a log(a / q) + (1 - a) log((1 - a) / (1 - q)),

  so the answer is 1 where -log q <= radius, else the root of d(a, q) = radius
  above q. Nothing is ever put where q = 0: hence the jump of the local
  coefficient, whose supremum for q > 0 exceeds all bounds as q falls to 0.

  Args:
    mass: q [...], the reference's mass on the set, in [0, 1].
    kl_radius: [...], >= 0, nats.

  Returns:
    a [...], float64, in [q, 1].
  """
  q = np.asarray(mass, np.float64)
  radius = np.asarray(kl_radius, np.float64)
  if not (radius >= 0).all():
    raise ValueError(f"kl_radius: expected >= 0, got {kl_radius}")
  q, radius = np.broadcast_arrays(q, radius)
  inside = np.where((q > 0) & (q < 1), q, 0.5)

  def excess(a):
    return rel_entr(a, inside) + rel_entr(1 - a, 1 - inside) - radius

  root = bisect(excess, inside, np.ones_like(inside))
  return np.where((q > 0) & (q < 1), root, q)


def _log_linear_supremum(
  reference: np.ndarray, features: np.ndarray, y: int
) -> float:
  """Returns sup over theta of pi_theta(y), by its convex dual.

  log pi_theta(y) = log ref(y) - log sum_z ref(z) exp((f(z) - f(y)) . theta) is
  concave in theta. Its supremum may lie at infinity; the completions that keep
  a share of the mass there are those of the smallest face of the features'
  convex hull that holds f(y). On that face it is attained.

  Args:
    reference: [M], > 0.
    features: [M, D].
    y: the completion.
  """
  offsets = features - features[y]
  scale = np.abs(offsets).max(initial=0.0)
  if scale == 0:
    return float(reference[y] / reference.sum())
  face = _smallest_face(offsets / scale)
  offsets, weights = offsets[face] / scale, reference[face]
  # Directions in which the face is flat change nothing.
  _, singular, axes = np.linalg.svd(offsets, full_matrices=False)
  flat = singular > 1e-10 * max(singular.max(initial=0.0), 1.0)
  coordinates = offsets @ axes[flat].T
  if not flat.any():
    return float(reference[y] / weights.sum())

  def normaliser(theta):
    logits = coordinates @ theta
    value = logsumexp(logits, b=weights)
    mean = np.exp(logits - value) * weights
    return value, coordinates.T @ mean

  start = np.zeros(coordinates.shape[1])
  found = minimize(
    normaliser, start, jac=True, method="BFGS", options={"gtol": 1e-10}
  )
  return float(np.exp(np.log(reference[y]) - found.fun))


def _smallest_face(offsets: np.ndarray) -> np.ndarray:
  """Returns bool [M]: the points of the smallest face that holds the origin.

  They are the points that can have weight in a convex combination equal to the
  origin. Weights w >= s, 0 <= s <= 1, with sum w offsets = 0: as w may be
  scaled up, the largest sum of s has s = 1 at all of them and 0 elsewhere.
  """
  count, dims = offsets.shape
  result = linprog(
    c=np.concatenate([np.zeros(count), -np.ones(count)]),
    A_ub=np.hstack([-np.eye(count), np.eye(count)]),
    b_ub=np.zeros(count),
    A_eq=np.hstack([offsets.T, np.zeros((dims, count))]),
    b_eq=np.zeros(dims),
    bounds=[(0, None)] * count + [(0, 1)] * count,
    method="highs",
  )
  return result.x[count:] > 0.5


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Returns the quotient; 0 / 0 is 0."""
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(numerator > 0, numerator / denominator, 0.0)


def _probabilities(name: str, values: np.ndarray) -> np.ndarray:
  values = np.asarray(values, np.float64)
  if values.ndim < 1 or not (values >= 0).all():
    raise ValueError(f"{name}: expected probabilities [..., M], got {values}")
  if np.abs(values.sum(axis=-1) - 1).max() > 1e-6:
    raise ValueError(f"{name}: expected sums of 1, got {values.sum(axis=-1)}")
  return values
