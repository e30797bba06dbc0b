# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A Bradley-Terry reward model: the policy's backbone with a scalar head.

The reward of a completion is the head's value at its last scored token (the
prompt's last, where the completion is empty). Pairs are fitted by

    P(chosen is preferred) = sigmoid(reward(chosen) - reward(rejected) - margin)

which says nothing of a reward's level: `centred` sets the mean over given
completions to 0, through the head's bias alone.

Trainable parameters are {"policy": the backbone's or an adapter,
"reward_head": ...}; a train state of them is saved as any other.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from hypo_jax import evaluate, losses, sharding, train
from hypo_jax.batch import PreferenceBatch, Rows, pair_rows
from hypo_jax.models import scalar_head

Params = Any
Metrics = dict[str, jax.Array]

# Rewards that differ by less than this change a preference's probability by
# less than 0.0003: the model has nothing to say.
_CONSTANT_BELOW = 1e-3


def start(backbone: Params, width: int, key: jax.Array) -> Params:
  """Returns trainable parameters with a new head.

  Args:
    backbone: what is trained of the policy: its parameters, or an adapter.
    width: of the hidden states.
    key: of the head's weights.
  """
  return {"policy": backbone, "reward_head": scalar_head.init(width, key)}


def completion_rewards(model, params: Params, rows: Rows) -> jax.Array:
  """Returns the reward of every slot, float32 [B, S].

  Args:
    model: with `row_states`, see `models.Model`.
    params: {"policy": the whole backbone's, "reward_head": ...}.
    rows: S completions of each prompt.
  """
  states = model.row_states(params["policy"], rows)
  length = jnp.sum(rows.slot_mask, axis=-1)
  last = jnp.take_along_axis(states, length[..., None, None], axis=2)[:, :, 0]
  return scalar_head.apply(params["reward_head"], last)


def whole(trainable: Params, frozen: Params, adapters: bool) -> Params:
  """Returns what `completion_rewards` takes; no array is copied."""
  policy = train.policy_params(trainable["policy"], frozen, adapters)
  return trainable | {"policy": policy}


def make_reward_step(
  model,
  optimizer: optax.GradientTransformation,
  *,
  margin: float = 0.0,
  micro_batch_size: int | None = None,
  adapters: bool = False,
) -> Callable[..., tuple[train.TrainState, Metrics]]:
  """Returns reward_step(state, frozen, batch) -> (state, metrics).

  `state` is donated; its trainable is of `start`. `frozen` is the base under an
  adapter, else None. `batch` is a PreferenceBatch, whose log-probs of the
  reference are not read.

  Args:
    model: with `row_states`, see `models.Model`.
    optimizer: any optax transformation.
    margin: by how much rewards should differ, at least.
    micro_batch_size: pairs per forward and backward; None for all at once.
    adapters: `trainable["policy"]` is an adapter over `frozen`.
  """

  def reward_step(state: train.TrainState, frozen, batch: PreferenceBatch):
    num_pairs = jnp.maximum(jnp.sum(batch.pair_mask), 1)

    def loss_fn(trainable, batch: PreferenceBatch):
      params = whole(trainable, frozen, adapters)
      rewards = completion_rewards(model, params, pair_rows(batch))
      return _loss_and_metrics(rewards, batch.pair_mask, num_pairs, margin)

    gradient, metrics = train.accumulate(
      loss_fn, state.trainable, batch, micro_batch_size
    )
    return train.update(state, optimizer, gradient, metrics)

  return jax.jit(reward_step, donate_argnums=0)


def _loss_and_metrics(rewards, pair_mask, num_pairs, margin):
  """Shares of the batch's means, from rewards [B, 2]."""
  chosen, rejected = rewards[:, 0], rewards[:, 1]

  def mean(x):
    return jnp.sum(jnp.where(pair_mask, x, 0.0)) / num_pairs

  loss = mean(losses.bradley_terry_loss(chosen, rejected, margin=margin))
  return loss, {
    "loss": loss,
    "reward_accuracy": mean(chosen > rejected),
    "reward_margin": mean(chosen - rejected),
    "chosen_rewards": mean(chosen),
    "rejected_rewards": mean(rejected),
  }


def make_pair_scorer(model, *, batch_size: int, mesh: Mesh):
  """Returns scorer(params, pairs) -> numpy rewards [n, 2] (chosen, rejected).

  `params` are as in `completion_rewards`, `pairs` a dict of numpy arrays, as
  `PreferenceBatch` names them.
  """
  model = model.with_rows(sharding.row_sharding(mesh))

  @jax.jit
  def score(params, batch: PreferenceBatch):
    return completion_rewards(model, params, pair_rows(batch))

  return evaluate.over_pairs(score, (2,), batch_size=batch_size, mesh=mesh)


def make_sample_scorer(model, *, batch_size: int, mesh: Mesh):
  """Returns scorer(params, prompt_rows, samples) -> numpy rewards [n, k].

  `params` are as in `completion_rewards`, `prompt_rows` the numpy arrays
  "prompt_tokens" and "prompt_mask", `samples` a `statistics.PolicySamples` of
  the same n prompts.
  """
  model = model.with_rows(sharding.row_sharding(mesh))

  @jax.jit
  def score(params, rows: Rows):
    return completion_rewards(model, params, rows)

  def scorer(params, prompt_rows, samples) -> np.ndarray:
    rows = Rows(
      prompt_rows["prompt_tokens"],
      prompt_rows["prompt_mask"],
      samples.tokens,
      samples.mask,
    )
    parts = []
    for start in range(0, len(samples.tokens), batch_size):
      # The last batch wraps around, so that all have one shape.
      numbers = np.arange(start, start + batch_size) % len(samples.tokens)
      batch = jax.tree.map(lambda x, at=numbers: x[at], rows)
      placed = sharding.put_rows(mesh, batch)
      parts.append(sharding.gather(score(params, placed)))
    return np.concatenate(parts)[: len(samples.tokens)]

  return scorer


def centred(params: Params, mean: jax.Array | float) -> Params:
  """Returns the same model with all rewards lowered by `mean`."""
  head = params["reward_head"]
  return params | {"reward_head": head | {"bias": head["bias"] - mean}}


def check_spread(rewards: np.ndarray) -> None:
  """Refuses a reward model that says the same of both sides of every pair.

  A level that differs from prompt to prompt, which pairs leave free, tells no
  completions apart.

  Args:
    rewards: float [n, 2], of chosen and rejected completions.

  Raises:
    ValueError: if rewards are not finite, or the root mean square of their
      differences is below 1e-3: nothing can be learned from the model.
  """
  rewards = np.asarray(rewards, np.float64)
  if not np.isfinite(rewards).all():
    bad = int((~np.isfinite(rewards)).sum())
    raise ValueError(
      f"reward model: expected finite rewards, {bad} of {rewards.size} are not"
    )
  margins = rewards[:, 0] - rewards[:, 1]
  if (size := np.sqrt((margins**2).mean())) < _CONSTANT_BELOW:
    raise ValueError(
      f"reward model: expected rewards that tell the completions of "
      f"{len(rewards)} pairs apart (by at least {_CONSTANT_BELOW}, root mean "
      f"square), got {size:.2g} around {rewards.mean():.6g}: it has collapsed "
      "to a constant a prompt; lower reward_model.learning_rate, or look at "
      "the pairs with --mode=inspect"
    )
