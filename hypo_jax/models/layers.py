# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of the decoder's layers, and what one layer computes.

Attention itself is the caller's: which keys a query sees, and where they are
kept, is all that the ways through the layers differ in (`transformer`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hypo_jax.models import quantized, rotary
from hypo_jax.models.config import TransformerConfig
from hypo_jax.models.linear import product

Params = dict[str, Any]

# Axes that each product sums over, and those it gives.
LINEAR = {
  "query": ("d", "he"),
  "key": ("d", "ke"),
  "value": ("d", "ke"),
  "output": ("he", "d"),
  "gate": ("d", "f"),
  "up": ("d", "f"),
  "down": ("f", "d"),
}

_ACTIVATIONS = {
  "silu": jax.nn.silu,
  "gelu": partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


class Layers(nnx.Module):
  """The weights of all layers, each with a leading axis L.

  Only those that the configuration asks for exist.
  """

  def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
    c = config
    layers, width, head = c.num_layers, c.width, c.head_dim

    def weight(*shape: int, fan_in: int) -> nnx.Param:
      noise = jax.random.normal(rngs.params(), (layers, *shape))
      return nnx.Param(noise * fan_in**-0.5)

    def bias(*shape: int) -> nnx.Param:
      return nnx.Param(jnp.zeros((layers, *shape)))

    def norm(name: str, size: int = width) -> None:
      # The stored scale; with an offset of 1, zero stands for no change.
      scale = jnp.full((layers, size), 1.0 - c.norm_offset)
      setattr(self, name, nnx.Param(scale))
      if c.norm == "layer":
        setattr(self, f"{name}_bias", bias(size))

    # Two residual branches a layer: their outputs shrink with depth, so that
    # the residual stream keeps unit scale at any number of layers.
    depth = 2 * layers
    norm("attention_norm")
    self.query = weight(width, c.num_heads, head, fan_in=width)
    self.key = weight(width, c.num_kv_heads, head, fan_in=width)
    self.value = weight(width, c.num_kv_heads, head, fan_in=width)
    self.output = weight(
      c.num_heads, head, width, fan_in=c.num_heads * head * depth
    )
    norm("mlp_norm")
    if c.gated_mlp:
      self.gate = weight(width, c.mlp_width, fan_in=width)
    self.up = weight(width, c.mlp_width, fan_in=width)
    self.down = weight(c.mlp_width, width, fan_in=c.mlp_width * depth)
    if c.query_key_norm:
      norm("query_norm", head)
      norm("key_norm", head)
    if c.post_norms:
      norm("attention_post_norm")
      norm("mlp_post_norm")
    if c.qkv_bias:
      self.query_bias = bias(c.num_heads, head)
      self.key_bias = bias(c.num_kv_heads, head)
      self.value_bias = bias(c.num_kv_heads, head)
    if c.output_bias:
      self.output_bias = bias(width)
    if c.mlp_bias:
      if c.gated_mlp:
        self.gate_bias = bias(c.mlp_width)
      self.up_bias = bias(c.mlp_width)
      self.down_bias = bias(width)


def norm(config: TransformerConfig, x: jax.Array, weights: Params, name: str):
  """Norms x [..., D] in float32, by the scale (and bias) called `name`."""
  wide = x.astype(jnp.float32)
  if config.norm == "layer":
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
  variance = jnp.mean(wide**2, axis=-1, keepdims=True)
  wide = wide * jax.lax.rsqrt(variance + config.norm_eps)
  wide = wide * (config.norm_offset + weights[name].astype(jnp.float32))
  if config.norm == "layer":
    wide = wide + weights[f"{name}_bias"].astype(jnp.float32)
  return wide.astype(x.dtype)


def _linear(layer: Params, name: str, x: jax.Array, scale: float) -> jax.Array:
  """Returns x W + bias + scale * x A B, of what `layer` has under `name`."""
  num_inputs = len(LINEAR[name][0])
  weights = layer["weights"]
  matrix = quantized.dequantize(weights[name], x.dtype)
  out = product(num_inputs, x, matrix.astype(x.dtype))
  if (bias := weights.get(f"{name}_bias")) is not None:
    out = out + bias.astype(jnp.float32)
  if (adapter := layer["adapters"].get(name)) is not None:
    down, up = (adapter[key].astype(x.dtype) for key in ("a", "b"))
    inner = product(num_inputs, x, down).astype(x.dtype)
    out = out + scale * product(1, inner, up)
  return out.astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gated(activation: str, gate: jax.Array, up: jax.Array) -> jax.Array:
  """Returns activation(gate) * up.

  Its gradient keeps the two factors alone and computes the rest again, element
  by element: autodiff keeps five arrays of the feed-forward's width, which are
  most of what a layer keeps.
  """
  return _ACTIVATIONS[activation](gate) * up


def _gated_forward(activation, gate, up):
  return _gated(activation, gate, up), (gate, up)


def _gated_backward(activation, saved, out_bar):
  _, pull_back = jax.vjp(lambda g, u: _ACTIVATIONS[activation](g) * u, *saved)
  return pull_back(out_bar)


_gated.defvjp(_gated_forward, _gated_backward)


def apply_layer(
  state: tuple[jax.Array, Any],
  layer: Params,
  *,
  config: TransformerConfig,
  tables: tuple[jax.Array | None, jax.Array | None],
  attention: Callable,
  held: Callable[[jax.Array], jax.Array],
  first: int,
) -> tuple[tuple[jax.Array, Any], Any]:
  """Runs one layer.

  Args:
    state: hidden states [..., T, D], and what attention hands on.
    layer: the layer's "weights", "adapters" and rotary "table"; attention may
      look for more.
    config: the model's.
    tables: cos and sin, of `rotary.tables`.
    attention: see `Transformer._run`.
    held: keeps hidden states where they are.
    first: the layer's output begins at this token.

  Returns:
    The state after the layer, hidden states [..., T - first, D], and what
    attention keeps.
  """
  c, weights = config, layer["weights"]
  x, carry = state

  def last(x):
    return x[:, first:] if first else x

  def linear(name, inputs):
    return _linear(layer, name, inputs, c.adapter_scale)

  def attention_branch(x, carry):
    normed = norm(c, x, weights, "attention_norm")
    k, v = linear("key", normed), linear("value", normed)
    q = linear("query", last(normed))
    if c.query_key_norm:
      q = norm(c, q, weights, "query_norm")
      k = norm(c, k, weights, "key_norm")
    if c.rope is not None:
      cos, sin = (table[layer["table"]] for table in tables)
      k = rotary.rotate(k, cos, sin)
      q = rotary.rotate(q, last(cos), last(sin))
    out, carry, kept = attention(layer, carry, q, k, v)
    out = linear("output", out)
    if c.post_norms:
      out = norm(c, out, weights, "attention_post_norm")
    return out, carry, kept

  def mlp_branch(x):
    normed = norm(c, x, weights, "mlp_norm")
    up = linear("up", normed)
    if c.gated_mlp:
      inner = _gated(c.activation, linear("gate", normed), up)
    else:
      inner = _ACTIVATIONS[c.activation](up)
    out = linear("down", inner)
    return norm(c, out, weights, "mlp_post_norm") if c.post_norms else out

  out, carry, kept = attention_branch(x, carry)
  x = last(x)
  if c.parallel_residual:
    x = x + out + mlp_branch(x)
  else:
    x = x + out
    x = x + mlp_branch(x)
  return (held(x), carry), kept


def cast_matrices(tree: Params, dtype: jnp.dtype) -> Params:
  """Casts matrices; vectors (norms, some biases) and int8 stay as stored."""

  def cast(x):
    if isinstance(x, quantized.QArray) or x.ndim <= 2:
      return x
    return x.astype(dtype)

  return jax.tree.map(
    cast, tree, is_leaf=lambda x: isinstance(x, quantized.QArray)
  )
