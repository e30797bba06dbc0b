# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One decoder for all families; `TransformerConfig` says what it has.

The layers' weights are stacked on a leading axis and scanned; what differs
from layer to layer (attention window, rotary table) is an array on the same
axis. `Transformer` is a Flax NNX module; `policy.Model` is the same network as
pure functions of a nested dict of arrays, for training and sampling.

Five ways through the same layers:

    hidden           any tokens under an explicit mask, with or without a cache
    prompt_forward   a left-padded prompt; returns its keys and values too
    slots_forward    completion slots that see a prompt and themselves, causally
    row_forward      the last two in one pass
    decode_step      one more token in every slot, after those of a cache

`row_forward` scores prefix-shared rows (`Model.row_hidden`), `decode_step`
draws them. None of them turns hidden states into logits unless asked
(`logits`): scoring does that in chunks. Of a prompt, only the last token
predicts anything: where no more is asked for, the last layer computes keys and
values of the others and nothing else (`first`).

Attention is the plain form, or for whole prompts, slots and rows, where `rows`
tells of a TPU or GPU, its kernel (`row_attention`).

A policy with an adapter (`lora`) runs the same code: wherever a layer has an
adapter for a product, its low-rank product is added inside the layer.

Axis letters: L layers, D width, H heads, K key-value heads, E head width,
F feed-forward width, V vocabulary; B rows, T tokens, P prompt, S slots or cache
length, C completion.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hypo_jax.models import rotary, row_attention
from hypo_jax.models.attention import attend, attend_slots
from hypo_jax.models.config import TransformerConfig
from hypo_jax.models.layers import Layers, apply_layer, cast_matrices, norm
from hypo_jax.models.row_layout import RowLayout

Params = dict[str, Any]
Cache = dict[str, jax.Array]

# Wider than any sequence: a window of this size hides nothing.
_NO_WINDOW = 1 << 30

# Tokens a layer of the stack from which the last layer is run apart, where only
# the last tokens' hidden states are wanted. Six operations a weight and token
# against some 24 bytes a weight to move, on a machine that does 15 operations
# in the time of a byte, come out even at 60.
_TOKENS_A_LAYER = 128

# Models with so few layers are not scanned: what a layer keeps for its gradient
# is then read where it was written, not through a stack of all layers'.
_UNROLLED_LAYERS = 4

# A prompt's queries attend in so many blocks, of so many queries or more; four
# leave out three eighths of the products with keys that come later.
_QUERY_BLOCKS, _QUERY_BLOCK_SIZE = 4, 64


