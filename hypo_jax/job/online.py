# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How a job's online methods are stepped; see `hypo_jax.online`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from hypo_jax import objective, online, sharding, train
from hypo_jax.batch import Rollouts
from hypo_jax.job.methods import DEFAULTS, kl_controller
from hypo_jax.job.setup import Job


class Rewards(NamedTuple):
  """What gives completions their rewards.

  Attributes:
    of_rollouts: (rollouts, row [B]) -> rewards [B, k]; row numbers the prompts.
    of_samples: (prompts, prompt_rows, samples) -> numpy rewards [n, k], of an
      evaluation's n prompts; None where its judge says the same.
  """

  of_rollouts: Callable[[Rollouts, jax.Array], jax.Array]
  of_samples: Callable[..., np.ndarray] | None


def make_step(job: Job, settings: dict[str, Any], optimizer):
  """Returns a method's step; see `online`.

  Args:
    job: the job.
    settings: the method's, resolved.
    optimizer: of `steps.make_optimizer`.
  """
  model = job.model.with_rows(sharding.row_sharding(job.mesh))
  method, k = settings["method"], job.config.rollout.samples_per_prompt
  common = {name: settings[name] for name in ("micro_batch_size", "kl_coef")}
  common |= {
    "adapters": job.adapters,
    "kl_controller": kl_controller(settings),
  }
  own = {n: settings[n] for n in DEFAULTS[method] if n != "no_eos_reward"}
  if method == "ppo":
    return online.make_ppo_step(model, optimizer, **common, **own)
  if method == "online_dpo":
    names = ("beta", "kl_coef", "label_smoothing")
    loss = objective.PreferenceLoss(
      model, method="dpo", **{name: settings[name] for name in names}
    )
    return train.make_train_step(
      loss,
      optimizer,
      micro_batch_size=settings["micro_batch_size"],
      adapters=job.adapters,
    )
  return online.make_policy_gradient_step(
    model, optimizer, method=method, samples_per_prompt=k, **common, **own
  )


def make_update(
  job: Job,
  settings: dict[str, Any],
  train_step: Callable[..., Any],
  reference: Any,
  draw: Callable[..., Any],
  rewards_of: Rewards,
) -> Callable[..., Any]:
  """Returns update(state, step, timer): a draw, its rewards, then the step.

  Args:
    job: the job.
    settings: the method's, resolved.
    train_step: of `make_step`.
    reference: the reference policy's parameters.
    draw: (params, step) -> rollouts and the numbers of their prompts.
    rewards_of: of `rewards.make_rewards`.
  """
  finish = online.make_reward_finisher(
    job.eos_token_ids, settings["no_eos_reward"]
  )
  key = job.key("preference", "minibatches")
  label = None
  if settings["method"] == "online_dpo":
    label = online.make_labeller(
      job.model.with_rows(sharding.row_sharding(job.mesh)),
      samples_per_prompt=job.config.rollout.samples_per_prompt,
    )

  def update(state, step, timer):
    params = train.policy_params(state.trainable, reference, job.adapters)
    rollouts, row = timer("rollout", lambda: draw(params, step))
    rewards = timer("reward", lambda: rewards_of.of_rollouts(rollouts, row))
    rewards = finish(rollouts, rewards)
    arguments = (reference, rollouts, rewards)
    if settings["method"] == "ppo":
      arguments = (*arguments, jax.random.fold_in(key, step))
    elif label is not None:
      frozen = reference if job.adapters else None
      arguments = (frozen, label(reference, rollouts, rewards, row), None)
    state, metrics = timer("train", lambda: train_step(state, *arguments))
    if label is not None:
      metrics = metrics | {"rollout_reward": rewards.mean()}
    return state, metrics

  return update
