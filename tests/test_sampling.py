# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What is drawn, how often, how it is scored, when it ends, what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from hypo_jax import sampling, scoring

STATIC = (
  "max_new_tokens",
  "eos_token_id",
  "pad_token_id",
  "samples_per_prompt",
  "temperature",
  "top_k",
  "top_p",
  "init_cache",
)
# Dozens of small programs, each run once: most of the time goes to compiling.
QUICK = {"xla_backend_optimization_level": 0}
sample = jax.jit(
  sampling.sample,
  static_argnums=0,
  static_argnames=STATIC,
  compiler_options=QUICK,
)
V, D, LAYERS, P, C = 11, 8, 2, 5, 7
PAD, EOS = 0, 1
PROMPTS = np.array([[9, 9, 4, 5, 6], [2, 3, 4, 5, 6], [9, 9, 9, 9, 7]])
PROMPT_MASK = np.array([[0, 0, 1, 1, 1], [1] * 5, [0, 0, 0, 0, 1]], bool)
seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(autouse=True)
def _highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


# A two-layer attention model with a cache, and a table of logits without one.


def attention_params(seed, *, pad_bias=0.0):
  """Random weights; pad_bias is added to the pad token's logit."""
  rng = np.random.default_rng(seed)
  params = {
    "embedding": rng.normal(size=(V, D)),
    "positions": rng.normal(size=(P + C, D)),
    "qkv": rng.normal(size=(LAYERS, 3, D, D)) / D**0.5,
    "head": rng.normal(size=(D, V)) / D**0.5,
    "bias": pad_bias * (np.arange(V) == PAD),
  }
  return jax.tree.map(np.float32, params)


def init_cache(rows, length):
  return {
    "keys_values": jnp.zeros((LAYERS, 2, rows, length, D)),
    "length": jnp.zeros((), jnp.int32),
  }


def attention(params, tokens, *, positions, attention_mask, cache=None):
  x = params["embedding"][tokens] + params["positions"][positions]
  start = 0 if cache is None else cache["length"]
  written = []
  for layer, weights in enumerate(params["qkv"]):
    q, *new = (jnp.tanh(x) @ w for w in weights)
    keys_values = jnp.stack(new)
    if cache is not None:
      keys_values = jax.lax.dynamic_update_slice(
        cache["keys_values"][layer], keys_values, (0, 0, start, 0)
      )
    written.append(keys_values)
    keys, values = keys_values
    scores = jnp.einsum("ntd,nsd->nts", q, keys) / D**0.5
    # -inf, as many models have it: a query that saw nothing would give nan.
    scores = jnp.where(attention_mask, scores, -jnp.inf)
    x = x + jax.nn.softmax(scores) @ values
  logits = 2 * x @ params["head"] + params["bias"]
  if cache is not None:
    length = start + tokens.shape[1]
    cache = {"keys_values": jnp.stack(written), "length": length}
  return logits, cache


def table(params, tokens, **_):
  """Logits of the next token by the token before it alone."""
  return params[tokens], None


def draw_attention(
  prompts=PROMPTS, mask=PROMPT_MASK, *, params=None, seed=0, key=None, **kwargs
):
  arguments = dict(
    max_new_tokens=C, eos_token_id=EOS, pad_token_id=PAD, init_cache=init_cache
  )
  params = attention_params(0) if params is None else params
  key = jax.random.key(seed) if key is None else key
  drawn = sample(attention, params, prompts, mask, key, **arguments | kwargs)
  return jax.device_get(drawn)  # so that tests compile nothing to look at it


def draw_table(params, *, count=1, seed=0, prompt=0, **kwargs):
  arguments = dict(
    max_new_tokens=1, eos_token_id=0, pad_token_id=0, samples_per_prompt=count
  )
  prompts = np.full((1, 1), prompt), np.ones((1, 1), bool)
  key = jax.random.key(seed)
  return jax.device_get(
    sample(table, params, *prompts, key, **arguments | kwargs)
  )


def assert_same(first, second, atol=1e-5):
  np.testing.assert_array_equal(first.tokens, second.tokens)
  np.testing.assert_array_equal(first.mask, second.mask)
  np.testing.assert_allclose(
    first.token_log_probs, second.token_log_probs, atol=atol
  )


def rows_of(completions, rows):
  return jax.tree.map(lambda x: x[rows], completions)


