# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Steps of the controls: KL at the pairs' states, rollouts of the reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import (
  BATCH,
  MODEL,
  POLICY,
  REFERENCE,
  ROLLOUT_STEP,
  ROLLOUTS,
  C,
  K,
  assert_trees_close,
  one_step,
)

from hypo_jax import keys, losses, objective
from hypo_jax.batch import pair_rows

OFFLINE = {"method": "dpo", "kl_coef": 0.0, "offline_kl_coef": 0.4}
DRAWN = ROLLOUT_STEP(
  REFERENCE,
  BATCH.prompt_tokens,
  BATCH.prompt_mask,
  keys.row_keys(jax.random.key(5), BATCH.row),
)


def offline_kl(params):
  """By whole logits: mean over both sides of real pairs of the summed KL."""
  rows, keep = pair_rows(BATCH), np.asarray(BATCH.pair_mask)

  def log_softmax(params):
    hidden = MODEL.row_hidden(params, rows)
    return jax.nn.log_softmax(hidden @ MODEL.output_embedding(params))

  policy, reference = log_softmax(params), log_softmax(REFERENCE)
  kl = (jnp.exp(policy) * (policy - reference)).sum(axis=-1)
  return (kl * rows.slot_mask).sum(axis=-1)[keep].mean()


def test_the_offline_kl_adds_its_exact_gradient_to_dpos():
  gradient, metrics = one_step(**OFFLINE, rollouts=None)
  plain, plain_metrics = one_step(
    **OFFLINE | {"offline_kl_coef": 0.0}, rollouts=None
  )
  kl, kl_gradient = jax.jit(jax.value_and_grad(offline_kl))(POLICY)
  expected = jax.tree.map(lambda a, b: a + 0.4 * b, plain, kl_gradient)
  assert_trees_close(gradient, expected, atol=2e-6)
  assert max(np.abs(x).max() for x in jax.tree.leaves(kl_gradient)) > 1e-2
  np.testing.assert_allclose(metrics["offline_kl"], kl, rtol=1e-5)
  np.testing.assert_allclose(
    metrics["loss"], plain_metrics["loss"] + 0.4 * kl, rtol=1e-5
  )


