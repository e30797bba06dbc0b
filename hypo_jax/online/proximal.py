# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""PPO: several epochs of minibatches a draw, and a value head."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hypo_jax import objective, ppo, train
from hypo_jax.batch import Rows
from hypo_jax.models import scalar_head
from hypo_jax.online import draws


class Experience(NamedTuple):
  """A draw as PPO learns from it; all [B, k, C] but the rows.

  Attributes:
    rows: B prompts with k completions each.
    log_probs: float32, under the policy that drew.
    values: float32, of the value head at that time.
    advantages: float32.
    returns: float32.
  """

  rows: Rows
  log_probs: jax.Array
  values: jax.Array
  advantages: jax.Array
  returns: jax.Array


def with_value_head(policy: draws.Params, width: int) -> draws.Params:
  """Returns PPO's trainable parameters; the head says 0 of every state.

  Args:
    policy: what is trained of the policy: its parameters, or an adapter.
    width: of the hidden states.
  """
  return {"policy": policy, "value_head": scalar_head.init(width)}


class _Settings(NamedTuple):
  """The arguments of `make_ppo_step` that say how."""

  kl_coef: float
  epochs: int
  num_minibatches: int
  clip_range: float
  value_clip_range: float
  value_coef: float
  gae_lambda: float
  discount: float
  whiten_rewards: bool
  whiten_advantages: bool
  temperature: float
  micro_batch_size: int | None
  adapters: bool


def make_ppo_step(
  model,
  optimizer: optax.GradientTransformation,
  *,
  temperature: float = 1.0,
  kl_controller: train.KLController | None = None,
  micro_batch_size: int | None = None,
  adapters: bool = False,
  **settings: Any,
) -> draws.Step:
  """Returns step(state, frozen, rollouts, rewards [B, k], key).

  One call is one draw: `epochs` passes over its prompts in `num_minibatches`
  parts, each an update of the optimizer; the state's step grows by one. `key`
  shuffles the prompts. `state` is donated, its trainable of `with_value_head`.
  Losses are means over a minibatch's scored tokens. With temperature other than
  1 the KL is that of the two tempered policies, and called `kl_tempered`.

  Args:
    model: see `train`.
    optimizer: any optax transformation; it counts epochs * num_minibatches
      updates a step.
    temperature: at which rollouts were drawn; policy and reference are both
      scored at it.
    kl_controller: moves the state's kl_coef after each step, by the mean
      log-ratio of its rollouts; None for a fixed kl_coef.
    micro_batch_size: prompts per forward and backward, a divisor of their
      number, and of a minibatch's where that is larger; None for all at once.
    adapters: `state.trainable["policy"]` is an adapter over `frozen`.
    **settings: all of
      kl_coef: weight of the KL, reward per nat; with a kl_controller the
        state's is taken instead.
      epochs, num_minibatches: passes over a draw, and parts of each pass.
      clip_range, value_clip_range: of the policy's ratio, the value's change.
      value_coef: weight of the value loss.
      gae_lambda, discount: see `ppo.gae`.
      whiten_rewards: scale token rewards to variance 1; the mean stays.
      whiten_advantages: to mean 0 and variance 1.
  """
  s = _Settings(
    temperature=temperature,
    micro_batch_size=micro_batch_size,
    adapters=adapters,
    **settings,
  )
  kl_name = "kl" if temperature == 1.0 else "kl_tempered"

  def step(state: train.TrainState, frozen, rollouts, rewards, key):
    weight = s.kl_coef if kl_controller is None else state.kl_coef
    frozen = jax.lax.stop_gradient(frozen)
    experience, seen = _look(
      model, s, state.trainable, frozen, rollouts, rewards, weight
    )
    order = _minibatches(len(rewards), s.epochs, s.num_minibatches, key)

    def update(state, rows):
      part = experience
      if s.num_minibatches > 1:
        part = jax.tree.map(lambda x: x[rows], experience)
      num_tokens = jnp.maximum(jnp.sum(part.rows.slot_mask), 1)
      gradient, metrics = train.accumulate(
        lambda trainable, micro: _loss(
          model, s, trainable, frozen, micro, num_tokens
        ),
        state.trainable,
        part,
        micro_batch_size and min(micro_batch_size, order.shape[1]),
      )
      return train.update(state, optimizer, gradient, metrics)

    new, metrics = jax.lax.scan(update, state, order)
    metrics = jax.tree.map(jnp.mean, metrics)
    metrics |= seen | draws.reward_metrics(rewards)
    metrics[kl_name] = metrics.pop("kl")
    metrics["kl_coef"] = jnp.float32(weight)
    new = dataclasses.replace(new, step=state.step + 1)
    return train.move_kl_coef(new, metrics[kl_name], kl_controller), metrics

  return jax.jit(step, donate_argnums=0)


