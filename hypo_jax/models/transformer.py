# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

The layers' weights are stacked on a leading axis and scanned; what differs
from layer to layer (attention window, rotary table) is an array on the same
axis. `Transformer` is a Flax NNX module; `policy.Model` is the same network as
pure functions of a nested dict of arrays, for training and sampling.

Three ways through the same layers:

    hidden           any tokens under an explicit mask, with or without a cache
    prompt_forward   a left-padded prompt; returns its keys and values too
    slots_forward    completion slots that see a prompt and themselves, causally

The last two score prefix-shared rows (`Model.row_hidden`). None of them turns
hidden states into logits unless asked (`logits`): scoring does that in chunks.

Axis letters: L layers, D width, H heads, K key-value heads, E head width,
F feed-forward width, V vocabulary; B rows, T tokens, P prompt, S slots or cache
length, C completion.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hypo_jax.models.attention import attend, attend_slots

Params = dict[str, Any]
Cache = dict[str, jax.Array]

# Wider than any sequence: a window of this size hides nothing.
_NO_WINDOW = 1 << 30


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """The architecture's numbers; `compute_dtype` and `remat` are how to run it.

  Attributes:
    vocab_size: V.
    num_layers: L.
    width: D.
    num_heads: H.
    num_kv_heads: K, a divisor of H.
    head_dim: E, even.
    mlp_width: F.
    max_positions: longest prompt plus completion, in tokens.
    rope_theta: rotary base, one for all layers or one a layer.
    windows: attention window by layer in tokens (None: unlimited), or None.
    attention_softcap: bound on attention scores, or None.
    final_softcap: bound on logits, or None.
    norm_eps: added to the mean square in RMSNorm.
    tied_embeddings: the head is the transposed embedding.
    compute_dtype: dtype of products' operands and of the residual stream.
    remat: recompute each layer's activations in the backward pass.
  """

  vocab_size: int
  num_layers: int
  width: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  max_positions: int
  rope_theta: float | tuple[float, ...] = 10_000.0
  windows: tuple[int | None, ...] | None = None
  attention_softcap: float | None = None
  final_softcap: float | None = None
  norm_eps: float = 1e-5
  tied_embeddings: bool = True
  compute_dtype: str = "float32"
  remat: bool = False

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f"num_kv_heads: expected a divisor of num_heads = {self.num_heads}, "
        f"got {self.num_kv_heads}"
      )
    if self.head_dim % 2:
      raise ValueError(
        "head_dim: expected an even number (rotary positions turn pairs), got "
        f"{self.head_dim}"
      )
    for name in ("rope_theta", "windows"):
      value = getattr(self, name)
      if isinstance(value, tuple) and len(value) != self.num_layers:
        raise ValueError(
          f"{name}: expected one value a layer ({self.num_layers}), got "
          f"{len(value)}"
        )


class Layers(nnx.Module):
  """The weights of all layers, each with a leading axis L."""

  def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
    c = config
    layers, width, head = c.num_layers, c.width, c.head_dim

    def weight(*shape: int, fan_in: int) -> nnx.Param:
      noise = jax.random.normal(rngs.params(), (layers, *shape))
      return nnx.Param(noise * fan_in**-0.5)

    # Two residual branches a layer: their outputs shrink with depth, so that
    # the residual stream keeps unit scale at any number of layers.
    depth = 2 * layers
    self.attention_norm = nnx.Param(jnp.ones((layers, width)))
    self.query = weight(width, c.num_heads, head, fan_in=width)
    self.key = weight(width, c.num_kv_heads, head, fan_in=width)
    self.value = weight(width, c.num_kv_heads, head, fan_in=width)
    self.output = weight(
      c.num_heads, head, width, fan_in=c.num_heads * head * depth
    )
    self.mlp_norm = nnx.Param(jnp.ones((layers, width)))
    self.gate = weight(width, c.mlp_width, fan_in=width)
    self.up = weight(width, c.mlp_width, fan_in=width)
    self.down = weight(c.mlp_width, width, fan_in=c.mlp_width * depth)


def _rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  wide = x.astype(jnp.float32)
  wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)
  return (wide * scale.astype(jnp.float32)).astype(x.dtype)


def _rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Turns the pairs (e, e + E/2) of x [..., heads, E] by their angles."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos[..., None, :], sin[..., None, :]  # one angle for all heads
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _product(pattern: str, x: jax.Array, weight: jax.Array) -> jax.Array:
  out = jnp.einsum(pattern, x, weight, preferred_element_type=jnp.float32)
  return out.astype(x.dtype)


