# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The optimum from samples, against problems that can be listed."""

import math

import numpy as np
import pytest

from hypo_jax import optimum
from hypo_jax.coverage import optimum as exact
from hypo_jax.job import optimum as job_optimum

# Sixteenths, so that sixteen samples can be the reference itself.
REFERENCE = np.array([8, 4, 3, 1]) / 16
REWARDS = np.array([-1.0, 0.2, 0.5, 1.0])
LISTED = np.repeat(REWARDS, [8, 4, 3, 1])


def exact_point(beta):
  policy = exact.optimal_policy(REFERENCE, REWARDS, beta=beta)
  beats = (REWARDS[:, None] > REWARDS) + 0.5 * (REWARDS[:, None] == REWARDS)
  return {
    "value": exact.optimal_value(REFERENCE, REWARDS, beta=beta),
    "reward": policy @ REWARDS,
    "kl": exact.kl(policy, REFERENCE),
    "win_rate": policy @ beats @ REFERENCE,
  }


def draw(rng, prompts, samples):
  return rng.choice(REWARDS, size=(prompts, samples), p=REFERENCE)


@pytest.mark.parametrize("beta", [0.02, 0.1, 0.5, 3.0])
def test_samples_that_are_the_reference_give_the_exact_optimum(beta):
  """Each completion as often as it is likely, a thousand times over."""
  rewards = np.broadcast_to(np.tile(LISTED, 1000), (3, 16_000))
  found = optimum.tilted(rewards, beta=beta)
  for name, value in exact_point(beta).items():
    # A sample is not compared with itself: of 16,000 others, one less.
    error = 1e-4 if name == "win_rate" else 1e-12
    assert getattr(found, name) == pytest.approx(value, abs=error), name
  weight = REFERENCE @ np.exp(REWARDS / beta - 1 / beta)
  square = REFERENCE @ np.exp(2 * REWARDS / beta - 2 / beta)
  expected = 48_000 * weight**2 / square
  assert found.effective_samples == pytest.approx(expected, rel=1e-9)
  assert found.value == pytest.approx(found.reward - beta * found.kl)


@pytest.mark.parametrize("shape", [(64, 64), (128, 256), (512, 8)])
def test_standard_errors_are_those_of_repeated_draws(shape):
  rng, beta = np.random.default_rng(0), 0.25
  draws = [optimum.tilted(draw(rng, *shape), beta=beta) for _ in range(300)]
  for name, value in exact_point(beta).items():
    found = np.array([getattr(point, name) for point in draws])
    errors = np.array([getattr(point, f"{name}_stderr") for point in draws])
    scores = (found - value) / errors
    assert abs(scores.mean()) < 0.25, name
    assert 0.85 < scores.std() < 1.15, name


def test_prompts_that_differ_make_the_pooled_value_too_high_by_the_excess():
  """Half of the prompts have a reference that the others' rewards don't fit."""
  rng, beta, other = np.random.default_rng(1), 0.3, REFERENCE[::-1]
  rewards = np.concatenate(
    [
      draw(rng, 1500, 64),
      rng.choice(REWARDS, size=(1500, 64), p=other),
    ]
  )
  found = optimum.tilted(rewards, beta=beta)
  values = [
    exact.optimal_value(reference, REWARDS, beta=beta)
    for reference in (REFERENCE, other)
  ]
  z = np.exp(np.array(values) / beta)
  pooled = beta * math.log(z.mean())
  assert found.value == pytest.approx(pooled, abs=4 * found.value_stderr)
  variation = z.var() / z.mean() ** 2
  assert found.excess == pytest.approx(beta / 2 * variation, rel=0.1)
  # Second order in what prompts differ by, here by a factor of two.
  assert found.excess == pytest.approx(pooled - np.mean(values), rel=0.35)
  assert found.excess > 5 * found.value_stderr
  alike = optimum.tilted(draw(rng, 3000, 64), beta=beta)
  assert alike.excess < found.excess / 50


def test_the_frontier_rises_ends_in_time_and_lies_above_every_policy():
  rng = np.random.default_rng(2)
  points = optimum.frontier(draw(rng, 512, 8))
  kl, reward = (
    np.array([getattr(p, f) for p in points]) for f in ("kl", "reward")
  )
  assert (
    kl[0] < 0.01 and (np.diff(kl) > 0).all() and (np.diff(reward) > 0).all()
  )
  assert all(point.reliable for point in points)
  for point in points:
    expected = exact_point(point.beta)
    for name, value in expected.items():
      error = getattr(point, f"{name}_stderr")
      assert abs(getattr(point, name) - value) < 5 * error + 1e-3, name
  # Policies of the same rewards: none is above the line at its own KL.
  policies = rng.dirichlet(np.ones(4), size=500)
  for policy in policies:
    at = exact.kl(policy, REFERENCE)
    if kl[0] < at < kl[-1]:
      assert policy @ REWARDS < np.interp(at, kl, reward) + 0.03


