# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""RLOO and GRPO against the exact policy gradient, by enumeration."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from hypo_jax import policy_gradient

KL_COEF = 0.3
TOY = toy.enumerate_completions("history", 3)
PARAMS, REF_PARAMS = TOY.params(0), TOY.params(1)
M = len(TOY.tokens)
REWARDS = jnp.asarray(np.random.default_rng(2).normal(size=M), jnp.float32)


def objective(params):
  """E[reward] - kl_coef KL(policy || reference), over all completions."""
  probs = jnp.exp(toy.log_probs(params, TOY))
  kl = toy.exact_kl(params, REF_PARAMS, TOY)
  return (probs * REWARDS).sum() - KL_COEF * kl


GRADIENT = jax.grad(objective)(PARAMS)


def groups(k):
  """All M^k groups of k samples: rows of completions, and probabilities."""
  rows = np.array(list(itertools.product(range(M), repeat=k)))
  probs = np.exp(np.asarray(toy.log_probs(PARAMS, TOY), np.float64))
  return rows, probs[rows].prod(axis=-1)


def expected_gradient(loss, k, **kwargs):
  """E of minus the gradient of the mean loss over a prompt's k samples."""
  rows, weight = groups(k)
  flat = rows.reshape(-1)

  def mean(params):
    term = loss(
      toy.token_log_probs(params, TOY)[flat],
      toy.token_log_probs(REF_PARAMS, TOY)[flat],
      REWARDS[flat],
      TOY.mask[flat],
      kl_coef=KL_COEF,
      samples_per_prompt=k,
      **kwargs,
    )
    return (jnp.asarray(weight) * term.loss.reshape(rows.shape).mean(-1)).sum()

  return -jax.jit(jax.grad(mean))(PARAMS)


@pytest.mark.parametrize("k", [2, 3])
def test_expected_rloo_gradient_is_the_policy_gradient(k):
  estimate = expected_gradient(policy_gradient.rloo_loss, k)
  np.testing.assert_allclose(estimate, GRADIENT, atol=1e-5)


@pytest.mark.parametrize("k", [2, 3])
def test_grpo_without_scaling_is_k_minus_1_over_k_of_it(k):
  estimate = expected_gradient(
    policy_gradient.grpo_loss, k, scale_by_std=False, scale_by_length=False
  )
  np.testing.assert_allclose(estimate, (k - 1) / k * GRADIENT, atol=1e-5)


def written_grpo(k, *, scale_by_std, scale_by_length):
  """The expectation of GRPO's formula, group by group in float64."""
  log_probs = np.asarray(toy.log_probs(PARAMS, TOY), np.float64)
  ref_log_probs = np.asarray(toy.log_probs(REF_PARAMS, TOY), np.float64)
  scores = np.asarray(
    jax.jacrev(lambda p: toy.log_probs(p, TOY))(PARAMS), np.float64
  )
  penalised = np.asarray(REWARDS) - KL_COEF * (log_probs - ref_log_probs)
  lengths = TOY.mask.sum(-1)
  total = np.zeros(PARAMS.shape)
  for group, weight in zip(*groups(k), strict=True):
    mean = sum(penalised[i] for i in group) / k
    variance = sum((penalised[i] - mean) ** 2 for i in group) / k
    for i in group:
      advantage = penalised[i] - mean
      if scale_by_std:
        advantage /= math.sqrt(variance) + 1e-4
      share = lengths[i] if scale_by_length else 1
      total += weight / k * advantage / share * scores[i]
  return total


def off_direction(gradient):
  """Share of the gradient that no multiple of the policy gradient explains."""
  exact = np.asarray(GRADIENT, np.float64)
  along = (gradient * exact).sum() / (exact**2).sum() * exact
  return np.linalg.norm(gradient - along) / np.linalg.norm(gradient)


@pytest.mark.parametrize("scale_by_std", [True, False])
@pytest.mark.parametrize("scale_by_length", [True, False])
def test_expected_grpo_gradient_is_its_formulas(scale_by_std, scale_by_length):
  scaling = dict(scale_by_std=scale_by_std, scale_by_length=scale_by_length)
  written = written_grpo(2, **scaling)
  estimate = expected_gradient(policy_gradient.grpo_loss, 2, **scaling)
  np.testing.assert_allclose(estimate, written, atol=1e-5)
  # Either scaling points elsewhere than the policy gradient does.
  if scale_by_std or scale_by_length:
    assert off_direction(written) > 0.1
  else:
    assert off_direction(written) < 1e-5


