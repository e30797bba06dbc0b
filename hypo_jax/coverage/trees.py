# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Completions of T tokens over a toy vocabulary, all of them listed.

A policy is a table of logits, one row a state, and draws each token from the
softmax of its state's row. What a state is makes the policy class:

    full_tree    everything said so far: any distribution over completions is
                 in the class (softmax-tabular); T = 1 is a bandit
    bigram_tree  the previous token alone: completions share parameters
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Tree(NamedTuple):
  """All M = V^T completions, in lexical order.

  Attributes:
    tokens: int [M, T].
    states: int [M, T], the row of the table that draws each token.
    num_states: rows of the table.
    vocabulary: V.
  """

  tokens: np.ndarray
  states: np.ndarray
  num_states: int
  vocabulary: int


def full_tree(vocabulary: int, depth: int) -> Tree:
  """Returns the tree whose states are prefixes, the empty one first."""
  tokens = _completions(vocabulary, depth)
  # A prefix's number: those of all shorter lengths first, then lexical.
  value = np.zeros(len(tokens), np.int64)
  states = []
  for t in range(depth):
    states.append((vocabulary**t - 1) // (vocabulary - 1) + value)
    value = value * vocabulary + tokens[:, t]
  num_states = (vocabulary**depth - 1) // (vocabulary - 1)
  return Tree(tokens, np.stack(states, axis=1), num_states, vocabulary)


def bigram_tree(vocabulary: int, depth: int) -> Tree:
  """Returns the tree whose states are the previous token; the start is V."""
  tokens = _completions(vocabulary, depth)
  states = np.full_like(tokens, vocabulary)
  states[:, 1:] = tokens[:, :-1]
  return Tree(tokens, states, vocabulary + 1, vocabulary)


def log_probs(tree: Tree, table: jax.Array) -> jax.Array:
  """Returns log pi [M] of the table [num_states, V], nats."""
  return token_log_probs(tree, table).sum(axis=-1)


def token_log_probs(tree: Tree, table: jax.Array) -> jax.Array:
  """Returns [M, T], the log-probs of each completion's tokens, nats."""
  return jax.nn.log_softmax(jnp.asarray(table))[tree.states, tree.tokens]


def _completions(vocabulary: int, depth: int) -> np.ndarray:
  if vocabulary < 2 or depth < 1:
    raise ValueError(
      "vocabulary, depth: expected at least 2 and 1, got "
      f"{vocabulary} and {depth}"
    )
  return np.array(list(itertools.product(range(vocabulary), repeat=depth)))
