# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention over plain keys, and over a prompt plus own slot.

Both forms compute softmax(scale * q k) v in float32 softmax; queries
are grouped by the key-value head that they read (H = K * G). The second form
merges two blocks of keys under one softmax, so that no mask over the whole
prefix-shared row exists:

    query of slot s, token c  ->  [ prompt keys P | own slot's keys <= c ]

Shapes: B rows, T queries, S keys (or slots), K key-value heads, G query heads
per key-value head, E head width.
"""

import jax
import jax.numpy as jnp

# Finite, so that a query with no visible key (padding) gives a finite, unused
# average in place of nan, in value and in gradient.
_MASKED = -1e30


def _scores(
  pattern: str, queries, keys, *, scale: float, softcap: float | None
):
  scores = jnp.einsum(
    pattern, queries, keys, preferred_element_type=jnp.float32
  )
  scores = scores * scale
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  return scores


def _group(queries: jax.Array, num_kv_heads: int) -> jax.Array:
  """[..., H, E] -> [..., K, G, E]."""
  *leading, _, width = queries.shape
  return queries.reshape(*leading, num_kv_heads, -1, width)


def attend(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  *,
  scale: float,
  softcap: float | None = None,
) -> jax.Array:
  """Attends with an explicit mask.

  Args:
    queries: [B, T, H, E].
    keys: [B, S, K, E], with K a divisor of H.
    values: [B, S, K, E].
    mask: bool [B, T, S], True where the query sees the key.
    scale: factor of the products, head_dim ** -0.5 in most models.
    softcap: bounds the scores by softcap * tanh(scores / softcap).

  Returns:
    [B, T, H, E] in the dtype of `values`.
  """
  grouped = _group(queries, keys.shape[-2])
  scores = _scores(
    "btkge,bske->bkgts", grouped, keys, scale=scale, softcap=softcap
  )
  scores = jnp.where(mask[:, None, None], scores, _MASKED)
  weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  out = jnp.einsum(
    "bkgts,bske->btkge", weights, values, preferred_element_type=jnp.float32
  )
  return out.astype(values.dtype).reshape(queries.shape)


def attend_slots(
  queries: jax.Array,
  prompt_keys: jax.Array,
  prompt_values: jax.Array,
  prompt_mask: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  *,
  scale: float,
  softcap: float | None = None,
) -> jax.Array:
  """Attends from every slot to the shared prompt and to itself.

  Args:
    queries: [B, S, C, H, E].
    prompt_keys: [B, P, K, E].
    prompt_values: [B, P, K, E].
    prompt_mask: bool [B, S, C, P], True where the query sees the prompt token.
    keys: [B, S, C, K, E], the slots' own.
    values: [B, S, C, K, E].
    mask: bool [B, S, C, C], True where the query sees the slot's own token.
    scale: as in `attend`.
    softcap: as in `attend`.

  Returns:
    [B, S, C, H, E] in the dtype of `values`.
  """
  grouped = _group(queries, keys.shape[-2])
  prompt_scores = _scores(
    "bsckge,bpke->bskgcp", grouped, prompt_keys, scale=scale, softcap=softcap
  )
  own_scores = _scores(
    "bsckge,bstke->bskgct", grouped, keys, scale=scale, softcap=softcap
  )
  prompt_scores = jnp.where(
    prompt_mask[:, :, None, None], prompt_scores, _MASKED
  )
  own_scores = jnp.where(mask[:, :, None, None], own_scores, _MASKED)
  scores = jnp.concatenate([prompt_scores, own_scores], axis=-1)
  weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  prompt_weights, own_weights = jnp.split(
    weights, [prompt_keys.shape[1]], axis=-1
  )
  out = jnp.einsum(
    "bskgcp,bpke->bsckge",
    prompt_weights,
    prompt_values,
    preferred_element_type=jnp.float32,
  ) + jnp.einsum(
    "bskgct,bstke->bsckge",
    own_weights,
    values,
    preferred_element_type=jnp.float32,
  )
  return out.astype(values.dtype).reshape(queries.shape)
