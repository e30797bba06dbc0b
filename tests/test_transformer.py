# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The prefix-shared row, padding, windows, cache: all equal to plain form."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypo_jax import sampling
from hypo_jax.batch import Rows, predicting
from hypo_jax.models import transformer
from hypo_jax.models.config import Rope, TransformerConfig
from hypo_jax.models.policy import Model, Policy

CONFIG = TransformerConfig(
  vocab_size=23,
  num_layers=3,
  width=16,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  mlp_width=24,
  max_positions=64,
)
VARIED = dataclasses.replace(
  CONFIG,
  windows=(None, 3, 5),
  rope=(Rope(), Rope(theta=100.0), Rope(factor=3.0)),
  attention_softcap=4.0,
  final_softcap=6.0,
  tied_embeddings=False,
)
P, S, C = 6, 3, 5


@pytest.fixture(autouse=True)
def _highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


def random_rows(seed: int, batch: int = 2) -> Rows:
  """Random lengths: prompts of 1..P tokens, slots of 0..C."""
  rng = np.random.default_rng(seed)
  prompt_lengths = rng.integers(1, P + 1, batch)
  slot_lengths = rng.integers(0, C + 1, (batch, S))
  prompt_mask = np.arange(P) >= P - prompt_lengths[:, None]
  slot_mask = np.arange(C) < slot_lengths[..., None]
  # Padding holds arbitrary tokens: nothing may depend on them.
  return Rows(
    jnp.asarray(rng.integers(0, 23, (batch, P)), jnp.int32),
    jnp.asarray(prompt_mask),
    jnp.asarray(rng.integers(0, 23, (batch, S, C)), jnp.int32),
    jnp.asarray(slot_mask),
  )


def log_softmax_at(model, params, hidden, tokens):
  logits = jax.nn.log_softmax(model.bind(params).logits(hidden))
  return jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]


@partial(jax.jit, static_argnums=0)
def row_log_probs(model, params, rows):
  hidden = model.row_hidden(params, rows)
  scored = log_softmax_at(model, params, hidden, rows.slot_tokens)
  return jnp.where(rows.slot_mask, scored, 0.0)


def separate_sequences(rows):
  """Each prompt + slot alone, from position 0: numpy [B * S, P + C]."""
  sequences = np.zeros((rows.slot_mask.shape[0] * S, P + C), np.int32)
  places = np.zeros((len(sequences), C), np.int32)
  for i in range(len(sequences)):
    b, s = divmod(i, S)
    prompt = rows.prompt_tokens[b][np.asarray(rows.prompt_mask[b])]
    slot = rows.slot_tokens[b, s][np.asarray(rows.slot_mask[b, s])]
    sequences[i, : len(prompt) + len(slot)] = np.concatenate([prompt, slot])
    places[i] = len(prompt) - 1 + np.arange(C)
  return sequences, places


@partial(jax.jit, static_argnums=0)
def separate_log_probs(model, params, rows, sequences, places):
  """Plain causal forward; what follows a sequence's end it cannot see."""
  length = sequences.shape[1]
  hidden, _ = model.hidden(
    params,
    sequences,
    positions=jnp.broadcast_to(jnp.arange(length), sequences.shape),
    attention_mask=jnp.tril(jnp.ones((1, length, length), bool)),
  )
  hidden = jnp.take_along_axis(hidden, places[..., None], axis=1)
  hidden = hidden.reshape(*rows.slot_tokens.shape, -1)
  scored = log_softmax_at(model, params, hidden, rows.slot_tokens)
  return jnp.where(rows.slot_mask, scored, 0.0)


@pytest.mark.parametrize("config", [CONFIG, VARIED], ids=["plain", "varied"])
@pytest.mark.parametrize("seed", range(4))
def test_prefix_shared_row_equals_separate_sequences(config, seed):
  model = Model(config)
  params = model.init(jax.random.key(seed))
  rows = random_rows(seed)
  weights = jax.random.normal(jax.random.key(1), (2, S, C))

  alone = separate_sequences(rows)
  value, pull_back = jax.vjp(lambda p: row_log_probs(model, p, rows), params)
  plain, plain_pull_back = jax.vjp(
    lambda p: separate_log_probs(model, p, rows, *alone), params
  )
  np.testing.assert_allclose(value, plain, atol=1e-5)
  gradient, plain_gradient = pull_back(weights), plain_pull_back(weights)
  for a, b in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(plain_gradient), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5 * max(1, jnp.abs(b).max()))


