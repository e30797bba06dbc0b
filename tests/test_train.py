# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The training step: micro-batches, identities at step 0, HyPO's own loss."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hypo_jax import keys, losses, objective, rollout, sharding, train
from hypo_jax.batch import (
  Completions,
  PreferenceBatch,
  cut_lengths,
  lengths,
  pair_rows,
)
from hypo_jax.models import Model, TransformerConfig

B, P, C, K = 8, 5, 6, 2
CONFIG = TransformerConfig(
  vocab_size=19,
  num_layers=2,
  width=16,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_width=24,
  max_positions=32,
)
MODEL = Model(CONFIG)
REFERENCE = MODEL.init(jax.random.key(0))
POLICY = jax.tree.map(
  lambda x, y: x + 0.1 * y, REFERENCE, MODEL.init(jax.random.key(1))
)
SETTINGS = {
  "method": "hypo",
  "beta": 0.3,
  "kl_coef": 0.2,
  "sft_coef": 0.1,
  "estimator": "rao_blackwell",
  "samples_per_prompt": K,
}


def preference_batch(seed: int = 0) -> PreferenceBatch:
  """Random lengths; pair 3 has an empty side and so no weight."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, C + 1, (2, B))
  lengths[1, 3] = 0
  masks = np.arange(C) < lengths[..., None]
  arrays = {
    "prompt_tokens": rng.integers(2, 19, (B, P)).astype(np.int32),
    "prompt_mask": np.arange(P) >= rng.integers(0, P, B)[:, None],
    "chosen_tokens": rng.integers(2, 19, (B, C)).astype(np.int32),
    "rejected_tokens": rng.integers(2, 19, (B, C)).astype(np.int32),
    "chosen_mask": masks[0],
    "rejected_mask": masks[1],
    "pair_mask": masks.any(-1).all(0),
    "row": np.arange(B, dtype=np.int32),
    "ref_chosen_log_probs": np.zeros(B, np.float32),
    "ref_rejected_log_probs": np.zeros(B, np.float32),
  }
  batch = PreferenceBatch(**jax.tree.map(jnp.asarray, arrays))
  rows = pair_rows(batch)
  scored = objective.score_rows(MODEL, REFERENCE, rows)
  log_probs = jnp.sum(jnp.where(rows.slot_mask, scored, 0.0), axis=-1)
  return dataclasses.replace(
    batch,
    ref_chosen_log_probs=log_probs[:, 0],
    ref_rejected_log_probs=log_probs[:, 1],
  )


MESH = sharding.make_mesh()
BATCH = preference_batch()
DRAWING = {
  "samples_per_prompt": K,
  "max_new_tokens": C,
  "eos_token_id": 1,
  "pad_token_id": 0,
  "mesh": MESH,
}
ROLLOUT_STEP = rollout.make_rollout_step(MODEL, **DRAWING)
ROLLOUTS = ROLLOUT_STEP(
  POLICY,
  BATCH.prompt_tokens,
  BATCH.prompt_mask,
  keys.row_keys(jax.random.key(7), BATCH.row),
)


def one_step(
  start=POLICY,
  rollouts=ROLLOUTS,
  batch=BATCH,
  micro_batch_size=None,
  buckets=(),
  **settings,
):
  """Parameters' change (SGD, rate 1: minus the gradient) and metrics."""
  optimizer = optax.sgd(1.0)
  step = train.make_train_step(
    objective.PreferenceLoss(MODEL, **SETTINGS | settings),
    optimizer,
    micro_batch_size=micro_batch_size,
    buckets=buckets,
  )
  state = train.init_state(start, optimizer, MESH)
  state, metrics = step(state, REFERENCE, batch, rollouts)
  change = jax.tree.map(lambda x, y: x - y, start, state.trainable)
  return jax.device_get(change), jax.device_get(metrics)


def assert_trees_close(first, second, **tolerance):
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    np.testing.assert_allclose(a, b, **tolerance)


def test_demand_14_micro_batches_equal_the_large_batch():
  gradient, metrics = one_step()
  for size in (1, 4):
    small_gradient, small_metrics = one_step(micro_batch_size=size)
    assert_trees_close(small_gradient, gradient, atol=2e-6)
    for name, value in metrics.items():
      np.testing.assert_allclose(
        small_metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name
      )


# Longest prompt and completion of rows 2i and 2i + 1: micro-batches of two.
SHORT = ((2, 3), (5, 3), (2, 6), (5, 6))
BUCKETS = ((2, 3), (5, 3))


