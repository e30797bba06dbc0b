# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Chunked scoring equals dense scoring, in less memory, without gathers."""

import os
import subprocess
import sys
import textwrap
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypo_jax import scoring

seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(autouse=True)
def _highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


def random_head(seed, leading, width=4, vocabulary=7, dtype=jnp.float32):
  """Returns hidden [*leading, D], embedding [D, V], tokens, cotangents."""
  rng = np.random.default_rng(seed)
  return (
    jnp.asarray(rng.normal(size=(*leading, width)), dtype),
    jnp.asarray(rng.normal(size=(width, vocabulary)), dtype),
    jnp.asarray(rng.integers(0, vocabulary, leading), jnp.int32),
    jnp.asarray(rng.normal(size=leading), jnp.float32),
  )


def dense_logits(hidden, embedding, softcap, temperature=1.0):
  """Returns logits in float64 and their slope, d logits / d product."""
  logits = np.float64(hidden) @ np.float64(embedding)
  if softcap is None:
    return logits / temperature, 1 / temperature
  capped = softcap * np.tanh(logits / softcap)
  return capped / temperature, (1 - (capped / softcap) ** 2) / temperature


def log_softmax(logits):
  return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def dense_gradients(logits_bar, hidden, embedding):
  """Returns what a gradient of the product means for its operands."""
  hidden_bar = logits_bar @ np.float64(embedding).T
  rows = [np.reshape(x, (-1, x.shape[-1])) for x in (hidden, logits_bar)]
  return hidden_bar, rows[0].T @ rows[1]


def dense_log_probs(
  hidden, embedding, tokens, cotangent, softcap=None, temperature=1.0
):
  """Returns log-probs and the gradients of <log-probs, cotangent>."""
  logits, slope = dense_logits(hidden, embedding, softcap, temperature)
  log_probs = log_softmax(logits)
  one_hot = np.eye(logits.shape[-1])[tokens]
  logits_bar = cotangent[..., None] * (one_hot - np.exp(log_probs)) * slope
  value = (log_probs * one_hot).sum(axis=-1)
  return value, *dense_gradients(logits_bar, hidden, embedding)


def dense_kl(
  hidden, embedding, ref_hidden, ref_embedding, cotangent, softcap=None
):
  """Returns token KL and the gradients of <token KL, cotangent>."""
  logits, slope = dense_logits(hidden, embedding, softcap)
  ref_logits, _ = dense_logits(ref_hidden, ref_embedding, softcap)
  log_ratio = log_softmax(logits) - log_softmax(ref_logits)
  probs = np.exp(log_softmax(logits))
  kl = (probs * log_ratio).sum(axis=-1)
  # d KL / d logit_v = pi_v (log pi_v - log ref_v - KL).
  logits_bar = probs * (log_ratio - kl[..., None]) * slope
  logits_bar *= cotangent[..., None]
  return kl, *dense_gradients(logits_bar, hidden, embedding)


def value_and_gradients(f, hidden, embedding, cotangent):
  @jax.jit
  def run(hidden, embedding):
    value, pull = jax.vjp(f, hidden, embedding)
    return value, *pull(cotangent)

  return run(hidden, embedding)


def assert_close(actual, expected, tolerance=2e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=tolerance, atol=tolerance
    ),
    actual,
    expected,
  )


# T below, equal to, a multiple of and between multiples of chunk_size.
@given(
  seed=seeds,
  leading=st.sampled_from([(1,), (5,), (2, 6), (2, 3, 7)]),
  chunk_size=st.sampled_from([1, 2, 3, 4, 9]),
  softcap=st.sampled_from([None, 1.5]),
  temperature=st.sampled_from([1.0, 0.7]),
)
@example(seed=0, leading=(2, 3, 7), chunk_size=3, softcap=1.5, temperature=0.7)
@settings(max_examples=12, deadline=None)
def test_demand_13_chunked_log_probs_equal_dense(
  seed, leading, chunk_size, softcap, temperature
):
  hidden, embedding, tokens, cotangent = random_head(seed, leading)

  def chunked(hidden, embedding):
    return scoring.token_log_probs_from_hidden(
      hidden,
      embedding,
      tokens,
      chunk_size=chunk_size,
      softcap=softcap,
      temperature=temperature,
    )

  assert_close(
    value_and_gradients(chunked, hidden, embedding, cotangent),
    dense_log_probs(hidden, embedding, tokens, cotangent, softcap, temperature),
  )


