# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Which settings a method takes: defaults, and what is refused by name."""

import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import hypo
from hypo_jax import online, sharding
from hypo_jax.job import methods, steps


def settings(method, **overrides):
  config = hypo.get_config()
  plain = {"kl_coef": 0.0 if method == "online_dpo" else 0.05}
  main = config.preference.to_dict() | config.online.to_dict() | plain
  return main | {"method": method} | overrides


@pytest.mark.parametrize("method", methods.ONLINE)
def test_a_method_gets_its_own_defaults(method):
  found = methods.resolved(settings(method))
  for name, value in methods.DEFAULTS[method].items():
    assert found[name] == value, name
  others = set(hypo.get_config().online) - set(methods.DEFAULTS[method])
  assert all(found[name] is None for name in others)


def test_every_setting_of_a_method_can_be_configured():
  known = {n for defaults in methods.DEFAULTS.values() for n in defaults}
  assert known == set(hypo.get_config().online)


def test_a_value_takes_the_defaults_place_even_if_it_is_false():
  found = methods.resolved(settings("ppo", epochs=2, whiten_advantages=False))
  assert found["epochs"] == 2 and found["whiten_advantages"] is False
  assert methods.updates_per_step(found) == 2
  assert methods.updates_per_step(methods.resolved(settings("rloo"))) == 1


@pytest.mark.parametrize(
  ("method", "overrides", "message"),
  [
    ("rloo", {"epochs": 2}, "online.epochs: expected no value for 'rloo'.*ppo"),
    ("grpo", {"temperature": 0.7}, "online.temperature: expected no value"),
    ("ppo", {"scale_by_std": True}, "online.scale_by_std: .*'ppo'.* of grpo"),
    (
      "hypo",
      {"no_eos_reward": -1.0},
      "online.no_eos_reward: expected no",
    ),
    (
      "rloo",
      {"label_smoothing": 0.1},
      "preference.label_smoothing: expected",
    ),
    ("ppo", {"sft_coef": 0.1}, "preference.sft_coef: expected 0.0 for 'ppo'"),
    ("grpo", {"max_margin": 1.0}, "preference.max_margin: expected None"),
    (
      "ppo",
      {"offline_kl_coef": 0.1},
      "preference.offline_kl_coef: expected 0.0 for 'ppo', got 0.1",
    ),
    ("online_dpo", {"kl_coef": 0.1}, "preference.kl_coef: expected 0.0 for"),
    (
      "dpo",
      {"kl_coef": 0.0, "kl_target": 3.0},
      "preference.kl_target: expected",
    ),
    (
      "hypo",
      {"kl_gain": 0.2},
      "preference.kl_gain: expected no value without a kl_target, got 0.2",
    ),
    (
      "hypo",
      {"kl_target": 3.0, "kl_gain": 5.0},
      r"preference.kl_gain: expected a number in \(0, 5\) for 'hypo', got 5",
    ),
    (
      "hypo",
      {"kl_target": -1.0},
      "preference.kl_target: expected a",
    ),
    (
      "hypo",
      {"label_smoothing": 0.7},
      r"preference.label_smoothing: expected a number in \[0, 0.5\) for",
    ),
    (
      "chi_po",
      {"kl_coef": 0.0, "max_margin": -1.0},
      "preference.max_margin: expected a number > 0 for 'chi_po', got -1.0",
    ),
  ],
)
def test_what_a_method_has_no_use_for_is_refused(method, overrides, message):
  with pytest.raises(ValueError, match=message):
    methods.resolved(settings(method, **overrides))


@pytest.mark.parametrize(
  ("method", "overrides", "message"),
  [
    ("ppo", {"epochs": 0}, "online.epochs: expected at least 1 for 'ppo', got"),
    ("ppo", {"temperature": 0.0}, "online.temperature: expected a number > 0"),
    ("ppo", {"gae_lambda": 2.0}, r"online.gae_lambda: .* in \[0, 1\] .* got 2"),
    ("ppo", {"clip_range": -1.0}, "online.clip_range: expected a number > 0"),
    ("ppo", {"value_coef": -1.0}, "online.value_coef: expected a number >= 0"),
    ("rloo", {"kl_coef": -1.0}, "preference.kl_coef: expected a number >= 0"),
    ("dpo", {"beta": 0.0}, "preference.beta: expected a number > 0 for 'dpo'"),
    ("rloo", {"no_eos_reward": math.nan}, "online.no_eos_reward: expected a f"),
  ],
)
def test_a_value_out_of_range_is_refused_before_anything_runs(
  method, overrides, message
):
  with pytest.raises(ValueError, match=message):
    methods.resolved(settings(method, **overrides))


