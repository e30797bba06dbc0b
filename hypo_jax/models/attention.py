# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention over plain keys, and over a prompt plus own slot.

Both forms compute softmax(scale * q k) v in float32 softmax; queries are
grouped by the key-value head that they read (H = K * G). The second form merges
two blocks of keys under one softmax, so that no mask over the whole
prefix-shared row exists:

    query of slot s, token c  ->  [ prompt keys P | own slot's keys <= c ]

Heads lie before positions, and a head's queries as rows of one matrix, whatever
group, slot or token they are of: so each product is a batch of plain ones. Keys
that are read more than once, a prompt's or a cache's, are kept so; turning them
anew for each decoded token took a third of its time.

Shapes: B rows, T queries, S keys (or slots), C tokens of a slot, P of a prompt,
K key-value heads, G query heads per key-value head, E head width.
"""

import functools

import jax
import jax.numpy as jnp

# Finite, so that a query with no visible key (padding) gives a finite, unused
# average in place of nan, in value and in gradient.
_MASKED = -1e30


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
    keys: [B, K, S, E], with K a divisor of H.
    values: [B, K, S, E].
    mask: bool [B, T, S], True where the query sees the key.
    scale: factor of the products, head_dim ** -0.5 in most models.
    softcap: bounds the scores by softcap * tanh(scores / softcap).

  Returns:
    [B, T, H, E] in the dtype of `values`.
  """
  batch, length, _, width = queries.shape
  grouped = queries.reshape(batch, length, keys.shape[1], -1, width)
  by_head = grouped.transpose(0, 2, 3, 1, 4)  # [B, K, G, T, E]
  scores = _scores(_rows(by_head, 2), keys, scale, softcap)
  scores = scores.reshape(*by_head.shape[:-1], -1)
  scores = jnp.where(mask[:, None, None], scores, _MASKED)
  (weights,), total = _exponentials(scores)
  out = _sum(_rows(weights, 2), values).reshape(by_head.shape) / total
  out = out.transpose(0, 3, 1, 2, 4).reshape(queries.shape)
  return out.astype(values.dtype)


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
    queries: [B, S, T, H, E].
    prompt_keys: [B, K, P, E].
    prompt_values: [B, K, P, E].
    prompt_mask: bool [B, S, T, P], or broadcastable to it, True where the query
      sees the prompt token.
    keys: [B, K, S, C, E], the slots' own.
    values: [B, K, S, C, E].
    mask: bool [B, S, T, C], or broadcastable to it, True where the query sees
      the slot's own token.
    scale: as in `attend`.
    softcap: as in `attend`.

  Returns:
    [B, S, T, H, E] in the dtype of `values`.
  """
  batch, slots, length, _, width = queries.shape
  num_kv_heads = prompt_keys.shape[1]
  grouped = queries.reshape(batch, slots, length, num_kv_heads, -1, width)
  by_head = grouped.transpose(0, 3, 1, 4, 2, 5)  # [B, K, S, G, T, E]

  def scored(rows, keys, mask):
    scores = _scores(rows, keys, scale, softcap)
    scores = scores.reshape(*by_head.shape[:-1], -1)
    return jnp.where(mask[:, None, :, None], scores, _MASKED)

  (of_prompt, own), total = _exponentials(
    scored(_rows(by_head, 2), prompt_keys, prompt_mask),
    scored(_rows(by_head, 3), keys, mask),
  )
  out = _sum(_rows(of_prompt, 2), prompt_values).reshape(by_head.shape)
  out += _sum(_rows(own, 3), values).reshape(by_head.shape)
  out /= total
  out = out.transpose(0, 2, 4, 1, 3, 5).reshape(queries.shape)
  return out.astype(values.dtype)


def _rows(x: jax.Array, num_batch_axes: int) -> jax.Array:
  """Joins all axes between the batch's and the last."""
  return x.reshape(*x.shape[:num_batch_axes], -1, x.shape[-1])


def _scores(queries, keys, scale: float, softcap: float | None) -> jax.Array:
  """[..., M, E], [..., S, E] -> float32 [..., M, S]."""
  scores = scale * jnp.einsum(
    "...me,...se->...ms", queries, keys, preferred_element_type=jnp.float32
  )
  return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def _exponentials(*blocks: jax.Array) -> tuple[list[jax.Array], jax.Array]:
  """Returns exp(scores - their peak) of blocks [..., S], and all their sum.

  A softmax over the blocks' keys together that leaves the division to be done
  after values are summed: there are fewer of those than of weights, and the
  gradient's sum over keys becomes one over a head's width.
  """
  peaks = [x.max(axis=-1, keepdims=True) for x in blocks]
  # Any shift gives the same; that of the peak can't overflow.
  peak = jax.lax.stop_gradient(functools.reduce(jnp.maximum, peaks))
  weights = [jnp.exp(x - peak) for x in blocks]
  return weights, sum(x.sum(axis=-1, keepdims=True) for x in weights)


def _sum(weights: jax.Array, values: jax.Array) -> jax.Array:
  """[..., M, S], [..., S, E] -> float32 [..., M, E]."""
  return jnp.einsum(
    "...ms,...se->...me",
    weights.astype(values.dtype),
    values,
    preferred_element_type=jnp.float32,
  )
