# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""PPO's pieces by hand, and its gradient by enumeration."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from hypo_jax import losses, ppo

KL_COEF = 0.3
TOY = toy.enumerate_completions("history", 4)
PARAMS, REF_PARAMS = TOY.params(0), TOY.params(1)
REWARDS = jnp.asarray(
  np.random.default_rng(2).normal(size=len(TOY.tokens)), jnp.float32
)
PROBS = jnp.exp(toy.log_probs(PARAMS, TOY))
# Any function of the state.
SOME_VALUES = np.random.default_rng(3).normal(size=TOY.num_states)[TOY.states]


def objective(params):
  """E[reward] - kl_coef KL(policy || reference), over all completions."""
  probs = jnp.exp(toy.log_probs(params, TOY))
  kl = toy.exact_kl(params, REF_PARAMS, TOY)
  return (probs * REWARDS).sum() - KL_COEF * kl


GRADIENT = jax.grad(objective)(PARAMS)


def rewards_of_tokens():
  return ppo.token_rewards(
    REWARDS,
    toy.token_log_probs(PARAMS, TOY),
    toy.token_log_probs(REF_PARAMS, TOY),
    TOY.mask,
    kl_coef=KL_COEF,
  )


def expected_gradient(advantages):
  """E of minus the gradient of the summed policy loss, at ratio 1."""

  def mean(params):
    term = ppo.clipped_policy_loss(
      toy.token_log_probs(params, TOY),
      toy.token_log_probs(PARAMS, TOY),
      advantages,
      TOY.mask,
      clip_range=0.2,
    )
    return (PROBS * term.loss.sum(-1)).sum()

  return -jax.grad(mean)(PARAMS)


def exact_values():
  """The policy's own value of each state: the mean of what follows it."""
  to_go = np.cumsum(np.asarray(rewards_of_tokens())[:, ::-1], axis=1)[:, ::-1]
  table = np.zeros(TOY.num_states)
  for state in range(TOY.num_states):
    rows, steps = np.nonzero((TOY.states == state) & TOY.mask)
    weight = np.asarray(PROBS)[rows]
    table[state] = (weight * to_go[rows, steps]).sum() / weight.sum()
  return table[TOY.states]


# The gradient.


def test_at_ratio_1_and_lambda_1_the_gradient_is_the_policy_gradient():
  """Whatever the value function says."""
  for values in (SOME_VALUES, np.zeros_like(SOME_VALUES)):
    advantages, _ = ppo.gae(
      rewards_of_tokens(), values, TOY.mask, discount=1.0, gae_lambda=1.0
    )
    np.testing.assert_allclose(
      expected_gradient(advantages), GRADIENT, atol=1e-5
    )


def test_a_smaller_lambda_needs_the_policys_own_values():
  rewards = rewards_of_tokens()
  for gae_lambda in (0.0, 0.6):
    settings = dict(discount=1.0, gae_lambda=gae_lambda)
    exact, _ = ppo.gae(rewards, exact_values(), TOY.mask, **settings)
    np.testing.assert_allclose(expected_gradient(exact), GRADIENT, atol=1e-5)
    other, _ = ppo.gae(rewards, SOME_VALUES, TOY.mask, **settings)
    assert jnp.abs(expected_gradient(other) - GRADIENT).max() > 0.02


def test_whitened_advantages_give_another_gradient():
  advantages, _ = ppo.gae(
    rewards_of_tokens(), SOME_VALUES, TOY.mask, discount=1.0, gae_lambda=1.0
  )
  white = expected_gradient(ppo.whiten(advantages, TOY.mask))
  assert jnp.abs(white - GRADIENT).max() > 0.02


def test_own_token_penalties_sum_to_the_kl():
  kl = -(PROBS * (rewards_of_tokens().sum(-1) - REWARDS)).sum() / KL_COEF
  np.testing.assert_allclose(
    kl, toy.exact_kl(PARAMS, REF_PARAMS, TOY), rtol=1e-5
  )


# By hand.

MASK = jnp.array([[True, True, True], [True, True, False], [False] * 3])


def test_token_rewards_stand_at_the_last_token_and_pay_for_every_one():
  p = jnp.array([[-1.0, -2.0, -3.0], [-1.0, -1.0, math.nan], [math.nan] * 3])
  q = jnp.array([[-2.0, -2.0, -1.0], [-2.0, -3.0, 5.0], [math.nan] * 3])
  rewards = ppo.token_rewards(
    jnp.array([10.0, 20.0, 30.0]), p, q, MASK, kl_coef=0.5
  )
  np.testing.assert_allclose(
    rewards, [[-0.5, 0.0, 11.0], [-0.5, 19.0, 0.0], [0.0, 0.0, 0.0]]
  )


