# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The stages that train: supervised fine-tuning, then one per method."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from hypo_jax import evaluate, keys, loop, objective, rollout, sharding, train
from hypo_jax.batch import PreferenceBatch, Rows
from hypo_jax.checkpoint import Checkpoints, fingerprint
from hypo_jax.job import batches, work
from hypo_jax.job.setup import Job
from hypo_jax.logs import StageLog
from hypo_jax.models import lora
from hypo_jax.traces import StepTraces, check_steps


def _open_log(job: Job, stage: str, num_steps: int, first_step: int):
  lengths = {"sft": job.config.sft.num_steps} | {
    name: settings["num_steps"] for name, settings in job.methods.items()
  }
  before = list(lengths)[: list(lengths).index(stage)]
  return StageLog(
    job.workdir,
    stage,
    num_steps=num_steps,
    first_step=first_step,
    step_offset=sum(lengths[name] for name in before),
    active=job.leader,
  )


def _sft_checkpoints(job: Job) -> Checkpoints:
  folder = job.workdir / "checkpoints" / "sft"
  return Checkpoints(folder, keep=1, frozen="none")


def _sft_optimizer(job: Job):
  config = job.config.sft
  return train.make_optimizer(
    learning_rate=config.learning_rate,
    num_steps=config.num_steps,
    schedule="cosine",
    warmup_steps=config.num_steps // 20,
  )


def check(job: Job) -> None:
  """Builds every method's step from shapes, before anything is computed.

  Raises:
    ValueError: for settings that a later stage would refuse.
  """
  shapes = jax.eval_shape(lambda: job.params)
  for settings in job.methods.values():
    check_steps(
      job.config.profile.steps, settings["num_steps"], "profile.steps"
    )
    abstract_state(job, settings, shapes)
    make_train_step(job, settings, make_optimizer(settings))


def restore_reference(job: Job) -> Any:
  """Returns the reference policy's parameters of a job that is past it.

  Raises:
    ValueError: if supervised fine-tuning is not done.
  """
  if not job.config.sft.num_steps:
    return job.params
  checkpoints = _sft_checkpoints(job)
  if job.config.sft.num_steps not in checkpoints.steps():
    raise ValueError(
      f"workdir: expected a finished fine-tuning in {checkpoints.directory}; "
      "run --mode=train first"
    )
  target = _abstract(job, _sft_optimizer(job), job.params, "sft")
  state, _ = checkpoints.restore(target, job.config.sft.num_steps)
  return _fine_tuned(job, state.trainable)


def _start(job: Job, params: Any, stage: str) -> Any:
  """Returns what a stage trains: the parameters, or a new adapter on them."""
  config = job.config.lora
  if not (job.sft_adapters if stage == "sft" else job.adapters):
    return params
  return lora.init(
    params, job.key("lora", stage), rank=config.rank, targets=config.targets
  )


def _fine_tuned(job: Job, trainable: Any) -> Any:
  """Returns the reference policy's parameters, an adapter merged in."""
  params = train.policy_params(trainable, job.params, job.sft_adapters)
  merge = partial(lora.merged, scale=job.model.config.adapter_scale)
  return jax.jit(merge)(params) if job.sft_adapters else params


def _megabytes(tree: Any) -> str:
  return f"{sum(x.nbytes for x in jax.tree.leaves(tree)) / 1e6:,.1f} MB"


