# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A method's step: optimizer, state, programs, and what one update calls."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from hypo_jax import keys, objective, rollout, sharding, train
from hypo_jax.batch import PreferenceBatch, Rows, pair_rows
from hypo_jax.job import batches, online
from hypo_jax.job.kept_rollouts import make_kept_rollouts
from hypo_jax.job.methods import (
  ONLINE,
  initial_kl_coef,
  kl_controller,
  updates_per_step,
)
from hypo_jax.job.setup import Job
from hypo_jax.models import lora
from hypo_jax.online import with_value_head


def start_params(job: Job, params: Any, stage: str) -> Any:
  """Returns what a stage trains: the parameters, or a new adapter on them."""
  config = job.config.lora
  if not (job.sft_adapters if stage == "sft" else job.adapters):
    return params
  return lora.init(
    params, job.key("lora", stage), rank=config.rank, targets=config.targets
  )


def method_params(job: Job, settings: dict[str, Any], reference, name: str):
  """Returns what a method trains from its first step on."""
  params = start_params(job, reference, name)
  if settings["method"] != "ppo":
    return params
  return with_value_head(params, job.model.config.width)


def make_optimizer(settings: dict[str, Any]):
  """Returns a method's optimizer; its schedule counts the optimizer's steps."""
  names = ("learning_rate", "schedule", "max_grad_norm", "weight_decay")
  own = {name: settings[name] for name in names}
  if settings["adam_eps"] is not None:
    own["adam_eps"] = settings["adam_eps"]
  updates = updates_per_step(settings)
  return train.make_optimizer(
    **own,
    num_steps=settings["num_steps"] * updates,
    warmup_steps=settings["warmup_steps"] * updates,
  )


def abstract_state(job: Job, settings: dict[str, Any], reference: Any):
  """Returns shapes and shardings of a method's TrainState."""
  start = jax.eval_shape(
    lambda: method_params(job, settings, reference, "preference")
  )
  optimizer = make_optimizer(settings)
  return abstract(job, optimizer, start, kl_coef=initial_kl_coef(settings))


def abstract(job: Job, optimizer, start, **kwargs):
  make = partial(train.new_state, optimizer, **kwargs)
  state = jax.eval_shape(make, start)
  laid = sharding.tree_shardings(job.mesh, state)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, laid
  )


def make_train_step(
  job: Job,
  settings: dict[str, Any],
  optimizer,
  *,
  buckets: Sequence[train.Lengths] = (),
  baseline_over: int | None = None,
):
  """Returns a method's step; see `train.make_train_step`.

  Args:
    job: the job.
    settings: the method's.
    optimizer: of `make_optimizer`.
    buckets: of the stage's batches.
    baseline_over: rollouts of a prompt that serve as each other's baseline;
      None for all of them, 1 for none.
  """
  if settings["method"] in ONLINE:
    return online.make_step(job, settings, optimizer)
  return train.make_train_step(
    _make_loss(job, settings, baseline_over),
    optimizer,
    micro_batch_size=settings["micro_batch_size"],
    buckets=buckets,
    adapters=job.adapters,
    kl_controller=kl_controller(settings),
  )


def _make_loss(
  job: Job, settings: dict[str, Any], baseline_over: int | None = None
) -> objective.PreferenceLoss:
  names = ("method", "beta", "kl_coef", "sft_coef", "label_smoothing")
  names += ("estimator", "max_margin", "target_margin", "offline_kl_coef")
  # None, too, where rollouts are drawn from the policy.
  most = job.config.rollout.max_importance_weight
  return objective.PreferenceLoss(
    job.model.with_rows(sharding.row_sharding(job.mesh)),
    **{name: settings[name] for name in names},
    samples_per_prompt=baseline_over or job.config.rollout.samples_per_prompt,
    shared_prompts=not job.config.data.rollout_path,
    max_importance_weight=most if settings["kl_coef"] else None,
  )


def make_rollout_step(job: Job, *, temperature: float = 1.0):
  """Returns what draws rollouts; see `rollout.make_rollout_step`."""
  return rollout.make_rollout_step(
    job.model, **_drawing(job), temperature=temperature
  )


def make_complete(job: Job, model: Any):
  """Returns what draws completions of run prompts; see `rollout`."""
  return rollout.make_complete(model, **_drawing(job))


def _drawing(job: Job) -> dict[str, Any]:
  return {
    "samples_per_prompt": job.config.rollout.samples_per_prompt,
    "max_new_tokens": job.max_new_tokens,
    "eos_token_id": job.eos_token_ids,
    "pad_token_id": job.tokens.tokenizer.pad_token_id,
    "mesh": job.mesh,
  }


def fuses(job: Job, settings: dict[str, Any]) -> bool:
  """Whether a method's rollouts are drawn inside its train step.

  They are where the prompts' forward pass can serve both: rollouts answer the
  pairs' own prompts, anew at each update, all rows are one micro-batch, and
  weights lie the same way for decoding as for training. Where they are cut over
  devices they don't: training gathers a layer's weights once a pass, decoding
  would gather them once a token.
  """
  return bool(
    settings["kl_coef"]
    and settings["method"] not in ONLINE
    and job.config.rollout.every_steps == 1
    and job.config.rollout.source == "policy"
    and not job.config.data.rollout_path
    and settings["micro_batch_size"] == settings["batch_size"]
    and job.mesh.shape["fsdp"] == job.mesh.shape["tensor"] == 1
  )