def test_gae_follows_its_recursion():
  rewards = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 99.0], [9.0, 9.0, 9.0]])
  values = jnp.array([[0.5, 1.0, 2.0], [0.5, 1.0, 99.0], [9.0, 9.0, 9.0]])
  advantages, returns = ppo.gae(
    rewards, values, MASK, discount=0.9, gae_lambda=0.5
  )
  # delta = r + 0.9 V' - V: 1.4, 2.8, 1; then 1.4 and 1, after which V is 0.
  first = [1.4 + 0.45 * (2.8 + 0.45 * 1), 2.8 + 0.45 * 1, 1.0]
  second = [1.4 + 0.45 * 1.0, 1.0, 0.0]
  np.testing.assert_allclose(advantages, [first, second, [0] * 3], rtol=1e-6)
  expected = np.array([[0.5, 1, 2], [0.5, 1, 0], [0, 0, 0]])
  np.testing.assert_allclose(returns, advantages + expected, rtol=1e-6)


def test_lambda_0_is_one_step_and_lambda_1_all_that_follows():
  rewards = jnp.array([[1.0, 2.0, 3.0]])
  values = jnp.array([[0.5, 1.0, 2.0]])
  mask = jnp.ones((1, 3), bool)
  one, _ = ppo.gae(rewards, values, mask, discount=1.0, gae_lambda=0.0)
  np.testing.assert_allclose(one, [[1.5, 3.0, 1.0]])
  every, returns = ppo.gae(rewards, values, mask, discount=1.0, gae_lambda=1.0)
  np.testing.assert_allclose(every, [[5.5, 4.0, 1.0]])
  np.testing.assert_allclose(returns, [[6.0, 5.0, 3.0]])


# advantage, ratio -> loss, gradient with respect to the log-prob.
CLIPPED = [
  (1.0, 1.0, -1.0, -1.0),
  (1.0, 1.5, -1.2, 0.0),
  (1.0, 0.5, -0.5, -0.5),
  (-1.0, 0.5, 0.8, 0.0),
  (-1.0, 1.5, 1.5, 1.5),
  (-2.0, 1.1, 2.2, 2.2),
]


@pytest.mark.parametrize(("advantage", "ratio", "loss", "slope"), CLIPPED)
def test_policy_loss_is_clipped_where_the_ratio_went_far_enough(
  advantage, ratio, loss, slope
):
  old = jnp.full((1, 1), -3.0)
  new, mask = old + math.log(ratio), jnp.ones((1, 1), bool)

  def total(new):
    term = ppo.clipped_policy_loss(
      new, old, jnp.full((1, 1), advantage), mask, clip_range=0.2
    )
    return term.loss.sum(), term

  (value, term), gradient = jax.value_and_grad(total, has_aux=True)(new)
  np.testing.assert_allclose(value, loss, rtol=1e-5)
  np.testing.assert_allclose(gradient, [[slope]], rtol=1e-5)
  assert bool(term.clipped[0, 0]) == (slope == 0.0)


# value, old value, return -> loss, gradient with respect to the value.
CLIPPED_VALUES = [
  (1.0, 1.0, 3.0, 2.0, -2.0),
  (2.0, 1.0, 3.0, 0.5 * 1.8**2, 0.0),  # It has come nearer than it may.
  (0.0, 1.0, 3.0, 4.5, -3.0),  # It has gone away: the larger loss holds.
  (1.1, 1.0, 3.0, 0.5 * 1.9**2, -1.9),
]


@pytest.mark.parametrize(
  ("value", "old", "target", "loss", "s"), CLIPPED_VALUES
)
def test_value_loss_is_clipped_around_the_old_value(
  value, old, target, loss, s
):
  mask = jnp.ones((1, 1), bool)

  def total(value):
    term = ppo.clipped_value_loss(
      value,
      jnp.full((1, 1), old),
      jnp.full((1, 1), target),
      mask,
      clip_range=0.2,
    )
    return term.loss.sum()

  result, gradient = jax.value_and_grad(total)(jnp.full((1, 1), value))
  np.testing.assert_allclose(result, loss, rtol=1e-5)
  np.testing.assert_allclose(gradient, [[s]], rtol=1e-5, atol=1e-6)


def test_whitening_counts_scored_tokens_only():
  values = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, math.nan], [math.nan] * 3])
  white = ppo.whiten(values, MASK)
  real = np.array([1.0, 2, 3, 4, 5])
  np.testing.assert_allclose(white[MASK], (real - 3) / real.std(), rtol=1e-5)
  assert not white[~MASK].any()
  kept = ppo.whiten(values, MASK, shift_mean=False)
  np.testing.assert_allclose(kept[MASK], (real - 3) / real.std() + 3, rtol=1e-5)
  assert not kept[~MASK].any()


def test_equal_or_no_values_whiten_to_zero():
  assert not ppo.whiten(jnp.ones((3, 3)), MASK).any()
  assert not ppo.whiten(jnp.full((3, 3), 1000.1), MASK).any()
  nothing = jnp.zeros((3, 3), bool)
  assert not ppo.whiten(jnp.full((3, 3), math.nan), nothing).any()


