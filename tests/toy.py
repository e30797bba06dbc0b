# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""An autoregressive policy small enough to enumerate all it can say.

Three tokens, the last one EOS. A completion ends with EOS or is cut after
`steps` tokens, so lengths vary and some completions have no EOS. The logits are
a table indexed by state: the previous token ("bigram"), or everything said so
far ("history").
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

VOCABULARY, EOS = 3, 2


class Toy(NamedTuple):
  """All M completions of at most C tokens.

  Attributes:
    tokens: int [M, C].
    mask: bool [M, C], True up to and including EOS.
    states: int [M, C], the row of the table that draws each token.
    num_states: the table's rows.
  """

  tokens: np.ndarray
  mask: np.ndarray
  states: np.ndarray
  num_states: int

  def params(self, seed: int) -> jax.Array:
    """Draws a table of logits [num_states, VOCABULARY]."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(self.num_states, VOCABULARY))
    return jnp.asarray(table, jnp.float32)


def enumerate_completions(kind: str, steps: int) -> Toy:
  """Lists every completion once."""
  tokens, mask, states = [], [], []
  table = {}
  for full in itertools.product(range(VOCABULARY), repeat=steps):
    length = full.index(EOS) + 1 if EOS in full else steps
    if any(full[length:]):
      continue  # the same completion again, with other padding
    seen = [
      full[:t] if kind == "history" else full[:t][-1:] for t in range(steps)
    ]
    real = [s for s in seen[:length]]
    states.append(
      [table.setdefault(s, len(table)) for s in real] + [0] * (steps - length)
    )
    tokens.append(full)
    mask.append([t < length for t in range(steps)])
  return Toy(np.array(tokens), np.array(mask), np.array(states), len(table))


def token_log_probs(params: jax.Array, toy: Toy) -> jax.Array:
  """Returns [M, C], nan past the end."""
  log_probs = jax.nn.log_softmax(params)[toy.states, toy.tokens]
  return jnp.where(toy.mask, log_probs, jnp.nan)


def token_kl(params: jax.Array, ref_params: jax.Array, toy: Toy) -> jax.Array:
  """Returns [M, C], the next token's KL at each state, nan past the end."""
  log_probs = jax.nn.log_softmax(params)
  log_ratio = log_probs - jax.nn.log_softmax(ref_params)
  kl = (jnp.exp(log_probs) * log_ratio).sum(axis=-1)[toy.states]
  return jnp.where(toy.mask, kl, jnp.nan)


def log_probs(params: jax.Array, toy: Toy) -> jax.Array:
  """Returns [M], of whole completions."""
  scores = jax.nn.log_softmax(params)[toy.states, toy.tokens]
  return (scores * toy.mask).sum(axis=-1)


def exact_kl(params: jax.Array, ref_params: jax.Array, toy: Toy) -> jax.Array:
  """Returns KL(policy || reference) over whole completions."""
  policy, reference = log_probs(params, toy), log_probs(ref_params, toy)
  return (jnp.exp(policy) * (policy - reference)).sum()
