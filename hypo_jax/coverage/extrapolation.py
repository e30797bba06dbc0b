# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Where log-linear policies move what no pair speaks of, over random problems.

A policy is proportional to reference(y) exp(features(y) . theta). Pairs compare
the seen completions only; the others move because they share features.

In this class DPO's loss is logistic regression on features with theta = w /
beta, so its minimiser *is* the optimum of online RL for the reward w . features
fitted to the same pairs: with exact labels of a reward that is linear in the
features, and seen completions whose differences span them, DPO extrapolates as
online RL with the true reward does. They differ where labels are a sample or
the reward isn't linear. What a random problem is, is our choice:

    24 completions, 12 of them seen, 8 features from N(0, 1)
    reference: softmax of N(0, 1); pairs: two draws from it given both are seen
    reward: mean 0, sd 1 over the completions; its share `misfit` of the
      variance is N(0, 1) noise that is not linear in the features

Policies are minima, not what some steps of gradient descent reach, and of these
the one downhill from the reference: HyPO's loss and J aren't convex in theta,
and have a better minimum elsewhere in some of the problems. Of a few sampled
labels that a direction of theta separates, DPO has none: its policy is then
taken where the loss has no more to give.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, softmax

from hypo_jax.coverage import population

COMPLETIONS, SEEN, FEATURES = 24, 12, 8
BETA, KL_COEF = 0.25, 0.03

_STEPS = 300


class Problems(NamedTuple):
  """B problems; the first SEEN completions of each are the seen ones.

  Attributes:
    reference: float64 [B, M] probabilities.
    features: float64 [B, M, D].
    rewards: float64 [B, M].
  """

  reference: np.ndarray
  features: np.ndarray
  rewards: np.ndarray


def draw_problems(count: int, *, misfit: float, seed: int) -> Problems:
  """Draws problems.

  Args:
    count: B.
    misfit: share of the reward's variance that is not linear, in [0, 1].
    seed: the same problems but for the rewards at every `misfit`.
  """
  rng = np.random.default_rng(seed)
  reference = softmax(rng.normal(size=(count, COMPLETIONS)), axis=-1)
  features = rng.normal(size=(count, COMPLETIONS, FEATURES))
  direction = rng.normal(size=(count, FEATURES, 1))
  linear = _standardised((features @ direction)[..., 0])
  noise = _standardised(rng.normal(size=(count, COMPLETIONS)))
  rewards = np.sqrt(1 - misfit) * linear + np.sqrt(misfit) * noise
  return Problems(reference, features, _standardised(rewards))


def exact_labels(problems: Problems) -> population.Pairs:
  """Returns every problem's pairs with exact probabilities; fields [B, P]."""
  data = problems.reference * (np.arange(COMPLETIONS) < SEEN)
  pairs = [
    population.all_pairs(d, r)
    for d, r in zip(data, problems.rewards, strict=True)
  ]
  return population.Pairs(*map(np.stack, zip(*pairs, strict=True)))


def sampled_labels(
  pairs: population.Pairs, count: int, *, seed: int
) -> population.Pairs:
  """Returns `count` labelled pairs of each problem, as their frequencies."""
  rng = np.random.default_rng(seed)
  drawn = rng.multinomial(count, pairs.weight)
  won = rng.binomial(drawn, pairs.preference)
  preference = won / np.maximum(drawn, 1)
  return pairs._replace(preference=preference, weight=drawn / count)


def train(
  method: str, problems: Problems, pairs: population.Pairs
) -> np.ndarray:
  """Returns each problem's log policy [B, M] at a minimum, from the reference.

  Args:
    method: "dpo", "hypo", or "rlhf": online RL, the maximum of J itself with
      the true reward.
    problems: B of them.
    pairs: fields [B, P]; "rlhf" needs none and ignores them.
  """
  with jax.enable_x64():
    return np.asarray(_trainer(method)(problems, pairs))


@functools.cache
def _trainer(method: str) -> Callable[..., jax.Array]:
  """One function a method, so that it is compiled once."""
  return jax.jit(jax.vmap(functools.partial(_train_one, method)))