def test_completions_without_eos_get_the_stand_in():
  rewards = ppo.reward_of_unended(
    jnp.array([0.5, 0.7]), jnp.array([True, False]), no_eos_reward=-1.0
  )
  np.testing.assert_allclose(rewards, [0.5, -1.0])


@pytest.mark.parametrize("garbage", [math.nan, -math.inf, 1e30])
def test_masked_content_changes_neither_value_nor_gradient(garbage):
  rng = np.random.default_rng(0)
  arrays = [jnp.asarray(rng.normal(size=(3, 3)), jnp.float32) for _ in range(3)]

  def total(function, *arrays):
    return function(*arrays, MASK, clip_range=0.2).loss.sum()

  for function in (ppo.clipped_policy_loss, ppo.clipped_value_loss):
    run = jax.value_and_grad(total, argnums=(1, 2, 3))
    clean = run(function, *arrays)
    dirty = run(function, *(jnp.where(MASK, x, garbage) for x in arrays))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    # Only what is differentiated has a gradient.
    assert dirty[1][0].any()
    assert not dirty[1][1].any() and not dirty[1][2].any()


# The weight of the KL.


def test_the_kl_coefficient_moves_towards_its_target():
  move = losses.adapted_kl_coef
  np.testing.assert_allclose(move(0.5, 3.3, target=3.0), 0.5 * 1.01, rtol=1e-6)
  np.testing.assert_allclose(move(0.5, 2.7, target=3.0), 0.5 * 0.99, rtol=1e-6)
  # The error is clipped at a fifth of the target.
  np.testing.assert_allclose(move(0.5, 99.0, target=3.0), 0.51, rtol=1e-6)
  np.testing.assert_allclose(move(0.5, -9.0, target=3.0), 0.49, rtol=1e-6)


def test_a_kl_that_answers_to_its_coefficient_settles_at_the_target():
  """KL = 1 / coefficient: from either side to a target of 4."""
  for start in (0.02, 3.0):
    kl_coef = jnp.float32(start)
    for _ in range(400):
      kl_coef = losses.adapted_kl_coef(kl_coef, 1 / kl_coef, target=4.0)
    np.testing.assert_allclose(1 / kl_coef, 4.0, rtol=1e-3)


def test_a_kl_coefficient_shrinks_to_the_smallest_number_and_comes_back():
  tiny = np.finfo(np.float32).tiny
  kl_coef = jnp.float32(1.01 * tiny)
  for _ in range(3):
    kl_coef = losses.adapted_kl_coef(kl_coef, 0.0, target=2.0)
  assert kl_coef == tiny
  assert losses.adapted_kl_coef(kl_coef, 9.0, target=2.0) > tiny


def test_a_kl_that_is_none_leaves_the_coefficient():
  assert losses.adapted_kl_coef(0.5, math.nan, target=2.0) == 0.5
  np.testing.assert_allclose(
    losses.adapted_kl_coef(0.5, math.inf, target=2.0), 0.51, rtol=1e-6
  )


def refused_cases():
  ones, mask = jnp.ones((3, 3)), MASK
  yield (
    "discount: expected in",
    lambda: ppo.gae(ones, ones, mask, discount=1.1, gae_lambda=1.0),
  )
  yield (
    "gae_lambda: expected in",
    lambda: ppo.gae(ones, ones, mask, discount=1.0, gae_lambda=-0.1),
  )
  yield (
    "values: expected the mask's shape",
    lambda: ppo.gae(ones, jnp.ones((3, 2)), mask, discount=1.0, gae_lambda=1.0),
  )
  yield (
    "clip_range: expected > 0",
    lambda: ppo.clipped_policy_loss(ones, ones, ones, mask, clip_range=0.0),
  )
  yield (
    "clip_range: expected > 0",
    lambda: ppo.clipped_value_loss(ones, ones, ones, mask, clip_range=-1.0),
  )
  yield (
    "rewards: expected finite numbers, got nan in row 1",
    lambda: ppo.token_rewards(
      jnp.array([0.0, math.nan, 1.0]), ones, ones, mask, kl_coef=0.1
    ),
  )
  yield (
    r"rewards: expected shape \(3,\)",
    lambda: ppo.token_rewards(jnp.zeros(2), ones, ones, mask, kl_coef=0.1),
  )
  yield "completion_mask: expected dtype bool", lambda: ppo.whiten(ones, ones)
  yield (
    r"ended: expected shape \(2,\)",
    lambda: ppo.reward_of_unended(
      jnp.zeros(2), jnp.ones(3, bool), no_eos_reward=-1.0
    ),
  )
  yield (
    "target: expected > 0",
    lambda: losses.adapted_kl_coef(0.1, 1.0, target=0.0),
  )
  yield (
    "gain: expected in",
    lambda: losses.adapted_kl_coef(0.1, 1.0, target=1.0, gain=5.0),
  )


@pytest.mark.parametrize(("message", "call"), list(refused_cases()))
def test_wrong_arguments_are_named(message, call):
  with pytest.raises(ValueError, match=message):
    call()
