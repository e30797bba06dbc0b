# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""PPO on token rewards: advantages, and clipped policy and value losses.

A completion's reward stands at its last scored token; every scored token pays
kl_coef times its log-ratio to the reference. In the order of use:

    rewards -> reward_of_unended -> token_rewards -> (whiten) -> gae
      -> (whiten) -> clipped_policy_loss, clipped_value_loss

Where the policy is the one that drew, with discount and gae_lambda 1 and no
whitening, the expected gradient of the summed policy loss is minus that of
E[reward] - kl_coef KL(policy || reference), whatever the value function says.
Whitened advantages, gae_lambda below 1 and clipping each buy lower variance
with a bias.

Shapes: N rollouts, C completion tokens. Masked positions may hold anything, nan
and -inf included, and come back as 0 with gradient 0.

Source: Schulman et al. 2017 (arXiv 1707.06347) and 2016 (arXiv 1506.02438);
token rewards from Ziegler et al. 2019 (arXiv 1909.08593).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hypo_jax.losses import checks, masked
from hypo_jax.losses.checks import Scalar
from hypo_jax.policy_gradient import check_rewards

# Added to a variance before its root.
_EPSILON = 1e-8


class ClippedTerm(NamedTuple):
  """A clipped loss, token by token.

  Attributes:
    loss: float32 [N, C], 0 where masked.
    clipped: bool [N, C], where the clipped form is the larger one: gradient 0.
  """

  loss: jax.Array
  clipped: jax.Array


def reward_of_unended(
  rewards: jax.Array, ended: jax.Array, *, no_eos_reward: float
) -> jax.Array:
  """Gives completions that were cut before an EOS another reward.

  Args:
    rewards: float [N].
    ended: bool [N], whether the completion holds an EOS.
    no_eos_reward: what stands in for the reward where it does not.

  Returns:
    float32 [N].

  Source: Huang et al. 2024 (arXiv 2403.17031), which takes -1.
  """
  rewards = check_rewards(rewards)
  checks.check_mask(ended, "ended", rewards.shape)
  return jnp.where(ended, rewards, no_eos_reward)


def token_rewards(
  rewards: jax.Array,
  token_log_probs: jax.Array,
  ref_token_log_probs: jax.Array,
  completion_mask: jax.Array,
  *,
  kl_coef: Scalar,
) -> jax.Array:
  """Spreads rewards and KL penalties over tokens.

      -kl_coef log(policy / reference)_t, plus the reward at the last token

  Args:
    rewards: float [N], finite.
    token_log_probs: float [N, C], under the policy that drew.
    ref_token_log_probs: float [N, C], under the reference.
    completion_mask: bool [N, C], True on scored tokens, a prefix of each row.
    kl_coef: scalar >= 0, reward per nat; may be traced.

  Returns:
    float32 [N, C], without gradient. A row without scored tokens is all 0: its
    reward has no token to stand at.

  Raises:
    ValueError: a shape, dtype or range is wrong, or a reward is not finite
      (where it is known: not under jit).
  """
  checks.check_scalar("kl_coef", kl_coef, ">= 0 and finite", 0.0, math.inf)
  rows, length = checks.check_mask(completion_mask)
  rewards = check_rewards(rewards)
  if len(rewards) != rows:
    expected = f"shape ({rows},), one a rollout"
    checks.refuse("rewards", expected, f"shape {rewards.shape}")
  log_probs = masked.scored("token_log_probs", token_log_probs, completion_mask)
  ref_log_probs = masked.scored(
    "ref_token_log_probs", ref_token_log_probs, completion_mask
  )
  last = jnp.sum(completion_mask, axis=-1, keepdims=True) - 1
  at_end = jnp.arange(length) == last
  penalty = kl_coef * (log_probs - ref_log_probs)
  return lax.stop_gradient(jnp.where(at_end, rewards[:, None], 0.0) - penalty)


def whiten(
  values: jax.Array, completion_mask: jax.Array, *, shift_mean: bool = True
) -> jax.Array:
  """Scales values over all scored tokens to variance 1.

  Args:
    values: float [N, C].
    completion_mask: bool [N, C].
    shift_mean: whether the mean goes to 0; else it stays.

  Returns:
    float32 [N, C], 0 where masked.
  """
  checks.check_mask(completion_mask)
  values = masked.scored("values", values, completion_mask)
  count = jnp.maximum(jnp.sum(completion_mask), 1)
  # Equal values are exactly 0 from here on; the division below would scale the
  # rounding of any other mean up to 1.
  offset = jnp.min(values, initial=jnp.inf, where=completion_mask)
  offset = jnp.where(jnp.any(completion_mask), offset, 0.0)
  values = jnp.where(completion_mask, values - offset, 0.0)
  mean = values.sum() / count
  centred = jnp.where(completion_mask, values - mean, 0.0)
  scaled = centred * lax.rsqrt((centred**2).sum() / count + _EPSILON)
  if not shift_mean:
    scaled = jnp.where(completion_mask, scaled + (offset + mean), 0.0)
  return scaled


