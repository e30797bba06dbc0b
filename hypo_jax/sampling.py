# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Completions drawn token by token from any model behind one function.

    y_t ~ softmax(logits_t / temperature), logits_t = f(prompt, y_<t)

A model is `apply_fn(params, tokens [N, T], *, positions [N, T],
attention_mask [N, T, S], cache=None) -> (logits [N, T, V], cache)`. One with a
cache writes T more keys after those it holds; attention_mask then spans the
cache's S = P + max_new_tokens slots, laid out as [ prompt P | completion C ].
One without returns None for it and runs over all S = T slots at every step:
correct and slow. Every query sees at least itself, padding included, so that no
softmax is empty and no nan can leak out of an unused row.

`decode` is the loop alone, for a model that has run its prompts already and
keeps each once for all of its samples (`models.Model.decoder`); it draws what
`sample` draws.

The noise of a token is a function of its row's key, its sample number and its
position alone, so what is drawn does not depend on the rest of the batch, on
micro-batches or on the mesh. A token is drawn in two: first a group of adjacent
tokens, by the group's probability, then one of the group's, by its share. That
is the same distribution from few random numbers, where one a token of the
vocabulary would take longer than a small model's layers.

The token that is scored is the token that is drawn: no token is banned, the pad
token included, because a policy trained on a sampler with a blind spot moves
its mass there.

