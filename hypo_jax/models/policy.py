# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The transformer as pure functions, and a policy: functions with weights."""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding

from hypo_jax import scoring
from hypo_jax.batch import Rows, predicting
from hypo_jax.models.config import TransformerConfig
from hypo_jax.models.transformer import Cache, Params, Transformer

# Tokens whose logits exist at once where nothing else is known: at V = 50k and
# 8 rows, 64 tokens are 100 MB.
_CHUNK_SIZE = 64


class Model:
  """The transformer as pure functions of `params`, a nested dict of arrays.

  Hashable by its configuration, so that it can be a static argument of a
  jitted function.

  Args:
    config: the architecture.
    rows: sharding of the leading axis, to which hidden states [B, ...] are held
      between layers. Where weights are cut over the devices that also cut the
      rows, nothing else tells the compiler to gather the weights and leave the
      rows: it may cut the width instead and add up whole batches of
      activations. On TPU and GPU a model that knows its rows also attends with
      the platform's kernel where it can (see `row_attention`). None leaves the
      choice to the compiler.
  """

  def __init__(
    self, config: TransformerConfig, *, rows: NamedSharding | None = None
  ):
    self.config = config
    self.rows = rows
    abstract = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
    self._graphdef, state = nnx.split(abstract)
    self.abstract_params: Params = nnx.to_pure_dict(state)

  def __eq__(self, other):
    return isinstance(other, Model) and (
      (self.config, self.rows) == (other.config, other.rows)
    )

  def __hash__(self):
    return hash((self.config, self.rows))

  def with_rows(self, rows: NamedSharding | None) -> "Model":
    """Returns the same model, its hidden states held to another sharding."""
    other = copy.copy(self)
    other.rows = rows
    return other

  def init(self, key: jax.Array) -> Params:
    """Returns random float32 parameters."""
    module = Transformer(self.config, rngs=nnx.Rngs(params=key))
    return nnx.to_pure_dict(nnx.split(module)[1])

  def bind(self, params: Params) -> Transformer:
    """Returns the module that holds `params`, with their adapter if any."""
    base = {k: v for k, v in params.items() if k != "adapters"}
    module = nnx.merge(self._graphdef, base)
    if "adapters" in params:
      module.adapters = nnx.data(params["adapters"])
    module.rows = self.rows
    return module

  def hidden(self, params, tokens, *, positions, attention_mask, cache=None):
    """See `Transformer.hidden`."""
    return self.bind(params).hidden(
      tokens, positions=positions, attention_mask=attention_mask, cache=cache
    )

  def prompt_forward(self, params, tokens, mask, *, first=0):
    """See `Transformer.prompt_forward`."""
    return self.bind(params).prompt_forward(tokens, mask, first=first)

  def slots_forward(
    self, params, prompt_keys_values, prompt_mask, tokens, mask
  ):
    """See `Transformer.slots_forward`."""
    return self.bind(params).slots_forward(
      prompt_keys_values, prompt_mask, tokens, mask
    )

  def row_hidden(self, params: Params, rows: Rows) -> jax.Array:
    """Returns [B, S, C, D], the hidden states that predict each slot token.

    The first token of every slot is predicted by the prompt's last.
    """
    last, slots = self.bind(params).row_forward(
      rows.prompt_tokens, rows.prompt_mask, rows.slot_tokens, rows.slot_mask
    )
    return predicting(last, slots)

  def row_states(self, params: Params, rows: Rows) -> jax.Array:
    """Returns [B, S, C + 1, D], the hidden states after 0 to C slot tokens.

    `row_hidden` and one more: what the last slot token leaves behind.
    """
    last, slots = self.bind(params).row_forward(
      rows.prompt_tokens, rows.prompt_mask, rows.slot_tokens, rows.slot_mask
    )
    last = jnp.broadcast_to(last[:, None], slots[:, :, :1].shape)
    return jnp.concatenate([last, slots], axis=2)

  def output_embedding(self, params: Params) -> jax.Array:
    """Returns [D, V]."""
    return self.bind(params).output_embedding()

  def apply(self, params, tokens, *, positions, attention_mask, cache=None):
    """The seam that sampling uses: logits [B, T, V] and the cache."""
    module = self.bind(params)
    hidden, cache = module.hidden(
      tokens, positions=positions, attention_mask=attention_mask, cache=cache
    )
    return module.logits(hidden), cache

  def decoder(
    self,
    params: Params,
    prompt_keys_values: tuple[jax.Array, jax.Array],
    prompt_mask: jax.Array,
    *,
    samples_per_prompt: int,
    max_new_tokens: int,
    unroll: bool,
  ) -> tuple[Callable[..., Any], Any]:
    """Returns what `sampling.decode` draws with: a step and an empty cache.

    A prompt's keys and values are kept once, for all of its samples.

    Args:
      params: nested dict of arrays.
      prompt_keys_values: as `prompt_forward` returns them.
      prompt_mask: bool [B, P].
      samples_per_prompt: k; N = B * k completions, a prompt's adjacent.
      max_new_tokens: C.
      unroll: see `Transformer.decoding_layers`.

    Returns:
      step_fn(cache, tokens [N], step) -> (logits [N, V], cache), and the cache.
    """
    module = self.bind(params)
    layers = module.decoding_layers(prompt_keys_values, unroll=unroll)
    rows = prompt_mask.shape[0]

    def step_fn(cache, tokens, step):
      tokens = tokens.reshape(rows, samples_per_prompt)
      hidden, cache = module.decode_step(
        layers, prompt_mask, tokens, step, cache
      )
      return module.logits(hidden.reshape(-1, hidden.shape[-1])), cache

    cache = module.empty_cache(layers, rows, samples_per_prompt, max_new_tokens)
    return step_fn, cache

  def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
    """Returns float32 [..., V] for hidden states [..., D]."""
    return self.bind(params).logits(hidden)

  def init_cache(self, batch_size: int, length: int) -> Cache:
    """Returns an empty cache of `length` tokens for `batch_size` rows."""
    c = self.config
    shape = (c.num_layers, batch_size, c.num_kv_heads, length, c.head_dim)
    dtype = jnp.dtype(c.compute_dtype)
    return {
      "keys": jnp.zeros(shape, dtype),
      "values": jnp.zeros(shape, dtype),
      "positions": jnp.zeros((batch_size, length), jnp.int32),
      "length": jnp.zeros((), jnp.int32),
    }