@pytest.mark.parametrize(
  ("unrolled_layers", "tokens_a_layer"),
  [(0, 1 << 30), (0, 1), (4, 1)],
  ids=["scanned", "last-layer-apart", "all-apart"],
)
def test_every_way_through_the_layers_is_one_function(
  monkeypatch, unrolled_layers, tokens_a_layer
):
  """Queries in blocks of two, too: a prompt of six has three."""
  monkeypatch.setattr(transformer, "_UNROLLED_LAYERS", unrolled_layers)
  monkeypatch.setattr(transformer, "_TOKENS_A_LAYER", tokens_a_layer)
  monkeypatch.setattr(transformer, "_QUERY_BLOCK_SIZE", 2)
  model = Model(VARIED)
  params = model.init(jax.random.key(7))
  rows = random_rows(11)
  weights = jax.random.normal(jax.random.key(1), (2, S, C))
  alone = separate_sequences(rows)
  row_form = row_log_probs.__wrapped__  # Nothing compiled before is reused.

  def fused_form(model, params, rows):
    last, keys_values = model.prompt_forward(
      params, rows.prompt_tokens, rows.prompt_mask, first=P - 1
    )
    slots = model.slots_forward(
      params, keys_values, rows.prompt_mask, rows.slot_tokens, rows.slot_mask
    )
    hidden = predicting(last, slots)
    scored = log_softmax_at(model, params, hidden, rows.slot_tokens)
    return jnp.where(rows.slot_mask, scored, 0.0)

  def plain_form(model, params, rows):
    return separate_log_probs.__wrapped__(model, params, rows, *alone)

  def value_and_gradient(form):
    value, pull_back = jax.vjp(lambda p: form(model, p, rows), params)
    return value, pull_back(weights)[0]

  plain, plain_gradient = jax.jit(lambda: value_and_gradient(plain_form))()
  for form in (row_form, fused_form):
    value, gradient = jax.jit(partial(value_and_gradient, form))()
    np.testing.assert_allclose(value, plain, atol=1e-5)
    for a, b in zip(
      jax.tree.leaves(gradient), jax.tree.leaves(plain_gradient), strict=True
    ):
      np.testing.assert_allclose(a, b, atol=1e-5 * max(1, jnp.abs(b).max()))


@pytest.mark.parametrize("unroll", [True, False], ids=["apart", "scanned"])
@pytest.mark.parametrize("samples_per_prompt", [1, 3])
def test_decoding_from_a_prompts_keys_draws_what_sample_draws(
  unroll, samples_per_prompt
):
  """18 tokens: the loop's last chunk goes one step too far."""
  model = Model(dataclasses.replace(VARIED, vocab_size=300))
  params = model.init(jax.random.key(5))
  rows = random_rows(3, batch=3)
  prompt = rows.prompt_tokens, rows.prompt_mask
  settings = {
    "samples_per_prompt": samples_per_prompt,
    "max_new_tokens": 18,
    "eos_token_id": (1, 250, 77, 12),
    "pad_token_id": 0,
  }
  key = jax.random.key(9)

  @jax.jit
  def decoded():
    last, keys_values = model.prompt_forward(params, *prompt, first=P - 1)
    step_fn, cache = model.decoder(
      params,
      keys_values,
      rows.prompt_mask,
      samples_per_prompt=samples_per_prompt,
      max_new_tokens=18,
      unroll=unroll,
    )
    logits = model.logits(params, last[:, 0])
    return sampling.decode(step_fn, cache, logits, key, **settings)

  plain = jax.jit(
    lambda: sampling.sample(
      model.apply,
      params,
      *prompt,
      key,
      init_cache=model.init_cache,
      **settings,
    )
  )()
  drawn = decoded()
  np.testing.assert_array_equal(drawn.tokens, plain.tokens)
  np.testing.assert_array_equal(drawn.mask, plain.mask)
  np.testing.assert_allclose(
    drawn.token_log_probs, plain.token_log_probs, atol=2e-5
  )
  assert 0 < drawn.mask.mean() < 1  # Some ended, some ran to the limit.