class Transformer(nnx.Module):
  """The decoder with its weights; see the module docstring."""

  def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
    self.config = config
    shape = (config.vocab_size, config.width)
    scale = config.width**-0.5
    self.embedding = nnx.Param(jax.random.normal(rngs.params(), shape) * scale)
    self.layers = Layers(config, rngs=rngs)
    self.final_norm = nnx.Param(jnp.ones(config.width))
    if not config.tied_embeddings:
      self.head = nnx.Param(
        jax.random.normal(rngs.params(), shape[::-1]) * scale
      )

  def output_embedding(self) -> jax.Array:
    """Returns [D, V], the matrix that turns hidden states into logits."""
    if self.config.tied_embeddings:
      return self.embedding[...].T
    return self.head[...]

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Returns float32 [..., V] for hidden states [..., D]."""
    matrix = self.output_embedding().astype(hidden.dtype)
    logits = jnp.einsum(
      "...d,dv->...v", hidden, matrix, preferred_element_type=jnp.float32
    )
    if (cap := self.config.final_softcap) is not None:
      logits = cap * jnp.tanh(logits / cap)
    return logits

  def hidden(
    self,
    tokens: jax.Array,
    *,
    positions: jax.Array,
    attention_mask: jax.Array,
    cache: Cache | None = None,
  ) -> tuple[jax.Array, Cache | None]:
    """Returns the final hidden states [B, T, D] and the cache, extended.

    Args:
      tokens: int32 [B, T].
      positions: int32 [B, T], index of each token among the real ones.
      attention_mask: bool [B, T, S]; S = T, or the cache's length.
      cache: as `Model.init_cache` gives it; T more tokens are written to it.
    """
    if cache is None:

      def attend_all(layer, carry, q, k, v):
        mask = attention_mask & self._near(layer, positions, positions)
        out = attend(q, k, v, mask, softcap=self.config.attention_softcap)
        return out, carry, None

      hidden, _, _ = self._run(tokens, positions, attend_all)
      return hidden, None

    start = cache["length"]
    seen = jax.lax.dynamic_update_slice(
      cache["positions"], positions, (0, start)
    )

    # The cache is carried and updated in place: as a scanned input and output
    # it would be copied whole at every token.
    def attend_cached(layer, carry, q, k, v):
      at = (layer["index"], 0, start, 0, 0)
      keys = jax.lax.dynamic_update_slice(carry[0], k[None], at)
      values = jax.lax.dynamic_update_slice(carry[1], v[None], at)
      mask = attention_mask & self._near(layer, positions, seen)
      out = attend(
        q,
        jax.lax.dynamic_index_in_dim(keys, at[0], keepdims=False),
        jax.lax.dynamic_index_in_dim(values, at[0], keepdims=False),
        mask,
        softcap=self.config.attention_softcap,
      )
      return out, (keys, values), None

    carry = (cache["keys"], cache["values"])
    hidden, (keys, values), _ = self._run(
      tokens, positions, attend_cached, carry=carry
    )
    return hidden, {
      "keys": keys,
      "values": values,
      "positions": seen,
      "length": start + tokens.shape[1],
    }

  def prompt_forward(
    self, tokens: jax.Array, mask: jax.Array
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Runs prompts [B, P]; a token sees the real ones up to itself.

    Returns:
      hidden [B, P, D], and the keys and values of every layer, each
      [L, B, P, K, E].
    """
    positions = token_positions(mask)
    causal = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))
    visible = causal & mask[:, None, :]

    def attend_prompt(layer, carry, q, k, v):
      near = visible & self._near(layer, positions, positions)
      out = attend(q, k, v, near, softcap=self.config.attention_softcap)
      return out, carry, (k, v)

    hidden, _, keys_values = self._run(tokens, positions, attend_prompt)
    return hidden, keys_values

  def slots_forward(
    self,
    prompt_keys_values: tuple[jax.Array, jax.Array],
    prompt_mask: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
  ) -> jax.Array:
    """Runs completion slots, which see their prompt and themselves.

    Args:
      prompt_keys_values: as `prompt_forward` returns them.
      prompt_mask: bool [B, P].
      tokens: int32 [B, S, C].
      mask: bool [B, S, C].

    Returns:
      hidden [B, S, C, D].
    """
    length = tokens.shape[-1]
    prompt_positions = token_positions(prompt_mask)
    prompt_length = jnp.sum(prompt_mask, axis=-1)
    positions = prompt_length[:, None, None] + token_positions(mask)
    causal = jnp.tril(jnp.ones((length, length), bool))
    visible = causal & mask[:, :, None, :]

    def attend_slot(layer, carry, q, k, v):
      near_prompt = self._near(layer, positions, prompt_positions[:, None])
      out = attend_slots(
        q,
        *layer["extra"],
        near_prompt & prompt_mask[:, None, None, :],
        k,
        v,
        visible & self._near(layer, positions, positions),
        softcap=self.config.attention_softcap,
      )
      return out, carry, None

    hidden, _, _ = self._run(
      tokens, positions, attend_slot, extra=prompt_keys_values
    )
    return hidden

  def _near(self, layer, query_positions, key_positions):
    """Whether the key lies inside the layer's window: bool [..., T, S]."""
    if self.config.windows is None:
      return True
    distance = query_positions[..., :, None] - key_positions[..., None, :]
    return distance < layer["window"]

  def _run(
    self,
    tokens: jax.Array,
    positions: jax.Array,
    attention: Callable,
    *,
    carry: Any = None,
    extra: Any = None,
  ) -> tuple[jax.Array, Any, Any]:
    """Scans the layers.

    Args:
      tokens: int32 [..., T].
      positions: int32 [..., T].
      attention: (layer, carry, q, k, v) -> (out, carry, kept); q, k, v and out
        are [..., T, heads, E].
      carry: what attention hands from layer to layer.
      extra: arrays with a leading axis L, seen as layer["extra"].

    Returns:
      Normed hidden states [..., T, D], carry, and `kept` stacked over layers.
    """
    c = self.config
    dtype = jnp.dtype(c.compute_dtype)
    cos, sin, table = _rotary_tables(c, positions)

    def body(state, layer):
      x, carry = state
      w = layer["weights"]
      at = layer["table"]
      normed = _rms_norm(x, w["attention_norm"], c.norm_eps)
      q = _product("...d,dhe->...he", normed, w["query"])
      k = _product("...d,dke->...ke", normed, w["key"])
      v = _product("...d,dke->...ke", normed, w["value"])
      q, k = _rotate(q, cos[at], sin[at]), _rotate(k, cos[at], sin[at])
      out, carry, kept = attention(layer, carry, q, k, v)
      x = x + _product("...he,hed->...d", out, w["output"])
      normed = _rms_norm(x, w["mlp_norm"], c.norm_eps)
      gate = jax.nn.silu(_product("...d,df->...f", normed, w["gate"]))
      up = _product("...d,df->...f", normed, w["up"])
      x = x + _product("...f,fd->...d", gate * up, w["down"])
      return (x, carry), kept

    weights = nnx.to_pure_dict(nnx.state(self.layers))
    windows = c.windows or (None,) * c.num_layers
    scanned = {
      "weights": _cast(weights, dtype),
      "table": table,
      "index": jnp.arange(c.num_layers),
      "window": jnp.array([w or _NO_WINDOW for w in windows]),
      "extra": extra,
    }
    x = self.embedding[...].astype(dtype)[tokens]
    step = jax.checkpoint(body) if c.remat else body
    (x, carry), kept = jax.lax.scan(step, (x, carry), scanned)
    return _rms_norm(x, self.final_norm[...], c.norm_eps), carry, kept


def _rotary_tables(config: TransformerConfig, positions: jax.Array):
  """Returns cos and sin [R, ..., T, E/2] and each layer's table number [L]."""
  theta = config.rope_theta
  by_layer = theta if isinstance(theta, tuple) else (theta,) * config.num_layers
  bases = sorted(set(by_layer))
  exponents = jnp.arange(0, config.head_dim, 2) / config.head_dim
  frequencies = jnp.stack([base**-exponents for base in bases])  # [R, E/2]
  extra_axes = (1,) * positions.ndim
  frequencies = frequencies.reshape(len(bases), *extra_axes, -1)
  angles = positions[..., None] * frequencies
  table = jnp.array([bases.index(base) for base in by_layer])
  return jnp.cos(angles), jnp.sin(angles), table


def token_positions(mask: jax.Array) -> jax.Array:
  """Returns int32 [..., T]: each token's index among the real ones."""
  return jnp.maximum(jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)


def _cast(tree: Params, dtype: jnp.dtype) -> Params:
  """Casts matrices; norm scales (one axis beside L) stay as stored."""
  return jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 2 else x, tree)