@dataclasses.dataclass(frozen=True)
class Policy:
  """A model with its weights and tokenizer.

  Attributes:
    apply_fn: the seam of `sampling.sample`, `model.apply`.
    params: nested dict of arrays.
    config: the architecture.
    tokenizer: text to ids and back, or None where the files hold none.
    model: the pure functions.
  """

  apply_fn: Callable[..., Any]
  params: Params
  config: TransformerConfig
  tokenizer: Any
  model: Model

  def log_probs(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Scores every token given the real tokens before it.

    Args:
      tokens: int32 [B, T], padded on either side.
      mask: bool [B, T], True on real tokens.

    Returns:
      float32 [B, T-1], nats: the log-prob of tokens[:, 1:]; 0 where the token
      or its predecessor is padding.
    """
    tokens, mask = jnp.asarray(tokens), jnp.asarray(mask, bool)
    if tokens.ndim != 2 or mask.shape != tokens.shape:
      raise ValueError(
        f"tokens and mask: expected equal shapes [B, T], got {tokens.shape} "
        f"and {mask.shape}"
      )
    return _log_probs(self.model, self.params, tokens, mask)


@partial(jax.jit, static_argnums=0)
def _log_probs(model, params, tokens, mask):
  hidden, _ = model.prompt_forward(params, tokens, mask)
  scored = scoring.token_log_probs_from_hidden(
    hidden[:, :-1],
    model.output_embedding(params),
    tokens[:, 1:],
    chunk_size=max(1, min(_CHUNK_SIZE, tokens.shape[1] - 1)),
    softcap=model.config.final_softcap,
  )
  return jnp.where(mask[:, 1:] & mask[:, :-1], scored, 0.0)
