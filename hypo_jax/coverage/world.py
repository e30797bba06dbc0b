# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A small language whose completions can all be listed, judged and paired.

125 completions of three tokens from five. Every token has a worth, and may be
followed by three of the five; a completion that breaks this rule is worthless,
any other is worth the mean of its tokens:

    r = 4 * (mean worth in [-1, 1], or -1 if the rule is broken)

A policy is a table of logits by prefix, which can be any distribution, or by
previous token, where completions share parameters and the optimum over all
policies is not quite in the class. The reference, the same in both, keeps to
the rule with probability 0.95 a transition. Pairs are two draws from its 15
likeliest completions, all within the rule; a share eps of the pairs is drawn
evenly from all 125 instead, labelled by the same judge. With that share
coverage is bought: at eps = 0 no pair says anything of what breaks the rule.

All sizes are our choice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hypo_jax.coverage import descent, population, trees

VOCABULARY, DEPTH, SEEN = 5, 3, 15
BETA = 0.5
_WORTH = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
_KEPT = 0.95


class World(NamedTuple):
  """The language, its reference and its judge.

  Attributes:
    tree: M completions; the policy's table is [num_states, VOCABULARY].
    reference: float64 table of logits.
    log_probs: float64 [M], the reference's, nats.
    rewards: float64 [M], in [-4, 4].
    kept: bool [M], whether the rule is kept.
    seen: bool [M], what pairs are drawn from at eps = 0.
  """

  tree: trees.Tree
  reference: np.ndarray
  log_probs: np.ndarray
  rewards: np.ndarray
  kept: np.ndarray
  seen: np.ndarray


def make_world(*, tabular: bool) -> World:
  """Returns the world; nothing in it is random.

  Args:
    tabular: whether the policy's states are prefixes; else previous tokens.
  """
  tree = trees.bigram_tree(VOCABULARY, DEPTH)
  allowed = np.ones((VOCABULARY + 1, VOCABULARY), bool)
  for token in range(VOCABULARY):
    allowed[token] = np.isin(
      (np.arange(VOCABULARY) - token) % VOCABULARY, (1, 2, 4)
    )
  kept = allowed[tree.states, tree.tokens].all(axis=-1)
  mean = _WORTH[tree.tokens].mean(axis=-1)
  rewards = 4 * np.where(kept, mean, -1.0)
  # Dull tokens are the likelier ones.
  weight = np.where(allowed, np.exp(-_WORTH), 0.0)
  inside = weight / weight.sum(axis=-1, keepdims=True)
  outside = ~allowed / np.maximum((~allowed).sum(-1, keepdims=True), 1)
  share = np.where(allowed.all(axis=-1, keepdims=True), 1.0, _KEPT)
  reference = np.log(share * inside + (1 - share) * outside)
  with jax.enable_x64():
    log_probs = np.asarray(trees.log_probs(tree, reference))
  if tabular:
    full = trees.full_tree(VOCABULARY, DEPTH)
    # Every prefix gets the row of its last token; equal ones are overwritten.
    table = np.zeros((full.num_states, VOCABULARY))
    table[full.states] = reference[tree.states]
    tree, reference = full, table
  order = np.argsort(-np.where(kept, log_probs, -np.inf), kind="stable")
  seen = np.zeros(len(kept), bool)
  seen[order[:SEEN]] = True
  return World(tree, reference, log_probs, rewards, kept, seen)


def mixed_pairs(world: World, share: float) -> population.Pairs:
  """Returns the pairs at eps = `share`, in [0, 1]."""
  if not 0 <= share <= 1:
    raise ValueError(f"share: expected in [0, 1], got {share}")
  likely = np.where(world.seen, np.exp(world.log_probs), 0.0)
  even = np.full(len(likely), 1 / len(likely))
  pairs = population.all_pairs(even, world.rewards)
  weight = likely[pairs.first] * likely[pairs.second]
  weight = (1 - share) * weight / weight.sum() + share * pairs.weight
  used = weight > 0
  return population.Pairs(*(field[used] for field in pairs[:3]), weight[used])


class Course(NamedTuple):
  """A training run, measured exactly at S steps.

  Attributes:
    steps: int [S].
    gap: float64 [S], J* - J >= 0, J* over all policies, in units of reward.
    broken: float64 [S], mass on completions that break the rule.
    kl: float64 [S], KL(policy || reference), nats.
  """

  steps: np.ndarray
  gap: np.ndarray
  broken: np.ndarray
  kl: np.ndarray


def train(
  world: World,
  pairs: population.Pairs,
  *,
  kl_coef: float,
  learning_rate: float,
  num_steps: int,
  every: int,
) -> Course:
  """Trains from the reference by gradient descent on the expected loss.

  Args:
    world: the world.
    pairs: with exact labels.
    kl_coef: 0 for DPO, else HyPO.
    learning_rate: of every step.
    num_steps: a multiple of `every`.
    every: steps between measurements.
  """

  def loss(log_probs, pairs):
    ref = jnp.asarray(world.log_probs)
    if kl_coef:
      return population.hypo_loss(
        log_probs, ref, pairs, beta=BETA, kl_coef=kl_coef
      )
    return population.dpo_loss(log_probs, ref, pairs, beta=BETA)

  return _course(world, loss, pairs, learning_rate, num_steps, every)


def optimise(
  world: World, *, learning_rate: float, num_steps: int, every: int
) -> Course:
  """Climbs J itself, exactly: online RL with the judge, in the same class."""

  def loss(log_probs, _):
    ref = jnp.asarray(world.log_probs)
    return population.rlhf_loss(log_probs, ref, world.rewards, beta=BETA)

  return _course(world, loss, None, learning_rate, num_steps, every)


def _course(world, loss, pairs, learning_rate, num_steps, every) -> Course:
  @jax.jit
  def run(table, pairs):
    path = descent.descend(
      lambda table: loss(trees.log_probs(world.tree, table), pairs),
      table,
      learning_rate=learning_rate,
      num_steps=num_steps,
      every=every,
    )
    return jax.vmap(lambda table: _measure(world, table))(path)

  with jax.enable_x64():
    gap, broken, kl = map(np.asarray, run(jnp.asarray(world.reference), pairs))
  return Course(np.arange(0, num_steps + 1, every), gap, broken, kl)


def _measure(world: World, table: jax.Array) -> tuple[jax.Array, ...]:
  log_probs = trees.log_probs(world.tree, table)
  ref = jnp.asarray(world.log_probs)
  value = -population.rlhf_loss(log_probs, ref, world.rewards, beta=BETA)
  best = BETA * jax.nn.logsumexp(ref + world.rewards / BETA)
  probabilities = jnp.exp(log_probs)
  broken = (probabilities * ~world.kept).sum()
  return best - value, broken, population.reverse_kl(log_probs, ref)