@given(
  seed=seeds,
  leading=st.sampled_from([(5,), (2, 6), (2, 3, 7)]),
  chunk_size=st.sampled_from([1, 3, 9]),
  softcap=st.sampled_from([None, 1.5]),
)
@example(seed=0, leading=(2, 3, 7), chunk_size=3, softcap=1.5)
@settings(max_examples=8, deadline=None)
def test_demand_13_chunked_token_kl_equals_dense(
  seed, leading, chunk_size, softcap
):
  hidden, embedding, _, cotangent = random_head(seed, leading)
  # The reference may be another width: only the vocabulary is shared.
  ref_hidden, ref_embedding, *_ = random_head(seed + 1, leading, width=3)

  def chunked(hidden, embedding):
    return scoring.token_kl_from_hidden(
      hidden,
      embedding,
      ref_hidden,
      ref_embedding,
      chunk_size=chunk_size,
      softcap=softcap,
    )

  assert_close(
    value_and_gradients(chunked, hidden, embedding, cotangent),
    dense_kl(hidden, embedding, ref_hidden, ref_embedding, cotangent, softcap),
  )


@pytest.mark.parametrize("kl_gradient", [True, False])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_demand_13_scores_from_one_product_equal_those_apart(
  kl_gradient, softcap
):
  rng = np.random.default_rng(3)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  hidden, ref_hidden = normal(2, 3, 7, 5), normal(2, 3, 7, 4)
  head, ref_head = normal(5, 11), normal(4, 11)
  tokens = jnp.asarray(rng.integers(0, 11, (2, 3, 7)), jnp.int32)
  bars = normal(3, 2, 3, 7)
  settings = {"chunk_size": 3, "softcap": softcap}

  def together(hidden, head):
    return scoring.token_scores_from_hidden(
      hidden,
      head,
      ref_hidden,
      ref_head,
      tokens,
      kl_gradient=kl_gradient,
      **settings,
    )

  def apart(hidden, head):
    score = partial(scoring.token_log_probs_from_hidden, **settings)
    token_kl = scoring.token_kl_from_hidden(
      hidden, head, ref_hidden, ref_head, **settings
    )
    if not kl_gradient:
      token_kl = jax.lax.stop_gradient(token_kl)
    scored = score(hidden, head, tokens)
    return scored, score(ref_hidden, ref_head, tokens), token_kl

  scores, pull_back = jax.vjp(together, hidden, head)
  expected, expected_pull_back = jax.vjp(apart, hidden, head)
  for a, b in zip(scores, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)
  for a, b in zip(
    pull_back(tuple(bars)), expected_pull_back(tuple(bars)), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=2e-5)


def test_log_probs_of_logits_follow_the_formula():
  # Weights 1, 2, 3, 6 of 12; squared at temperature 1/2: 1, 4, 9, 36 of 50.
  logits = jnp.log(jnp.array([[[1.0, 2, 3, 6]] * 3])) + 50.0
  tokens = jnp.array([[0, 3, 2]])
  np.testing.assert_allclose(
    scoring.token_log_probs(logits, tokens),
    np.log([[1 / 12, 6 / 12, 3 / 12]]),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    scoring.token_log_probs(logits, tokens, temperature=0.5),
    np.log([[1 / 50, 36 / 50, 9 / 50]]),
    rtol=1e-5,
  )


