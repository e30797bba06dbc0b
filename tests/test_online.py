# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Steps of methods that learn from rewards of their own rollouts."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hypo_jax import (
  keys,
  losses,
  objective,
  online,
  policy_gradient,
  ppo,
  rollout,
  sharding,
  train,
)
from hypo_jax.batch import Rollouts, Rows
from hypo_jax.checkpoint import Checkpoints, abstract
from hypo_jax.models import Model, TransformerConfig, lora, scalar_head

B, P, C, K, V = 8, 4, 5, 2, 17
CONFIG = TransformerConfig(
  vocab_size=V,
  num_layers=1,
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
  lambda x, y: x + 0.2 * y, REFERENCE, MODEL.init(jax.random.key(1))
)
MESH = sharding.make_mesh()
RNG = np.random.default_rng(0)
PROMPTS = jnp.asarray(RNG.integers(2, V, (B, P)), jnp.int32)
PROMPT_MASK = jnp.asarray(np.arange(P) >= RNG.integers(0, P, B)[:, None])
REWARDS = jnp.asarray(RNG.normal(size=(B, K)), jnp.float32)
KEY = jax.random.key(9)


def draw(params=POLICY, *, temperature=1.0) -> Rollouts:
  step = rollout.make_rollout_step(
    MODEL,
    samples_per_prompt=K,
    max_new_tokens=C,
    eos_token_id=1,
    pad_token_id=0,
    mesh=MESH,
    temperature=temperature,
  )
  row_keys = keys.row_keys(jax.random.key(7), jnp.arange(B))
  return step(params, PROMPTS, PROMPT_MASK, row_keys)


ROLLOUTS = draw()
PPO = {
  "kl_coef": 0.3,
  "epochs": 1,
  "num_minibatches": 1,
  "clip_range": 0.2,
  "value_clip_range": 0.2,
  "value_coef": 0.1,
  "gae_lambda": 0.95,
  "discount": 1.0,
  "whiten_rewards": False,
  "whiten_advantages": True,
}
WITH_HEAD = online.with_value_head(POLICY, CONFIG.width)
WITH_HEAD["value_head"] = scalar_head.init(CONFIG.width, jax.random.key(2))


def flat(x):
  return x.reshape(-1, x.shape[-1])


def change(make_step, start, *arguments, kl_coef=None, rate=1.0):
  """Minus the parameters' change (SGD), the new state and metrics."""
  optimizer = optax.sgd(rate)
  state = train.init_state(start, optimizer, MESH, kl_coef=kl_coef)
  state, metrics = make_step(optimizer)(state, *arguments)
  moved = jax.tree.map(lambda x, y: x - y, start, state.trainable)
  return jax.device_get(moved), state, jax.device_get(metrics)


def assert_trees_close(first, second, **tolerance):
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    np.testing.assert_allclose(a, b, **tolerance)


def reinforce(
  method, *, rollouts=ROLLOUTS, rewards=REWARDS, state_coef=None, **settings
):
  settings = {"kl_coef": 0.3, "samples_per_prompt": K} | settings

  def make(optimizer):
    return online.make_policy_gradient_step(
      MODEL, optimizer, method=method, **settings
    )

  return change(make, POLICY, REFERENCE, rollouts, rewards, kl_coef=state_coef)


def proximal(
  *, rollouts=ROLLOUTS, rewards=REWARDS, rate=1.0, state_coef=None, **settings
):
  def make(optimizer):
    return online.make_ppo_step(MODEL, optimizer, **PPO | settings)

  arguments = (REFERENCE, rollouts, rewards, KEY)
  return change(make, WITH_HEAD, *arguments, kl_coef=state_coef, rate=rate)


# RLOO and GRPO.


