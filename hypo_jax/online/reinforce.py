# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""RLOO and GRPO: one update a draw."""

import jax
import jax.numpy as jnp
import optax

from hypo_jax import objective, policy_gradient, train
from hypo_jax.batch import Rollouts
from hypo_jax.online import draws


def make_policy_gradient_step(
  model,
  optimizer: optax.GradientTransformation,
  *,
  method: str,
  kl_coef: float,
  samples_per_prompt: int,
  scale_by_std: bool | None = None,
  scale_by_length: bool | None = None,
  kl_controller: train.KLController | None = None,
  micro_batch_size: int | None = None,
  adapters: bool = False,
) -> draws.Step:
  """Returns step(state, frozen, rollouts, rewards [B, k]) -> (state, metrics).

  `state` is donated; `frozen` is the reference; `rollouts` are drawn from the
  policy before the update, at temperature 1.

  Args:
    model: see `train`.
    optimizer: any optax transformation.
    method: "rloo" or "grpo".
    kl_coef: weight of the KL, reward per nat; with a kl_controller the state's
      is taken instead.
    samples_per_prompt: k, at least 2.
    scale_by_std: of grpo and no other, as the next; None for the default of
      `policy_gradient.grpo_loss`.
    scale_by_length: likewise.
    kl_controller: moves the state's kl_coef after each step, by the mean
      log-ratio of its rollouts; None for a fixed kl_coef.
    micro_batch_size: prompts per forward and backward; None for all at once.
    adapters: `state.trainable` is an adapter over `frozen`.

  Raises:
    ValueError: for an unknown method, k < 2, or a setting that the method
      doesn't have.
  """
  if method not in ("rloo", "grpo"):
    raise ValueError(f"method: expected 'rloo' or 'grpo', got {method!r}")
  draws.check_samples(method, samples_per_prompt)
  scaling = {"scale_by_std": scale_by_std, "scale_by_length": scale_by_length}
  scaling = {
    name: value for name, value in scaling.items() if value is not None
  }
  if method == "rloo" and scaling:
    raise ValueError(
      f"{', '.join(scaling)}: expected no value for 'rloo', a setting of "
      f"'grpo', got {scaling}"
    )
  grouped = method == "grpo"
  loss_of = policy_gradient.grpo_loss if grouped else policy_gradient.rloo_loss

  def step(state: train.TrainState, frozen, rollouts: Rollouts, rewards):
    weight = kl_coef if kl_controller is None else state.kl_coef
    counts = draws.counts(rollouts)

    def loss_fn(trainable, micro):
      rollouts, rewards = micro
      params = train.policy_params(trainable, frozen, adapters)
      scored = objective.score_rows(model, params, rollouts.rows)
      reference = jax.lax.stop_gradient(frozen)
      ref_scored = objective.score_rows(model, reference, rollouts.rows)
      term = loss_of(
        draws.flat(scored),
        draws.flat(ref_scored),
        rewards.reshape(-1),
        draws.flat(rollouts.rows.slot_mask),
        kl_coef=weight,
        samples_per_prompt=samples_per_prompt,
        **scaling,
      )
      loss = jnp.sum(term.loss) / counts["rollouts"]
      metrics = draws.rollout_metrics(rollouts, scored, ref_scored, counts)
      return loss, metrics | {"policy_loss": loss}

    gradient, metrics = train.accumulate(
      loss_fn, state.trainable, (rollouts, rewards), micro_batch_size
    )
    metrics |= draws.reward_metrics(rewards) | {"kl_coef": jnp.float32(weight)}
    state, metrics = train.update(state, optimizer, gradient, metrics)
    return train.move_kl_coef(state, metrics["kl"], kl_controller), metrics

  return jax.jit(step, donate_argnums=0)