def test_a_vocabulary_entry_of_minus_infinity_is_never_drawn():
  logits = jnp.array([[0.0, -jnp.inf, 0.0], [0.0, -jnp.inf, 0.0]])

  def score(logits):
    return scoring.token_log_probs(logits, jnp.array([0, 2]))

  np.testing.assert_allclose(score(logits), np.log([0.5, 0.5]), rtol=1e-6)
  gradient = jax.grad(lambda x: score(x).sum())(logits)
  np.testing.assert_allclose(gradient, [[0.5, 0, -0.5], [-0.5, 0, 0.5]])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32"])
def test_tokens_of_any_integer_dtype_score_alike(dtype):
  # 300 words: a vocabulary counted in the tokens' own dtype would wrap.
  hidden, embedding, tokens, cotangent = random_head(0, (2, 5), 4, 300)
  tokens = tokens % 100
  expected, *_ = dense_log_probs(hidden, embedding, tokens, cotangent)
  tokens = tokens.astype(dtype)
  chunked = scoring.token_log_probs_from_hidden(
    hidden, embedding, tokens, chunk_size=2
  )
  plain = scoring.token_log_probs(hidden @ embedding, tokens)
  assert_close([chunked, plain], [expected, expected])


@pytest.mark.parametrize("token", [-1, 7])
def test_tokens_outside_the_vocabulary_score_nan_without_gradient(token):
  hidden, embedding, tokens, _ = random_head(1, (5,))
  tokens = tokens.at[2].set(token)

  def scored(hidden):
    return scoring.token_log_probs_from_hidden(
      hidden, embedding, tokens, chunk_size=2
    )

  np.testing.assert_array_equal(jnp.isnan(scored(hidden)), np.arange(5) == 2)
  mask = np.arange(5) != 2
  total = lambda x: scoring.sequence_log_probs(scored(x), mask)  # noqa: E731
  gradient = jax.grad(total)(hidden)
  assert np.isfinite(gradient).all() and not gradient[2].any()


def test_chunked_scores_agree_eager_jit_vmap_and_scan():
  hidden, embedding, tokens, _ = random_head(2, (3, 2, 5))
  ref_hidden, ref_embedding, *_ = random_head(3, (3, 2, 5))

  def scores(hidden, embedding, tokens, ref_hidden):
    def total(hidden, embedding):
      log_probs = scoring.token_log_probs_from_hidden(
        hidden, embedding, tokens, chunk_size=2
      )
      kl = scoring.token_kl_from_hidden(
        hidden, embedding, ref_hidden, ref_embedding, chunk_size=2
      )
      return (log_probs + kl**2).sum()

    return jax.value_and_grad(total, argnums=(0, 1))(hidden, embedding)

  rows = (hidden, tokens, ref_hidden)
  jit_scores = jax.jit(scores)
  jitted = [
    jit_scores(h, embedding, t, r) for h, t, r in zip(*rows, strict=True)
  ]
  assert_close(
    scores(hidden[0], embedding, tokens[0], ref_hidden[0]), jitted[0]
  )
  expected = jax.tree.map(lambda *x: jnp.stack(x), *jitted)
  mapped = jax.jit(jax.vmap(scores, in_axes=(0, None, 0, 0)))
  assert_close(mapped(hidden, embedding, tokens, ref_hidden), expected)

  def body(carry, row):
    return carry, scores(row[0], embedding, *row[1:])

  assert_close(jax.lax.scan(body, None, rows)[1], expected)


def test_the_reference_gets_no_gradient_from_token_kl():
  hidden, embedding, *_ = random_head(4, (2, 5))
  ref_hidden, ref_embedding, *_ = random_head(5, (2, 5))

  def total(*arguments):
    return scoring.token_kl_from_hidden(*arguments, chunk_size=2).sum()

  gradients = jax.grad(total, argnums=(0, 1, 2, 3))(
    hidden, embedding, ref_hidden, ref_embedding
  )
  assert gradients[0].any() and gradients[1].any()
  assert not gradients[2].any() and not gradients[3].any()