def _score(model, s: _Settings, trainable, frozen, rows: Rows):
  """Returns token log-probs and values, [B, k, C] each."""
  params = train.policy_params(trainable, frozen, s.adapters)
  hidden = model.row_hidden(params, rows)
  scored = objective.score_hidden(
    model, params, hidden, rows.slot_tokens, temperature=s.temperature
  )
  return scored, scalar_head.apply(trainable["value_head"], hidden)


def _look(model, s: _Settings, trainable, frozen, rollouts, rewards, kl_coef):
  """Scores a draw as it is: an Experience and metrics, without gradient."""

  def score_all(rows: Rows):
    hidden = model.row_hidden(frozen, rows)
    reference = objective.score_hidden(
      model, frozen, hidden, rows.slot_tokens, temperature=s.temperature
    )
    return *_score(model, s, trainable, frozen, rows), reference

  log_probs, values, reference = _in_micro_batches(
    score_all, rollouts.rows, s.micro_batch_size
  )
  mask, shape = draws.flat(rollouts.rows.slot_mask), log_probs.shape
  token_rewards = ppo.token_rewards(
    rewards.reshape(-1),
    draws.flat(log_probs),
    draws.flat(reference),
    mask,
    kl_coef=kl_coef,
  )
  if s.whiten_rewards:
    token_rewards = ppo.whiten(token_rewards, mask, shift_mean=False)
  advantages, returns = ppo.gae(
    token_rewards,
    draws.flat(values),
    mask,
    discount=s.discount,
    gae_lambda=s.gae_lambda,
  )
  if s.whiten_advantages:
    advantages = ppo.whiten(advantages, mask)
  seen = draws.rollout_metrics(
    rollouts, log_probs, reference, draws.counts(rollouts)
  )
  both = (advantages.reshape(shape), returns.reshape(shape))
  return Experience(rollouts.rows, log_probs, values, *both), seen


def _loss(model, s: _Settings, trainable, frozen, part: Experience, num_tokens):
  """Returns a minibatch's share of the loss, and metrics."""
  mask = draws.flat(part.rows.slot_mask)
  scored = _score(model, s, trainable, frozen, part.rows)
  log_probs, values = map(draws.flat, scored)
  policy = ppo.clipped_policy_loss(
    log_probs,
    draws.flat(part.log_probs),
    draws.flat(part.advantages),
    mask,
    clip_range=s.clip_range,
  )
  value = ppo.clipped_value_loss(
    values,
    draws.flat(part.values),
    draws.flat(part.returns),
    mask,
    clip_range=s.value_clip_range,
  )
  policy_loss = jnp.sum(policy.loss) / num_tokens
  value_loss = jnp.sum(value.loss) / num_tokens
  return policy_loss + s.value_coef * value_loss, {
    "policy_loss": policy_loss,
    "value_loss": value_loss,
    "clipped": jnp.sum(policy.clipped) / num_tokens,
    "value_clipped": jnp.sum(value.clipped) / num_tokens,
  }


def _minibatches(rows: int, epochs: int, num_minibatches: int, key):
  """Returns [epochs * num_minibatches, rows / num_minibatches] row numbers."""
  if rows % num_minibatches:
    raise ValueError(
      f"num_minibatches: expected a divisor of the {rows} prompts, got "
      f"{num_minibatches}"
    )
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(epochs))
  orders = jax.vmap(lambda k: jax.random.permutation(k, rows))(keys)
  return orders.reshape(epochs * num_minibatches, -1)


def _in_micro_batches(function, rows: Rows, size: int | None):
  """Applies a function of rows [B, ...] part by part; the parts are joined."""
  total = rows.prompt_tokens.shape[0]
  if size in (None, total):
    return function(rows)

  def join(x):
    return x.swapaxes(0, 1).reshape(total, *x.shape[2:])

  parts = jax.lax.map(function, train.micro_batches(rows, size))
  return jax.tree.map(join, parts)