MODEL = Model(VARIED)
PARAMS = MODEL.init(jax.random.key(0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_row_log_probs_ignore_padding_and_other_slots(seed):
  rows = random_rows(seed)
  scored = row_log_probs(MODEL, PARAMS, rows)
  noise = random_rows(seed + 1)
  other = dataclasses.replace(
    rows,
    prompt_tokens=jnp.where(
      rows.prompt_mask, rows.prompt_tokens, noise.prompt_tokens
    ),
    slot_tokens=jnp.where(rows.slot_mask, rows.slot_tokens, noise.slot_tokens)
    .at[:, 1]
    .set(noise.slot_tokens[:, 1]),
    slot_mask=rows.slot_mask.at[:, 1].set(noise.slot_mask[:, 1]),
  )
  again = row_log_probs(MODEL, PARAMS, other)
  np.testing.assert_allclose(scored[:, 0], again[:, 0], atol=1e-5)
  np.testing.assert_allclose(scored[:, 2], again[:, 2], atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, VARIED], ids=["plain", "varied"])
def test_demand_09_padding_side_and_company_change_no_log_prob(config):
  model = Model(config)
  params = model.init(jax.random.key(3))
  policy = Policy(model.apply, params, config, None, model)
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, 23, n) for n in (3, 7, 5)]
  alone = [
    policy.log_probs(row[None], np.ones((1, len(row)), bool))[0] for row in rows
  ]
  width = 9
  tokens = rng.integers(0, 23, (6, width))
  mask = np.zeros((6, width), bool)
  for i, row in enumerate(rows):
    tokens[i, width - len(row) :] = row  # left-padded
    mask[i, width - len(row) :] = True
    tokens[3 + i, : len(row)] = row  # right-padded, in the same batch
    mask[3 + i, : len(row)] = True
  together = np.asarray(policy.log_probs(tokens, mask))
  for i, row in enumerate(rows):
    left, right = together[i], together[3 + i]
    np.testing.assert_allclose(left[width - len(row) :], alone[i], atol=1e-5)
    np.testing.assert_allclose(right[: len(row) - 1], alone[i], atol=1e-5)
    assert not left[: width - len(row)].any()
    assert not right[len(row) - 1 :].any()


@pytest.mark.parametrize("config", [CONFIG, VARIED], ids=["plain", "varied"])
def test_cached_forward_equals_full_forward(config):
  model = Model(config)
  params = model.init(jax.random.key(5))
  tokens = jax.random.randint(jax.random.key(6), (2, 8), 0, 23)
  mask = jnp.arange(8) >= jnp.array([[2], [0]])
  positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
  visible = jnp.tril(jnp.ones((8, 8), bool)) & mask[:, None]
  full, _ = model.apply(
    params, tokens, positions=positions, attention_mask=visible
  )
  cache = model.init_cache(2, 8)
  parts = []
  for start, stop in [(0, 4), (4, 5), (5, 8)]:
    logits, cache = model.apply(
      params,
      tokens[:, start:stop],
      positions=positions[:, start:stop],
      attention_mask=visible[:, start:stop],
      cache=cache,
    )
    parts.append(logits)
  cached = jnp.concatenate(parts, axis=1)
  np.testing.assert_allclose(
    np.where(mask[..., None], cached, 0),
    np.where(mask[..., None], full, 0),
    atol=1e-5,
  )


def test_remat_changes_nothing_and_bfloat16_stays_close():
  params = MODEL.init(jax.random.key(0))
  rows = random_rows(0)
  plain = row_log_probs(MODEL, params, rows)
  remat = Model(dataclasses.replace(VARIED, remat=True))
  np.testing.assert_array_equal(row_log_probs(remat, params, rows), plain)
  narrow = Model(dataclasses.replace(VARIED, compute_dtype="bfloat16"))
  assert narrow.row_hidden(params, rows).dtype == jnp.bfloat16
  np.testing.assert_allclose(
    row_log_probs(narrow, params, rows), plain, atol=0.15
  )


def test_layer_settings_are_checked():
  with pytest.raises(ValueError, match="num_kv_heads.*divisor.*4.*got 3"):
    dataclasses.replace(CONFIG, num_kv_heads=3)
  with pytest.raises(ValueError, match=r"windows: expected one value a layer"):
    dataclasses.replace(CONFIG, windows=(None,))
  with pytest.raises(ValueError, match="head_dim: expected an even number"):
    dataclasses.replace(CONFIG, head_dim=5)
