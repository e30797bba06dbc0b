# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The reward model: where its head reads, its step, calibration, collapse."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hypo_jax import losses, reward_model, sharding, statistics, train
from hypo_jax.batch import PreferenceBatch, Rows, pair_rows
from hypo_jax.checkpoint import Checkpoints, abstract
from hypo_jax.models import Model, TransformerConfig, lora, scalar_head

B, P, C = 8, 4, 5
CONFIG = TransformerConfig(
  vocab_size=17,
  num_layers=2,
  width=16,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_width=24,
  max_positions=32,
)
MODEL = Model(CONFIG)
BACKBONE = MODEL.init(jax.random.key(0))
PARAMS = reward_model.start(BACKBONE, CONFIG.width, jax.random.key(1))
MESH = sharding.make_mesh()


def random_pairs(seed: int = 0, count: int = B) -> dict[str, np.ndarray]:
  """Chosen completions have more 3s; the last pair has an empty side."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, C + 1, (2, count))
  lengths[1, -1] = 0
  masks = np.arange(C) < lengths[..., None]
  tokens = rng.integers(4, 17, (2, count, C))
  tokens[0, :, ::2] = 3
  return {
    "prompt_tokens": rng.integers(4, 17, (count, P)).astype(np.int32),
    "prompt_mask": np.arange(P) >= rng.integers(0, P, count)[:, None],
    "chosen_tokens": tokens[0].astype(np.int32),
    "rejected_tokens": tokens[1].astype(np.int32),
    "chosen_mask": masks[0],
    "rejected_mask": masks[1],
    "pair_mask": masks.any(-1).all(0),
  }


def as_batch(pairs: dict[str, np.ndarray]) -> PreferenceBatch:
  count = len(pairs["pair_mask"])
  zeros = jnp.zeros(count)
  return PreferenceBatch(
    **jax.tree.map(jnp.asarray, pairs),
    row=jnp.arange(count, dtype=jnp.int32),
    ref_chosen_log_probs=zeros,
    ref_rejected_log_probs=zeros,
  )


BATCH = as_batch(random_pairs())


# Where the head reads.


def test_a_reward_is_the_heads_value_at_the_last_scored_token():
  """Against a plain forward of prompt and completion, without padding."""
  rows = pair_rows(BATCH)
  rewards = reward_model.completion_rewards(MODEL, PARAMS, rows)
  assert rewards.shape == (B, 2) and rewards.dtype == jnp.float32
  for b in range(B):
    for s in range(2):
      prompt = rows.prompt_tokens[b][rows.prompt_mask[b]]
      completion = rows.slot_tokens[b, s][rows.slot_mask[b, s]]
      tokens = jnp.concatenate([prompt, completion])[None]
      hidden, _ = MODEL.prompt_forward(
        BACKBONE, tokens, jnp.ones(tokens.shape, bool)
      )
      expected = scalar_head.apply(PARAMS["reward_head"], hidden[0, -1])
      np.testing.assert_allclose(rewards[b, s], expected, atol=1e-5)


def test_row_states_are_row_hidden_and_the_last_token_s():
  rows = pair_rows(BATCH)
  states = MODEL.row_states(BACKBONE, rows)
  assert states.shape == (B, 2, C + 1, CONFIG.width)
  np.testing.assert_allclose(
    states[:, :, :-1], MODEL.row_hidden(BACKBONE, rows), atol=1e-6
  )


def test_padding_changes_no_reward():
  rows = pair_rows(BATCH)
  rng = np.random.default_rng(1)
  other = jnp.asarray(rng.integers(0, 17, rows.slot_tokens.shape), jnp.int32)
  tokens = jnp.where(rows.slot_mask, rows.slot_tokens, other)
  moved = dataclasses.replace(rows, slot_tokens=tokens)
  np.testing.assert_allclose(
    reward_model.completion_rewards(MODEL, PARAMS, moved),
    reward_model.completion_rewards(MODEL, PARAMS, rows),
    atol=1e-6,
  )


def test_centring_moves_the_mean_and_no_difference():
  rows = pair_rows(BATCH)
  before = reward_model.completion_rewards(MODEL, PARAMS, rows)
  after = reward_model.completion_rewards(
    MODEL, reward_model.centred(PARAMS, before.mean()), rows
  )
  np.testing.assert_allclose(after.mean(), 0.0, atol=1e-6)
  np.testing.assert_allclose(after, before - before.mean(), atol=1e-6)


# The loss.


def test_the_loss_is_bradley_terrys():
  chosen, rejected = jnp.array([2.0, -1.0]), jnp.array([0.5, 1.0])
  loss = losses.bradley_terry_loss(chosen, rejected)
  expected = np.log1p(np.exp([-1.5, 2.0]))
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  loss = losses.bradley_terry_loss(chosen, rejected, margin=1.0)
  expected = np.log1p(np.exp([-0.5, 3.0]))
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  gradient = jax.grad(lambda c: losses.bradley_terry_loss(c, rejected).sum())
  np.testing.assert_allclose(
    gradient(chosen), -1 / (1 + np.exp([1.5, -2.0])), rtol=1e-5
  )


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (dict(margin=-0.1), "margin: expected >= 0"),
    (dict(rejected_rewards=jnp.zeros(3)), "rejected_rewards: expected shape"),
    (
      dict(chosen_rewards=jnp.zeros(2, jnp.bfloat16)),
      "chosen_rewards: expected float32",
    ),
  ],
)
def test_wrong_arguments_are_named(arguments, message):
  good = {"chosen_rewards": jnp.zeros(2), "rejected_rewards": jnp.zeros(2)}
  with pytest.raises(ValueError, match=message):
    losses.bradley_terry_loss(**good | arguments)


# The step.


def steps(count, batch=BATCH, *, rate=0.03, params=PARAMS, **settings):
  optimizer = optax.adam(rate)
  step = reward_model.make_reward_step(MODEL, optimizer, **settings)
  state = train.init_state(params, optimizer, MESH)
  for _ in range(count):
    state, metrics = step(state, None, batch)
  return state, jax.device_get(metrics)


def test_the_step_takes_the_gradient_of_the_mean_over_real_pairs():
  def loss_fn(params):
    rewards = reward_model.completion_rewards(MODEL, params, pair_rows(BATCH))
    each = losses.bradley_terry_loss(rewards[:, 0], rewards[:, 1], margin=0.5)
    return each[:-1].mean()

  assert not BATCH.pair_mask[-1] and BATCH.pair_mask[:-1].all()
  expected = jax.grad(loss_fn)(PARAMS)
  optimizer = optax.sgd(1.0)
  for size in (None, 2):
    step = reward_model.make_reward_step(
      MODEL, optimizer, margin=0.5, micro_batch_size=size
    )
    state = train.init_state(PARAMS, optimizer, MESH)
    state, metrics = step(state, None, BATCH)
    change = jax.tree.map(lambda x, y: x - y, PARAMS, state.trainable)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), change, expected
    )
    np.testing.assert_allclose(metrics["loss"], loss_fn(PARAMS), rtol=1e-5)


def test_it_learns_what_tells_held_out_pairs_apart():
  state, metrics = steps(60, as_batch(random_pairs(1, 32)))
  assert metrics["reward_accuracy"] == 1.0 and metrics["loss"] < 0.1
  scorer = reward_model.make_pair_scorer(MODEL, batch_size=B, mesh=MESH)
  held_out = random_pairs(5, 20)  # More than two batches.
  rewards = scorer(state.trainable, held_out)
  assert rewards.shape == (20, 2)
  margins = (rewards[:, 0] - rewards[:, 1])[held_out["pair_mask"]]
  assert statistics.reliability(margins)["accuracy"] > 0.9


def test_an_adapter_alone_is_trained():
  model = Model(dataclasses.replace(CONFIG, adapter_scale=2.0))
  adapter = lora.init(BACKBONE, jax.random.key(3), rank=2)
  params = reward_model.start(adapter, CONFIG.width, jax.random.key(1))
  optimizer = optax.adam(0.03)
  step = reward_model.make_reward_step(model, optimizer, adapters=True)
  state = train.init_state(params, optimizer, MESH)
  for i in range(40):
    state, metrics = step(state, BACKBONE, BATCH)
    if not i:  # A new adapter changes nothing yet.
      np.testing.assert_allclose(
        metrics["loss"], steps(1)[1]["loss"], rtol=1e-5
      )
  assert metrics["loss"] < 0.3
  assert "layers" in state.trainable["policy"]
  assert "embedding" not in state.trainable["policy"]
  whole = reward_model.whole(state.trainable, BACKBONE, True)
  rewards = reward_model.completion_rewards(model, whole, pair_rows(BATCH))
  assert (rewards[:-1, 0] > rewards[:-1, 1]).all()


def test_a_checkpoint_brings_it_back_bit_for_bit(tmp_path):
  state, _ = steps(3)
  checkpoints = Checkpoints(tmp_path, keep=1, frozen="none")
  checkpoints.save(state, [])
  restored, _ = checkpoints.restore(abstract(state), 3)
  checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, state, restored)


# A model that says nothing.


def test_a_constant_model_is_named():
  constant = reward_model.start(BACKBONE, CONFIG.width, jax.random.key(1))
  constant["reward_head"] = scalar_head.init(CONFIG.width)
  constant = reward_model.centred(constant, -0.25)
  rewards = reward_model.completion_rewards(MODEL, constant, pair_rows(BATCH))
  with pytest.raises(
    ValueError, match=r"of 8 pairs apart .* around 0.25: it has collapsed"
  ):
    reward_model.check_spread(rewards)
  by_prompt = np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
  with pytest.raises(ValueError, match="of 3 pairs apart .* a constant a prom"):
    reward_model.check_spread(by_prompt)
  reward_model.check_spread(by_prompt + [1.0, 0.0])  # Right of every pair.
  reward_model.check_spread(
    reward_model.completion_rewards(MODEL, PARAMS, pair_rows(BATCH))
  )


def test_rewards_that_are_not_finite_are_named():
  with pytest.raises(ValueError, match="expected finite rewards, 1 of 4"):
    reward_model.check_spread(np.array([[0.0, 1.0], [math.nan, 2.0]]))


# Calibration.


def test_reliability_by_hand():
  # sigmoid(0.5) = 0.622, sigmoid(3) = 0.953: bins of 0.05 from 0.5 on.
  found = statistics.reliability(np.array([0.5, -0.5, 0.5, 3.0]))
  low, high = (1 / (1 + math.exp(-m)) for m in (0.5, 3.0))
  assert found["accuracy"] == 0.75
  filled = [b for b in found["bins"] if b["count"]]
  assert [(round(b["low"], 2), b["count"]) for b in filled] == [
    (0.6, 3),
    (0.95, 1),
  ]
  assert filled[0]["accuracy"] == pytest.approx(2 / 3)
  assert filled[0]["certainty"] == pytest.approx(low)
  expected = 0.75 * abs(low - 2 / 3) + 0.25 * (1 - high)
  assert found["calibration_error"] == pytest.approx(expected)
  expected = (2 * math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5))) / 4
  expected += math.log1p(math.exp(-3.0)) / 4
  assert found["log_loss"] == pytest.approx(expected)


def test_bins_have_an_interval_even_where_all_are_right():
  found = statistics.reliability(np.full(4, 3.0))["bins"][-1]
  # Wilson's, of 4 of 4: from 4 / (4 + 1.96^2) to 1.
  assert found["interval"] == pytest.approx((4 / (4 + 1.959964**2), 1.0))
  low, high = statistics.wilson_interval(0.3, 50)
  z, n = 1.959964, 50  # Its ends are where the share is z errors off.
  for end in (low, high):
    assert abs(0.3 - end) == pytest.approx(z * (end * (1 - end) / n) ** 0.5)


def test_a_calibrated_model_has_the_error_that_chance_gives():
  rng = np.random.default_rng(1)
  errors, expected = [], []
  for _ in range(400):
    margins = rng.normal(scale=1.5, size=512)
    right = rng.uniform(size=512) < 1 / (1 + np.exp(-margins))
    found = statistics.reliability(np.where(right, margins, -margins))
    errors.append(found["calibration_error"])
    expected.append(found["calibration_error_by_chance"])
  assert np.mean(errors) == pytest.approx(np.mean(expected), rel=0.05)


def test_labels_drawn_from_the_margins_are_calibrated():
  rng = np.random.default_rng(0)
  margins = rng.normal(scale=2.0, size=200_000)
  preferred = rng.uniform(size=margins.size) < 1 / (1 + np.exp(-margins))
  honest = np.where(preferred, margins, -margins)
  assert statistics.reliability(honest)["calibration_error"] < 0.01
  # Three times as sure as it should be.
  assert statistics.reliability(3 * honest)["calibration_error"] > 0.1


def test_extreme_and_tied_margins():
  found = statistics.reliability(np.array([0.0, 1e4, -1e4]))
  assert found["accuracy"] == 0.5
  assert found["bins"][0]["accuracy"] == 0.5
  assert found["bins"][-1]["count"] == 2


@pytest.mark.parametrize("margins", [[], [math.nan], [[1.0]]])
def test_margins_that_are_none_are_refused(margins):
  with pytest.raises(ValueError, match="margins: expected finite numbers"):
    statistics.reliability(np.array(margins))


def test_an_empty_completion_is_read_at_the_prompts_end():
  rows = pair_rows(BATCH)
  empty = Rows(
    rows.prompt_tokens,
    rows.prompt_mask,
    rows.slot_tokens,
    jnp.zeros_like(rows.slot_mask),
  )
  rewards = reward_model.completion_rewards(MODEL, PARAMS, empty)
  hidden, _ = MODEL.prompt_forward(
    BACKBONE, rows.prompt_tokens, rows.prompt_mask
  )
  expected = scalar_head.apply(PARAMS["reward_head"], hidden[:, -1])
  np.testing.assert_allclose(rewards[:, 0], expected, atol=1e-5)


def test_completions_are_scored_in_batches_as_all_at_once():
  """Seven prompts in batches of four: the second one wraps around."""
  rng = np.random.default_rng(3)
  mask = np.arange(C) < rng.integers(0, C + 1, (7, 3))[..., None]
  tokens = rng.integers(4, 17, (7, 3, C)).astype(np.int32)
  prompts = {
    name: random_pairs(1)[name][:7] for name in ("prompt_tokens", "prompt_mask")
  }
  samples = statistics.PolicySamples(tokens, mask, None, None)
  scorer = reward_model.make_sample_scorer(MODEL, batch_size=4, mesh=MESH)
  rows = Rows(*map(jnp.asarray, (*prompts.values(), tokens, mask)))
  np.testing.assert_allclose(
    scorer(PARAMS, prompts, samples),
    reward_model.completion_rewards(MODEL, PARAMS, rows),
    atol=1e-5,
  )