@pytest.mark.parametrize(
  ("main", "change", "unused"),
  [
    (
      "hypo",
      {"kl_target": 3.0, "kl_gain": 0.2},
      {"kl_target": None, "kl_gain": None},
    ),
    ("hypo", {"label_smoothing": 0.1}, {}),
    ("chi_po", {"max_margin": 8.0}, {"max_margin": None}),
    ("simpo", {"target_margin": 1.0}, {"target_margin": None}),
    ("ppo", {"epochs": 2}, {"epochs": None}),
    ("rloo", {"no_eos_reward": -1.0}, {"no_eos_reward": None}),
  ],
)
def test_a_baseline_is_spared_what_the_main_method_alone_has(
  main, change, unused
):
  config = hypo.get_config()
  config.preference.method = main
  for name, value in change.items():
    section = config.online if name in config.online else config.preference
    section[name] = value
  found = methods.of_config(config)
  for name, value in change.items():
    assert found[main][name] == value
    assert found["dpo"][name] == unused.get(name, value)


def test_a_baseline_without_the_target_is_spared_its_gain():
  config = hypo.get_config()
  config.preference.kl_target, config.preference.kl_gain = 2.0, 0.2
  config.baselines.rloo = {"kl_coef": 0.05, "kl_target": None}
  found = methods.of_config(config)
  assert found["hypo"]["kl_gain"] == 0.2 and found["rloo"]["kl_gain"] is None


def test_what_a_baseline_names_itself_is_refused_where_it_has_no_use_for_it():
  config = hypo.get_config()
  config.baselines.dpo.kl_target = 3.0
  with pytest.raises(ValueError, match="kl_target: .* kl_coef 0.0 for 'dpo'"):
    methods.of_config(config)


def check(method, change, **overrides):
  config = hypo.get_config()
  config.reward = "judge"
  change(config)
  methods.check_job(
    config, {method: methods.resolved(settings(method, **overrides))}
  )


@pytest.mark.parametrize(
  ("method", "change", "overrides", "message"),
  [
    (
      "ppo",
      lambda c: c.update(reward=""),
      {},
      "reward: expected judge, model or module:function for ppo, got ''",
    ),
    (
      "hypo",
      lambda c: None,
      {},
      "reward: expected no value for methods that learn from no rewards",
    ),
    (
      "rloo",
      lambda c: c.rollout.update(every_steps=2),
      {},
      "rollout.every_steps: expected 1 for rloo.*got 2",
    ),
    (
      "rloo",
      lambda c: c.rollout.update(
        source="reference", max_importance_weight=10.0
      ),
      {},
      "rollout.source: expected 'policy' for rloo, which learn from what they",
    ),
    (
      "rloo",
      lambda c: c.update(reward_retries=-1),
      {},
      "reward_retries: expected at least 0, got -1",
    ),
    (
      "ppo",
      lambda c: None,
      {"num_minibatches": 3},
      "online.num_minibatches: expected a divisor of .* = 64, got 3",
    ),
    (
      "ppo",
      lambda c: None,
      {"num_minibatches": 2, "micro_batch_size": 24},
      "preference.micro_batch_size: expected a divisor of a minibatch's 32",
    ),
  ],
)
def test_what_does_not_fit_the_job_is_refused(
  method, change, overrides, message
):
  with pytest.raises(ValueError, match=message):
    check(method, change, **overrides)


FROM_REFERENCE = {"source": "reference", "max_importance_weight": 10.0}


@pytest.mark.parametrize(
  ("rollout", "overrides", "message"),
  [
    ({"every_steps": 0}, {}, "rollout.every_steps: expected at least 1, got 0"),
    ({"source": "data"}, {}, "rollout.source: expected 'policy' or 'refer"),
    (
      {"max_importance_weight": 10.0},
      {},
      "rollout.max_importance_weight: expected no value with .* got 10.0",
    ),
    (
      {"source": "reference"},
      {},
      "rollout.max_importance_weight: expected a number > 0 .* got None",
    ),
    (
      FROM_REFERENCE | {"max_importance_weight": -1.0},
      {},
      "rollout.max_importance_weight: expected a number > 0 .* got -1.0",
    ),
    (
      FROM_REFERENCE | {"every_steps": 4},
      {},
      "rollout.every_steps: expected 1 with .* never refreshed, got 4",
    ),
    (
      FROM_REFERENCE,
      {"kl_target": 3.0},
      "preference.kl_target: expected no value .* got 3.0 for hypo",
    ),
    (
      {"every_steps": 16},
      {"kl_target": 3.0},
      "rollout.every_steps: expected 1 for hypo, whose kl_coef adapts .* 16",
    ),
    (
      {},
      {"estimator": "leave_one_out"},
      "rollout.samples_per_prompt: expected at least 2 for "
      "preference.estimator 'leave_one_out' of hypo, .* got 1",
    ),
  ],
)
def test_rollouts_that_cannot_serve_are_refused(rollout, overrides, message):
  def change(config):
    config.reward = ""
    config.rollout.update(rollout)

  with pytest.raises(ValueError, match=message):
    check("hypo", change, **overrides)