def test_advantages_follow_their_formulas():
  rewards = jnp.array([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
  np.testing.assert_allclose(
    policy_gradient.leave_one_out_advantages(rewards, samples_per_prompt=3),
    [-3.0, -1.5, 4.5, -1.5, -1.5, 3.0],
  )
  plain = policy_gradient.group_advantages(
    rewards, samples_per_prompt=3, scale_by_std=False
  )
  np.testing.assert_allclose(plain, [-2.0, -1.0, 3.0, -1.0, -1.0, 2.0])
  scaled = policy_gradient.group_advantages(rewards, samples_per_prompt=3)
  std = np.repeat([math.sqrt(14 / 3), math.sqrt(2)], 3)
  np.testing.assert_allclose(scaled, plain / (std + 1e-4), rtol=1e-6)


@pytest.mark.parametrize("samples_per_prompt", [4, 7, 8])
@pytest.mark.parametrize("reward", [0.7, 1000.1, -12345.67])
def test_equal_rewards_give_no_advantage(reward, samples_per_prompt):
  rewards = jnp.full(samples_per_prompt, reward)
  given = dict(samples_per_prompt=samples_per_prompt)
  assert not policy_gradient.group_advantages(rewards, **given).any()
  np.testing.assert_allclose(
    policy_gradient.leave_one_out_advantages(rewards, **given),
    0.0,
    atol=1e-6 * abs(reward),
  )


def test_losses_follow_their_formulas():
  p = jnp.array([[-1.0, -2.0, -3.0], [-4.0, -5.0, 9.0]])
  q = jnp.array([[-2.0, -2.5, -1.0], [-4.5, -6.0, 7.0]])
  mask = jnp.array([[True, True, True], [True, True, False]])
  arguments = (p, q, jnp.array([1.0, 3.0]), mask)
  settings = dict(kl_coef=2.0, samples_per_prompt=2)
  # Log-ratios -0.5 and 1.5: R = 2 and 0, whole log-probs -6 and -9.
  rloo = policy_gradient.rloo_loss(*arguments, **settings)
  np.testing.assert_allclose(rloo.kl, [-0.5, 1.5], rtol=1e-6)
  np.testing.assert_allclose(rloo.advantage, [2.0, -2.0])
  np.testing.assert_allclose(rloo.loss, [12.0, -18.0])
  grpo = policy_gradient.grpo_loss(*arguments, **settings, scale_by_std=False)
  np.testing.assert_allclose(grpo.loss, [1 * 6 / 3, -1 * 9 / 2])


LOSSES = [policy_gradient.rloo_loss, policy_gradient.grpo_loss]


def random_arguments(seed=0):
  rng = np.random.default_rng(seed)
  p, q = -rng.exponential(size=(2, 4, 5))
  mask = np.arange(5) < np.array([[5], [2], [0], [3]])
  rewards = rng.normal(size=4)
  floats = [jnp.asarray(x, jnp.float32) for x in (p, q, rewards)]
  return *floats, jnp.asarray(mask)


@pytest.mark.parametrize("garbage", [math.nan, -math.inf, 1e30])
@pytest.mark.parametrize("loss", LOSSES)
def test_masked_content_changes_neither_value_nor_gradient(loss, garbage):
  p, q, rewards, mask = random_arguments()

  def total(p, q, rewards):
    term = loss(p, q, rewards, mask, kl_coef=0.2, samples_per_prompt=2)
    return term.loss.sum(), term

  run = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
  clean = run(p, q, rewards)
  dirty = run(*(jnp.where(mask, x, garbage) for x in (p, q)), rewards)
  jax.tree.map(np.testing.assert_array_equal, clean, dirty)
  assert not dirty[1][0][~mask].any()
  # The reference and the rewards carry no gradient.
  assert not dirty[1][1].any() and not dirty[1][2].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_advantage_and_kl_carry_no_gradient(loss):
  p, q, rewards, mask = random_arguments()

  def total(p):
    term = loss(p, q, rewards, mask, kl_coef=0.2, samples_per_prompt=2)
    return (term.advantage + term.kl).sum()

  assert not jax.grad(total)(p).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_agree_eager_and_jit_with_a_traced_kl_coef(loss):
  arguments = random_arguments(3)
  eager = loss(*arguments, kl_coef=0.2, samples_per_prompt=2)
  run = jax.jit(lambda *a, c: loss(*a, kl_coef=c, samples_per_prompt=2))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    eager,
    run(*arguments, c=0.2),
  )


REFUSED = [
  (dict(samples_per_prompt=1), "samples_per_prompt: expected an int >= 2, got"),
  (dict(samples_per_prompt=3), "samples_per_prompt: expected a divisor of the"),
  (dict(kl_coef=-0.1), "kl_coef: expected >= 0"),
  (
    dict(rewards=jnp.array([0.0, 1.0, math.nan, 1.0])),
    "rewards: expected finite numbers, got nan in row 2",
  ),
  (
    dict(rewards=jnp.array([0.0, -math.inf, 0.0, 0.0])),
    "rewards: expected finite numbers, got -inf in row 1",
  ),
  (dict(rewards=jnp.zeros(3)), r"rewards: expected shape \(4,\)"),
  (dict(rewards=jnp.zeros((4, 1))), r"rewards: expected shape \[N\]"),
  (dict(rewards=jnp.zeros(4, jnp.int32)), "rewards: expected a float dtype"),
  (
    dict(completion_mask=jnp.ones((4, 5))),
    "completion_mask: expected dtype bool",
  ),
  (dict(token_log_probs=jnp.zeros((4, 6))), "token_log_probs: expected the"),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_wrong_arguments_are_named(loss, wrong, message):
  names = ("token_log_probs", "ref_token_log_probs", "rewards")
  names += ("completion_mask",)
  arguments = dict(zip(names, random_arguments(), strict=True))
  arguments |= dict(kl_coef=0.2, samples_per_prompt=2) | wrong
  with pytest.raises(ValueError, match=message):
    loss(**arguments)
