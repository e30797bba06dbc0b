# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""From logits, or the hidden states before them, to log-probs and token KL.

    token_log_probs[t] = log softmax(logits[t] / temperature)[tokens[t]]

Full logits are the largest array of preference training: 64 sequences of 1,024
tokens over 128k words are 34 GB in float32. The `_from_hidden` forms never hold
them: they scan over chunks of the T axis and, in the backward pass, compute a
chunk's logits again. Only T is cut. Leading axes stay whole, so a batch sharded
over devices stays where it is, and at most [..., chunk_size, V] exists at once.

Nothing here shifts: the caller aligns logits[t] with the token they predict.
The vocabulary axis is not cut. Second derivatives of the chunked forms are not
defined. Put the batch in the leading axes rather than under vmap: vmap makes
one gradient of the output embedding per example before it adds them up.
"""

import numbers
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# (logits [..., c, V] float32, chunk of arrays [..., c, ...], shared) -> arrays
# [..., c]
_Score = Callable[[jax.Array, Any, Any], Any]


def token_log_probs(
  logits: jax.Array, tokens: jax.Array, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
  """Picks each token's log-probability.

  Args:
    logits: float [..., T, V]; logits[..., t, :] predicts tokens[..., t].
    tokens: integer [..., T].
    temperature: scalar > 0 that divides the logits; may be traced.

  Returns:
    float32 [..., T], nats; nan where a token lies outside [0, V).

  Raises:
    ValueError: a shape, dtype or range is wrong.
  """
  _check_float("logits", logits)
  if jnp.ndim(logits) < 2:
    _refuse("logits", "shape [..., T, V]", f"shape {jnp.shape(logits)}")
  _check_tokens(tokens, jnp.shape(logits)[:-1])
  if isinstance(temperature, numbers.Real):
    _check_positive("temperature", temperature)
  logits = jnp.asarray(logits).astype(_accumulator(logits.dtype))
  return _pick(logits / temperature, jnp.asarray(tokens))


def token_log_probs_from_hidden(
  hidden: jax.Array,
  output_embedding: jax.Array,
  tokens: jax.Array,
  *,
  chunk_size: int,
  softcap: float | None = None,
  temperature: float = 1.0,
) -> jax.Array:
  """Computes `token_log_probs` of hidden states without all their logits.

      logits = hidden @ output_embedding, softcap * tanh(logits / softcap)

  The product takes operands in hidden's dtype and accumulates in float32.

  Args:
    hidden: float [..., T, D], after the final norm.
    output_embedding: float [D, V], cast to hidden's dtype.
    tokens: integer [..., T].
    chunk_size: how many tokens of the T axis have logits at once; T need not
      be a multiple.
    softcap: bound on the logits, > 0, or None; applied before temperature.
    temperature: > 0, divides the logits; a number, not traced.

  Returns:
    float32 [..., T], nats; nan where a token lies outside [0, V). The gradient
    of output_embedding is accumulated in float32 and returned in its dtype.

  Raises:
    ValueError: a shape, dtype or range is wrong.
  """
  _check_head("hidden", hidden, "output_embedding", output_embedding)
  _check_tokens(tokens, jnp.shape(hidden)[:-1])
  _check_chunking(chunk_size, softcap)
  _check_positive("temperature", temperature)

  def score(logits, tokens, _):
    return _pick(_capped(logits, softcap) / temperature, tokens)

  return _score_chunks(
    score, chunk_size, hidden, output_embedding, jnp.asarray(tokens), None
  )


def token_kl_from_hidden(
  hidden: jax.Array,
  output_embedding: jax.Array,
  ref_hidden: jax.Array,
  ref_output_embedding: jax.Array,
  *,
  chunk_size: int,
  softcap: float | None = None,
) -> jax.Array:
  """Computes KL(policy || reference) of each next-token distribution.

      sum over the vocabulary of pi (log pi - log pi_ref)

  Exact at the state that the hidden vector stands for, at temperature 1.

  Args:
    hidden: float [..., T, D], the policy's, after the final norm.
    output_embedding: float [D, V], the policy's.
    ref_hidden: float [..., T, D_ref], the reference's.
    ref_output_embedding: float [D_ref, V], the reference's.
    chunk_size: as in `token_log_probs_from_hidden`; two such chunks of logits
      exist at once.
    softcap: bound on both models' logits, > 0, or None.

  Returns:
    float32 [..., T], nats, never negative but for rounding. The gradient goes
    to hidden and output_embedding; the reference's arguments get zeros.

  Raises:
    ValueError: a shape, dtype or range is wrong.
  """
  _check_two_heads(hidden, output_embedding, ref_hidden, ref_output_embedding)
  _check_chunking(chunk_size, softcap)

  def score(logits, ref_hidden, ref_weights):
    ref_logits = _capped(_project(ref_hidden, ref_weights), softcap)
    return _kl(_capped(logits, softcap), ref_logits)

  return _score_chunks(
    score,
    chunk_size,
    hidden,
    output_embedding,
    ref_hidden,
    jnp.asarray(ref_output_embedding).astype(ref_hidden.dtype),
  )


def token_scores_from_hidden(
  hidden: jax.Array,
  output_embedding: jax.Array,
  ref_hidden: jax.Array,
  ref_output_embedding: jax.Array,
  tokens: jax.Array,
  *,
  chunk_size: int,
  softcap: float | None = None,
  kl_gradient: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Computes log-probs under both models and token KL, from one product each.

  Args:
    hidden: as in `token_kl_from_hidden`.
    output_embedding: the same.
    ref_hidden: the same.
    ref_output_embedding: the same.
    tokens: integer [..., T].
    chunk_size: the same.
    softcap: the same.
    kl_gradient: whether the token KL carries a gradient. Without, the backward
      pass leaves the reference alone.

  Returns:
    token_log_probs, ref_token_log_probs and token_kl, float32 [..., T], nats:
    what `token_log_probs_from_hidden` says of either model, and
    `token_kl_from_hidden`. The gradient goes to hidden and output_embedding.

  Raises:
    ValueError: a shape, dtype or range is wrong.
  """
  _check_two_heads(hidden, output_embedding, ref_hidden, ref_output_embedding)
  _check_tokens(tokens, jnp.shape(hidden)[:-1])
  _check_chunking(chunk_size, softcap)

  def score(logits, chunk, ref_weights):
    tokens, ref_hidden = chunk
    logits = _capped(logits, softcap)
    ref_logits = _capped(_project(ref_hidden, ref_weights), softcap)
    picked = (_pick(x, tokens) for x in (logits, ref_logits))
    return (*picked, _kl(logits, ref_logits))

  def log_probs_alone(logits, chunk, _):
    picked = _pick(_capped(logits, softcap), chunk[0])
    return picked, jnp.zeros_like(picked), jnp.zeros_like(picked)

  return _score_chunks(
    score,
    chunk_size,
    hidden,
    output_embedding,
    (jnp.asarray(tokens), ref_hidden),
    jnp.asarray(ref_output_embedding).astype(ref_hidden.dtype),
    score if kl_gradient else log_probs_alone,
  )