def test_micro_batches_of_the_offline_kl_equal_the_large_batch():
  gradient, metrics = one_step(**OFFLINE, rollouts=None)
  cut, cut_metrics = one_step(**OFFLINE, rollouts=None, micro_batch_size=2)
  assert_trees_close(cut, gradient, atol=2e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(cut_metrics[name], value, rtol=1e-5, atol=1e-6)


def test_the_offline_kl_of_the_reference_is_0():
  _, metrics = one_step(start=REFERENCE, **OFFLINE, rollouts=None)
  np.testing.assert_allclose(metrics["offline_kl"], 0.0, atol=1e-6)


def test_a_pair_without_weight_has_none_in_the_offline_kl():
  tokens = np.asarray(BATCH.chosen_tokens).copy()
  tokens[3] = (tokens[3] + 1) % 19  # Its other side is empty.
  moved = dataclasses.replace(BATCH, chosen_tokens=jnp.asarray(tokens))
  gradient, _ = one_step(**OFFLINE, rollouts=None)
  same, _ = one_step(**OFFLINE, rollouts=None, batch=moved)
  assert_trees_close(gradient, same, atol=1e-7)


@pytest.mark.parametrize(
  ("estimator", "shared_prompts"),
  [("leave_one_out", True), ("rao_blackwell", True), ("rao_blackwell", False)],
)
def test_rollouts_of_the_reference_count_by_their_weights(
  estimator, shared_prompts
):
  """The step against the public losses; pair 3's rollouts count too."""
  mask = DRAWN.rows.slot_mask.reshape(-1, C)
  most = 1.2

  def kl_loss(params):
    scored, ref_scored, token_kl = (
      x.reshape(-1, C)
      for x in objective.score_rows_and_kl(MODEL, params, REFERENCE, DRAWN.rows)
    )
    weights = losses.importance_weights(
      scored, ref_scored, mask, max_weight=most
    )
    if estimator == "rao_blackwell":
      term = losses.rao_blackwell_kl_loss(
        scored, token_kl, mask, samples_per_prompt=K
      )
    else:
      term = losses.reverse_kl_loss(
        scored, ref_scored, mask, estimator=estimator, samples_per_prompt=K
      )
    return (weights * term.loss).mean(), (weights, (weights * term.kl).mean())

  kl_gradient, (weights, kl) = jax.jit(jax.grad(kl_loss, has_aux=True))(POLICY)
  assert 0 < (np.asarray(weights) >= most).mean() < 1
  settings = {"estimator": estimator, "shared_prompts": shared_prompts}
  gradient, metrics = one_step(
    rollouts=DRAWN, max_importance_weight=most, **settings
  )
  plain, _ = one_step(rollouts=None, kl_coef=0.0, method="dpo")
  expected = jax.tree.map(lambda a, b: a + 0.2 * b, plain, kl_gradient)
  assert_trees_close(gradient, expected, atol=3e-6)
  name = "kl_rao_blackwell" if estimator == "rao_blackwell" else "kl"
  np.testing.assert_allclose(metrics[name], kl, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    metrics["importance_weight"], weights.mean(), rtol=1e-5
  )
  np.testing.assert_allclose(
    metrics["importance_clipped"], (weights >= most).mean(), rtol=1e-6
  )


def test_micro_batches_of_weighted_rollouts_equal_the_large_batch():
  settings = {"rollouts": DRAWN, "max_importance_weight": 1.2}
  gradient, metrics = one_step(**settings)
  cut, cut_metrics = one_step(**settings, micro_batch_size=2)
  assert_trees_close(cut, gradient, atol=2e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(cut_metrics[name], value, rtol=1e-5, atol=1e-6)


def test_rollouts_of_the_reference_are_scored_as_they_were_sampled():
  _, metrics = one_step(rollouts=DRAWN, max_importance_weight=10.0)
  assert metrics["sampler_gap"] < 1e-5
  # Those of the policy are not the reference's.
  _, metrics = one_step(rollouts=ROLLOUTS, max_importance_weight=10.0)
  assert metrics["sampler_gap"] > 1e-3


def test_where_policy_and_reference_agree_weights_change_nothing():
  gradient, metrics = one_step(start=REFERENCE, rollouts=DRAWN)
  weighted, weighted_metrics = one_step(
    start=REFERENCE, rollouts=DRAWN, max_importance_weight=10.0
  )
  assert_trees_close(weighted, gradient, atol=1e-6)
  np.testing.assert_allclose(
    weighted_metrics["importance_weight"], 1.0, rtol=1e-5
  )
  assert weighted_metrics["importance_clipped"] == 0


def test_a_weight_at_the_largest_is_not_clipped():
  """Where policy and reference agree, each is 1."""
  _, metrics = one_step(
    start=REFERENCE, rollouts=DRAWN, max_importance_weight=1.0
  )
  assert metrics["importance_clipped"] == 0
  np.testing.assert_allclose(metrics["importance_weight"], 1.0, rtol=1e-6)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"offline_kl_coef": -0.1}, "offline_kl_coef: expected a number >= 0"),
    ({"offline_kl_coef": 0.1}, "0 beside a kl_coef, .* with kl_coef 0.2"),
    (
      {"max_importance_weight": 0.0},
      "max_importance_weight: expected a number > 0, .* got 0.0",
    ),
    (
      {"max_importance_weight": 10.0, "kl_coef": 0.0, "method": "dpo"},
      "max_importance_weight: .* a kl_coef > 0 for the rollouts",
    ),
  ],
)
def test_wrong_settings_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    one_step(**settings)