def make_fused_step(job: Job, settings: dict[str, Any], optimizer):
  """Returns a method's step that draws its rollouts; see `fuses`."""
  loss = _make_loss(job, settings)
  return train.make_fused_step(
    loss,
    optimizer,
    make_complete(job, loss.model),
    adapters=job.adapters,
    kl_controller=kl_controller(settings),
  )


def make_reference_step(job: Job, settings: dict[str, Any]):
  """Returns reference_step(reference, rows) -> token log-probs, by micro-batch.

  A train step scores its rollouts so, inside its own program; alone, it tells
  how long that takes.
  """
  model = job.model.with_rows(sharding.row_sharding(job.mesh))
  size = settings["micro_batch_size"]

  def reference_step(reference, rows: Rows):
    score = partial(objective.score_rows, model, reference)
    return jax.lax.map(score, train.micro_batches(rows, size))

  return jax.jit(reference_step)


def make_update(
  job: Job,
  settings: dict[str, Any],
  train_step: Callable[..., Any],
  reference: Any,
  stage: batches.Batches,
  *,
  fused_step: Callable[..., Any] | None = None,
  rewards_of: online.Rewards | None = None,
) -> Callable[..., Any]:
  """Returns update(state, step, timer): rollouts where due, then the step.

  Args:
    job: the job.
    settings: the method's.
    train_step: of `make_train_step`.
    reference: the reference policy's parameters.
    stage: the method's batches.
    fused_step: of `make_fused_step`, which then does the work of both.
    rewards_of: what the methods in `methods.ONLINE` learn from.
  """
  name = f"{settings['method']}'s step"
  given = _GIVEN.get(settings["method"], _GIVEN[None])
  train_step = job.watch(name, train_step, *given)
  temperature = settings["temperature"] or 1.0  # PPO's alone.
  rollout_step = job.watch(
    "drawing rollouts",
    make_rollout_step(job, temperature=temperature),
    "policy",
    "prompt_tokens",
    "prompt_mask",
    "keys",
  )
  keys_at = _make_keys(job)

  def draw(params, step: int):
    names = ("prompt_tokens", "prompt_mask", "row")
    batch = stage.prompts_at(step)
    prompt, mask, row = sharding.global_rows(
      job.mesh, tuple(batch[name] for name in names)
    )
    return rollout_step(params, prompt, mask, keys_at(step, row)), row

  if settings["method"] in ONLINE:
    return online.make_update(
      job, settings, train_step, reference, draw, rewards_of
    )

  def pairs_at(step: int) -> PreferenceBatch:
    return sharding.global_rows(
      job.mesh, PreferenceBatch(**stage.batch_at(step))
    )

  reference_step = make_reference_step(job, settings)
  if fused_step is not None:
    given = ("state", "reference", "batch", "keys")
    fused_step = job.watch(name, fused_step, *given)

    def fused_update(state, step, timer):
      batch = timer("data", lambda: pairs_at(step))
      params = train.policy_params(state.trainable, reference, job.adapters)
      rollouts = timer.alone("rollout", "train", lambda: draw(params, step)[0])
      timer.alone(
        "reference", "train", lambda: reference_step(reference, rollouts.rows)
      )
      row_keys = keys_at(step, batch.row)
      state, metrics, _ = timer(
        "train", lambda: fused_step(state, reference, batch, row_keys)
      )
      return state, metrics

    return fused_update

  if job.config.rollout.source == "reference":
    rollouts_at = make_kept_rollouts(
      job, rollout_step, reference, stage, batch_size=settings["batch_size"]
    )
  else:
    rollouts_at = _make_ahead(job, settings, reference, draw)

  def update(state, step, timer):
    batch, rollouts, scored = timer("data", lambda: pairs_at(step)), None, None
    if settings["kl_coef"]:
      rollouts = rollouts_at(state, step, timer)
      scored = rollouts.rows
    elif settings["offline_kl_coef"]:
      scored = pair_rows(batch)
    if scored is not None:
      timer.alone(
        "reference", "train", lambda: reference_step(reference, scored)
      )
    frozen = reference if scored is not None or job.adapters else None
    return timer("train", lambda: train_step(state, frozen, batch, rollouts))

  return update


# What a method's step is given, by names to tell should memory run out.
_GIVEN: dict[str | None, tuple[str, ...]] = {
  "ppo": ("state", "reference", "rollouts", "rewards", "key"),
  "rloo": ("state", "reference", "rollouts", "rewards"),
  "grpo": ("state", "reference", "rollouts", "rewards"),
  None: ("state", "reference", "batch", "rollouts"),
}


def _make_keys(job: Job) -> Callable[[int, jax.Array], jax.Array]:
  """Returns keys_at(step, row): a key for each prompt of an update."""
  key = job.key("preference", "rollout")
  return lambda step, row: keys.row_keys(jax.random.fold_in(key, step), row)


def _make_ahead(
  job: Job, settings: dict[str, Any], reference: Any, draw: Callable[..., Any]
) -> Callable[..., Any]:
  """Returns rollouts_at(state, step, timer), drawn `rollout.every_steps` ahead.

  Those of all updates until the next draw come from the policy as it is now.
  """
  every, drawn = job.config.rollout.every_steps, {}

  def draw_ahead(params, step: int):
    until = min(step + every, settings["num_steps"])
    return {s: draw(params, s)[0] for s in range(step, until)}

  def rollouts_at(state, step: int, timer):
    if step % every == 0:
      params = train.policy_params(state.trainable, reference, job.adapters)
      drawn.update(timer("rollout", lambda: draw_ahead(params, step)))
    return drawn.pop(step)

  return rollouts_at