@pytest.mark.parametrize(
  ("method", "loss"),
  [
    ("rloo", policy_gradient.rloo_loss),
    ("grpo", policy_gradient.grpo_loss),
  ],
)
def test_the_step_takes_the_gradient_of_the_public_loss(method, loss):
  def mean(params):
    rows = ROLLOUTS.rows
    return loss(
      flat(objective.score_rows(MODEL, params, rows)),
      flat(objective.score_rows(MODEL, REFERENCE, rows)),
      REWARDS.reshape(-1),
      flat(rows.slot_mask),
      kl_coef=0.3,
      samples_per_prompt=K,
    ).loss.mean()

  expected = jax.grad(mean)(POLICY)
  gradient, state, metrics = reinforce(method)
  assert_trees_close(gradient, expected, atol=2e-6)
  assert int(state.step) == 1 and metrics["sampler_gap"] < 1e-5
  np.testing.assert_allclose(metrics["rollout_reward"], REWARDS.mean())
  small, _, small_metrics = reinforce(method, micro_batch_size=2)
  assert_trees_close(small, expected, atol=2e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(
      small_metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_grpos_scalings_reach_the_loss():
  plain = reinforce("grpo", scale_by_std=False, scale_by_length=False)[0]
  rloo = reinforce("rloo")[0]
  # Without scaling it is (k - 1) / k of RLOO.
  half = jax.tree.map(lambda x: x * (K - 1) / K, rloo)
  assert_trees_close(plain, half, atol=2e-6)
  for name in ("scale_by_std", "scale_by_length"):
    scaled = reinforce("grpo", **{"scale_by_std": False} | {name: True})[0]
    gap = max(
      np.abs(a - b).max()
      for a, b in zip(
        jax.tree.leaves(scaled), jax.tree.leaves(plain), strict=True
      )
    )
    assert gap > 1e-3, name


def test_only_an_adapter_is_trained_over_a_frozen_reference():
  model = Model(dataclasses.replace(CONFIG, adapter_scale=2.0))
  adapter = lora.init(REFERENCE, jax.random.key(3), rank=2)

  def make(optimizer):
    return online.make_policy_gradient_step(
      model,
      optimizer,
      method="rloo",
      kl_coef=0.3,
      samples_per_prompt=K,
      adapters=True,
    )

  rollouts = draw(REFERENCE)
  gradient, _, metrics = change(make, adapter, REFERENCE, rollouts, REWARDS)
  np.testing.assert_allclose(metrics["kl"], 0.0, atol=1e-5)
  assert any(np.abs(x).max() > 1e-4 for x in jax.tree.leaves(gradient))


def test_a_setting_of_the_other_method_is_refused():
  with pytest.raises(ValueError, match="scale_by_std: expected no value for"):
    reinforce("rloo", scale_by_std=True)


# PPO.


def ppo_by_hand(
  *, discount=1.0, whiten_rewards=False, whiten_advantages=False, clips=None
):
  """Returns loss(trainable) over ROLLOUTS as they were drawn.

  clips: of policy and value; None for neither.
  """
  rows, mask = ROLLOUTS.rows, flat(ROLLOUTS.rows.slot_mask)

  def scored(trainable):
    hidden = MODEL.row_hidden(trainable["policy"], rows)
    log_probs = flat(objective.score_rows(MODEL, trainable["policy"], rows))
    return log_probs, flat(scalar_head.apply(trainable["value_head"], hidden))

  drawn, old_values = scored(WITH_HEAD)
  rewards = ppo.token_rewards(
    REWARDS.reshape(-1),
    drawn,
    flat(objective.score_rows(MODEL, REFERENCE, rows)),
    mask,
    kl_coef=0.3,
  )
  if whiten_rewards:
    rewards = ppo.whiten(rewards, mask, shift_mean=False)
  advantages, returns = ppo.gae(
    rewards, old_values, mask, discount=discount, gae_lambda=0.95
  )
  if whiten_advantages:
    advantages = ppo.whiten(advantages, mask)

  def loss(trainable):
    log_probs, values = scored(trainable)
    ratio = jnp.exp(log_probs - drawn)
    policy, value = -advantages * ratio, (values - returns) ** 2
    if clips is not None:
      near = jnp.clip(ratio, 1 - clips[0], 1 + clips[0])
      policy = jnp.maximum(policy, -advantages * near)
      near = old_values + jnp.clip(values - old_values, -clips[1], clips[1])
      value = jnp.maximum(value, (near - returns) ** 2)
    total = jnp.where(mask, policy + 0.1 * 0.5 * value, 0.0).sum()
    return total / mask.sum()

  return loss


@pytest.mark.parametrize(
  ("whitened", "discount"),
  [
    ((), 1.0),
    (("rewards",), 0.8),
    (("advantages",), 1.0),
    (("rewards", "advantages"), 0.8),
  ],
)
def test_the_first_ppo_update_is_the_policy_gradient_of_token_rewards(
  whitened, discount
):
  settings = {
    f"whiten_{name}": name in whitened for name in ("rewards", "advantages")
  }
  settings["discount"] = discount
  expected = jax.grad(ppo_by_hand(**settings))(WITH_HEAD)
  gradient, state, metrics = proximal(**settings)
  assert_trees_close(gradient, expected, atol=2e-6)
  assert int(state.step) == 1 and metrics["clipped"] == 0
  small, _, small_metrics = proximal(**settings, micro_batch_size=2)
  assert_trees_close(small, expected, atol=2e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(
      small_metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_the_second_update_clips_policy_and_value_each_by_its_own_range():
  clips, rate = (0.02, 0.3), 0.5
  gradient_fn = jax.grad(ppo_by_hand(clips=clips))

  def moved(trainable):
    gradient = gradient_fn(trainable)
    return jax.tree.map(lambda x, g: x - rate * g, trainable, gradient)

  expected = jax.tree.map(jnp.subtract, WITH_HEAD, moved(moved(WITH_HEAD)))
  settings = {"epochs": 2, "whiten_advantages": False}
  settings |= {"clip_range": clips[0], "value_clip_range": clips[1]}
  change, _, metrics = proximal(rate=rate, **settings)
  assert_trees_close(change, expected, atol=5e-6)
  assert metrics["clipped"] > 0 and metrics["value_clipped"] > 0
  swapped = {"clip_range": clips[1], "value_clip_range": clips[0]}
  other, _, _ = proximal(rate=rate, **settings | swapped)
  gaps = jax.tree.map(lambda x, y: np.abs(x - y).max(), other, change)
  assert max(jax.tree.leaves(gaps)) > 1e-4


def test_epochs_of_minibatches_update_often_and_clip():
  optimizer = optax.adam(0.03)
  step = online.make_ppo_step(
    MODEL, optimizer, **PPO | {"epochs": 3, "num_minibatches": 2}
  )
  state = train.init_state(WITH_HEAD, optimizer, MESH)
  state, metrics = step(state, REFERENCE, ROLLOUTS, REWARDS, KEY)
  assert int(state.step) == 1
  assert int(state.opt_state[0].count) == 6
  assert 0 < metrics["clipped"] < 1 and 0 < metrics["value_clipped"] < 1


def test_minibatches_cover_a_draw_in_a_new_order_each_epoch():
  from hypo_jax.online import proximal as module

  order = np.asarray(module._minibatches(B, 3, 4, KEY)).reshape(3, B)
  np.testing.assert_array_equal(np.sort(order, axis=1), [np.arange(B)] * 3)
  assert (order[0] != order[1]).any() and (order[1] != order[2]).any()


def test_both_policies_are_scored_at_the_temperature_that_drew():
  rollouts = draw(temperature=0.7)
  _, _, metrics = proximal(rollouts=rollouts, temperature=0.7)
  assert metrics["sampler_gap"] < 1e-5 and "kl" not in metrics
  _, _, wrong = proximal(rollouts=rollouts)
  assert wrong["sampler_gap"] > 0.1 and "kl_tempered" not in wrong

  def tempered(params):
    hidden = MODEL.row_hidden(params, rollouts.rows)
    logits = hidden @ MODEL.output_embedding(params) / 0.7
    scored = jnp.take_along_axis(
      jax.nn.log_softmax(logits), rollouts.rows.slot_tokens[..., None], axis=-1
    )[..., 0]
    return jnp.where(rollouts.rows.slot_mask, scored, 0.0).sum(-1).mean()

  np.testing.assert_allclose(
    metrics["kl_tempered"], tempered(POLICY) - tempered(REFERENCE), rtol=1e-4
  )


def test_the_value_head_learns_a_constant_reward():
  optimizer = optax.adam(0.02)
  settings = {"kl_coef": 0.0, "epochs": 4, "value_clip_range": 10.0}
  settings |= {"value_coef": 1.0, "whiten_advantages": False}
  step = online.make_ppo_step(MODEL, optimizer, **PPO | settings)
  start = online.with_value_head(POLICY, CONFIG.width)
  state = train.init_state(start, optimizer, MESH)
  first = None
  for i in range(15):
    rewards = jnp.full((B, K), 0.8)
    key = jax.random.fold_in(KEY, i)
    state, metrics = step(state, REFERENCE, ROLLOUTS, rewards, key)
    first = metrics["value_loss"] if first is None else first
  assert metrics["value_loss"] < 0.05 * first


# Runs alone, because the number of devices is fixed when jax starts.
SHARDED = """
  import jax, numpy as np, optax
  from hypo_jax import objective, online, sharding, train
  from hypo_jax.aot import compiled
  from hypo_jax.batch import Rollouts, Rows
  from hypo_jax.models import Model, TransformerConfig

  B, P, C, K, V, D = 8, 4, 16, 2, 512, 16
  config = TransformerConfig(
    vocab_size=V, num_layers=1, width=D, num_heads=2, num_kv_heads=2,
    head_dim=8, mlp_width=32, max_positions=32, tied_embeddings=False,
  )
  # Two tokens of each of a device's slots at once: eight chunks.
  objective.LOGITS_AT_ONCE = 2 * K * V
  rng = np.random.default_rng(0)
  prompts, slots = (rng.integers(2, V, s) for s in ((B, P), (B, K, C)))
  rows = Rows(prompts, prompts > 0, slots, slots > 0)
  start, reference = (
    jax.device_get(Model(config).init(jax.random.key(i))) for i in (0, 1)
  )
  found = []
  for devices in (jax.devices(), jax.devices()[:1]):
    mesh = sharding.make_mesh(devices=devices)
    model = Model(config).with_rows(sharding.row_sharding(mesh))
    rollouts, rewards = sharding.put_rows(
      mesh, (Rollouts(rows, np.zeros(slots.shape)), np.eye(B)[:, :K])
    )
    optimizer = optax.sgd(1.0)
    step = online.make_ppo_step(
      model, optimizer, kl_coef=0.3, epochs=1, num_minibatches=1,
      clip_range=0.2, value_clip_range=0.2, value_coef=0.1, gae_lambda=0.95,
      discount=1.0, whiten_rewards=False, whiten_advantages=True,
      temperature=0.7,
    )
    policy, frozen = (
      jax.device_put(x, sharding.tree_shardings(mesh, x))
      for x in (start, reference)
    )
    state = train.init_state(online.with_value_head(policy, D), optimizer, mesh)
    made = step.lower(
      state, frozen, rollouts, rewards, jax.random.key(0)
    ).compile()
    found.append(jax.device_get(
      made(state, frozen, rollouts, rewards, jax.random.key(0))[0].trainable
    ))
    if len(devices) > 1:
      program = compiled.read(made.as_text())
      assert max(w.trips for w in program.work) >= C // 2
      sums = [c for c in program.collectives if c.kind == "all-reduce"]
      assert max(c.bytes for c in sums) > 4 * D * V
      repeated = [c for c in sums if c.trips > 1]
      assert not repeated, repeated
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), *found
  )
"""


def test_ppo_adds_a_heads_gradient_up_once_not_once_a_chunk():
  """On eight devices, whose update is that of one."""
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(SHARDED)],
    env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]


def test_a_policy_with_a_value_head_is_the_policy():
  assert train.policy_params(WITH_HEAD, None, False) is POLICY
  adapter = {"policy": {"layers": {}}, "value_head": {}}
  attached = train.policy_params(adapter, REFERENCE, True)
  assert attached["adapters"] == {"layers": {}}


# Online DPO.


def test_the_best_and_the_worst_rollout_make_the_pair():
  rng = np.random.default_rng(4)
  tokens = rng.integers(2, V, (4, 3, C))
  lengths = np.array([[5, 2, 3], [1, 4, 5], [2, 2, 2], [3, 0, 4]])
  mask = np.arange(C) < lengths[..., None]
  rows = Rows(*map(jnp.asarray, (PROMPTS[:4], PROMPT_MASK[:4], tokens, mask)))
  rollouts = Rollouts(rows, jnp.zeros(mask.shape))
  rewards = jnp.array(
    [[0.1, 0.9, -0.5], [1.0, 1.0, 0.0], [0.3, 0.3, 0.3], [0.5, -1.0, 0.0]]
  )
  label = online.make_labeller(MODEL, samples_per_prompt=3)
  batch = label(REFERENCE, rollouts, rewards, jnp.arange(4, dtype=jnp.int32))
  chosen, rejected = [1, 0, 0, 0], [2, 2, 0, 1]
  at = np.arange(4)
  np.testing.assert_array_equal(batch.chosen_tokens, tokens[at, chosen])
  np.testing.assert_array_equal(batch.rejected_tokens, tokens[at, rejected])
  np.testing.assert_array_equal(batch.chosen_mask, mask[at, chosen])
  np.testing.assert_array_equal(batch.rejected_mask, mask[at, rejected])
  # The third is a tie, the fourth's rejected side is empty.
  np.testing.assert_array_equal(batch.pair_mask, [True, True, False, False])
  scored = objective.score_rows(MODEL, REFERENCE, rows)
  whole = jnp.where(rows.slot_mask, scored, 0.0).sum(-1)
  np.testing.assert_allclose(
    batch.ref_chosen_log_probs, whole[at, np.array(chosen)], atol=1e-5
  )
  np.testing.assert_allclose(
    batch.ref_rejected_log_probs, whole[at, np.array(rejected)], atol=1e-5
  )


# The KL's weight.


@pytest.mark.parametrize(
  "run",
  [partial(reinforce, "rloo"), partial(reinforce, "grpo"), proximal],
  ids=["rloo", "grpo", "ppo"],
)
def test_the_kl_coefficient_is_the_states_and_moves_with_the_measured_kl(run):
  """Where there is a controller; the argument then counts for nothing."""
  controller = partial(losses.adapted_kl_coef, target=0.01, gain=0.3)
  gradient, state, metrics = run(
    kl_controller=controller, kl_coef=9.0, state_coef=0.7
  )
  fixed_gradient, fixed_state, _ = run(kl_coef=0.7)
  assert_trees_close(gradient, fixed_gradient, atol=2e-6)
  np.testing.assert_allclose(metrics["kl_coef"], 0.7, rtol=1e-6)
  expected = controller(0.7, metrics["kl"])
  np.testing.assert_allclose(state.kl_coef, expected, rtol=1e-6)
  assert fixed_state.kl_coef is None


@pytest.mark.parametrize("kl_coef", [None, 0.3])
def test_a_checkpoint_holds_the_kl_coefficient(tmp_path, kl_coef):
  state = train.init_state(WITH_HEAD, optax.adam(0.1), MESH, kl_coef=kl_coef)
  checkpoints = Checkpoints(tmp_path, keep=1, frozen="none")
  checkpoints.save(state, [])
  restored, _ = checkpoints.restore(abstract(state), 0)
  checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, state, restored)


# Rewards of what did not end, and wrong settings.


def test_completions_without_eos_get_the_stand_in():
  ended = np.asarray(
    ((ROLLOUTS.rows.slot_tokens == 1) & ROLLOUTS.rows.slot_mask).any(-1)
  )
  assert ended.any() and not ended.all()
  finish = online.make_reward_finisher((1,), -3.0)
  np.testing.assert_array_equal(
    finish(ROLLOUTS, REWARDS), np.where(ended, REWARDS, -3.0)
  )
  keep = online.make_reward_finisher((1,), None)
  assert keep(ROLLOUTS, REWARDS) is REWARDS


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: reinforce("rloo", samples_per_prompt=1),
      "samples_per_prompt: expected at least 2.*for 'rloo', got 1",
    ),
    (
      lambda: online.make_labeller(MODEL, samples_per_prompt=1),
      "samples_per_prompt: expected at least 2.*for 'online_dpo', got 1",
    ),
    (lambda: reinforce("dpo"), "method: expected 'rloo' or 'grpo', got 'dpo'"),
    (
      lambda: proximal(num_minibatches=3),
      "num_minibatches: expected a divisor of the 8 prompts, got 3",
    ),
    *(
      (
        partial(run, micro_batch_size=size),
        f"micro_batch_size: expected a divisor of the batch's 8 rows, got "
        f"{size}",
      )
      for run in (partial(reinforce, "rloo"), proximal)
      for size in (3, 16)
    ),
    (
      lambda: proximal(num_minibatches=4, micro_batch_size=0),
      "micro_batch_size: expected a divisor of the batch's 8 rows, got 0",
    ),
  ],
)
def test_wrong_settings_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