def test_rollouts_that_serve_are_let_through():
  for rollout in (FROM_REFERENCE, {"every_steps": 64}):
    check("hypo", lambda c, r=rollout: c.update(reward="", rollout=r))
  two = {"samples_per_prompt": 2}
  check(
    "hypo",
    lambda c: c.update(reward="", rollout=two),
    estimator="leave_one_out",
  )
  # PPO reads no estimator of HyPO's.
  check("ppo", lambda c: None, estimator="leave_one_out")
  # Nothing is drawn, so nothing is compared.
  check(
    "dpo", lambda c: c.update(reward=""), estimator="leave_one_out", kl_coef=0.0
  )


def test_what_fits_is_let_through():
  check("ppo", lambda c: None, num_minibatches=2, micro_batch_size=16)
  config = hypo.get_config()
  methods.check_job(config, {"hypo": methods.resolved(settings("hypo"))})
  assert isinstance(config.online, ConfigDict)


@pytest.mark.parametrize(("given", "gain"), [(None, 0.1), (2.0, 2.0)])
def test_a_kl_target_is_gone_towards_as_fast_as_the_gain_says(given, gain):
  found = methods.resolved(settings("hypo", kl_target=3.0, kl_gain=given))
  moved = methods.kl_controller(found)(0.5, 3.3)
  np.testing.assert_allclose(moved, 0.5 * (1 + gain * 0.1), rtol=1e-6)
  assert methods.kl_controller(methods.resolved(settings("hypo"))) is None


@pytest.mark.parametrize(
  ("maker", "method", "made"),
  [
    (steps.make_train_step, "hypo", (steps.train, "make_train_step")),
    (steps.make_fused_step, "hypo", (steps.train, "make_fused_step")),
    (steps.make_train_step, "ppo", (online, "make_ppo_step")),
    (steps.make_train_step, "rloo", (online, "make_policy_gradient_step")),
  ],
)
def test_every_step_takes_its_methods_controller(
  monkeypatch, maker, method, made
):
  taken = []
  monkeypatch.setattr(*made, lambda *_, **kwargs: taken.append(kwargs))
  for name in ("_make_loss", "make_complete"):
    monkeypatch.setattr(steps, name, lambda *_: SimpleNamespace(model=None))
  job = SimpleNamespace(
    adapters=False,
    config=hypo.get_config(),
    mesh=sharding.make_mesh(),
    model=SimpleNamespace(with_rows=lambda _: None),
  )
  found = methods.resolved(settings(method, kl_target=3.0, kl_gain=2.0))
  maker(job, found, None)
  (kwargs,) = taken
  np.testing.assert_allclose(kwargs["kl_controller"](0.5, 3.3), 0.6, rtol=1e-6)


@pytest.mark.parametrize(("given", "eps"), [(None, 1e-8), (0.5, 0.5)])
def test_adams_epsilon_is_the_settings(given, eps):
  found = methods.resolved(
    settings("hypo", adam_eps=given, warmup_steps=0, learning_rate=0.3)
  )
  optimizer = steps.make_optimizer(found)
  params, gradient = {"w": jnp.zeros(1)}, {"w": jnp.full(1, 1e-8)}
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  expected = -0.3 * 1e-8 / (1e-8 + eps)
  np.testing.assert_allclose(updates["w"], expected, rtol=1e-5)


def test_ppos_schedule_counts_the_optimizers_updates():
  """Two steps of 2 x 3, the first of which is the warm-up."""
  found = methods.resolved(
    settings(
      "ppo",
      epochs=2,
      num_minibatches=3,
      num_steps=2,
      warmup_steps=1,
      schedule="linear",
      learning_rate=0.3,
    )
  )
  optimizer = steps.make_optimizer(found)
  params, gradient = {"w": jnp.zeros(1)}, {"w": jnp.full(1, 0.5)}
  state, rates = optimizer.init(params), []
  # AdamW's steps on one gradient over and over are as long as the rate.
  for _ in range(13):
    updates, state = optimizer.update(gradient, state, params)
    rates.append(-float(updates["w"][0]))
  expected = np.concatenate([np.linspace(0, 0.3, 7), np.linspace(0.25, 0, 6)])
  np.testing.assert_allclose(rates, expected, atol=1e-5)
