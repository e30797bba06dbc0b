# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Sums and means over what a mask leaves, and over a prompt's samples."""

import jax
import jax.numpy as jnp

from hypo_jax.losses import checks


def scored(name: str, values: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns values in float32, 0 where masked.

  The zeros go in before any arithmetic, so that masked nan and inf reach
  neither the value nor, as 0 * nan, the gradient.
  """
  values = jnp.asarray(values)
  if values.shape != jnp.shape(mask):
    checks.refuse(name, f"the mask's shape {jnp.shape(mask)}", values.shape)
  if not jnp.issubdtype(values.dtype, jnp.floating):
    checks.refuse(name, "a float dtype", values.dtype)
  dtype = jnp.promote_types(values.dtype, jnp.float32)
  return jnp.where(mask, values, 0.0).astype(dtype)


def mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Returns the mean over rows where mask is True, 0 if there are none."""
  if mask is None:
    return values.mean() if values.size else values.sum()
  return jnp.where(mask, values, 0.0).sum() / jnp.maximum(jnp.sum(mask), 1)


def mean_of_others(values: jax.Array, samples_per_prompt: int) -> jax.Array:
  """Returns [N, ...]: the mean over the other rows of each row's prompt."""
  groups = values.reshape(-1, samples_per_prompt, *values.shape[1:])
  others = groups.sum(axis=1, keepdims=True) - groups
  return (others / (samples_per_prompt - 1)).reshape(values.shape)