def test_a_frontier_stops_where_too_few_samples_carry_it():
  """One completion in 4,096 is far better than the others."""
  rewards = np.random.default_rng(3).normal(size=(512, 8))
  rewards[0, 0] = 50.0
  points = optimum.frontier(rewards)
  assert points and points[-1].effective_samples >= optimum.LEAST_EFFECTIVE
  following = optimum.tilted(rewards, beta=0.85 * points[-1].beta)
  assert not following.reliable
  assert points[-1].kl < math.log(4096 / optimum.LEAST_EFFECTIVE) + 1


def test_where_nothing_can_be_gained_there_is_no_frontier():
  assert optimum.frontier(np.full((200, 4), 0.5)) == []
  assert optimum.frontier(np.random.default_rng(0).normal(size=(4, 4))) == []
  point = optimum.tilted(np.full((200, 4), 0.5), beta=0.1)
  assert point.value == pytest.approx(0.5) and point.kl == pytest.approx(0.0)
  assert point.win_rate == 0.5


@pytest.mark.parametrize(
  ("rewards", "beta", "message"),
  [
    (np.ones(4), 0.1, r"rewards: expected shape \[n, m\], .* got shape \(4,\)"),
    (np.ones((4, 1)), 0.1, r"both at least 2, got shape \(4, 1\)"),
    (np.ones((1, 4)), 0.1, r"both at least 2, got shape \(1, 4\)"),
    (np.ones((0, 4)), 0.1, r"got shape \(0, 4\)"),
    (np.array([[0.0, 1.0], [math.nan, 0.0]]), 0.1, "nan in row 1, column 0"),
    (np.ones((4, 2)), 0.0, "beta: expected a number > 0, got 0.0"),
    (np.ones((4, 2)), math.inf, "beta: expected a number > 0, got inf"),
  ],
)
def test_wrong_arguments_are_named(rewards, beta, message):
  with pytest.raises(ValueError, match=message):
    optimum.tilted(rewards, beta=beta)


# What a job makes of it.


def test_a_report_has_the_reference_first_and_a_value_for_each_coefficient():
  rng = np.random.default_rng(4)
  rewards = draw(rng, 512, 16)
  found = job_optimum.describe(rewards, [0.1, 0.5])
  assert (found["samples"], found["prompts"]) == (8192, 512)
  first, second = found["frontier"][:2]
  assert first["kl"] == 0 and first["win_rate"] == 0.5
  assert first["reward"] == pytest.approx(rewards.mean())
  assert first["beta"] is None and first.keys() == second.keys()
  betas = [point["beta"] for point in found["frontier"][1:]]
  assert betas == sorted(betas, reverse=True)
  for row, beta in zip(found["values"], (0.1, 0.5), strict=True):
    expected = exact_point(beta)["value"]
    assert row["value"] == pytest.approx(expected, abs=4 * row["value_stderr"])
    assert row["beta"] == beta and row["reliable"]


def test_recovered_shares_are_of_the_methods_own_objective():
  found = job_optimum.describe(draw(np.random.default_rng(5), 512, 8), [0.1])
  (row,) = found["values"]
  half = (row["value"] + row["reference"]) / 2
  measured = {
    # Each has half of the gain, at another KL.
    "rloo": {"reward_mean": half + 0.1 * 2.0, "kl_rao_blackwell": 2.0},
    "ppo": {"reward_mean": half, "kl_rao_blackwell": 0.0},
    "other": {"reward_mean": half, "kl_rao_blackwell": 0.0},
    "hypo": {"reward_mean": half, "kl_rao_blackwell": 0.0},
    "adapting": {"reward_mean": half, "kl_rao_blackwell": 0.0},
    "diverged": {"reward_mean": -1.0, "kl_rao_blackwell": None},
  }
  methods = {
    "rloo": {"method": "rloo", "kl_coef": 0.1, "kl_target": None},
    "ppo": {"method": "ppo", "kl_coef": 0.1, "kl_target": None},
    "other": {"method": "grpo", "kl_coef": 0.2, "kl_target": None},
    "hypo": {"method": "hypo", "kl_coef": 0.1, "kl_target": None},
    # Its beta is 0.1 at the start alone.
    "adapting": {"method": "rloo", "kl_coef": 0.1, "kl_target": 2.0},
    "diverged": {"method": "rloo", "kl_coef": 0.1, "kl_target": None},
  }
  (row,) = job_optimum.with_recovered(found, measured, methods)["values"]
  assert row["recovered"] == {
    "rloo": pytest.approx(0.5),
    "ppo": pytest.approx(0.5),
    "diverged": None,
  }
  assert optimum.recovered(0.3, 0.3, optimum=0.3) is None