def gae(
  rewards: jax.Array,
  values: jax.Array,
  completion_mask: jax.Array,
  *,
  discount: float,
  gae_lambda: float,
) -> tuple[jax.Array, jax.Array]:
  """Computes generalised advantage estimates.

      A_t = delta_t + discount * gae_lambda * A_{t+1}
      delta_t = reward_t + discount * V_{t+1} - V_t

  Args:
    rewards: float [N, C], of `token_rewards`.
    values: float [N, C], V_t of the state before token t.
    completion_mask: bool [N, C]; after the last scored token V and A are 0.
    discount: in [0, 1].
    gae_lambda: in [0, 1]; 1 leaves the values as a baseline only.

  Returns:
    advantages and returns (A_t + V_t), float32 [N, C] each, without gradient.

  Raises:
    ValueError: a shape, dtype or range is wrong.
  """
  for name, value in (("discount", discount), ("gae_lambda", gae_lambda)):
    checks.check_scalar(name, value, "in [0, 1]", 0.0, math.nextafter(1, 2))
  checks.check_mask(completion_mask)
  rewards = masked.scored("rewards", rewards, completion_mask)
  values = masked.scored("values", values, completion_mask)
  following = jnp.pad(values[:, 1:], ((0, 0), (0, min(1, values.shape[1]))))
  delta = rewards + discount * following - values

  def back(advantage, delta):
    advantage = delta + discount * gae_lambda * advantage
    return advantage, advantage

  start = jnp.zeros_like(delta[:, :1].sum(axis=-1))
  _, advantages = lax.scan(back, start, delta.T, reverse=True)
  advantages = jnp.where(completion_mask, advantages.T, 0.0)
  return lax.stop_gradient((advantages, advantages + values))


def clipped_policy_loss(
  token_log_probs: jax.Array,
  old_token_log_probs: jax.Array,
  advantages: jax.Array,
  completion_mask: jax.Array,
  *,
  clip_range: float,
) -> ClippedTerm:
  """Computes PPO's policy loss of each token, for the caller to reduce.

      max(-A ratio, -A clip(ratio, 1 - clip_range, 1 + clip_range))

  with ratio = policy / the policy that drew.

  Args:
    token_log_probs: float [N, C], under the policy that is differentiated.
    old_token_log_probs: float [N, C], under the one that drew; no gradient.
    advantages: float [N, C]; get no gradient.
    completion_mask: bool [N, C].
    clip_range: > 0.

  Returns:
    ClippedTerm.

  Raises:
    ValueError: a shape, dtype or range is wrong.
  """
  checks.check_positive("clip_range", clip_range)
  checks.check_mask(completion_mask)
  names = ("token_log_probs", "old_token_log_probs", "advantages")
  given = (token_log_probs, old_token_log_probs, advantages)
  log_probs, old_log_probs, advantages = (
    masked.scored(name, x, completion_mask)
    for name, x in zip(names, given, strict=True)
  )
  old_log_probs, advantages = lax.stop_gradient((old_log_probs, advantages))
  ratio = jnp.exp(log_probs - old_log_probs)
  plain = -advantages * ratio
  bounded = -advantages * jnp.clip(ratio, 1 - clip_range, 1 + clip_range)
  return ClippedTerm(jnp.maximum(plain, bounded), bounded > plain)


def clipped_value_loss(
  values: jax.Array,
  old_values: jax.Array,
  returns: jax.Array,
  completion_mask: jax.Array,
  *,
  clip_range: float,
) -> ClippedTerm:
  """Computes PPO's value loss of each token, for the caller to reduce.

      max((V - R)^2, (clip(V, V_old +- clip_range) - R)^2) / 2

  Args:
    values: float [N, C], of the value function that is differentiated.
    old_values: float [N, C], before the updates on this draw; no gradient.
    returns: float [N, C], of `gae`; get no gradient.
    completion_mask: bool [N, C].
    clip_range: > 0, in the unit of the rewards.

  Returns:
    ClippedTerm.

  Raises:
    ValueError: a shape, dtype or range is wrong.
  """
  checks.check_positive("clip_range", clip_range)
  checks.check_mask(completion_mask)
  names = ("values", "old_values", "returns")
  given = (values, old_values, returns)
  values, old_values, returns = (
    masked.scored(name, x, completion_mask)
    for name, x in zip(names, given, strict=True)
  )
  old_values, returns = lax.stop_gradient((old_values, returns))
  plain = (values - returns) ** 2
  near = jnp.clip(values, old_values - clip_range, old_values + clip_range)
  bounded = (near - returns) ** 2
  return ClippedTerm(0.5 * jnp.maximum(plain, bounded), bounded > plain)