def sequence_log_probs(
  token_log_probs: jax.Array, completion_mask: jax.Array
) -> jax.Array:
  """Sums token log-probs over scored tokens.

  Args:
    token_log_probs: float [..., T], nats; masked positions may hold anything.
    completion_mask: bool [..., T], True on scored tokens.

  Returns:
    float32 [...], nats; 0 for a row without scored tokens. Never a mean.

  Raises:
    ValueError: the shapes differ, or a dtype is wrong.
  """
  _check_float("token_log_probs", token_log_probs)
  if completion_mask.dtype != jnp.bool_:
    _refuse("completion_mask", "dtype bool", completion_mask.dtype)
  if completion_mask.shape != token_log_probs.shape:
    expected = f"token_log_probs' shape {token_log_probs.shape}"
    _refuse("completion_mask", expected, f"shape {completion_mask.shape}")
  # Zeros before the sum: 0 * nan would still poison the gradient after it.
  scored = jnp.where(completion_mask, token_log_probs, 0.0)
  return scored.sum(axis=-1, dtype=_accumulator(scored.dtype))


def _score_chunks(
  score: _Score,
  chunk_size: int,
  hidden: jax.Array,
  output_embedding: jax.Array,
  per_token: Any,
  shared: jax.Array | None,
  differentiated: _Score | None = None,
) -> Any:
  """Returns score(logits, per_token, shared), a chunk of T at a time.

  per_token's arrays [..., T, ...] are cut as hidden is; they and `shared` get
  no gradient. The backward pass goes through `differentiated` where it is
  given: score, less what has no gradient.
  """
  return _chunked(
    score,
    differentiated or score,
    chunk_size,
    hidden,
    output_embedding,
    per_token,
    shared,
  )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _chunked(
  score, differentiated, chunk_size, hidden, output_embedding, per_token, shared
):
  del differentiated  # Of the backward pass.
  weights = output_embedding.astype(hidden.dtype)
  length, axis = hidden.shape[-2], hidden.ndim - 2

  def step(_, chunk):
    hidden_chunk, per_token_chunk = chunk
    logits = _project(hidden_chunk, weights)
    return None, score(logits, per_token_chunk, shared)

  cut = partial(_cut, chunk_size=chunk_size, axis=axis)
  _, scores = lax.scan(step, None, jax.tree.map(cut, (hidden, per_token)))
  return jax.tree.map(lambda x: _join(x, length, axis), scores)


