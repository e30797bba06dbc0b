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
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from hypo_jax.coverage import descent, population

COMPLETIONS, SEEN, FEATURES = 24, 12, 8
BETA, KL_COEF = 0.25, 0.03

# Stable for all problems drawn here: see `tests`, where the gradient vanishes.
_LEARNING_RATE = {"dpo": 2.0, "hypo": 1.0, "rlhf": 0.1}
_STEPS = 3000


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
  """Returns each problem's policy [B, M] after gradient descent.

  Args:
    method: "dpo", "hypo", or "rlhf": online RL, climbing J itself with the true
      reward.
    problems: B of them.
    pairs: fields [B, P]; "rlhf" needs none and ignores them.
  """
  run = partial(_train_one, method)
  with jax.enable_x64():
    return np.asarray(jax.jit(jax.vmap(run))(problems, pairs))


def _train_one(method: str, problem: Problems, pairs: population.Pairs):
  ref_log_probs = jnp.log(problem.reference)

  def log_probs(theta):
    return jax.nn.log_softmax(ref_log_probs + problem.features @ theta)

  def loss(theta):
    return _LOSSES[method](log_probs(theta), ref_log_probs, problem, pairs)

  path = descent.descend(
    loss,
    jnp.zeros(problem.features.shape[-1], ref_log_probs.dtype),
    learning_rate=_LEARNING_RATE[method],
    num_steps=_STEPS,
    every=_STEPS,
  )
  return jnp.exp(log_probs(path[-1]))


_LOSSES: dict[str, Callable[..., jax.Array]] = {
  "dpo": lambda x, ref, problem, pairs: population.dpo_loss(
    x, ref, pairs, beta=BETA
  ),
  "hypo": lambda x, ref, problem, pairs: population.hypo_loss(
    x, ref, pairs, beta=BETA, kl_coef=KL_COEF
  ),
  "rlhf": lambda x, ref, problem, pairs: population.rlhf_loss(
    x, ref, problem.rewards, beta=BETA
  ),
}


class Changes(NamedTuple):
  """Natural logarithms of policy over reference, one a problem [B].

  Attributes:
    unseen_mass: of all unseen completions together.
    best_unseen: of the unseen completion with the highest reward.
    best_seen: of the seen one with the highest.
    seen_mean: mean over the seen completions.
  """

  unseen_mass: np.ndarray
  best_unseen: np.ndarray
  best_seen: np.ndarray
  seen_mean: np.ndarray


def changes(policy: np.ndarray, problems: Problems) -> Changes:
  """Measures how a policy [B, M] differs from the reference."""
  ratio = np.log(policy) - np.log(problems.reference)
  unseen = np.arange(COMPLETIONS) >= SEEN
  mass = [np.log(x[:, unseen].sum(-1)) for x in (policy, problems.reference)]
  rows = np.arange(len(policy))
  best = [
    np.where(side, problems.rewards, -np.inf).argmax(-1)
    for side in (unseen, ~unseen)
  ]
  return Changes(
    mass[0] - mass[1],
    ratio[rows, best[0]],
    ratio[rows, best[1]],
    ratio[:, ~unseen].mean(-1),
  )


def _standardised(values: np.ndarray) -> np.ndarray:
  centred = values - values.mean(axis=-1, keepdims=True)
  return centred / centred.std(axis=-1, keepdims=True)