def fine_tune(job: Job) -> Any:
  """Supervised fine-tuning; returns the reference policy's parameters."""
  config = job.config.sft
  if not config.num_steps:
    return job.params
  if job.sft_adapters and job.config.model.param_dtype == "int8":
    raise ValueError(
      "sft.num_steps: expected 0 over an int8 base, which no trained adapter "
      f"can be merged into, got {config.num_steps}; fine-tune in another "
      "model.param_dtype, export, and begin from that folder"
    )
  optimizer = _sft_optimizer(job)
  rows, counts = job.tokens.demonstrations(job.task.demonstrations)
  job.say(f"demonstrations: {counts}")
  micro = min(config.batch_size, job.config.preference.micro_batch_size)
  stage = batches.of_demonstrations(job, rows, micro)
  job.say(f"sft: {stage.buckets}")
  sft_step = train.make_sft_step(
    job.model.with_rows(sharding.row_sharding(job.mesh)),
    optimizer,
    micro_batch_size=micro,
    buckets=stage.buckets.lengths,
    adapters=job.sft_adapters,
  )
  sft_step = job.watch("fine-tuning's step", sft_step, "state", "base", "rows")
  frozen = job.params if job.sft_adapters else None

  def rows_at(step: int) -> Rows:
    batch = stage.batch_at(step)
    rows = Rows(
      batch["prompt_tokens"],
      batch["prompt_mask"],
      batch["chosen_tokens"][:, None],
      batch["chosen_mask"][:, None],
    )
    return sharding.global_rows(job.mesh, rows)

  def update(state, step, timer):
    rows = timer("data", lambda: rows_at(step))
    return timer("train", lambda: sft_step(state, frozen, rows))

  length = job.tokens.prompt_length + job.tokens.completion_length
  checkpoints = _sft_checkpoints(job)
  state, _ = loop.run_stage(
    "sft",
    train.init_state(_start(job, job.params, "sft"), optimizer, job.mesh),
    update,
    num_steps=config.num_steps,
    checkpoints=checkpoints,
    open_log=partial(_open_log, job, "sft", config.num_steps),
    tokens_per_step=config.batch_size * length,
    seconds_at_peak=work.seconds_at_peak(job, lambda: work.sft_flops(job)),
    checkpoint_every=job.config.checkpoint.every_steps,
  )
  checkpoints.close()
  return _fine_tuned(job, state.trainable)


def preference_checkpoints(job: Job, name: str, reference: Any) -> Checkpoints:
  """Opens the checkpoints of one method."""
  return Checkpoints(
    job.workdir / "checkpoints" / name,
    keep=job.config.checkpoint.keep,
    frozen=fingerprint(reference),
    best_by=(best_field(job), "pair_fit"),
    resume_every=job.config.rollout.every_steps,
  )


def best_field(job: Job) -> str:
  """What the best checkpoint is chosen by, on validation prompts or pairs."""
  return "pair_accuracy" if job.task.judge is None else "reward_mean"


def evaluation_steps(job: Job, num_steps: int) -> frozenset[int]:
  """The start, the end, every so many updates, and some early ones."""
  config = job.config.evaluate
  steps = {0, num_steps, *config.also_at_steps}
  steps |= set(range(0, num_steps, config.every_steps))
  return frozenset(s for s in steps if s <= num_steps)