def _chunked_fwd(score, differentiated, chunk_size, *args):
  return _chunked(score, differentiated, chunk_size, *args), args


def _chunked_bwd(score, differentiated, chunk_size, residuals, scores_bar):
  del score
  hidden, output_embedding, per_token, shared = residuals
  weights = output_embedding.astype(hidden.dtype)
  length, axis = hidden.shape[-2], hidden.ndim - 2

  def step(weights_bar, chunk):
    hidden_chunk, per_token_chunk, scores_bar_chunk = chunk
    logits = _project(hidden_chunk, weights)
    _, pull = jax.vjp(
      lambda x: differentiated(x, per_token_chunk, shared), logits
    )
    (logits_bar,) = pull(scores_bar_chunk)
    logits_bar = logits_bar.astype(hidden.dtype)
    product = partial(jnp.einsum, preferred_element_type=weights_bar.dtype)
    hidden_bar = product("...cv,dv->...cd", logits_bar, weights)
    weights_bar += product("...cd,...cv->dv", hidden_chunk, logits_bar)
    return weights_bar, hidden_bar.astype(hidden.dtype)

  cut = partial(_cut, chunk_size=chunk_size, axis=axis)
  zeros = jnp.zeros(weights.shape, _accumulator(hidden.dtype))
  # Rows that pad T get a zero scores_bar, so they add nothing.
  chunks = jax.tree.map(cut, (hidden, per_token, scores_bar))
  weights_bar, hidden_bar = lax.scan(step, zeros, chunks)
  if hidden.dtype == jnp.bfloat16:
    # XLA on CPU has no bfloat16 product whose float32 result is turned, which
    # it makes of this one where the output embedding is the input's, turned.
    weights_bar = lax.platform_dependent(
      weights_bar, cpu=lax.optimization_barrier, default=lambda x: x
    )
  return (
    _join(hidden_bar, length, axis),
    weights_bar.astype(output_embedding.dtype),
    None,
    None,
  )


_chunked.defvjp(_chunked_fwd, _chunked_bwd)


