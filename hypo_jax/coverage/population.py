# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Losses in expectation: all pairs, all labels, all completions, no sampling.

The terms are those of `hypo_jax.losses`, weighted by exact probabilities, so
that what is shown of these losses is shown of the code that trains. Log-probs
are [M], of all completions of one prompt; vmap over problems. float64 where the
caller enables it (`with jax.enable_x64():`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from hypo_jax import losses


class Pairs(NamedTuple):
  """A distribution over pairs of completions and their labels.

  Attributes:
    first: int [P], numbers of completions.
    second: int [P].
    preference: float64 [P], probability that the first is preferred.
    weight: float64 [P], sum 1.
  """

  first: np.ndarray
  second: np.ndarray
  preference: np.ndarray
  weight: np.ndarray


def all_pairs(distribution: np.ndarray, rewards: np.ndarray) -> Pairs:
  """Returns the pairs of two independent draws that differ.

  Args:
    distribution: [M] probabilities; completions at 0 are in no pair.
    rewards: [M]; labels are Bradley-Terry, sigmoid of the difference.
  """
  said = np.flatnonzero(np.asarray(distribution) > 0)
  i, j = np.triu_indices(len(said), k=1)
  first, second = said[i], said[j]
  weight = np.asarray(distribution)[first] * np.asarray(distribution)[second]
  rewards = np.asarray(rewards, np.float64)
  preference = expit(rewards[first] - rewards[second])
  return Pairs(first, second, preference, weight / weight.sum())


def dpo_loss(
  log_probs: jax.Array, ref_log_probs: jax.Array, pairs: Pairs, *, beta: float
) -> jax.Array:
  """Returns DPO's expected loss over pairs and labels, a scalar."""
  first = (log_probs[pairs.first], ref_log_probs[pairs.first])
  second = (log_probs[pairs.second], ref_log_probs[pairs.second])
  won = losses.dpo_loss(first[0], second[0], first[1], second[1], beta=beta)
  lost = losses.dpo_loss(second[0], first[0], second[1], first[1], beta=beta)
  expected = pairs.preference * won + (1 - pairs.preference) * lost
  return (pairs.weight * expected).sum()


def reverse_kl(log_probs: jax.Array, ref_log_probs: jax.Array) -> jax.Array:
  """Returns KL(policy || reference), a scalar in nats.

  Its gradient is the expectation of the gradient of `losses.reverse_kl_loss`,
  each completion taken as a rollout of one token.
  """
  mask = jnp.ones((*log_probs.shape, 1), bool)
  term = losses.reverse_kl_loss(
    log_probs[:, None], ref_log_probs[:, None], mask
  )
  probabilities = jax.lax.stop_gradient(jnp.exp(log_probs))
  surrogate = (probabilities * term.loss).sum()
  value = (probabilities * term.kl).sum()
  return value + surrogate - jax.lax.stop_gradient(surrogate)


def hypo_loss(
  log_probs: jax.Array,
  ref_log_probs: jax.Array,
  pairs: Pairs,
  *,
  beta: float,
  kl_coef: float,
) -> jax.Array:
  """Returns HyPO's expected loss, a scalar."""
  dpo = dpo_loss(log_probs, ref_log_probs, pairs, beta=beta)
  return dpo + kl_coef * reverse_kl(log_probs, ref_log_probs)


def rlhf_loss(
  log_probs: jax.Array,
  ref_log_probs: jax.Array,
  rewards: jax.Array,
  *,
  beta: float,
) -> jax.Array:
  """Returns -J = beta KL(policy || reference) - E_policy[r], a scalar."""
  reward = (jnp.exp(log_probs) * rewards).sum()
  return beta * reverse_kl(log_probs, ref_log_probs) - reward