def train_method(
  job: Job,
  name: str,
  settings: dict[str, Any],
  reference: Any,
  tables: dict[str, dict[str, np.ndarray]],
  evaluator: evaluate.Evaluator,
  split: evaluate.Split,
) -> list[dict[str, Any]]:
  """Trains one method from the reference; returns its history."""
  optimizer = make_optimizer(settings)
  stage = batches.of_pairs(
    job, settings, tables["train"], cut=not fuses(job, settings)
  )
  job.say(f"{name}: {stage.buckets}")
  fused_step = None
  if fuses(job, settings):
    fused_step = make_fused_step(job, settings, optimizer)
  update = make_update(
    job,
    settings,
    make_train_step(job, settings, optimizer, buckets=stage.buckets.lengths),
    reference,
    stage,
    fused_step=fused_step,
  )
  samples = job.config.rollout.samples_per_prompt if settings["kl_coef"] else 0
  tokens_per_step = settings["batch_size"] * (
    job.tokens.prompt_length + (2 + samples) * job.tokens.completion_length
  )
  key = job.key("evaluate", "validation")

  def measure(state: train.TrainState) -> dict[str, Any]:
    params = train.policy_params(state.trainable, reference, job.adapters)
    entry, _, _ = evaluator.measure(params, split, key)
    tokens = int(state.step) * tokens_per_step
    return {"tokens": tokens, "pair_fit": -entry["pair_loss"]} | entry

  start = train.init_state(_start(job, reference, name), optimizer, job.mesh)
  job.say(
    f"{name}: state {_megabytes(start)} (trained {_megabytes(start.trainable)})"
    f", frozen {_megabytes(reference)}"
  )
  checkpoints = preference_checkpoints(job, name, reference)
  _, history = loop.run_stage(
    name,
    start,
    update,
    num_steps=settings["num_steps"],
    checkpoints=checkpoints,
    open_log=partial(_open_log, job, name, settings["num_steps"]),
    traces=StepTraces(job.workdir / "profile" / name, job.config.profile.steps),
    tokens_per_step=tokens_per_step,
    seconds_at_peak=work.seconds_at_peak(
      job, lambda: step_flops(job, settings, reference)
    ),
    evaluate=job.watch(f"evaluating {name}", measure),
    evaluate_at=evaluation_steps(job, settings["num_steps"]),
    checkpoint_every=job.config.checkpoint.every_steps,
    draw_every=job.config.rollout.every_steps if settings["kl_coef"] else 1,
  )
  checkpoints.close()
  job.say(f"{name}: {evaluate.coverage_verdict(history)}")
  return history


def step_flops(job: Job, settings: dict[str, Any], reference: Any) -> float:
  """Returns the operations of a method's step, given parameters or shapes."""
  state = abstract_state(job, settings, reference)
  params = train.policy_params(state.trainable, reference, job.adapters)
  return work.method_flops(job, settings, make_rollout_step(job), params)


def make_optimizer(settings: dict[str, Any]):
  """Returns a method's optimizer."""
  names = ("learning_rate", "num_steps", "schedule", "warmup_steps")
  names += ("max_grad_norm", "weight_decay")
  return train.make_optimizer(**{name: settings[name] for name in names})


def abstract_state(job: Job, settings: dict[str, Any], reference: Any):
  """Returns shapes and shardings of a method's TrainState."""
  return _abstract(job, make_optimizer(settings), reference, "preference")


def _abstract(job: Job, optimizer, params, stage: str):
  start = jax.eval_shape(lambda: _start(job, params, stage))
  state = jax.eval_shape(partial(train.new_state, optimizer), start)
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
  names = ("method", "beta", "kl_coef", "sft_coef", "label_smoothing")
  names += ("estimator", "micro_batch_size")
  return train.make_train_step(
    job.model.with_rows(sharding.row_sharding(job.mesh)),
    optimizer,
    **{name: settings[name] for name in names},
    buckets=buckets,
    samples_per_prompt=baseline_over or job.config.rollout.samples_per_prompt,
    shared_prompts=not job.config.data.rollout_path,
    adapters=job.adapters,
  )


def make_rollout_step(job: Job):
  """Returns what draws rollouts; see `rollout.make_rollout_step`."""
  return rollout.make_rollout_step(job.model, **_drawing(job))


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
    and job.config.rollout.every_steps == 1
    and not job.config.data.rollout_path
    and settings["micro_batch_size"] == settings["batch_size"]
    and job.mesh.shape["fsdp"] == job.mesh.shape["tensor"] == 1
  )


def make_fused_step(job: Job, settings: dict[str, Any], optimizer):
  """Returns a method's step that draws its rollouts; see `fuses`."""
  model = job.model.with_rows(sharding.row_sharding(job.mesh))
  names = ("method", "beta", "kl_coef", "sft_coef", "label_smoothing")
  names += ("estimator",)
  return train.make_fused_step(
    model,
    optimizer,
    rollout.make_complete(model, **_drawing(job)),
    **{name: settings[name] for name in names},
    samples_per_prompt=job.config.rollout.samples_per_prompt,
    adapters=job.adapters,
  )


