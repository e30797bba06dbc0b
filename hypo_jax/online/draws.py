# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What every method that learns from its own draws does with them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hypo_jax import ppo, train
from hypo_jax.batch import Rollouts

Metrics = dict[str, jax.Array]
Step = Callable[..., tuple[train.TrainState, Metrics]]
Params = Any


def make_reward_finisher(
  eos_token_ids: tuple[int, ...], no_eos_reward: float | None
) -> Callable[[Rollouts, jax.Array], jax.Array]:
  """Returns finish(rollouts, rewards [B, k]) -> rewards of what ended.

  Args:
    eos_token_ids: what ends a completion.
    no_eos_reward: the reward of a completion without one; None leaves its own.
  """
  if no_eos_reward is None:
    return lambda rollouts, rewards: rewards

  @jax.jit
  def finish(rollouts: Rollouts, rewards: jax.Array) -> jax.Array:
    rows = rollouts.rows
    ends = jnp.isin(rows.slot_tokens, jnp.array(eos_token_ids))
    ended = jnp.any(ends & rows.slot_mask, axis=-1)
    flat = ppo.reward_of_unended(
      rewards.reshape(-1), ended.reshape(-1), no_eos_reward=no_eos_reward
    )
    return flat.reshape(rewards.shape)

  return finish


def check_samples(method: str, samples_per_prompt: int) -> None:
  if samples_per_prompt < 2:
    raise ValueError(
      "rollout.samples_per_prompt: expected at least 2, which are compared "
      f"with each other, for {method!r}, got {samples_per_prompt}"
    )


def flat(x: jax.Array) -> jax.Array:
  """[B, k, C] -> [N, C]."""
  return x.reshape(-1, x.shape[-1])


def counts(rollouts: Rollouts) -> dict[str, jax.Array]:
  mask = rollouts.rows.slot_mask
  tokens = jnp.maximum(jnp.sum(mask), 1)
  return {"rollouts": mask.shape[0] * mask.shape[1], "tokens": tokens}


def rollout_metrics(rollouts, scored, ref_scored, counts) -> Metrics:
  """Shares of the batch's means."""
  mask = rollouts.rows.slot_mask

  def total(x):
    return jnp.sum(jnp.where(mask, jax.lax.stop_gradient(x), 0.0))

  drawn = rollouts.token_log_probs
  return {
    "kl": total(scored - ref_scored) / counts["rollouts"],
    "rollout_length": jnp.sum(mask) / counts["rollouts"],
    "sampler_gap": total(jnp.abs(scored - drawn)) / counts["tokens"],
  }


def reward_metrics(rewards: jax.Array) -> Metrics:
  return {"rollout_reward": rewards.mean(), "rollout_reward_std": rewards.std()}