def _cut(x: jax.Array, *, chunk_size: int, axis: int) -> jax.Array:
  """Returns x's axis T cut into a leading axis: [n, ..., c, ...]."""
  length = x.shape[axis]
  size = max(1, min(chunk_size, length))
  count = -(-length // size)
  widths = [(0, 0)] * x.ndim
  widths[axis] = (0, count * size - length)
  shape = (*x.shape[:axis], count, size, *x.shape[axis + 1 :])
  return jnp.moveaxis(jnp.pad(x, widths).reshape(shape), axis, 0)


def _join(x: jax.Array, length: int, axis: int) -> jax.Array:
  """Undoes `_cut` and drops what padded T."""
  x = jnp.moveaxis(x, 0, axis)
  shape = (*x.shape[:axis], -1, *x.shape[axis + 2 :])
  if not x.size:
    return x.reshape(*x.shape[:axis], length, *x.shape[axis + 2 :])
  return lax.slice_in_dim(x.reshape(shape), 0, length, axis=axis)


def _project(hidden: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns logits [..., c, V]: compute-dtype operands, float32 sums."""
  return jnp.einsum(
    "...cd,dv->...cv",
    hidden,
    weights,
    preferred_element_type=_accumulator(hidden.dtype),
  )


def _capped(logits: jax.Array, softcap: float | None) -> jax.Array:
  return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def _pick(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """Returns log softmax(logits)[tokens], nan outside the vocabulary."""
  vocabulary = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  tokens = tokens.astype(jnp.int32)  # small dtypes would wrap in the iota
  # A masked sum, not a gather: a gather along a vocabulary that is sharded
  # over devices would bring the logits together first.
  hit = vocabulary == tokens[..., None]
  picked = jnp.where(hit, logits, 0.0).sum(axis=-1)
  inside = (tokens >= 0) & (tokens < logits.shape[-1])
  log_probs = picked - jax.nn.logsumexp(logits, axis=-1)
  return jnp.where(inside, log_probs, jnp.nan)


def _kl(logits: jax.Array, ref_logits: jax.Array) -> jax.Array:
  """Returns sum over v of pi (logits - ref_logits), less both logsumexps.

  Normalizing sums, not each word: on CPU, log-softmax of both models took
  twice as long as their products did.
  """
  peak = lax.stop_gradient(logits.max(axis=-1, keepdims=True))
  weights = jnp.exp(logits - peak)
  # Where pi underflows to 0 its log may be -inf, and 0 * -inf is nan: once for
  # the value, and once for the gradient. (The sum of a bare product takes XLA
  # on CPU far longer: 0.4 s a step of 49k words.)
  log_ratio = jnp.where(weights > 0, logits - ref_logits, 0.0)
  weighted = jnp.where(weights > 0, weights * log_ratio, 0.0)
  mean = weighted.sum(axis=-1) / weights.sum(axis=-1)
  normalizer, ref_normalizer = (
    jax.nn.logsumexp(x, axis=-1) for x in (logits, ref_logits)
  )
  return mean - normalizer + ref_normalizer


def _accumulator(dtype: Any) -> Any:
  """float32, or float64 for float64 input under x64."""
  return jnp.promote_types(dtype, jnp.float32)


def _check_float(name: str, x: jax.Array) -> None:
  if not jnp.issubdtype(x.dtype, jnp.floating):
    _refuse(name, "a float dtype", x.dtype)


def _check_tokens(tokens: jax.Array, shape: tuple[int, ...]) -> None:
  if jnp.shape(tokens) != shape:
    _refuse("tokens", f"shape {shape}", f"shape {jnp.shape(tokens)}")
  if not jnp.issubdtype(tokens.dtype, jnp.integer):
    _refuse("tokens", "an integer dtype", tokens.dtype)


def _check_head(
  hidden_name: str, hidden: jax.Array, name: str, output_embedding: jax.Array
) -> None:
  _check_float(hidden_name, hidden)
  _check_float(name, output_embedding)
  if hidden.ndim < 2:
    _refuse(hidden_name, "shape [..., T, D]", f"shape {hidden.shape}")
  width = hidden.shape[-1]
  if output_embedding.ndim != 2 or output_embedding.shape[0] != width:
    expected = f"shape [D, V] with D = {width}"
    _refuse(name, expected, f"shape {output_embedding.shape}")


def _check_two_heads(
  hidden, output_embedding, ref_hidden, ref_output_embedding
) -> None:
  _check_head("hidden", hidden, "output_embedding", output_embedding)
  _check_head(
    "ref_hidden", ref_hidden, "ref_output_embedding", ref_output_embedding
  )
  if jnp.shape(ref_hidden)[:-1] != jnp.shape(hidden)[:-1]:
    expected = f"leading axes {jnp.shape(hidden)[:-1]} as hidden"
    _refuse("ref_hidden", expected, f"shape {jnp.shape(ref_hidden)}")
  if ref_output_embedding.shape[1] != output_embedding.shape[1]:
    expected = f"{output_embedding.shape[1]} columns as output_embedding"
    actual = f"shape {ref_output_embedding.shape}"
    _refuse("ref_output_embedding", expected, actual)


def _check_chunking(chunk_size: int, softcap: float | None) -> None:
  if not isinstance(chunk_size, numbers.Integral) or chunk_size < 1:
    _refuse("chunk_size", "an int >= 1", repr(chunk_size))
  if softcap is not None:
    _check_positive("softcap", softcap)


def _check_positive(name: str, value: float) -> None:
  if not isinstance(value, numbers.Real) or not 0 < value < float("inf"):
    _refuse(name, "a number > 0, finite", value)


def _refuse(name: str, expected: str, actual: object) -> None:
  raise ValueError(f"{name}: expected {expected}, got {actual}")