def make_reference_step(job: Job, settings: dict[str, Any]):
  """Returns reference_step(reference, rows) -> token log-probs, by micro-batch.

  A train step scores its rollouts so, inside its own program; alone, it tells
  how long that takes.
  """
  model = job.model.with_rows(sharding.row_sharding(job.mesh))
  size = settings["micro_batch_size"]

  def cut(x):
    return x.reshape(size, -1, *x.shape[1:]).swapaxes(0, 1)

  def reference_step(reference, rows: Rows):
    score = partial(objective.score_rows, model, reference)
    return jax.lax.map(score, jax.tree.map(cut, rows))

  return jax.jit(reference_step)


def make_update(
  job: Job,
  settings: dict[str, Any],
  train_step: Callable[..., Any],
  reference: Any,
  stage: batches.Batches,
  *,
  fused_step: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
  """Returns update(state, step, timer): rollouts where due, then the step.

  Args:
    job: the job.
    settings: the method's.
    train_step: of `make_train_step`.
    reference: the reference policy's parameters.
    stage: the method's batches.
    fused_step: of `make_fused_step`, which then does the work of both.
  """
  config = job.config.rollout
  rollout_step = make_rollout_step(job)
  reference_step = make_reference_step(job, settings)
  # Each by the names of what it is given, should memory run out.
  name, given = f"{settings['method']}'s step", ("state", "reference", "batch")
  train_step = job.watch(name, train_step, *given, "rollouts")
  if fused_step is not None:
    fused_step = job.watch(name, fused_step, *given, "keys")
  given = ("policy", "prompt_tokens", "prompt_mask", "keys")
  rollout_step = job.watch("drawing rollouts", rollout_step, *given)
  key = job.key("preference", "rollout")
  drawn: dict[int, Any] = {}

  def draw(params, step: int):
    names = ("prompt_tokens", "prompt_mask", "row")
    batch = stage.prompts_at(step)
    prompt, mask, row = sharding.global_rows(
      job.mesh, tuple(batch[name] for name in names)
    )
    return rollout_step(params, prompt, mask, keys_at(step, row))

  def keys_at(step: int, row):
    return keys.row_keys(jax.random.fold_in(key, step), row)

  def draw_ahead(params, step: int):
    until = min(step + config.every_steps, settings["num_steps"])
    return {s: draw(params, s) for s in range(step, until)}

  def pairs_at(step: int) -> PreferenceBatch:
    return sharding.global_rows(
      job.mesh, PreferenceBatch(**stage.batch_at(step))
    )

  def update(state, step, timer):
    nonlocal drawn
    batch = timer("data", lambda: pairs_at(step))
    if settings["kl_coef"] and step % config.every_steps == 0:
      params = train.policy_params(state.trainable, reference, job.adapters)
      drawn = timer("rollout", lambda: draw_ahead(params, step))
    rollouts = drawn.pop(step) if settings["kl_coef"] else None
    if rollouts is not None:
      timer.alone(
        "reference", "train", lambda: reference_step(reference, rollouts.rows)
      )
    frozen = reference if settings["kl_coef"] or job.adapters else None
    return timer("train", lambda: train_step(state, frozen, batch, rollouts))

  def fused_update(state, step, timer):
    batch = timer("data", lambda: pairs_at(step))
    params = train.policy_params(state.trainable, reference, job.adapters)
    rollouts = timer.alone("rollout", "train", lambda: draw(params, step))
    timer.alone(
      "reference", "train", lambda: reference_step(reference, rollouts.rows)
    )
    row_keys = keys_at(step, batch.row)
    state, metrics, _ = timer(
      "train", lambda: fused_step(state, reference, batch, row_keys)
    )
    return state, metrics

  return update if fused_step is None else fused_update