def test_token_kl_is_zero_with_zero_gradient_where_policy_is_reference():
  hidden, embedding, *_ = random_head(6, (2, 5))
  value, *gradients = value_and_gradients(
    lambda h, e: scoring.token_kl_from_hidden(
      h, e, hidden, embedding, chunk_size=2
    ),
    hidden,
    embedding,
    jnp.ones((2, 5)),
  )
  np.testing.assert_array_equal(value, 0.0)
  assert_close(gradients, jax.tree.map(jnp.zeros_like, gradients), 1e-6)


def test_bfloat16_operands_give_float32_scores():
  head = random_head(7, (2, 300), width=8, dtype=jnp.bfloat16)
  hidden, embedding, tokens, cotangent = head

  def chunked(hidden, embedding):
    return scoring.token_log_probs_from_hidden(
      hidden, embedding, tokens, chunk_size=1
    )

  wide = (hidden.astype(jnp.float32), embedding.astype(jnp.float32))
  expected, _, expected_gradient = dense_log_probs(*wide, tokens, cotangent)
  # A float32 embedding is cast to hidden's dtype, which here changes nothing.
  for head in (embedding, wide[1]):
    value, d_hidden, d_embedding = value_and_gradients(
      chunked, hidden, head, cotangent
    )
    assert value.dtype == jnp.float32
    assert d_hidden.dtype == jnp.bfloat16 and d_embedding.dtype == head.dtype
    assert_close(value, expected)
    # 300 chunks: with a bfloat16 accumulator the error is some 2%.
    error = jnp.linalg.norm(d_embedding.astype(jnp.float32) - expected_gradient)
    assert error < 4e-3 * jnp.linalg.norm(expected_gradient)


def temporary_bytes(f, *arguments):
  gradient = jax.jit(jax.grad(f, argnums=(0, 1)))
  analysis = gradient.lower(*arguments).compile().memory_analysis()
  return analysis.temp_size_in_bytes


def test_demand_13_chunked_memory_is_flat_in_length():
  batch, vocabulary, chunk = 2, 4096, 16

  def temporaries(length, score):
    hidden, embedding, tokens, _ = random_head(
      0, (batch, length), 4, vocabulary
    )
    return temporary_bytes(
      lambda h, e: score(h, e, tokens).sum(), hidden, embedding
    )

  def dense(hidden, embedding, tokens):
    return scoring.token_log_probs(hidden @ embedding, tokens)

  def chunked(hidden, embedding, tokens):
    return scoring.token_log_probs_from_hidden(
      hidden, embedding, tokens, chunk_size=chunk
    )

  def kl(hidden, embedding, tokens):
    return scoring.token_kl_from_hidden(
      hidden, embedding, hidden + 1, embedding, chunk_size=chunk
    )

  logits_bytes = 4 * batch * vocabulary  # of one position
  assert temporaries(512, dense) >= 512 * logits_bytes
  for score, buffers in ((chunked, 4), (kl, 7)):
    short, long = temporaries(128, score), temporaries(512, score)
    assert short < buffers * chunk * logits_bytes
    # What grows is hidden-sized: D = 4 is a thousandth of V.
    assert long < 1.1 * short


# Runs alone, because the number of devices is fixed when jax starts.
SHARDED = """
  import re
  import jax, jax.numpy as jnp, numpy as np
  from jax.sharding import AxisType, NamedSharding, PartitionSpec
  from hypo_jax import scoring

  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  whole = NamedSharding(mesh, PartitionSpec())

  def total(hidden, embedding, tokens, ref_hidden, ref_embedding):
    log_probs = scoring.token_log_probs_from_hidden(
      hidden, embedding, tokens, chunk_size=4, softcap=5.0
    )
    kl = scoring.token_kl_from_hidden(
      hidden, embedding, ref_hidden, ref_embedding, chunk_size=4
    )
    return (log_probs + kl).mean()

  run = jax.value_and_grad(total, argnums=(0, 1))
  rng = np.random.default_rng(0)
  for leading in ((16, 10), (8, 3, 10)):
    hidden, ref_hidden = rng.normal(size=(2, *leading, 8)).astype("float32")
    embedding, ref_embedding = rng.normal(size=(2, 8, 32)).astype("float32")
    tokens = rng.integers(0, 32, leading)
    arguments = (hidden, embedding, tokens, ref_hidden, ref_embedding)
    shardings = (rows, whole, rows, rows, whole)
    sharded = jax.device_put(arguments, shardings)
    compiled = (
      jax.jit(run, out_shardings=(whole, (rows, whole)))
      .lower(*sharded).compile()
    )
    text = compiled.as_text()
    assert "all-reduce" in text  # the embedding's gradient: it is partitioned
    gathers = re.findall(r"= .*?(?:all-gather|all-to-all).*", text)
    assert not gathers, gathers
    result, expected = compiled(*sharded), jax.jit(run)(*arguments)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      result, expected,
    )
"""


