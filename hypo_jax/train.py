# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pure, jitted training steps: supervised fine-tuning and preferences.

An update of HyPO samples completions from the parameters before it, scores
pairs and rollouts in one prefix-shared row, takes

    mean over pairs of preference_loss + kl_coef * mean over rollouts of kl_loss
      + sft_coef * mean over chosen tokens of -log policy

and updates. DPO, IPO and others are the same step with another pair loss;
without kl_coef no rollout is drawn.

It is two calls, `rollout.make_rollout_step` and `make_train_step`, which may
take the batch in parts: micro-batches add up to exactly the large batch, every
sum being divided by the count of the whole batch, never by a micro-batch's own.
Or it is one, `make_fused_step`, which runs the prompts once for both; then all
rows are under way at once, and weights lie the same way for both.

With full weights, `trainable` is the policy and `frozen` the reference. With
adapters, `trainable` is the adapter alone and `frozen` the base, which is the
reference: one set of weights serves both (`policy_params`).

`model` is a `models.Model`, or what has its methods.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from hypo_jax import objective, sharding
from hypo_jax.batch import (
  Completions,
  PreferenceBatch,
  Rollouts,
  Rows,
  cut_lengths,
  lengths,
)
from hypo_jax.models import lora

Params = Any
Metrics = dict[str, jax.Array]
# Tokens of a prompt, and of a completion.
Lengths = tuple[int, int]
# (kl_coef of the last update, KL measured there) -> kl_coef of the next, as
# `losses.adapted_kl_coef` with its target.
KLController = Callable[[jax.Array, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """What an update changes, and all that a checkpoint needs.

  Attributes:
    step: int32 scalar, updates done.
    trainable: nested dict of float32 arrays.
    opt_state: the optimizer's state.
    kl_coef: float32 scalar, the KL's weight in the next update, where a
      controller moves it; else None.
  """

  step: jax.Array
  trainable: Params
  opt_state: optax.OptState
  kl_coef: jax.Array | None = None


def make_optimizer(
  *,
  learning_rate: float,
  num_steps: int,
  schedule: str = "constant",
  warmup_steps: int = 0,
  max_grad_norm: float = 1.0,
  weight_decay: float = 0.0,
  adam_eps: float = 1e-8,
) -> optax.GradientTransformation:
  """Returns AdamW with clipping by global norm and a warm-up.

  Args:
    learning_rate: peak value.
    num_steps: updates until the schedule ends.
    schedule: "constant", "linear" or "cosine" (both fall to 0).
    warmup_steps: updates of linear rise from 0.
    max_grad_norm: largest global norm of the gradient.
    weight_decay: decoupled decay per unit of learning rate.
    adam_eps: added to the root of the second moment that divides.
  """
  rest = max(num_steps - warmup_steps, 1)
  after_warmup = {
    "constant": optax.constant_schedule(learning_rate),
    "linear": optax.linear_schedule(learning_rate, 0.0, rest),
    "cosine": optax.cosine_decay_schedule(learning_rate, rest),
  }
  if schedule not in after_warmup:
    raise ValueError(
      f"schedule: expected one of {sorted(after_warmup)}, got {schedule!r}"
    )
  rate = after_warmup[schedule]
  if warmup_steps:
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    rate = optax.join_schedules([warmup, rate], [warmup_steps])
  return optax.chain(
    optax.clip_by_global_norm(max_grad_norm),
    optax.adamw(rate, eps=adam_eps, weight_decay=weight_decay),
  )


def new_state(
  optimizer: optax.GradientTransformation,
  params: Params,
  *,
  kl_coef: float | None = None,
) -> TrainState:
  """Returns step 0 of `params`, in float32; kl_coef where it will adapt."""
  trainable = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  step = jnp.zeros((), jnp.int32)
  weight = None if kl_coef is None else jnp.float32(kl_coef)
  return TrainState(step, trainable, optimizer.init(trainable), weight)


def init_state(
  params: Params,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  *,
  kl_coef: float | None = None,
) -> TrainState:
  """Returns step 0 of `params`, copied (states are donated) and sharded."""
  make = partial(new_state, optimizer, kl_coef=kl_coef)
  shardings = sharding.tree_shardings(mesh, jax.eval_shape(make, params))
  return jax.jit(make, out_shardings=shardings)(params)


def policy_params(trainable: Params, frozen: Params, adapters: bool) -> Params:
  """Returns the policy's parameters; no array is copied.

  Args:
    trainable: the policy's own, or an adapter; under "policy" where a head is
      trained beside it.
    frozen: the reference policy's.
    adapters: whether trainable is an adapter over frozen.
  """
  trainable = trainable.get("policy", trainable)
  return lora.attach(frozen, trainable) if adapters else trainable


def make_sft_step(
  model,
  optimizer: optax.GradientTransformation,
  *,
  micro_batch_size: int | None = None,
  buckets: Sequence[Lengths] = (),
  adapters: bool = False,
) -> Callable[[TrainState, Params, Rows], tuple[TrainState, Metrics]]:
  """Returns sft_step(state, frozen, rows): mean over tokens of -log policy.

  `state` is donated; `frozen` is the base under an adapter, else None.

  Args:
    model: see the module docstring.
    optimizer: any optax transformation.
    micro_batch_size: rows per forward and backward; None for all at once.
    buckets: as of `make_train_step`.
    adapters: `state.trainable` is an adapter over `frozen`.
  """

  def sft_step(state: TrainState, frozen: Params, rows: Rows):
    num_tokens = jnp.maximum(jnp.sum(rows.slot_mask), 1)

    def loss_fn(trainable, rows: Rows):
      params = policy_params(trainable, frozen, adapters)
      scored = objective.score_rows(model, params, rows)
      loss = -jnp.sum(jnp.where(rows.slot_mask, scored, 0.0)) / num_tokens
      return loss, {"loss": loss}

    gradient, metrics = accumulate(
      loss_fn, state.trainable, rows, micro_batch_size, buckets
    )
    return update(state, optimizer, gradient, metrics)

  return jax.jit(sft_step, donate_argnums=0)


def make_train_step(
  loss: objective.PreferenceLoss,
  optimizer: optax.GradientTransformation,
  *,
  micro_batch_size: int | None = None,
  buckets: Sequence[Lengths] = (),
  adapters: bool = False,
  kl_controller: KLController | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Returns train_step(state, frozen, batch, rollouts) -> (state, metrics).

  `state` is donated. `frozen` holds the reference policy's parameters, read
  only for a KL to it, and by an adapter; `batch` is a PreferenceBatch;
  `rollouts` is what `rollout.make_rollout_step` gave for the parameters before
  the update. Where the loss has no kl_coef, rollouts are None, and frozen is
  too unless offline_kl_coef or an adapter needs it.

  Args:
    loss: the objective, and the model.
    optimizer: any optax transformation.
    micro_batch_size: rows per forward and backward; None for all at once.
    buckets: lengths below the batch's own that micro-batches may be cut to, in
      the order in which they are tried: each micro-batch takes the first that
      holds all of its tokens, or else stays as it is. One program holds a
      branch for each, so that nothing is compiled later; results are equal up
      to rounding.
    adapters: `state.trainable` is an adapter over `frozen`.
    kl_controller: the KL's weight is then the state's kl_coef, which this moves
      after each update by the Rao-Blackwell estimate; the loss's own says only
      that there is one. None for a fixed kl_coef.
  """

  def train_step(state: TrainState, frozen, batch: PreferenceBatch, rollouts):
    counts = objective.count(batch, rollouts)
    gradient, metrics = accumulate(
      lambda trainable, micro: loss.split(
        policy_params(trainable, frozen, adapters),
        frozen,
        *micro,
        counts,
        None if kl_controller is None else state.kl_coef,
      ),
      state.trainable,
      (batch, rollouts),
      micro_batch_size,
      buckets,
    )
    state, metrics = update(state, optimizer, gradient, metrics)
    return _adapt(state, metrics, kl_controller)

  return jax.jit(train_step, donate_argnums=0)


def make_fused_step(
  loss: objective.PreferenceLoss,
  optimizer: optax.GradientTransformation,
  complete: Callable[..., Completions],
  *,
  adapters: bool = False,
  kl_controller: KLController | None = None,
) -> Callable[..., tuple[TrainState, Metrics, Rollouts]]:
  """Returns fused_step(state, frozen, batch, keys) -> (state, metrics, drawn).

  What `rollout.make_rollout_step` and `make_train_step` do, in one: the
  prompts' forward pass, under differentiation, is the rollouts' prefill too.
  Rollouts answer the pairs' prompts, and all rows are one micro-batch. Equal to
  the two calls but for rounding. `state` is donated; keys [B] are one a row.

  Args:
    loss: the objective, and the model.
    optimizer: any optax transformation.
    complete: of `rollout.make_complete`, with the loss's samples_per_prompt.
    adapters: as in `make_train_step`.
    kl_controller: likewise.

  Raises:
    ValueError: for a loss without rollouts, or whose rollouts are not the
      policy's own on the pairs' prompts.
  """
  if not loss.kl_coef:
    raise ValueError("kl_coef: expected a number > 0 for rollouts, got 0")
  if not loss.shared_prompts or loss.max_importance_weight is not None:
    raise ValueError(
      "loss: expected rollouts of the policy on the pairs' own prompts, got "
      f"shared_prompts {loss.shared_prompts}, max_importance_weight "
      f"{loss.max_importance_weight}"
    )

  def fused_step(state: TrainState, frozen, batch: PreferenceBatch, keys):
    def loss_fn(trainable):
      params = policy_params(trainable, frozen, adapters)
      weight = None if kl_controller is None else state.kl_coef
      draw = partial(complete, keys=keys)
      return loss.fused(params, frozen, batch, draw, weight)

    gradient, (metrics, rollouts) = jax.grad(loss_fn, has_aux=True)(
      state.trainable
    )
    new, metrics = update(state, optimizer, gradient, metrics)
    return *_adapt(new, metrics, kl_controller), rollouts

  return jax.jit(fused_step, donate_argnums=0)


def _adapt(
  state: TrainState, metrics: Metrics, kl_controller: KLController | None
):
  """Tells the KL's weight in an update, if it adapts, and moves it."""
  if kl_controller is None:
    return state, metrics
  metrics = metrics | {"kl_coef": state.kl_coef}
  kl = metrics["kl_rao_blackwell"]
  return move_kl_coef(state, kl, kl_controller), metrics


def move_kl_coef(
  state: TrainState, kl: jax.Array, kl_controller: KLController | None
) -> TrainState:
  """Moves the state's KL weight, if it adapts, after an update that used it."""
  if kl_controller is None:
    return state
  moved = kl_controller(state.kl_coef, kl)
  return dataclasses.replace(state, kl_coef=moved)


def accumulate(
  loss_fn,
  params,
  batch,
  micro_batch_size: int | None,
  buckets: Sequence[Lengths] = (),
):
  """Sums gradient and metrics of loss_fn(params, micro) over micro-batches.

  Args:
    loss_fn: (params, rows) -> (scalar, metrics), shares of the batch's means.
    params: what the gradient is taken of.
    batch: arrays [B, ...].
    micro_batch_size: a divisor of B; None for all rows at once.
    buckets: lengths that micro-batches are cut to, the shortest first.

  Returns:
    gradient and metrics.

  Raises:
    ValueError: as `micro_batches`.
  """
  gradient_fn = _in_buckets(jax.grad(loss_fn, has_aux=True), buckets)
  num_rows = jax.tree.leaves(batch)[0].shape[0]
  if micro_batch_size in (None, num_rows):
    return gradient_fn(params, batch)
  micros = micro_batches(batch, micro_batch_size)

  def add(total, micro):
    return jax.tree.map(jnp.add, total, gradient_fn(params, micro)), None

  first = jax.eval_shape(
    gradient_fn, params, jax.tree.map(lambda x: x[0], micros)
  )
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
  return jax.lax.scan(add, zeros, micros)[0]


def micro_batches(batch, size: int):
  """Cuts rows into micro-batches: arrays [B, ...] into [B / size, size, ...].

  Micro-batch i takes the rows i, i + n, i + 2n, ... so that each device cuts
  its own rows and none travels.

  Args:
    batch: arrays [B, ...].
    size: rows of a micro-batch, a divisor of B.

  Raises:
    ValueError: if it is none, or arrays differ in their rows.
  """
  arrays = jax.tree.leaves(batch)
  num_rows = arrays[0].shape[0]
  if size < 1 or num_rows % size:
    raise ValueError(
      f"micro_batch_size: expected a divisor of the batch's {num_rows} rows, "
      f"got {size}"
    )
  others = {x.shape[0] for x in arrays} - {num_rows}
  if others:
    raise ValueError(
      f"batch: expected {num_rows} rows in every array, to cut micro-batches "
      f"of {size}, got {min(others)} in one"
    )

  def cut(x):
    return x.reshape(size, num_rows // size, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(cut, batch)


def _in_buckets(gradient_fn, buckets: Sequence[Lengths]):
  """Returns gradient_fn(params, rows) on rows cut to the first fitting bucket.

  Which one that is, every device reads from the masks of all: no host has to
  know it, and all take the same branch.
  """
  for number, bucket in enumerate(buckets):
    if min(bucket) < 1:
      raise ValueError(
        f"buckets: expected lengths of at least 1, got {bucket} at {number}"
      )
  if not buckets:
    return gradient_fn

  def choose(params, rows):
    longest = jnp.stack(lengths(rows))
    fits = jnp.all(longest <= jnp.asarray(buckets), axis=-1)
    # The last branch, the rows as they are, always fits.
    branch = jnp.argmax(jnp.append(fits, True))
    branches = [
      lambda params, rows, cut=bucket: gradient_fn(
        params, cut_lengths(rows, *cut)
      )
      for bucket in buckets
    ]
    return jax.lax.switch(branch, [*branches, gradient_fn], params, rows)

  return choose


def update(
  state: TrainState,
  optimizer: optax.GradientTransformation,
  gradient: Params,
  metrics: Metrics,
) -> tuple[TrainState, Metrics]:
  """Returns the state after one update, and metrics with `grad_norm`."""
  updates, opt_state = optimizer.update(
    gradient, state.opt_state, state.trainable
  )
  trainable = optax.apply_updates(state.trainable, updates)
  metrics = metrics | {"grad_norm": optax.tree.norm(gradient)}
  state = dataclasses.replace(
    state, step=state.step + 1, trainable=trainable, opt_state=opt_state
  )
  return state, metrics