def assert_frequencies(counts, probs):
  """Pearson's test, at a level that one run in a million misses."""
  counts, probs = np.asarray(counts), np.asarray(probs, np.float64)
  assert not counts[probs == 0].any()
  counts, probs = counts[probs > 0], probs[probs > 0]
  if len(counts) == 1:
    return  # certain
  expected = counts.sum() * probs / probs.sum()
  assert expected.min() > 5  # else the statistic has another distribution
  statistic = ((counts - expected) ** 2 / expected).sum()
  assert statistic < chi2.isf(1e-6, len(counts) - 1)


@settings(max_examples=4, deadline=None)
@example(seed=3005, size=256)  # one rare word, with fewer than five draws
@given(seed=st.integers(0, 10_000), size=st.sampled_from([129, 256, 300]))
def test_a_large_vocabulary_is_drawn_by_its_probabilities(seed, size):
  """By groups of tokens; one of the groups here has no probability at all."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=size).astype(np.float32)
  logits[rng.random(size) < 0.3] = -np.inf
  logits[:128] = -np.inf if size > 256 else logits[:128]
  count = 40_000
  row_keys = jax.random.split(jax.random.key(seed), count)
  draw = jax.jit(jax.vmap(sampling._categorical, (0, None)))
  counts = np.bincount(draw(row_keys, jnp.asarray(logits)), minlength=size)
  probs = np.exp(logits.astype(np.float64))
  assert not counts[probs == 0].any()
  # Words of few expected draws together, for the test's distribution; eight at
  # least, lest they be few together too.
  expected = probs * count / probs.sum()
  rare = expected < max(10, np.sort(expected[expected > 0])[8])
  assert_frequencies(
    np.append(counts[~rare], counts[rare].sum()),
    np.append(probs[~rare], probs[rare].sum()),
  )


# The cache.


@pytest.mark.parametrize(
  "samples_per_prompt, prompt_length", [(1, P), (3, P), (3, 1)]
)
def test_cached_decode_equals_full_forward(samples_per_prompt, prompt_length):
  prompts = PROMPTS[:, -prompt_length:], PROMPT_MASK[:, -prompt_length:]
  cached, full = (
    draw_attention(
      *prompts, init_cache=c, samples_per_prompt=samples_per_prompt
    )
    for c in (init_cache, None)
  )
  assert cached.tokens.shape == (3 * samples_per_prompt, C)
  assert len(np.unique(cached.tokens)) > 3
  assert_same(cached, full)


def test_prompts_enter_the_cache_once_and_their_logits_are_not_computed():
  tokens_seen = []

  def spy(params, tokens, **kwargs):
    tokens_seen.append(tokens.shape)
    return attention(params, tokens, **kwargs)

  compiled = sample.lower(
    spy,
    attention_params(0),
    PROMPTS,
    PROMPT_MASK,
    jax.random.key(0),
    max_new_tokens=C,
    eos_token_id=EOS,
    pad_token_id=PAD,
    samples_per_prompt=2,
    init_cache=init_cache,
  ).compile()
  assert set(tokens_seen) == {(3, P - 1), (6, 1)}
  assert f"f32[6,1,{V}]" in compiled.as_text()
  assert f"f32[3,{P - 1},{V}]" not in compiled.as_text()


def test_cache_whose_rows_cannot_be_told_apart_is_refused():
  def flat_cache(rows, length):
    return jnp.zeros((rows * 4, length))  # rows and heads in one axis

  with pytest.raises(ValueError, match="init_cache: expected one axis of 3"):
    draw_attention(
      PROMPTS[:, -1:],
      PROMPT_MASK[:, -1:],
      init_cache=flat_cache,
      samples_per_prompt=2,
    )


# What is drawn depends on its row, sample number and position alone.


def test_same_key_gives_same_tokens_and_another_key_others():
  first, again, other = (draw_attention(seed=s) for s in (0, 0, 1))
  assert_same(first, again, atol=0)
  assert (first.tokens != other.tokens).any()


@settings(max_examples=8, deadline=None)
@given(seed=seeds, order=st.permutations(range(3)))
def test_row_keys_make_rows_independent_of_their_company(seed, order):
  keys = jax.random.split(jax.random.key(seed), 3)
  together = draw_attention(key=keys, samples_per_prompt=2)
  order = np.array(order)
  shuffled = draw_attention(
    PROMPTS[order], PROMPT_MASK[order], key=keys[order], samples_per_prompt=2
  )
  rows = (2 * order[:, None] + np.arange(2)).reshape(-1)
  assert_same(rows_of(together, rows), shuffled)
  alone = draw_attention(
    PROMPTS[1:2], PROMPT_MASK[1:2], key=keys[1:2], samples_per_prompt=2
  )
  assert_same(rows_of(together, slice(2, 4)), alone)


def test_one_key_is_folded_with_the_row_index():
  keys = [jax.random.fold_in(jax.random.key(5), row) for row in range(3)]
  assert_same(
    draw_attention(seed=5), draw_attention(key=jnp.stack(keys)), atol=0
  )


def test_a_sample_does_not_depend_on_how_many_are_drawn():
  one, three = (draw_attention(samples_per_prompt=k) for k in (1, 3))
  assert_same(one, rows_of(three, slice(None, None, 3)))


def test_samples_of_a_prompt_differ():
  # Uniform: two of eight agree on all 16 tokens once in 10^15.
  flat = np.zeros((V, V), np.float32)
  drawn = draw_table(flat, count=8, max_new_tokens=16, eos_token_id=V)
  assert len(np.unique(drawn.tokens, axis=0)) == 8


@settings(max_examples=8, deadline=None)
@given(seed=seeds, padding=st.sampled_from([1, P - 1]))
def test_left_padding_changes_nothing(seed, padding):
  prompt = np.random.default_rng(seed).integers(0, V, (1, P - padding))
  params = attention_params(1)
  bare = draw_attention(
    prompt, np.ones_like(prompt, bool), seed=seed, params=params
  )
  padded = draw_attention(
    np.pad(prompt, ((0, 0), (padding, 0)), constant_values=seed % V),
    np.arange(P)[None] >= padding,
    seed=seed,
    params=params,
  )
  assert_same(bare, padded)


def test_vmap_over_prompts_equals_one_call_each():
  keys = jax.random.split(jax.random.key(3), 3)

  @jax.vmap
  def draw_each(prompt, mask, key):
    return sample(
      attention,
      attention_params(0),
      prompt[None],
      mask[None],
      key[None],
      max_new_tokens=C,
      eos_token_id=EOS,
      pad_token_id=PAD,
      init_cache=init_cache,
    )

  mapped = jax.device_get(draw_each(PROMPTS, PROMPT_MASK, keys))
  together = draw_attention(key=keys)
  assert_same(jax.tree.map(lambda x: x[:, 0], mapped), together)


# Distributions.


def test_completions_are_as_frequent_as_the_model_says():
  bigram = toy.enumerate_completions("bigram", steps=3)
  params = bigram.params(0)
  # The toy's states in order of appearance: nothing said, token 0, token 1.
  # As a prompt, EOS stands for nothing said.
  by_token = params[jnp.array([1, 2, 0])]
  drawn = draw_table(
    by_token,
    count=20_000,
    prompt=toy.EOS,
    max_new_tokens=3,
    eos_token_id=toy.EOS,
  )
  same = (drawn.tokens[:, None] == bigram.tokens) | ~bigram.mask
  lengths = drawn.mask.sum(axis=1)[:, None] == bigram.mask.sum(axis=1)
  which = same.all(axis=-1) & lengths
  np.testing.assert_array_equal(which.sum(axis=1), 1)
  log_probs = toy.log_probs(params, bigram)
  assert_frequencies(which.sum(axis=0), jnp.exp(log_probs))
  np.testing.assert_allclose(
    drawn.token_log_probs.sum(axis=1), which @ log_probs, atol=1e-5
  )


LOGITS = np.log([0.35, 0.05, 0.2, 0.2, 0.15, 0.05])
# Renormalised at the temperature: 0.35^2 + 2 * 0.2^2 + 0.15^2 + 2 * 0.05^2.
SQUARED = np.exp(2 * LOGITS)


@pytest.mark.parametrize(
  "kwargs, expected",
  [
    ({}, np.exp(LOGITS)),
    ({"temperature": 0}, [1, 0, 0, 0, 0, 0]),
    ({"top_k": 2}, [0.35, 0, 0.2, 0, 0, 0]),  # a tie: exactly two stay
    ({"top_p": 0.8}, [0.35, 0, 0.2, 0.2, 0.15, 0]),
    # Of the three that stay, 0.35 / 0.75 and 0.2 / 0.75 reach 0.7.
    ({"top_k": 3, "top_p": 0.7}, [0.35, 0, 0.2, 0, 0, 0]),
    # At temperature 0.5 the first two are 0.71 of the mass, three 0.88.
    ({"temperature": 0.5, "top_p": 0.85}, SQUARED * [1, 0, 1, 1, 0, 0]),
  ],
)
def test_temperature_top_k_and_top_p_draw_from_their_distribution(
  kwargs, expected
):
  params = np.tile(LOGITS, (6, 1)).astype(np.float32)
  drawn = draw_table(params, count=4_000, **kwargs)
  tokens = np.asarray(drawn.tokens[:, 0])
  counts = np.bincount(tokens, minlength=6)
  assert counts.sum() == 4_000
  assert_frequencies(counts, expected)
  # Scored before top_k and top_p; greedy draws at temperature 1.
  scores = LOGITS / (kwargs.get("temperature") or 1)
  log_probs = scores - np.log(np.exp(scores).sum())
  np.testing.assert_allclose(
    drawn.token_log_probs[:, 0], log_probs[tokens], atol=1e-5
  )


@pytest.mark.parametrize(
  "kwargs, kept",
  [
    ({"top_k": 1}, [0]),
    ({"top_k": 3}, [0, 2, 3]),
    ({"top_k": 100}, [0, 1, 2, 3, 4, 5]),
    ({"top_p": 1e-6}, [0]),
    ({"top_p": 0.3}, [0]),
    ({"top_p": 0.6}, [0, 2, 3]),
    ({"top_p": 0.99}, [0, 1, 2, 3, 4, 5]),
  ],
)
def test_top_k_and_top_p_keep_the_likeliest_tokens(kwargs, kept):
  arguments = {"top_k": None, "top_p": None} | kwargs
  logits = jnp.asarray(LOGITS, jnp.float32)
  truncated = sampling._truncate(logits, **arguments)
  expected = np.where(np.isin(np.arange(6), kept), logits, -np.inf)
  np.testing.assert_array_equal(truncated, expected)


def test_top_p_one_keeps_tokens_beyond_the_rounding_of_the_running_sum():
  # Five tokens of 1e-9 each, behind one that rounds to 1.
  logits = np.full(6, np.log(1e-9), np.float32)
  logits[0] = 0.0
  kept = sampling._truncate(jnp.asarray(logits), None, 1.0)
  np.testing.assert_array_equal(kept, logits)


def test_greedy_takes_the_likeliest_token_at_every_step():
  params = attention_params(2)
  drawn = draw_attention(params=params, temperature=0, eos_token_id=V)
  other_key = draw_attention(
    params=params, temperature=0, eos_token_id=V, seed=9
  )
  assert_same(drawn, other_key, atol=0)
  logits = completion_logits(params, drawn)
  np.testing.assert_array_equal(drawn.tokens, logits.argmax(axis=-1))


def test_tokens_that_the_model_forbids_are_never_drawn():
  params = np.where(np.arange(6) % 2, -np.inf, np.tile(LOGITS, (6, 1)))
  drawn = draw_table(params, count=200, top_k=5, top_p=0.999)
  assert set(np.unique(drawn.tokens)) <= {0, 2, 4}
  assert np.isfinite(drawn.token_log_probs).all()


# Scores.


@partial(jax.jit, compiler_options=QUICK)
def completion_logits(params, completions):
  """Full forward of PROMPTS with their completions: [3, C, V]."""
  tokens = jnp.concatenate([PROMPTS, completions.tokens], axis=1)
  real = jnp.concatenate([PROMPT_MASK, jnp.ones_like(completions.mask)], axis=1)
  visible = jnp.tril(jnp.ones((P + C, P + C), bool)) & real[:, None]
  logits, _ = attention(
    params,
    tokens,
    positions=jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0),
    attention_mask=visible | jnp.eye(P + C, dtype=bool),
  )
  return logits[:, P - 1 : -1]


@pytest.mark.parametrize(
  "kwargs",
  [
    {},
    {"init_cache": None},
    {"temperature": 0.7},
    {"top_p": 0.8},
    {"temperature": 0.7, "top_k": 4, "top_p": 0.9},
  ],
)
@pytest.mark.parametrize("pad_bias", [0.0, 5.0])
def test_demand_10_what_is_sampled_is_what_is_scored(kwargs, pad_bias):
  params = attention_params(3, pad_bias=pad_bias)
  drawn = draw_attention(params=params, **kwargs)
  scored = scoring.token_log_probs(
    completion_logits(params, drawn),
    drawn.tokens,
    temperature=kwargs.get("temperature") or 1.0,
  )
  np.testing.assert_allclose(
    drawn.token_log_probs, np.where(drawn.mask, scored, 0.0), atol=1e-5
  )
  if pad_bias:  # the pad token is said, and is a token like any other
    assert ((drawn.tokens == PAD) & drawn.mask).sum() >= C


def test_demand_10_mean_log_prob_of_samples_is_minus_the_entropy():
  # A policy with most of its mass on the pad token: a sampler that skips it
  # while the scorer does not would be off by more than a nat.
  params = np.log([[0.7, 0.2, 0.1]] * 3)
  drawn = draw_table(params, count=20_000, eos_token_id=1, pad_token_id=0)
  probs = np.exp(params[0])
  entropy = -(probs * params[0]).sum()
  spread = np.sqrt((probs * (params[0] + entropy) ** 2).sum() / 20_000)
  assert abs(drawn.token_log_probs.mean() + entropy) < 5 * spread


def test_bfloat16_logits_are_scored_in_float32():
  logits = jnp.asarray(np.tile(LOGITS, (6, 1)), jnp.bfloat16)
  drawn = draw_table(logits, count=50, temperature=0.7)
  assert drawn.token_log_probs.dtype == jnp.float32
  expected = jax.nn.log_softmax(logits[0].astype(jnp.float32) / 0.7)
  np.testing.assert_allclose(
    drawn.token_log_probs, expected[drawn.tokens], atol=1e-6
  )


# Ends.


@settings(max_examples=20, deadline=None)
@given(seed=seeds, pad=st.sampled_from([4, 6]))
def test_demand_04_mask_ends_with_the_first_eos_and_nothing_follows(seed, pad):
  rng = np.random.default_rng(seed)
  params = rng.normal(size=(V, V)).astype(np.float32)
  drawn = draw_table(
    params,
    count=8,
    seed=seed,
    max_new_tokens=20,
    eos_token_id=(4, 7),  # the pad token may be one of them
    pad_token_id=pad,
  )
  for tokens, mask, log_probs in zip(
    *map(np.asarray, (drawn.tokens, drawn.mask, drawn.token_log_probs)),
    strict=True,
  ):
    length = mask.sum()
    assert mask[:length].all() and not mask[length:].any()
    assert not np.isin(tokens[: length - 1], (4, 7)).any()
    assert length == 20 or tokens[length - 1] in (4, 7)
    assert (log_probs[:length] < 0).all()
    assert (tokens[length:] == pad).all() and not log_probs[length:].any()


@pytest.mark.parametrize("eos", [2, (9, np.int64(2))])
def test_any_of_several_eos_ids_ends_a_completion_but_not_a_prompt(eos):
  # Deterministic: 0 -> 1 -> 2 -> 3 -> ...
  params = 100 * np.eye(10, k=1, dtype=np.float32)
  after_eos = draw_table(params, max_new_tokens=5, eos_token_id=eos, prompt=2)
  np.testing.assert_array_equal(after_eos.tokens[0, :3], [3, 4, 5])
  drawn = draw_table(params, max_new_tokens=5, eos_token_id=eos)
  np.testing.assert_array_equal(drawn.tokens, [[1, 2, 0, 0, 0]])
  np.testing.assert_array_equal(drawn.mask, [[1, 1, 0, 0, 0]])


def test_eos_list_is_taken_as_a_tuple():
  assert sampling._eos_token_ids([9, 2]) == (9, 2)


@pytest.mark.parametrize("length", [1, 17])
def test_any_length_is_drawn_exactly(length):
  rng = np.random.default_rng(0)
  params = rng.normal(size=(V, V)).astype(np.float32)
  drawn, longest = (
    draw_table(params, max_new_tokens=n, eos_token_id=V) for n in (length, 53)
  )
  assert drawn.tokens.shape == (1, length) and drawn.mask.all()
  assert_same(drawn, jax.tree.map(lambda x: x[:, :length], longest))


@pytest.mark.parametrize("cached, end", [(False, 17), (True, 1), (True, None)])
def test_decode_stops_soon_after_every_row_has_ended(cached, end):
  calls = []
  # A chain 0 -> 1 -> 2 -> ... whose EOS is `end`; the other row ends at once.
  params = 100 * jnp.eye(64, k=1)

  def counting(params, tokens, *, cache, **_):
    if tokens.shape[1] == 1 or cache is None:  # not the prefill
      jax.debug.callback(lambda: calls.append(1))
    return params[tokens], cache

  drawn = sample(
    counting,
    params,
    jnp.array([[0, 0, 0], [0, 0, (end or 64) - 1]]),
    jnp.ones((2, 3), bool),
    jax.random.key(0),
    max_new_tokens=48,
    eos_token_id=end or 99,
    pad_token_id=0,
    init_cache=(lambda rows, length: jnp.zeros(rows)) if cached else None,
  )
  jax.block_until_ready(drawn)
  jax.effects_barrier()
  chunk, needed = sampling._CHUNK_SIZE, end or 48
  assert drawn.mask.sum(axis=1)[0] == needed
  assert len(calls) == -(-needed // chunk) * chunk


# What is refused.


@pytest.mark.parametrize(
  "kwargs, message",
  [
    ({"max_new_tokens": 0}, "max_new_tokens: expected an int >= 1, got 0"),
    ({"max_new_tokens": 2.0}, "max_new_tokens"),
    ({"samples_per_prompt": 0}, "samples_per_prompt: expected an int >= 1"),
    ({"samples_per_prompt": True}, "samples_per_prompt"),
    ({"eos_token_id": ()}, "eos_token_id: expected an int or at least one"),
    ({"eos_token_id": (1, "</s>")}, "eos_token_id: expected an int >= 0"),
    ({"eos_token_id": None}, "eos_token_id"),
    ({"pad_token_id": -100}, "pad_token_id: expected an int >= 0, got -100"),
    ({"pad_token_id": None}, "pad_token_id"),
    ({"temperature": -0.1}, "temperature: expected a number >= 0"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": float("inf")}, "temperature"),
    ({"temperature": jnp.ones(())}, "temperature"),
    ({"top_k": 0}, "top_k: expected an int >= 1, got 0"),
    ({"top_k": 1.5}, "top_k"),
    ({"top_p": 0.0}, r"top_p: expected a number in \(0, 1\], got 0.0"),
    ({"top_p": 1.1}, "top_p"),
    ({"key": jax.random.PRNGKey(0)}, "key: expected a typed key"),
    ({"key": 0}, "key: expected a typed key"),
    ({"key": jax.random.split(jax.random.key(0), 2)}, r"key: .*\(3,\).*\(2,\)"),
    ({"key": jax.random.key(0, impl="rbg")}, "key: .*threefry2x32.*rbg"),
    ({"prompt_tokens": PROMPTS[0]}, r"prompt_tokens: expected shape \[B, P\]"),
    ({"prompt_tokens": PROMPTS[:, :0]}, "prompt_tokens"),
    ({"prompt_tokens": PROMPTS[:0]}, "prompt_tokens"),
    ({"prompt_tokens": PROMPTS / 2}, "prompt_tokens: expected an integer"),
    ({"prompt_mask": PROMPT_MASK[:2]}, r"prompt_mask: expected .*\(3, 5\)"),
    ({"prompt_mask": PROMPT_MASK * 1}, "prompt_mask: expected dtype bool"),
    ({"apply_fn": lambda *_, **__: (jnp.ones((3, V)), 0)}, "apply_fn: .*V"),
    ({"apply_fn": table}, "apply_fn: expected a cache"),
  ],
)
def test_wrong_arguments_are_refused_by_name(kwargs, message):
  arguments = dict(
    apply_fn=attention,
    params=jnp.zeros((V, V)),
    prompt_tokens=PROMPTS,
    prompt_mask=PROMPT_MASK,
    key=jax.random.key(0),
    max_new_tokens=3,
    eos_token_id=EOS,
    pad_token_id=PAD,
    init_cache=init_cache,
  )
  with pytest.raises(ValueError, match=message):
    sampling.sample(**arguments | kwargs)


@pytest.mark.parametrize(
  "row", [[1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
)
def test_prompt_that_is_not_left_padded_is_refused_by_row(row):
  mask = np.array([[1] * 5, row, [0, 0, 0, 1, 1]], bool)
  with pytest.raises(ValueError, match="prompt_mask: .* in row 1"):
    sampling.sample(
      attention,
      attention_params(0),
      PROMPTS,
      mask,
      jax.random.key(0),
      max_new_tokens=3,
      eos_token_id=EOS,
      pad_token_id=PAD,
    )