def batch_of_lengths() -> PreferenceBatch:
  """Micro-batch i of BATCH's rows holds no more than SHORT[i]."""
  prompts, completions = np.array(SHORT * 2).T
  seen = np.arange(C) < completions[:, None]
  return dataclasses.replace(
    BATCH,
    prompt_mask=BATCH.prompt_mask & (np.arange(P) >= P - prompts[:, None]),
    chosen_mask=BATCH.chosen_mask & seen,
    rejected_mask=BATCH.rejected_mask & seen,
  )


def rollouts_of_lengths():
  seen = np.arange(C) < np.array(SHORT * 2)[:, 1, None, None]
  rows = dataclasses.replace(
    ROLLOUTS.rows,
    prompt_mask=batch_of_lengths().prompt_mask,
    slot_mask=ROLLOUTS.rows.slot_mask & seen,
  )
  return dataclasses.replace(ROLLOUTS, rows=rows)


@pytest.mark.parametrize(
  "settings",
  [
    {"method": "dpo", "kl_coef": 0.0},
    {},
    {"shared_prompts": False, "estimator": "sequence"},
  ],
  ids=["dpo", "hypo", "hypo apart"],
)
def test_demand_17_micro_batches_cut_to_buckets_give_the_same(settings):
  drawn = rollouts_of_lengths() if settings.get("kl_coef", 1) else None
  inputs = {"batch": batch_of_lengths(), "rollouts": drawn}
  gradient, metrics = one_step(**inputs, micro_batch_size=2, **settings)
  cut_gradient, cut_metrics = one_step(
    **inputs, micro_batch_size=2, buckets=BUCKETS, **settings
  )
  assert_trees_close(cut_gradient, gradient, atol=2e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(
      cut_metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_completions_are_cut_and_measured_like_the_rows_they_fill():
  mask = jnp.arange(6) < jnp.array([[3], [0], [2]])
  drawn = Completions(jnp.ones((3, 6), jnp.int32), mask, jnp.zeros((3, 6)))
  assert tuple(map(int, lengths(drawn))) == (0, 3)
  shapes = jax.tree.map(jnp.shape, cut_lengths(drawn, 1, 3))
  assert shapes == Completions((3, 3), (3, 3), (3, 3))


def test_demand_17_fine_tuning_in_buckets_gives_the_same():
  batch = batch_of_lengths()
  rows = pair_rows(batch)
  states = []
  for buckets in ((), BUCKETS):
    step = train.make_sft_step(
      MODEL, optax.sgd(1.0), micro_batch_size=2, buckets=buckets
    )
    state = train.init_state(POLICY, optax.sgd(1.0), MESH)
    states.append(jax.device_get(step(state, None, rows)))
  assert_trees_close(states[0], states[1], atol=2e-6)


@pytest.mark.parametrize("prompt", range(1, P + 1))
@pytest.mark.parametrize("completion", range(C + 1))
def test_rows_take_the_first_bucket_that_holds_their_tokens(prompt, completion):
  """Chosen as long as that, rejected and rollouts shorter; then one of them."""
  widths = train._in_buckets(
    lambda params, rows: jnp.array(
      [rows[0].prompt_tokens.shape[1], rows[0].rejected_tokens.shape[1]]
    ),
    BUCKETS,
  )
  seen = np.broadcast_to(np.arange(C) < completion, (B, C))
  none = np.zeros((B, C), bool)
  batch = dataclasses.replace(
    BATCH,
    prompt_mask=np.broadcast_to(np.arange(P) >= P - prompt, (B, P)),
    chosen_mask=none,
    rejected_mask=none,
  )
  rows = dataclasses.replace(
    ROLLOUTS.rows,
    prompt_mask=batch.prompt_mask,
    slot_mask=np.zeros((B, K, C), bool),
  )
  fitting = [(p, c) for p, c in BUCKETS if prompt <= p and completion <= c]
  expected = [*fitting, (P, C)][0]
  for side in ("chosen_mask", "rejected_mask", "rollouts"):
    micro = [batch, dataclasses.replace(ROLLOUTS, rows=rows)]
    if side == "rollouts":
      slots = np.stack([none, seen], axis=1)
      micro[1] = dataclasses.replace(
        micro[1], rows=dataclasses.replace(rows, slot_mask=slots)
      )
    else:
      micro[0] = dataclasses.replace(batch, **{side: seen})
    assert tuple(widths(None, tuple(micro))) == expected


def test_the_step_takes_the_gradient_of_hypo_loss():
  """The step against the public loss on separately scored sequences."""
  mask = ROLLOUTS.rows.slot_mask.reshape(-1, C)

  def loss_fn(params):
    scored = objective.score_rows(MODEL, params, pair_rows(BATCH))
    scored = jnp.where(pair_rows(BATCH).slot_mask, scored, 0.0).sum(-1)
    sampled, ref_sampled, _ = objective.score_rows_and_kl(
      MODEL, params, REFERENCE, ROLLOUTS.rows
    )
    return losses.hypo_loss(
      scored[:, 0],
      scored[:, 1],
      BATCH.ref_chosen_log_probs,
      BATCH.ref_rejected_log_probs,
      sampled.reshape(-1, C),
      ref_sampled.reshape(-1, C),
      mask,
      beta=0.3,
      kl_coef=0.2,
      estimator="leave_one_out",
      samples_per_prompt=K,
      pair_mask=BATCH.pair_mask,
    )

  gradient_fn = jax.jit(jax.grad(loss_fn, has_aux=True))
  expected, expected_metrics = gradient_fn(POLICY)
  gradient, metrics = one_step(estimator="leave_one_out", sft_coef=0.0)
  assert_trees_close(gradient, expected, atol=2e-6)
  for name in ("loss", "kl", "reward_margin", "reward_accuracy"):
    np.testing.assert_allclose(
      metrics[name], expected_metrics[name], rtol=1e-5, atol=1e-6
    )


def test_rollouts_on_their_own_rows_give_the_shared_rows_gradient():
  shared, shared_metrics = one_step()
  apart, apart_metrics = one_step(shared_prompts=False)
  assert_trees_close(shared, apart, atol=2e-6)
  np.testing.assert_allclose(
    shared_metrics["loss"], apart_metrics["loss"], rtol=1e-5
  )


@pytest.mark.parametrize("estimator", objective.ESTIMATORS)
def test_the_fused_step_equals_rollouts_then_training(estimator):
  """In rollouts drawn, gradient and metrics."""
  complete = rollout.make_complete(MODEL, **DRAWING)
  settings = SETTINGS | {"estimator": estimator}
  loss = objective.PreferenceLoss(MODEL, **settings)
  step = train.make_fused_step(loss, optax.sgd(1.0), complete)
  state = train.init_state(POLICY, optax.sgd(1.0), MESH)
  row_keys = keys.row_keys(jax.random.key(7), BATCH.row)
  state, metrics, drawn = step(state, REFERENCE, BATCH, row_keys)
  np.testing.assert_array_equal(
    drawn.rows.slot_tokens, ROLLOUTS.rows.slot_tokens
  )
  np.testing.assert_array_equal(drawn.rows.slot_mask, ROLLOUTS.rows.slot_mask)
  gradient, split_metrics = one_step(estimator=estimator)
  change = jax.tree.map(lambda x, y: x - y, POLICY, state.trainable)
  assert_trees_close(change, gradient, atol=2e-6)
  assert metrics.keys() == split_metrics.keys()
  for name, value in split_metrics.items():
    np.testing.assert_allclose(
      metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name
    )


@pytest.mark.parametrize("tied", [True, False])
def test_a_step_in_bfloat16_is_close_to_float32(tied):
  config = dataclasses.replace(CONFIG, tied_embeddings=tied)

  def gradient(dtype):
    model = Model(dataclasses.replace(config, compute_dtype=dtype))
    start = model.init(jax.random.key(1))
    state = train.init_state(start, optax.sgd(1.0), MESH)
    loss = objective.PreferenceLoss(model, **SETTINGS)
    step = train.make_train_step(loss, optax.sgd(1.0))
    reference = model.init(jax.random.key(0))
    state, metrics = step(state, reference, BATCH, ROLLOUTS)
    change = jax.tree.map(jnp.subtract, start, state.trainable)
    return change, metrics["loss"]

  wide, wide_loss = gradient("float32")
  narrow, narrow_loss = gradient("bfloat16")
  np.testing.assert_allclose(narrow_loss, wide_loss, rtol=0.02)
  error = optax.tree.norm(jax.tree.map(jnp.subtract, narrow, wide))
  assert error < 0.05 * optax.tree.norm(wide)


def test_demand_02_policy_equal_to_reference_gives_ln_2_and_no_kl():
  rollouts = ROLLOUT_STEP(
    REFERENCE,
    BATCH.prompt_tokens,
    BATCH.prompt_mask,
    keys.row_keys(jax.random.key(7), BATCH.row),
  )
  _, metrics = one_step(start=REFERENCE, rollouts=rollouts, sft_coef=0.0)
  np.testing.assert_allclose(metrics["preference_loss"], np.log(2), rtol=1e-6)
  for name in ("kl", "kl_rao_blackwell", "reward_margin"):
    np.testing.assert_allclose(metrics[name], 0.0, atol=1e-5)


def test_demand_10_rollouts_are_scored_as_they_were_sampled():
  _, metrics = one_step()
  assert metrics["sampler_gap"] < 1e-5
  broken = dataclasses.replace(
    ROLLOUTS, token_log_probs=ROLLOUTS.token_log_probs / 0.7
  )
  _, metrics = one_step(rollouts=broken)
  assert metrics["sampler_gap"] > 0.1


def test_demand_05_an_empty_side_has_no_weight_and_nothing_is_nan():
  other = np.asarray(BATCH.chosen_tokens).copy()
  other[3] = (other[3] + 1) % 19
  moved = dataclasses.replace(BATCH, chosen_tokens=jnp.asarray(other))
  gradient, metrics = one_step(kl_coef=0.0, method="dpo", rollouts=None)
  same, _ = one_step(kl_coef=0.0, method="dpo", rollouts=None, batch=moved)
  assert_trees_close(gradient, same, atol=1e-7)
  assert all(np.isfinite(v) for v in metrics.values())


@pytest.mark.parametrize("method", ["dpo", "ipo"])
def test_demand_05_a_pair_left_out_may_have_nan_references(method):
  unknown = dataclasses.replace(
    BATCH,
    ref_chosen_log_probs=BATCH.ref_chosen_log_probs.at[3].set(jnp.nan),
    ref_rejected_log_probs=BATCH.ref_rejected_log_probs.at[3].set(jnp.nan),
  )
  settings = {"method": method, "kl_coef": 0.0, "rollouts": None}
  found, same = one_step(**settings, batch=unknown), one_step(**settings)
  jax.tree.map(np.testing.assert_array_equal, found, same)


def mean_chosen(params):
  """Mean log-prob a token of the chosen completions of real pairs."""
  rows, real = pair_rows(BATCH), BATCH.pair_mask
  scored = objective.score_rows(MODEL, params, rows)[real, 0]
  mask = rows.slot_mask[real, 0]
  return jnp.where(mask, scored, 0.0).sum() / mask.sum()


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_sft_coef_weighs_the_chosen_completions_of_real_pairs(
  micro_batch_size,
):
  settings = {"method": "dpo", "kl_coef": 0.0, "rollouts": None}
  settings["micro_batch_size"] = micro_batch_size
  plain, _ = one_step(**settings, sft_coef=0.0)
  change, metrics = one_step(**settings, sft_coef=0.7)
  value, gradient = jax.jit(jax.value_and_grad(mean_chosen))(POLICY)
  expected = jax.tree.map(lambda x, y: x - 0.7 * y, plain, gradient)
  assert_trees_close(change, expected, atol=2e-6)
  assert max(np.abs(x).max() for x in jax.tree.leaves(gradient)) > 1e-2
  np.testing.assert_allclose(metrics["sft_loss"], -value, rtol=1e-5)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_fine_tuning_raises_the_mean_log_prob_of_the_tokens(micro_batch_size):
  rows = pair_rows(BATCH)

  def loss_fn(params):
    scored = objective.score_rows(MODEL, params, rows)
    return -jnp.where(rows.slot_mask, scored, 0.0).sum() / rows.slot_mask.sum()

  loss, gradient = jax.jit(jax.value_and_grad(loss_fn))(POLICY)
  optimizer = optax.sgd(1.0)
  step = train.make_sft_step(
    MODEL, optimizer, micro_batch_size=micro_batch_size
  )
  state, metrics = step(train.init_state(POLICY, optimizer, MESH), None, rows)
  change = jax.tree.map(lambda x, y: x - y, POLICY, state.trainable)
  assert_trees_close(change, gradient, atol=2e-6)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


def test_counts_are_of_real_pairs_and_of_every_rollout():
  counts = objective.count(BATCH, ROLLOUTS)
  real = np.asarray(BATCH.pair_mask)
  assert not real.all() and np.asarray(BATCH.chosen_mask)[~real].any()
  assert counts.pairs == real.sum() == B - 1
  assert counts.chosen_tokens == np.asarray(BATCH.chosen_mask)[real].sum()
  assert counts.rollouts == B * K
  assert counts.rollout_tokens == ROLLOUTS.rows.slot_mask.sum()
  # Without any, denominators stay at 1.
  none = dataclasses.replace(BATCH, pair_mask=jnp.zeros(B, bool))
  assert all(n == 1 for n in jax.tree.leaves(objective.count(none, None)))


def step_sizes(optimizer, steps: int) -> list[float]:
  """Of AdamW on one gradient over and over, which are the learning rates."""
  params, gradient = {"w": jnp.zeros(1)}, {"w": jnp.full(1, 0.5)}
  state, found = optimizer.init(params), []
  for _ in range(steps):
    updates, state = optimizer.update(gradient, state, params)
    found.append(-float(updates["w"][0]))
  return found


@pytest.mark.parametrize(
  ("schedule", "after"),
  [
    ("constant", [1.0] * 6),
    ("linear", [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    (
      "cosine",
      [1.0, *(0.5 + 0.5 * np.cos(np.pi * x / 4) for x in (1, 2, 3)), 0.0, 0.0],
    ),
  ],
)
def test_the_rate_rises_over_the_warm_up_and_falls_until_the_last_step(
  schedule, after
):
  settings = {"learning_rate": 0.2, "schedule": schedule}
  warmed = train.make_optimizer(num_steps=6, warmup_steps=2, **settings)
  np.testing.assert_allclose(
    step_sizes(warmed, 8), 0.2 * np.array([0.0, 0.5, *after]), atol=1e-5
  )
  at_once = train.make_optimizer(num_steps=4, **settings)
  np.testing.assert_allclose(
    step_sizes(at_once, 6), 0.2 * np.array(after), atol=1e-5
  )


def test_gradients_are_clipped_by_their_norm_and_weights_decay():
  settings = {"learning_rate": 0.2, "weight_decay": 0.3, "adam_eps": 0.5}
  optimizer = train.make_optimizer(num_steps=2, max_grad_norm=2.0, **settings)
  by_hand = optax.adamw(0.2, eps=0.5, weight_decay=0.3)
  params = {"a": jnp.array([1.0]), "b": jnp.array([-2.0])}
  state, expected_state = optimizer.init(params), by_hand.init(params)
  # Of norms 1, left as it is, and 10, a fifth of which has norm 2.
  for scale, clipped in ((1.0, 1.0), (10.0, 2.0)):
    gradient = {"a": jnp.array([0.6]), "b": jnp.array([-0.8])}
    gradient, small = (
      jax.tree.map(lambda x, by=by: by * x, gradient) for by in (scale, clipped)
    )
    updates, state = optimizer.update(gradient, state, params)
    expected, expected_state = by_hand.update(small, expected_state, params)
    assert_trees_close(updates, expected, rtol=1e-5)
  # Without a gradient what is left is the decay.
  still = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(still, optimizer.init(params), params)
  decay = jax.tree.map(lambda x: -0.2 * 0.3 * x, params)
  assert_trees_close(updates, decay, rtol=1e-5)


# What a method takes beyond the settings of all.
COEFFICIENTS = {
  "dpo": {},
  "ipo": {},
  "hinge": {},
  "chi_po": {"max_margin": 2.0},
  "simpo": {"target_margin": 0.5},
  "robust_dpo": {"label_smoothing": 0.1},
}


@pytest.mark.parametrize("method", COEFFICIENTS)
def test_every_method_takes_a_kl_term(method):
  own = {"method": method} | COEFFICIENTS[method]
  _, plain = one_step(**own, kl_coef=0.0, rollouts=None)
  _, metrics = one_step(**own)
  assert metrics["preference_loss"] == pytest.approx(
    plain["preference_loss"], rel=1e-5
  )
  assert metrics["loss"] != plain["loss"]


def test_methods_take_their_own_pair_loss():
  """Each against the public loss on whole completions, pair 3 left out."""
  rows, keep = pair_rows(BATCH), BATCH.pair_mask
  scored = objective.score_rows(MODEL, POLICY, rows)
  both = jnp.where(rows.slot_mask, scored, 0.0).sum(-1).T
  reference = BATCH.ref_chosen_log_probs, BATCH.ref_rejected_log_probs
  lengths = rows.slot_mask.sum(-1).T
  expected = {
    "dpo": losses.dpo_loss(*both, *reference, beta=0.3),
    "ipo": losses.ipo_loss(*both, *reference, beta=0.3),
    "hinge": losses.hinge_loss(*both, *reference, beta=0.3),
    "chi_po": losses.chi_po_loss(*both, *reference, beta=0.3, max_margin=2.0),
    "simpo": losses.simpo_loss(*both, *lengths, beta=0.3, target_margin=0.5),
    "robust_dpo": losses.robust_dpo_loss(
      *both, *reference, beta=0.3, label_smoothing=0.1
    ),
  }
  for method, each in expected.items():
    own = {"method": method} | COEFFICIENTS[method]
    _, metrics = one_step(**own, kl_coef=0.0, rollouts=None, sft_coef=0.0)
    np.testing.assert_allclose(
      metrics["loss"], each[keep].mean(), rtol=1e-5, err_msg=method
    )


def test_a_kl_controller_moves_the_weight_that_the_next_update_takes():
  optimizer = optax.sgd(1.0)
  loss = objective.PreferenceLoss(MODEL, **SETTINGS | {"kl_coef": 9.0})
  controller = partial(losses.adapted_kl_coef, target=0.05, gain=0.3)
  step = train.make_train_step(loss, optimizer, kl_controller=controller)
  # The state's weight counts, not the argument.
  state = train.init_state(POLICY, optimizer, MESH, kl_coef=0.2)
  state, metrics = step(state, REFERENCE, BATCH, ROLLOUTS)
  change = jax.tree.map(lambda x, y: x - y, POLICY, state.trainable)
  gradient, fixed = one_step()
  assert_trees_close(change, gradient, atol=2e-6)
  np.testing.assert_allclose(metrics["loss"], fixed["loss"], rtol=1e-5)
  np.testing.assert_allclose(metrics["kl_coef"], 0.2, rtol=1e-6)
  moved = controller(0.2, fixed["kl_rao_blackwell"])
  np.testing.assert_allclose(state.kl_coef, moved, rtol=1e-6)
  assert not np.isclose(moved, 0.2)
  # The fused schedule does the same.
  complete = rollout.make_complete(MODEL, **DRAWING)
  step = train.make_fused_step(
    loss, optimizer, complete, kl_controller=controller
  )
  state = train.init_state(POLICY, optimizer, MESH, kl_coef=0.2)
  row_keys = keys.row_keys(jax.random.key(7), BATCH.row)
  state, metrics, _ = step(state, REFERENCE, BATCH, row_keys)
  np.testing.assert_allclose(metrics["loss"], fixed["loss"], rtol=1e-5)
  np.testing.assert_allclose(state.kl_coef, moved, rtol=1e-5)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"method": "chi_po"}, "max_margin: expected a number for 'chi_po'"),
    ({"max_margin": 2.0}, "max_margin: expected None for 'hypo', got 2.0"),
    ({"method": "simpo"}, "target_margin: expected a number for 'simpo'"),
    (
      {"method": "dpo", "target_margin": 0.5},
      "target_margin: expected None for 'dpo', got 0.5",
    ),
    ({"method": "ppo"}, "method: expected one of"),
    ({"estimator": "k3"}, "estimator: expected one of"),
    ({"kl_coef": 0.0}, "kl_coef: expected a number > 0 for hypo"),
    ({"method": "ipo", "label_smoothing": 0.1}, "label_smoothing: expected 0"),
    (
      {"micro_batch_size": 3},
      "micro_batch_size: expected a divisor of the batch's 8 rows, got 3",
    ),
    ({"micro_batch_size": 16}, "micro_batch_size: expected a divisor .* 16"),
    ({"micro_batch_size": 0}, "micro_batch_size: expected a divisor .* got 0"),
    (
      {
        "micro_batch_size": 2,
        "shared_prompts": False,
        "rollouts": jax.tree.map(lambda x: x[:4], ROLLOUTS),
      },
      "batch: expected 8 rows in every array, .* micro-batches of 2, got 4",
    ),
    ({"buckets": ((2, 0),)}, r"buckets: expected lengths .* got \(2, 0\) at 0"),
  ],
)
def test_wrong_settings_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    one_step(**settings)