def _train_one(method: str, problem: Problems, pairs: population.Pairs):
  ref_log_probs = jnp.log(problem.reference)

  def log_probs(theta):
    return jax.nn.log_softmax(ref_log_probs + problem.features @ theta)

  def loss(theta):
    return _LOSSES[method](log_probs(theta), ref_log_probs, problem, pairs)

  start = jnp.zeros(problem.features.shape[-1], ref_log_probs.dtype)
  return log_probs(_minimised(loss, start))


def _minimised(loss: Callable[..., jax.Array], theta: jax.Array) -> jax.Array:
  """Newton's method, damped where a step wouldn't lower the loss.

  A step is along the Hessian's eigenvectors by the size of its eigenvalues, and
  so goes downhill from a saddle too; it stays in the start's basin, while far
  away, where one completion has all mass, every slope is 0.

  Source: Levenberg 1944, Marquardt 1963.
  """
  gradient, hessian = jax.grad(loss), jax.hessian(loss)

  def step(_, carry):
    theta, damping = carry
    values, vectors = jnp.linalg.eigh(hessian(theta))
    scaled = (vectors.T @ gradient(theta)) / (jnp.abs(values) + damping)
    moved = theta - vectors @ scaled
    better = loss(moved) < loss(theta)
    factor = jnp.where(better, 0.2, 5.0)
    return jnp.where(better, moved, theta), jnp.clip(damping * factor, 1e-12)

  carry = theta, jnp.asarray(1.0, theta.dtype)
  return jax.lax.fori_loop(0, _STEPS, step, carry)[0]


def _kl(log_probs: jax.Array, ref_log_probs: jax.Array) -> jax.Array:
  """As `population.reverse_kl`, whose Hessian a surrogate doesn't have."""
  return (jnp.exp(log_probs) * (log_probs - ref_log_probs)).sum()


_LOSSES: dict[str, Callable[..., jax.Array]] = {
  "dpo": lambda x, ref, problem, pairs: population.dpo_loss(
    x, ref, pairs, beta=BETA
  ),
  "hypo": lambda x, ref, problem, pairs: (
    population.dpo_loss(x, ref, pairs, beta=BETA) + KL_COEF * _kl(x, ref)
  ),
  "rlhf": lambda x, ref, problem, pairs: (
    BETA * _kl(x, ref) - (jnp.exp(x) * problem.rewards).sum()
  ),
}


class Changes(NamedTuple):
  """How a policy differs from the reference, one number a problem [B].

  Attributes:
    unseen_mass: log of policy over reference, nats, of all unseen together.
    best_unseen: of the unseen completion with the highest reward.
    best_seen: of the seen one with the highest.
    seen_rising: share of the seen completions whose probability rises.
    unseen_rising: of the unseen ones.
  """

  unseen_mass: np.ndarray
  best_unseen: np.ndarray
  best_seen: np.ndarray
  seen_rising: np.ndarray
  unseen_rising: np.ndarray


def changes(log_probs: np.ndarray, problems: Problems) -> Changes:
  """Measures how a policy, of `train`, differs from the reference."""
  ref_log_probs = np.log(problems.reference)
  ratio = log_probs - ref_log_probs
  unseen = np.arange(COMPLETIONS) >= SEEN
  mass = [logsumexp(x[:, unseen], axis=-1) for x in (log_probs, ref_log_probs)]
  rows = np.arange(len(log_probs))
  best = [
    np.where(side, problems.rewards, -np.inf).argmax(-1)
    for side in (unseen, ~unseen)
  ]
  return Changes(
    mass[0] - mass[1],
    ratio[rows, best[0]],
    ratio[rows, best[1]],
    (ratio[:, ~unseen] > 0).mean(-1),
    (ratio[:, unseen] > 0).mean(-1),
  )


def _standardised(values: np.ndarray) -> np.ndarray:
  centred = values - values.mean(axis=-1, keepdims=True)
  return centred / centred.std(axis=-1, keepdims=True)
