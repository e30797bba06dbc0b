# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Rotary positions: pairs of a head's dimensions, turned by their position.

Axis letters as in `transformer`; R tables, one for each distinct setting.
"""

import jax
import jax.numpy as jnp

from hypo_jax.models.config import TransformerConfig


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Turns the pairs (r, r + R/2), r < R/2, of x [..., heads, E].

  R, the rotary dimensions, is twice the last axis of cos; the rest stays.
  """
  half = cos.shape[-1]
  first, second, rest = jnp.split(
    x.astype(jnp.float32), [half, 2 * half], axis=-1
  )
  cos, sin = cos[..., None, :], sin[..., None, :]  # one angle for all heads
  turned = [first * cos - second * sin, second * cos + first * sin, rest]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _settings(config: TransformerConfig) -> tuple[tuple, tuple]:
  """Returns the distinct rotary settings, and each layer's."""
  by_layer = config.rope
  if not isinstance(by_layer, tuple):
    by_layer = (by_layer,) * config.num_layers
  return tuple(dict.fromkeys(by_layer)), by_layer


def table_numbers(config: TransformerConfig) -> jax.Array:
  """Returns int32 [L], the table that each layer turns by."""
  distinct, by_layer = _settings(config)
  return jnp.array([distinct.index(rope) for rope in by_layer])


def tables(
  config: TransformerConfig, positions: jax.Array, longest: int | None
):
  """Returns cos and sin [R, ..., T, E/2] of R tables.

  Looked up where all positions lie below `longest`: computed token by token,
  XLA on CPU would compute them again for each head and layer.
  """
  if config.rope is None:
    return None, None
  distinct, _ = _settings(config)
  turned = config.head_dim if config.rotary_dim is None else config.rotary_dim
  frequencies = jnp.stack([rope.frequencies(turned) for rope in distinct])
  at = positions if longest is None else jnp.arange(longest)
  shape = (len(distinct), *(1,) * at.ndim, frequencies.shape[-1])
  angles = at[..., None] * frequencies.reshape(shape)
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  return (
    (cos, sin) if longest is None else (cos[:, positions], sin[:, positions])
  )