def _heads_first(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """[B, T, K, E] -> [B, K, T, E], and back."""
  return tuple(x.swapaxes(1, 2) for x in arrays)


def _flat(slots: jax.Array) -> jax.Array:
  """[B, S, C, ...] -> [B, S C, ...]."""
  return slots.reshape(slots.shape[0], -1, *slots.shape[3:])


def _joined(prompt: jax.Array, slots: jax.Array) -> jax.Array:
  """[B, P, ...] and [B, S, C, ...] -> [B, P + S C, ...]."""
  return jnp.concatenate([prompt, _flat(slots)], axis=1)


class Transformer(nnx.Module):
  """The decoder with its weights; see the module docstring."""

  def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
    self.config = config
    shape = (config.vocab_size, config.width)
    scale = config.width**-0.5
    # `Model.bind` puts both in.
    self.adapters = nnx.data({"layers": {}})
    self.rows = None
    self.embedding = nnx.Param(jax.random.normal(rngs.params(), shape) * scale)
    if config.learned_positions:
      self.position_embedding = nnx.Param(
        jax.random.normal(rngs.params(), (config.max_positions, config.width))
        * scale
      )
    self.layers = Layers(config, rngs=rngs)
    self.final_norm = nnx.Param(
      jnp.full(config.width, 1.0 - config.norm_offset)
    )
    if config.norm == "layer":
      self.final_norm_bias = nnx.Param(jnp.zeros(config.width))
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
        k, v = _heads_first(k, v)
        out = attend(q, k, v, mask, **self._score_settings())
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
      at = (layer.get("index", 0), 0, 0, start, 0)
      k, v = _heads_first(k, v)
      keys = jax.lax.dynamic_update_slice(carry[0], k[None], at)
      values = jax.lax.dynamic_update_slice(carry[1], v[None], at)
      mask = attention_mask & self._near(layer, positions, seen)
      out = attend(
        q,
        jax.lax.dynamic_index_in_dim(keys, at[0], keepdims=False),
        jax.lax.dynamic_index_in_dim(values, at[0], keepdims=False),
        mask,
        **self._score_settings(),
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
    self, tokens: jax.Array, mask: jax.Array, *, first: int = 0
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Runs prompts [B, P]; a token sees the real ones up to itself.

    Args:
      tokens: int32 [B, P].
      mask: bool [B, P].
      first: hidden states are returned from this position on.

    Returns:
      hidden [B, P - first, D], and the keys and values of every layer, each
      [L, B, K, P, E].
    """

    length = mask.shape[1]
    kernel = self._kernel(RowLayout(length, 1))  # Of a row without slots.

    def attend_prompt(layer, carry, q, k, v):
      keys_values = _heads_first(k, v)
      # The last tokens alone have few scores.
      if kernel is not None and q.shape[1] == length:
        out = kernel(q, k, v, mask, layer["window"])
      else:
        out = self._attend_prompt(layer, mask, q, *keys_values)
      return out, carry, keys_values

    hidden, _, keys_values = self._run(
      tokens,
      token_positions(mask),
      attend_prompt,
      first=first,
      longest=length,
    )
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

    kernel = self._kernel(RowLayout(prompt_mask.shape[1], mask.shape[2]))

    def attend_slot(layer, carry, q, k, v):
      prompt = layer["extra"]
      if kernel is None:
        out = self._attend_slots(layer, prompt_mask, mask, prompt, q, k, v)
        return out, carry, None
      keys, values = map(_joined, _heads_first(*prompt), (k, v))
      real = _joined(prompt_mask, mask)
      out = kernel(_flat(q), keys, values, real, layer["window"])
      return out.reshape(q.shape), carry, None

    hidden, _, _ = self._run(
      tokens,
      slot_positions(prompt_mask, mask),
      attend_slot,
      extra=prompt_keys_values,
      longest=prompt_mask.shape[1] + mask.shape[2],
    )
    return hidden

  def row_forward(
    self,
    prompt_tokens: jax.Array,
    prompt_mask: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    """Runs `prompt_forward` and `slots_forward` in one pass over the layers.

    Everything but attention runs on the row as it lies, prompt and slots side
    by side: each layer's weights are read, gathered from other devices and
    given a gradient once, not twice.

    Args:
      prompt_tokens: int32 [B, P].
      prompt_mask: bool [B, P].
      tokens: int32 [B, S, C].
      mask: bool [B, S, C].

    Returns:
      hidden [B, 1, D] of the prompts' last tokens and [B, S, C, D] of the
      slots.
    """
    rows, length = prompt_tokens.shape
    slots = tokens.shape[1:]

    def cut(x):
      """Undoes `_joined`, of any number of the prompt's last tokens."""
      prompt, flat = jnp.split(x, [x.shape[1] - slots[0] * slots[1]], axis=1)
      return prompt, flat.reshape(rows, *slots, *x.shape[2:])

    kernel = self._kernel(RowLayout(length, slots[1]))

    def attend_row(layer, carry, q, k, v):
      if kernel is not None:
        real = _joined(prompt_mask, mask)
        return kernel(q, k, v, real, layer["window"]), carry, None
      (q, slot_q), (k, slot_k), (v, slot_v) = map(cut, (q, k, v))
      k, v = _heads_first(k, v)
      prompt = self._attend_prompt(layer, prompt_mask, q, k, v)
      slot = self._attend_slots(
        layer, prompt_mask, mask, (k, v), slot_q, slot_k, slot_v
      )
      return _joined(prompt, slot), carry, None

    hidden, _, _ = self._run(
      _joined(prompt_tokens, tokens),
      _joined(token_positions(prompt_mask), slot_positions(prompt_mask, mask)),
      attend_row,
      first=length - 1,
      longest=length + slots[1],
    )
    return cut(hidden)

  def decoding_layers(
    self, prompt_keys_values: tuple[jax.Array, jax.Array], *, unroll: bool
  ) -> list[Params]:
    """Returns the layers as `decode_step` takes them, in groups.

    On CPU a layer that a scan cuts from the stack is copied, at every token
    (and a GPU takes twice as long). Cut apart once, before the tokens, it is
    read where it lies.

    Args:
      prompt_keys_values: as `prompt_forward` returns them.
      unroll: each layer apart; else all layers scanned.
    """
    num_layers = self.config.num_layers
    sizes = (1,) * num_layers if unroll else (num_layers,)
    return self._layer_groups(sizes, prompt_keys_values)

  def empty_cache(
    self, layers: list[Params], rows: int, slots: int, length: int
  ) -> list[tuple[jax.Array, jax.Array]]:
    """Returns keys and values of no tokens, for `decode_step`.

    Of layers apart, [B, K S, C, E] each; of scanned ones, [L, B, K S, C, E]:
    without axes of one element, for which XLA would copy it at every token.

    Args:
      layers: of `decoding_layers`.
      rows: B.
      slots: S.
      length: C.
    """
    c = self.config
    shape = (rows, c.num_kv_heads * slots, length, c.head_dim)

    def empty(group):
      stack = group["index"].shape if "index" in group else ()
      zeros = jnp.zeros((*stack, *shape), jnp.dtype(c.compute_dtype))
      return zeros, zeros

    return [empty(group) for group in layers]

  def decode_step(
    self,
    layers: list[Params],
    prompt_mask: jax.Array,
    tokens: jax.Array,
    step: jax.Array,
    cache: list[tuple[jax.Array, jax.Array]],
  ) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
    """Runs one more token of every slot.

    Args:
      layers: of `decoding_layers`.
      prompt_mask: bool [B, P].
      tokens: int32 [B, S], the slots' tokens number `step`.
      step: int32 scalar.
      cache: of `empty_cache`; updated in place.

    Returns:
      hidden [B, S, D] and the cache, with this token in it.
    """
    prompt_length = jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32)
    at = prompt_length[:, None, None]  # [B, 1, 1], as positions [B, S, T]
    prompt_positions = token_positions(prompt_mask)[:, None]
    steps = jnp.arange(cache[0][0].shape[-2], dtype=jnp.int32)
    rows, slots = tokens.shape

    def put(layer, old, new):
      """Adds [B, S, 1, K, E]; returns the cache and the layer's part of it."""
      new = new.transpose(0, 3, 1, 2, 4).reshape(rows, -1, 1, new.shape[-1])
      if "index" not in layer:
        cache = jax.lax.dynamic_update_slice(old, new, (0, 0, step, 0))
        return cache, cache
      at = layer["index"]
      start = (at, 0, 0, step, 0)
      cache = jax.lax.dynamic_update_slice(old, new[None], start)
      return cache, jax.lax.dynamic_index_in_dim(cache, at, keepdims=False)

    def attend_step(layer, carry, q, k, v):
      keys_cache, keys = put(layer, carry[0], k)
      values_cache, values = put(layer, carry[1], v)
      shape = (rows, k.shape[3], slots, *keys.shape[2:])
      near_prompt = self._near(layer, at + step, prompt_positions)
      near = self._near(layer, at + step, at + steps)
      out = attend_slots(
        q,
        *layer["extra"],
        near_prompt & prompt_mask[:, None, None],
        keys.reshape(shape),
        values.reshape(shape),
        near & (steps <= step)[None, None, None],
        **self._score_settings(),
      )
      return out, (keys_cache, values_cache), None

    positions = jnp.broadcast_to(at + step, (*tokens.shape, 1))
    hidden, cache, _ = self._run_groups(
      layers, tokens[..., None], positions, attend_step, cache
    )
    return hidden[..., 0, :], cache

  def _attend_prompt(self, layer, mask, q, k, v):
    """Attention of prompts' last tokens, causally; keys lie heads first."""
    length = mask.shape[1]
    first = length - q.shape[1]
    positions = token_positions(mask)
    causal = jnp.tril(jnp.ones((length, length), bool))
    parts = []
    size = max(_QUERY_BLOCK_SIZE, -(-length // _QUERY_BLOCKS))
    for start in range(first, length, size):
      stop = min(start + size, length)
      visible = causal[start:stop, :stop] & mask[:, None, :stop]
      near = self._near(layer, positions[:, start:stop], positions[:, :stop])
      parts.append(
        attend(
          q[:, start - first : stop - first],
          k[:, :, :stop],
          v[:, :, :stop],
          visible & near,
          **self._score_settings(),
        )
      )
    return jnp.concatenate(parts, axis=1)

  def _attend_slots(
    self, layer, prompt_mask, mask, prompt_keys_values, q, k, v
  ):
    """Attention of slots to their prompt, heads first, and to themselves."""
    length = mask.shape[-1]
    positions = slot_positions(prompt_mask, mask)
    prompt_positions = token_positions(prompt_mask)[:, None]
    near_prompt = self._near(layer, positions, prompt_positions)
    causal = jnp.tril(jnp.ones((length, length), bool))
    visible = causal & mask[:, :, None, :]
    k, v = (x.transpose(0, 3, 1, 2, 4) for x in (k, v))  # [B, K, S, C, E]
    return attend_slots(
      q,
      *prompt_keys_values,
      near_prompt & prompt_mask[:, None, None, :],
      k,
      v,
      visible & self._near(layer, positions, positions),
      **self._score_settings(),
    )

  def _kernel(self, layout: RowLayout) -> row_attention.Kernel | None:
    """Returns what attends in a row, where `rows` tells of a TPU or GPU."""
    return row_attention.kernel(
      self.rows, self.config, layout, **self._score_settings()
    )

  def _score_settings(self) -> dict[str, Any]:
    c = self.config
    scale = c.head_dim**-0.5 if c.query_scale is None else c.query_scale
    return {"scale": scale, "softcap": c.attention_softcap}

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
    first: int = 0,
    longest: int | None = None,
  ) -> tuple[jax.Array, Any, Any]:
    """Runs all layers, in one scan or, where `first` is not 0, in two.

    Args:
      tokens: int32 [..., T]; [B, T] where first is not 0.
      positions: int32 [..., T].
      attention: (layer, carry, q, k, v) -> (out, carry, kept); k and v are
        [..., T, K, E], q and out [..., T, H, E], of the last tokens only in
        the last layer if first is not 0.
      carry: what attention hands from layer to layer; None if first is not 0.
      extra: arrays with a leading axis L, seen as layer["extra"].
      first: the last layer gives hidden states from this token on only.
      longest: all positions lie below, if it is known.

    Returns:
      Normed hidden states [..., T - first, D], carry, and `kept` stacked over
      layers.
    """
    num_layers = self.config.num_layers
    # Cutting the last layer from the stack copies all weights, and gathers
    # their gradients again; it pays where that many tokens are left out.
    apart = tokens.shape[0] * first >= _TOKENS_A_LAYER * num_layers
    sizes = (num_layers - 1, 1) if apart else (num_layers,)
    if num_layers <= _UNROLLED_LAYERS and carry is None:
      sizes, apart = (1,) * num_layers, bool(first)
    groups = self._layer_groups(sizes, extra)
    hidden, carries, kept = self._run_groups(
      groups,
      tokens,
      positions,
      attention,
      [carry] * len(groups),
      first=first if apart else 0,
      longest=longest,
    )
    if len(kept) > 1:
      kept = [jax.tree.map(lambda *x: jnp.concatenate(x), *kept)]
    if first and not apart:
      hidden = hidden[:, first:]
    return hidden, carries[-1], kept[0]

  def _layer_groups(self, sizes: tuple[int, ...], extra: Any) -> list[Params]:
    """Returns what differs by layer, cut into groups of so many layers.

    One layer alone has no layer axis; more are stacked, and have "index".
    """
    c = self.config
    windows = c.windows or (None,) * c.num_layers
    weights = nnx.to_pure_dict(nnx.state(self.layers))
    layers = {
      "weights": cast_matrices(weights, jnp.dtype(c.compute_dtype)),
      "adapters": self.adapters["layers"],
      "table": rotary.table_numbers(c),
      "window": jnp.array([w or _NO_WINDOW for w in windows]),
      "extra": extra,
    }
    groups, start = [], 0
    for size in sizes:
      stop = start + size
      if size == 1:
        groups.append(jax.tree.map(lambda x, at=start: x[at], layers))
      elif size:
        cut = layers
        if size < c.num_layers:
          cut = jax.tree.map(lambda x, a=start, b=stop: x[a:b], layers)
        groups.append(cut | {"index": jnp.arange(size)})
      start = stop
    return groups

  def _run_groups(
    self,
    groups: list[Params],
    tokens: jax.Array,
    positions: jax.Array,
    attention: Callable,
    carries: list[Any],
    first: int = 0,
    longest: int | None = None,
  ) -> tuple[jax.Array, list[Any], list[Any]]:
    """Runs each group of layers; see `_run`. One carry a group."""
    c = self.config
    layer = partial(
      apply_layer,
      config=c,
      tables=rotary.tables(c, positions, longest),
      attention=attention,
      held=self._held,
    )
    x = self._held(self._embed(tokens, positions))
    carried, kept = [], []
    for number, (group, carry) in enumerate(zip(groups, carries, strict=True)):
      step = partial(layer, first=first if number == len(groups) - 1 else 0)
      step = jax.checkpoint(step) if c.remat else step
      if "index" in group:
        (x, carry), found = jax.lax.scan(step, (x, carry), group)
      else:
        (x, carry), found = step((x, carry), group)
        found = jax.tree.map(lambda a: a[None], found)
      carried.append(carry)
      kept.append(found)
    final = {"final_norm": self.final_norm[...]}
    if c.norm == "layer":
      final["final_norm_bias"] = self.final_norm_bias[...]
    return norm(c, x, final, "final_norm"), carried, kept

  def _held(self, x: jax.Array) -> jax.Array:
    """Keeps rows where they are: see `Model`."""
    if self.rows is None:
      return x
    return jax.lax.with_sharding_constraint(x, self.rows)

  def _embed(self, tokens, positions) -> jax.Array:
    dtype = jnp.dtype(self.config.compute_dtype)
    x = self.embedding[...].astype(dtype)[tokens]
    if self.config.embedding_scale != 1.0:
      x = x * jnp.asarray(self.config.embedding_scale, dtype)
    if self.config.learned_positions:
      x = x + self.position_embedding[...].astype(dtype)[positions]
    return x


def token_positions(mask: jax.Array) -> jax.Array:
  """Returns int32 [..., T]: each token's index among the real ones."""
  return jnp.maximum(jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)


def slot_positions(prompt_mask: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns int32 [B, S, C], which go on from the prompt's last real token."""
  prompt_length = jnp.sum(prompt_mask, axis=-1)
  return prompt_length[:, None, None] + token_positions(mask)