def test_no_gather_of_hidden_states_on_eight_devices():
  environment = os.environ | {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    "JAX_PLATFORMS": "cpu",
  }
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(SHARDED)],
    env=environment,
    cwd=os.path.dirname(os.path.dirname(scoring.__file__)),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]


def test_sequence_log_probs_sum_scored_tokens_only():
  values = jnp.array([[-1.0, -2.0, jnp.nan], [-jnp.inf, jnp.nan, 3.0]])
  mask = jnp.array([[True, True, False], [False, False, False]])
  total = scoring.sequence_log_probs(values, mask)
  np.testing.assert_array_equal(total, [-3.0, 0.0])
  gradient = jax.grad(lambda x: scoring.sequence_log_probs(x, mask).sum())
  np.testing.assert_array_equal(gradient(values), [[1, 1, 0], [0, 0, 0]])
  # 1,024 bfloat16 tokens: their sum needs more than bfloat16's 8 bits.
  total = scoring.sequence_log_probs(
    jnp.full(1024, -1.0078125, jnp.bfloat16), jnp.ones(1024, bool)
  )
  assert total.dtype == jnp.float32 and total == -1.0078125 * 1024


H, E, T = jnp.zeros((2, 5, 4)), jnp.zeros((4, 7)), jnp.zeros((2, 5), jnp.int32)
REFUSED = {
  "tokens: expected shape .2, 5., got shape .5,.": lambda: (
    scoring.token_log_probs(jnp.zeros((2, 5, 7)), T[0])
  ),
  "tokens: expected an integer dtype, got float32": lambda: (
    scoring.token_log_probs(jnp.zeros((2, 5, 7)), T * 1.0)
  ),
  "logits: expected a float dtype, got int32": lambda: scoring.token_log_probs(
    jnp.zeros((2, 5, 7), jnp.int32), T
  ),
  "temperature: expected a number > 0, finite, got 0": lambda: (
    scoring.token_log_probs(jnp.zeros((2, 5, 7)), T, temperature=0)
  ),
  "output_embedding: expected shape .D, V. with D = 4": lambda: (
    scoring.token_log_probs_from_hidden(H, E.T, T, chunk_size=2)
  ),
  "chunk_size: expected an int >= 1, got 0": lambda: (
    scoring.token_log_probs_from_hidden(H, E, T, chunk_size=0)
  ),
  "softcap: expected a number > 0, finite, got 0": lambda: (
    scoring.token_log_probs_from_hidden(H, E, T, chunk_size=2, softcap=0.0)
  ),
  "ref_hidden: expected leading axes": lambda: scoring.token_kl_from_hidden(
    H, E, H[:1], E, chunk_size=2
  ),
  "ref_output_embedding: expected 7 columns": lambda: (
    scoring.token_kl_from_hidden(H, E, H, E[:, :6], chunk_size=2)
  ),
  "completion_mask: expected dtype bool, got float32": lambda: (
    scoring.sequence_log_probs(H[..., 0], H[..., 0])
  ),
  "completion_mask: expected token_log_probs' shape .2, 5.": lambda: (
    scoring.sequence_log_probs(H[..., 0], jnp.ones(5, bool))
  ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_arguments_are_named(message):
  with pytest.raises(ValueError, match=message):
    REFUSED[message]()
