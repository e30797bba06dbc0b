# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The scaling benchmark: equal forms, fits, memory as compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cases
from benchmarks.scaling import point as timed
from benchmarks.scaling import separate
from benchmarks.scaling.point import Point
from hypo_jax import objective

TOY = cases.Size(
  vocab_size=0,
  num_layers=2,
  width=16,
  num_heads=2,
  num_kv_heads=2,
  mlp_width=32,
)


def toy_step(point: Point):
  """Returns model, policy, reference, batch and rollouts."""
  model = timed.make_model(point, TOY)
  params, reference = (model.init(jax.random.key(i)) for i in range(2))
  programs = timed.make_programs(model, point, "shared")
  batch = timed.make_batch(point)
  rollouts = programs.rollout(
    params,
    batch.prompt_tokens,
    batch.prompt_mask,
    timed.row_keys(point, 0),
  )
  return model, params, reference, batch, rollouts


@pytest.mark.parametrize("k", [1, 3])
def test_separate_sequences_have_the_loss_and_gradient_of_shared_rows(k):
  point = Point(prompt=5, completion=4, rollouts=k, vocabulary=11, batch=2)
  model, params, reference, batch, rollouts = toy_step(point)
  shared_loss = objective.make_preference_loss(
    model,
    method="hypo",
    beta=cases.BETA,
    kl_coef=cases.KL_COEF,
    sft_coef=0.0,
    label_smoothing=0.0,
    estimator="rao_blackwell",
    samples_per_prompt=k,
    shared_prompts=True,
  )
  counts = objective.count(batch, rollouts)

  @jax.jit
  def both(params):
    shared = jax.value_and_grad(
      lambda p: shared_loss(p, reference, batch, rollouts, counts),
      has_aux=True,
    )(params)
    plain = jax.value_and_grad(
      lambda p: separate.loss(model, p, reference, batch, rollouts),
      has_aux=True,
    )(params)
    return shared, plain

  ((loss, metrics), gradient), ((plain, plain_metrics), plain_gradient) = both(
    params
  )
  assert loss == pytest.approx(plain, rel=1e-5)
  kl = plain_metrics["kl"]
  assert kl > 0.01
  assert metrics["kl_rao_blackwell"] == pytest.approx(kl, rel=1e-4)
  for a, b in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(plain_gradient), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()) + 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["shared", "separate"])
def test_a_point_is_timed_and_both_forms_agree(form):
  point = Point(prompt=6, completion=4, vocabulary=11, batch=2)
  found = timed.run(point, form, steps=1, warmup=1, size=TOY)
  assert found["rollout"]["seconds"] > 0 and found["update"]["seconds"] > 0
  assert set(found["temporaries"]) == {"rollout", "update"}
  assert found["check"]["grad_norm"] > 0


def planned_bytes(point: Point) -> int:
  """Returns the temporaries of the train step as compiled."""
  model = timed.make_model(point, TOY)
  programs = timed.make_programs(model, point, "shared")
  compiled = programs.update.lower(*programs.update_args).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def test_demand_13_train_step_memory_grows_with_a_chunk_of_the_vocabulary():
  chunk = objective.CHUNK_SIZE
  small = Point(
    prompt=8, completion=4 * chunk, vocabulary=4096, batch=1, rollouts=1
  )
  large = dataclasses.replace(small, vocabulary=262144)
  grown = planned_bytes(large) - planned_bytes(small)
  words, slots = large.vocabulary - small.vocabulary, 3
  per_word = grown / words / 4  # float32 numbers
  print(per_word)
  # All logits would be 4 * 3 * chunk numbers a word.
  assert per_word < 4 * slots * chunk
