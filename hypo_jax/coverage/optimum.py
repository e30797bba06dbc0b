# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The objective of online RL on problems that can be listed, and its optimum.

    J(pi) = E_pi[r] - beta KL(pi || reference)

Its maximum over all policies is at pi* = reference * exp(r / beta) / Z with

    J* = beta log E_reference[exp(r / beta)],   J* - J(pi) = beta KL(pi || pi*),

and where |r| <= R, KL(pi* || reference) <= 2 R / beta: the maximum stays in a
ball around the reference whatever the reward says, a learned one included.

Everything is numpy in float64. The last axis lists all M completions of one
prompt; leading axes are problems and broadcast. A reference may be 0 somewhere;
0 log 0 is 0, and a policy with mass where the reference has none is at KL inf.
"""

import numpy as np
from scipy.special import logsumexp, rel_entr, softmax

from hypo_jax.coverage.trees import Tree


def kl(policy: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Returns KL(policy || reference) [...], nats, from probabilities [..., M].

  inf where the policy has mass and the reference none.
  """
  return rel_entr(policy, reference).sum(axis=-1)


def objective(
  policy: np.ndarray, reference: np.ndarray, rewards: np.ndarray, *, beta: float
) -> np.ndarray:
  """Returns J [...], in units of reward.

  Args:
    policy: [..., M] probabilities.
    reference: [..., M] probabilities.
    rewards: [..., M].
    beta: > 0, reward per nat.
  """
  return (policy * rewards).sum(axis=-1) - beta * kl(policy, reference)


def optimal_policy(
  reference: np.ndarray, rewards: np.ndarray, *, beta: float
) -> np.ndarray:
  """Returns pi* [..., M], the maximum of J over all policies.

  Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 4.
  """
  return softmax(_log(reference) + np.asarray(rewards) / beta, axis=-1)


def optimal_value(
  reference: np.ndarray, rewards: np.ndarray, *, beta: float
) -> np.ndarray:
  """Returns J* [...], the value of `optimal_policy`."""
  return beta * logsumexp(rewards / np.asarray(beta), b=reference, axis=-1)


def tree_optimal_value(
  tree: Tree, table: np.ndarray, rewards: np.ndarray, *, beta: float
) -> float:
  """Returns J* of a tree by backward induction, from the last token to none.

      V(prefix) = beta log sum_a reference(a | prefix) exp(V(prefix a) / beta),

  where V of a whole completion is its reward: the optimum needs no list of
  completions, only the values of the next prefixes.

  Args:
    tree: with one state a prefix (`trees.full_tree`).
    table: [num_states, V] logits of the reference.
    rewards: [M].
    beta: > 0.
  """
  values = np.asarray(rewards, np.float64)
  probabilities = softmax(table, axis=-1)
  for t in reversed(range(tree.tokens.shape[1])):
    # Completions are in lexical order: the first of each run of V^(T - t)
    # stands for the prefix that they share.
    states = tree.states[:: len(tree.tokens) // tree.vocabulary**t, t]
    values = values.reshape(len(states), tree.vocabulary)
    values = optimal_value(probabilities[states], values, beta=beta)
  return float(values[0])


def kl_bound(reward_bound: float, *, beta: float) -> float:
  """Returns 2 R / beta, which KL(pi* || reference) never exceeds for |r| <= R.

  log pi* / reference = r / beta - J* / beta, and both lie in +-R / beta.
  """
  return 2 * reward_bound / beta


def largest_kl(reward_bound: np.ndarray, *, beta: float) -> np.ndarray:
  """Returns the largest KL(pi* || reference) [...] that |r| <= R can cause.

  With u = exp(r / beta), taken over the reference, the KL is

      E[u log u] / E[u] - log E[u].

  u log u is convex, so for a given E[u] the KL is largest where only the ends
  r = R and r = -R occur. What is left to choose is the reference's mass on R;
  setting the derivative to 0 gives, with x = 2 R / beta,

      Z = x / (1 - exp(-x)),   KL = Z - 1 - log Z:

  x^2 / 8 for small x, x - 1 - log x for large x, below `kl_bound` throughout.

  Args:
    reward_bound: R [...], > 0.
    beta: > 0.
  """
  x = 2 * np.asarray(reward_bound, np.float64) / beta
  # Z - 1 = (x - (1 - e^-x)) / (1 - e^-x) without the cancellation in Z - 1.
  excess = (x + np.expm1(-x)) / -np.expm1(-x)
  return excess - np.log1p(excess)


def _log(probabilities: np.ndarray) -> np.ndarray:
  """Returns the logarithm, -inf at 0 without a warning."""
  with np.errstate(divide="ignore"):
    return np.log(probabilities)
