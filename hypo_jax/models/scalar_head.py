# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One number from a hidden state: the head of a reward or value function.

    {"weight": float32 [D], "bias": float32 []}

A head is its own dict beside the backbone's parameters, {"policy": ...,
"reward_head": ...}, so that nothing of the backbone changes shape.
"""

import jax
import jax.numpy as jnp

Head = dict[str, jax.Array]


def init(width: int, key: jax.Array | None = None) -> Head:
  """Returns a head for hidden states of `width`.

  Args:
    width: D.
    key: of the weights, normal with variance 1 / (D + 1); None for zeros, which
      say 0 of every state.
  """
  weight = jnp.zeros(width)
  if key is not None:
    weight = jax.random.normal(key, (width,)) * (width + 1) ** -0.5
  return {"weight": weight, "bias": jnp.zeros(())}


def apply(head: Head, hidden: jax.Array) -> jax.Array:
  """Returns float32 [...] of hidden states [..., D], summed in float32."""
  weight = head["weight"].astype(hidden.dtype)
  value = jnp.einsum(
    "...d,d->...", hidden, weight, preferred_element_type=jnp.float32
  )
  return value + head["bias"].astype(jnp.float32)