Nothing here knows text, rewards or meshes, and there is no beam search.
"""

import numbers
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hypo_jax.batch import Completions

# Steps between two looks at whether every row has ended. A look brings all
# devices together and, on a GPU, the answer back to the host: not at every
# step. The price is that up to fifteen steps run in vain.
_CHUNK_SIZE = 16

# Tokens of the vocabulary that are drawn from as one group.
_GROUP_SIZE = 128


class _State(NamedTuple):
  """What decoding carries from token to token.

  Attributes:
    step: int32 scalar, tokens drawn so far.
    ended: bool [N], rows that have drawn an EOS.
    last: int32 [N], the newest token, which the model has not seen yet.
    drawn: Completions [N, C or a little more], filled up to `step`.
    cache: the model's own, or None.
  """

  step: jax.Array
  ended: jax.Array
  last: jax.Array
  drawn: Completions
  cache: Any


def sample(
  apply_fn: Callable[..., tuple[jax.Array, Any]],
  params: Any,
  prompt_tokens: jax.Array,
  prompt_mask: jax.Array,
  key: jax.Array,
  *,
  max_new_tokens: int,
  eos_token_id: int | tuple[int, ...],
  pad_token_id: int,
  samples_per_prompt: int = 1,
  temperature: float = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  init_cache: Callable[[int, int], Any] | None = None,
) -> Completions:
  """Draws completions; N = B * samples_per_prompt, C = max_new_tokens.

  Call it under jax.jit, with the keyword arguments static: outside, the decode
  loop is compiled again at every call.

  Args:
    apply_fn: the model, as in the module docstring.
    params: its parameters, any pytree.
    prompt_tokens: integer [B, P], left-padded.
    prompt_mask: bool [B, P], True on real tokens, at least one a row. That all
      padding is on the left is checked where the values are known: not under
      jit, nor for an array that spans processes.
    key: a typed threefry key, folded with each row's index; or [B] of them, one
      a row, already folded with whatever names the row.
    max_new_tokens: C >= 1.
    eos_token_id: the token that ends a completion, or several such.
    pad_token_id: fills a completion after its EOS. The model may draw it like
      any other token, and it is then scored like any other.
    samples_per_prompt: >= 1; sample i of a row is the same for any number.
    temperature: >= 0, divides the logits; 0 takes the likeliest token.
    top_k: >= 1, draws from the k likeliest tokens only, ties going to the lower
      token; V or more keeps all.
    top_p: in (0, 1], draws from the fewest likeliest tokens whose probabilities
      (after top_k) reach it only.
    init_cache: (rows, S) -> empty cache, each leaf with at most one axis that
      follows rows; None to run without a cache.

  Returns:
    Completions: tokens int32 [N, C], mask bool [N, C] with the first EOS
    included, and token_log_probs float32 [N, C]: log softmax(logits /
    temperature) before top_k and top_p (temperature 1 if it is 0). After the
    EOS: pad_token_id, False, 0. Rows of one prompt are adjacent.

  Raises:
    ValueError: a shape, dtype, range or count is wrong.
  """
  _check_count("max_new_tokens", max_new_tokens)
  _check_count("samples_per_prompt", samples_per_prompt)
  _check_token_id("pad_token_id", pad_token_id)
  eos_token_ids = _eos_token_ids(eos_token_id)
  _check_distribution(temperature, top_k, top_p)
  prompt_tokens = jnp.asarray(prompt_tokens)
  prompt_mask = jnp.asarray(prompt_mask)
  _check_prompts(prompt_tokens, prompt_mask)
  _check_key(key, prompt_tokens.shape[0])

  prompt_tokens = prompt_tokens.astype(jnp.int32)
  rows = prompt_tokens.shape[0]
  # Every completion slot counts as real: those not yet drawn lie in the future.
  real = jnp.pad(
    prompt_mask, ((0, 0), (0, max_new_tokens)), constant_values=True
  )
  repeat = partial(jnp.repeat, repeats=samples_per_prompt, axis=0)
  if init_cache is None:
    cache = None
    forward = _full_forward(
      apply_fn, params, repeat(prompt_tokens), repeat(real)
    )
  else:
    cache = _prefill(
      apply_fn, params, init_cache, prompt_tokens, real, samples_per_prompt
    )
    forward = _cached_forward(
      apply_fn, params, repeat(real), prompt_tokens.shape[1]
    )
  return _decode(
    forward,
    _new_state(
      repeat(prompt_tokens[:, -1]), cache, max_new_tokens, pad_token_id
    ),
    partial(_draw, temperature=temperature, top_k=top_k, top_p=top_p),
    _sample_keys(key, rows, samples_per_prompt),
    max_new_tokens=max_new_tokens,
    eos_token_ids=eos_token_ids,
    pad_token_id=pad_token_id,
  )


def decode(
  step_fn: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]],
  cache: Any,
  logits: jax.Array,
  key: jax.Array,
  *,
  samples_per_prompt: int,
  max_new_tokens: int,
  eos_token_id: int | tuple[int, ...],
  pad_token_id: int,
  temperature: float = 1.0,
) -> Completions:
  """Draws completions of prompts that were run already.

  Args:
    step_fn: (cache, tokens int32 [N], step) -> (logits [N, V], cache); runs the
      tokens number `step` (0 is a completion's first) of all completions.
    cache: what step_fn takes, before any token.
    logits: float [B, V], of the first token of each prompt's completions.
    key: as in `sample`.
    samples_per_prompt: as in `sample`; N = B * samples_per_prompt.
    max_new_tokens: C >= 1.
    eos_token_id: as in `sample`.
    pad_token_id: as in `sample`.
    temperature: > 0, divides the logits.

  Returns:
    As `sample`, and the same draws.

  Raises:
    ValueError: a shape, dtype, range or count is wrong.
  """
  _check_distribution(temperature, None, None)
  _check_count("max_new_tokens", max_new_tokens)
  _check_count("samples_per_prompt", samples_per_prompt)
  _check_token_id("pad_token_id", pad_token_id)
  if jnp.ndim(logits) != 2:
    _refuse("logits", "shape [B, V]", f"shape {jnp.shape(logits)}")
  _check_key(key, logits.shape[0])
  logits = jnp.repeat(logits, samples_per_prompt, axis=0)
  last = jnp.zeros(logits.shape[0], jnp.int32)  # of the prompt: not needed
  return _decode(
    lambda state: step_fn(state.cache, state.last, state.step - 1),
    _new_state(last, cache, max_new_tokens, pad_token_id),
    partial(_draw, temperature=temperature, top_k=None, top_p=None),
    _sample_keys(
      key, logits.shape[0] // samples_per_prompt, samples_per_prompt
    ),
    first_logits=logits,
    max_new_tokens=max_new_tokens,
    eos_token_ids=_eos_token_ids(eos_token_id),
    pad_token_id=pad_token_id,
  )


def num_looks(max_new_tokens: int) -> int:
  """Returns how often decoding looks at whether every row has ended, at most.

  So often its outer loop runs, equally many steps each time. (`decode`, which
  knows the first token's logits, loops over one token less.)
  """
  return -(-max_new_tokens // _CHUNK_SIZE)


def _new_state(
  last: jax.Array, cache: Any, max_new_tokens: int, pad_token_id: int
) -> _State:
  """Returns the state before any draw; `last` int32 [N]."""
  # Chunks of equal size, so that at most one step a chunk lies beyond C; what
  # those steps draw is cut off, wherever the model puts their keys.
  shape = (last.shape[0], max_new_tokens + num_looks(max_new_tokens))
  return _State(
    jnp.zeros((), jnp.int32),
    jnp.zeros(shape[:1], bool),
    last,
    Completions(
      tokens=jnp.full(shape, pad_token_id, jnp.int32),
      mask=jnp.zeros(shape, bool),
      token_log_probs=jnp.zeros(shape, jnp.float32),
    ),
    cache,
  )


def _decode(
  forward: Callable[[_State], tuple[jax.Array, Any]],
  start: _State,
  draw: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
  keys: jax.Array,
  *,
  max_new_tokens: int,
  eos_token_ids: tuple[int, ...],
  pad_token_id: int,
  first_logits: jax.Array | None = None,
) -> Completions:
  """Draws token after token until every row has ended or is full.

  Args:
    forward: state -> logits [N, V] of the next token, cache.
    start: of `_new_state`.
    draw: (key, logits [V]) -> token, log-prob.
    keys: [N], one a completion.
    max_new_tokens: C.
    eos_token_ids: any of them ends a completion.
    pad_token_id: what follows.
    first_logits: [N, V] of the first token, where they are known.
  """

  def put(state: _State, logits: jax.Array, cache: Any) -> _State:
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)
    tokens, log_probs = jax.vmap(draw)(step_keys, logits.astype(jnp.float32))
    drawn = Completions(
      tokens=jnp.where(state.ended, pad_token_id, tokens),
      mask=~state.ended,
      token_log_probs=jnp.where(state.ended, 0.0, log_probs),
    )
    is_eos = (tokens[:, None] == jnp.asarray(eos_token_ids)).any(axis=-1)
    return _State(
      state.step + 1,
      state.ended | is_eos,
      drawn.tokens,
      jax.tree.map(
        lambda all_steps, one: lax.dynamic_update_slice_in_dim(
          all_steps, one[:, None], state.step, axis=1
        ),
        state.drawn,
        drawn,
      ),
      cache,
    )

  def unfinished(state: _State) -> jax.Array:
    return (state.step < max_new_tokens) & ~state.ended.all()

  def step(state: _State, _) -> tuple[_State, None]:
    return put(state, *forward(state)), None

  left = max_new_tokens
  if first_logits is not None:
    start, left = put(start, first_logits, start.cache), left - 1
  if left:
    chunk_size = -(-left // num_looks(left))
    start = lax.while_loop(
      unfinished,
      lambda state: lax.scan(step, state, length=chunk_size)[0],
      start,
    )
  return jax.tree.map(lambda x: x[:, :max_new_tokens], start.drawn)


def _full_forward(apply_fn, params, prompt_tokens, real):
  """Returns a forward of all S slots; prompt_tokens [N, P], real [N, S]."""
  prompt_length, length = prompt_tokens.shape[1], real.shape[1]
  positions, visible = _positions(real), _visible(real, jnp.arange(length))

  def forward(state: _State) -> tuple[jax.Array, None]:
    tokens = jnp.concatenate([prompt_tokens, state.drawn.tokens], axis=1)
    tokens = tokens[:, :length]
    logits, _ = apply_fn(
      params, tokens, positions=positions, attention_mask=visible, cache=None
    )
    _check_logits(logits, tokens.shape)
    newest = prompt_length - 1 + state.step
    return lax.dynamic_index_in_dim(logits, newest, 1, keepdims=False), None

  return forward


def _cached_forward(apply_fn, params, real, prompt_length: int):
  """Returns a forward of the newest token; real [N, S]."""
  positions = _positions(real)

  def forward(state: _State) -> tuple[jax.Array, Any]:
    newest = prompt_length - 1 + state.step
    logits, cache = apply_fn(
      params,
      state.last[:, None],
      positions=lax.dynamic_slice_in_dim(positions, newest, 1, axis=1),
      attention_mask=_visible(real, newest[None]),
      cache=state.cache,
    )
    _check_logits(logits, (real.shape[0], 1))
    _check_cache(cache)
    return logits[:, 0], cache

  return forward


def _prefill(
  apply_fn, params, init_cache, prompt_tokens, real, samples_per_prompt: int
) -> Any:
  """Returns a cache of N rows that holds all of the prompts but a token.

  The last token is left to the first decode step. Logits of whole prompts are
  then used by nobody, and under jit are never computed: 64 prompts of 512
  tokens over 128k words would be 17 GB of them.
  """
  rows, length = real.shape
  cache = init_cache(rows, length)
  filled = prompt_tokens.shape[1] - 1
  if filled:
    _, cache = apply_fn(
      params,
      prompt_tokens[:, :filled],
      positions=_positions(real)[:, :filled],
      attention_mask=_visible(real, jnp.arange(filled)),
      cache=cache,
    )
    _check_cache(cache)
  if samples_per_prompt == 1:
    return cache
  repeated_rows = rows * samples_per_prompt
  before = jax.eval_shape(lambda: init_cache(rows, length))
  after = jax.eval_shape(lambda: init_cache(repeated_rows, length))

  def repeat(leaf, leaf_before, leaf_after):
    sizes = zip(leaf_before.shape, leaf_after.shape, strict=True)
    changed = [(i, pair) for i, pair in enumerate(sizes) if pair[0] != pair[1]]
    if not changed:
      return leaf
    if [pair for _, pair in changed] != [(rows, repeated_rows)]:
      _refuse(
        "init_cache",
        f"one axis of {rows} rows for {rows} rows, {repeated_rows} for "
        f"{repeated_rows}, in each leaf",
        f"a leaf of shapes {leaf_before.shape} and {leaf_after.shape}",
      )
    return jnp.repeat(leaf, samples_per_prompt, axis=changed[0][0])

  return jax.tree.map(repeat, cache, before, after)


def _draw(
  key: jax.Array,
  logits: jax.Array,
  *,
  temperature: float,
  top_k: int | None,
  top_p: float | None,
) -> tuple[jax.Array, jax.Array]:
  """Draws one token from float32 logits [V]; returns it and its log-prob."""
  scaled = logits if temperature == 0 else logits / temperature
  if temperature == 0:
    token = jnp.argmax(logits)
  else:
    token = _categorical(key, _truncate(scaled, top_k, top_p))
  token = token.astype(jnp.int32)
  # A masked sum, not a gather: a gather along a vocabulary that is sharded over
  # devices would bring the logits together first.
  hit = jnp.arange(logits.shape[0]) == token
  picked = jnp.where(hit, scaled, 0.0).sum()
  return token, picked - jax.nn.logsumexp(scaled)


def _categorical(key: jax.Array, logits: jax.Array) -> jax.Array:
  """Draws a token from logits [V]: a group of tokens, then one of them."""
  size = logits.shape[0]
  if size <= _GROUP_SIZE:
    return jax.random.categorical(key, logits)
  num_groups = -(-size // _GROUP_SIZE)
  padding = (0, num_groups * _GROUP_SIZE - size)
  padded = jnp.pad(logits, padding, constant_values=-jnp.inf)
  groups = padded.reshape(num_groups, _GROUP_SIZE)
  group_key, token_key = jax.random.split(key)
  group = jax.random.categorical(group_key, jax.nn.logsumexp(groups, axis=-1))
  hit = jnp.arange(num_groups)[:, None] == group
  own = jnp.where(hit, groups, 0.0).sum(axis=0)
  return group * _GROUP_SIZE + jax.random.categorical(token_key, own)


def _truncate(
  logits: jax.Array, top_k: int | None, top_p: float | None
) -> jax.Array:
  """Returns logits [V], -inf outside the top_k tokens and the top_p mass."""
  # Rounding lets a running sum reach 1 early, but 1 means everything.
  top_p = None if top_p == 1 else top_p
  if top_k is None and top_p is None:
    return logits
  size = logits.shape[0]
  values, tokens = lax.top_k(logits, min(top_k or size, size))
  if top_p is not None:
    reached = jnp.cumsum(jax.nn.softmax(values))
    before = jnp.pad(reached[:-1], (1, 0))
    values = jnp.where(before < top_p, values, -jnp.inf)
  # Back to the tokens' own places, so that each keeps its own noise.
  return jnp.full_like(logits, -jnp.inf).at[tokens].set(values)


def _positions(real: jax.Array) -> jax.Array:
  """Returns int32 [N, S]: each slot's index among its row's real ones."""
  return jnp.maximum(jnp.cumsum(real, axis=1, dtype=jnp.int32) - 1, 0)


def _visible(real: jax.Array, queries: jax.Array) -> jax.Array:
  """Returns bool [N, T, S]: real slots up to each query [T], and itself.

  P = 3 with one token of padding, C = 2, all five queries:

      1 0 0 0 0    padding sees itself alone
      0 1 0 0 0
      0 1 1 0 0
      0 1 1 1 0
      0 1 1 1 1
  """
  slots, queries = jnp.arange(real.shape[1]), queries[:, None]
  return (slots <= queries) & (real[:, None, :] | (slots == queries))


def _sample_keys(
  key: jax.Array, num_rows: int, samples_per_prompt: int
) -> jax.Array:
  """Returns keys [N], one a completion."""
  fold = jax.vmap(jax.random.fold_in, (None, 0))
  row_keys = key if key.ndim else fold(key, jnp.arange(num_rows))
  samples = jnp.arange(samples_per_prompt)
  return jax.vmap(fold, (0, None))(row_keys, samples).reshape(-1)


def _eos_token_ids(eos_token_id: int | tuple[int, ...]) -> tuple[int, ...]:
  ids = eos_token_id
  ids = tuple(ids) if isinstance(ids, (tuple, list)) else (ids,)
  if not ids:
    _refuse("eos_token_id", "an int or at least one", eos_token_id)
  for token_id in ids:
    _check_token_id("eos_token_id", token_id)
  return ids


def _check_prompts(prompt_tokens: jax.Array, prompt_mask: jax.Array) -> None:
  if prompt_tokens.ndim != 2 or 0 in prompt_tokens.shape:
    expected = "shape [B, P], neither of them 0"
    _refuse("prompt_tokens", expected, f"shape {prompt_tokens.shape}")
  if not jnp.issubdtype(prompt_tokens.dtype, jnp.integer):
    _refuse("prompt_tokens", "an integer dtype", prompt_tokens.dtype)
  if prompt_mask.shape != prompt_tokens.shape:
    expected = f"prompt_tokens' shape {prompt_tokens.shape}"
    _refuse("prompt_mask", expected, f"shape {prompt_mask.shape}")
  if prompt_mask.dtype != jnp.bool_:
    _refuse("prompt_mask", "dtype bool", prompt_mask.dtype)
  known = not isinstance(prompt_mask, jax.core.Tracer)
  if known and prompt_mask.is_fully_addressable:
    mask = jax.device_get(prompt_mask)
    left_padded = (mask[:, 1:] >= mask[:, :-1]).all(axis=1) & mask[:, -1]
    if not left_padded.all():
      row = int(left_padded.argmin())
      expected = "left padding, at least one real token"
      _refuse("prompt_mask", expected, f"{mask[row].astype(int)} in row {row}")


def _check_key(key: jax.Array, num_rows: int) -> None:
  dtype = getattr(key, "dtype", None)
  if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
    expected = "a typed key, as jax.random.key gives"
    _refuse("key", expected, f"{type(key).__name__} of dtype {dtype}")
  if key.shape not in ((), (num_rows,)):
    _refuse("key", f"shape () or ({num_rows},)", f"shape {key.shape}")
  # Others' draws under vmap depend on the whole batch of keys.
  if jax.random.key_impl(key) != "threefry2x32":
    _refuse("key", "a threefry2x32 key", jax.random.key_impl(key))


def _check_distribution(temperature, top_k, top_p) -> None:
  is_number = isinstance(temperature, numbers.Real)
  if not is_number or not 0 <= temperature < float("inf"):
    _refuse("temperature", "a number >= 0, finite", temperature)
  if top_k is not None:
    _check_count("top_k", top_k)
  if top_p is not None:
    if not isinstance(top_p, numbers.Real) or not 0 < top_p <= 1:
      _refuse("top_p", "a number in (0, 1]", top_p)


def _check_logits(logits: jax.Array, shape: tuple[int, int]) -> None:
  if jnp.ndim(logits) != 3 or logits.shape[:2] != shape:
    expected = f"logits of shape {(*shape, 'V')}"
    _refuse("apply_fn", expected, f"shape {jnp.shape(logits)}")


def _check_cache(cache: Any) -> None:
  if cache is None:
    _refuse("apply_fn", "a cache returned, as init_cache is given", None)


def _check_count(name: str, value: int) -> None:
  if not _is_int(value) or value < 1:
    _refuse(name, "an int >= 1", value)


def _check_token_id(name: str, value: int) -> None:
  if not _is_int(value) or value < 0:
    _refuse(name, "an int >= 0", value)


def _is_int(value: object) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _refuse(name: str, expected: str, actual: object) -> None:
  raise ValueError(f"{name}: expected {expected}, got {actual}")
