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
from hypo_jax.job import batches, online, work
from hypo_jax.job.methods import (
  ONLINE,
  check_job,
  initial_kl_coef,
  updates_per_step,
)
from hypo_jax.job.setup import Job
from hypo_jax.logs import StageLog
from hypo_jax.models import lora
from hypo_jax.online import with_value_head
from hypo_jax.traces import StepTraces, check_steps


def open_log(job: Job, stage: str, num_steps: int, first_step: int):
  """Opens a stage's log; its steps follow those of the stages before it."""
  lengths = {"sft": job.config.sft.num_steps}
  if job.config.reward == "model":
    lengths["reward_model"] = job.config.reward_model.num_steps
  lengths |= {n: settings["num_steps"] for n, settings in job.methods.items()}
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
  check_job(job.config, job.methods)
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
  start = jax.eval_shape(lambda: start_params(job, job.params, "sft"))
  target = _abstract(job, _sft_optimizer(job), start)
  state, _ = checkpoints.restore(target, job.config.sft.num_steps)
  return _fine_tuned(job, state.trainable)


def start_params(job: Job, params: Any, stage: str) -> Any:
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
    train.init_state(start_params(job, job.params, "sft"), optimizer, job.mesh),
    update,
    num_steps=config.num_steps,
    checkpoints=checkpoints,
    open_log=partial(open_log, job, "sft", config.num_steps),
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
  rewards_of: online.RewardSource | None = None,
) -> list[dict[str, Any]]:
  """Trains one method from the reference; returns its history.

  `rewards_of` is needed by the methods in `methods.ONLINE` alone.
  """
  optimizer = make_optimizer(settings)
  # Steps of online methods have one length, as fused ones do.
  whole = fuses(job, settings) or settings["method"] in ONLINE
  stage = batches.of_pairs(job, settings, tables["train"], cut=not whole)
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
    rewards_of=rewards_of,
  )
  tokens_per_step = settings["batch_size"] * (
    job.tokens.prompt_length
    + _completions_a_prompt(job, settings) * job.tokens.completion_length
  )
  key = job.key("evaluate", "validation")

  def measure(state: train.TrainState) -> dict[str, Any]:
    params = train.policy_params(state.trainable, reference, job.adapters)
    entry, _, _ = evaluator.measure(params, split, key)
    tokens = int(state.step) * tokens_per_step
    return {"tokens": tokens, "pair_fit": -entry["pair_loss"]} | entry

  start = train.init_state(
    _method_params(job, settings, reference, name),
    optimizer,
    job.mesh,
    kl_coef=initial_kl_coef(settings),
  )
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
    open_log=partial(open_log, job, name, settings["num_steps"]),
    traces=StepTraces(job.workdir / "profile" / name, job.config.profile.steps),
    tokens_per_step=tokens_per_step,
    seconds_at_peak=_seconds_at_peak(job, settings, reference),
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


def _seconds_at_peak(job: Job, settings: dict[str, Any], reference: Any):
  """Returns a step's seconds at the peak, or None where that isn't known."""
  if settings["method"] in ONLINE:
    return None
  return work.seconds_at_peak(job, lambda: step_flops(job, settings, reference))


def _completions_a_prompt(job: Job, settings: dict[str, Any]) -> int:
  """Returns the slots of a row: pair and rollouts, where there are any."""
  samples = job.config.rollout.samples_per_prompt
  if settings["method"] in ONLINE:
    return samples
  return 2 + samples if settings["kl_coef"] else 2


def _method_params(job: Job, settings: dict[str, Any], reference, name: str):
  """Returns what a method trains from its first step on."""
  params = start_params(job, reference, name)
  if settings["method"] != "ppo":
    return params
  return with_value_head(params, job.model.config.width)


def make_optimizer(settings: dict[str, Any]):
  """Returns a method's optimizer; its schedule counts the optimizer's steps."""
  names = ("learning_rate", "schedule", "max_grad_norm", "weight_decay")
  updates = updates_per_step(settings)
  return train.make_optimizer(
    **{name: settings[name] for name in names},
    num_steps=settings["num_steps"] * updates,
    warmup_steps=settings["warmup_steps"] * updates,
  )


def abstract_state(job: Job, settings: dict[str, Any], reference: Any):
  """Returns shapes and shardings of a method's TrainState."""
  start = jax.eval_shape(
    lambda: _method_params(job, settings, reference, "preference")
  )
  optimizer = make_optimizer(settings)
  return _abstract(job, optimizer, start, kl_coef=initial_kl_coef(settings))


def _abstract(job: Job, optimizer, start, **kwargs):
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
  names = ("method", "beta", "kl_coef", "sft_coef", "label_smoothing")
  names += ("estimator", "micro_batch_size", "max_margin", "target_margin")
  names += ("kl_target",)
  return train.make_train_step(
    job.model.with_rows(sharding.row_sharding(job.mesh)),
    optimizer,
    **{name: settings[name] for name in names},
    buckets=buckets,
    samples_per_prompt=baseline_over or job.config.rollout.samples_per_prompt,
    shared_prompts=not job.config.data.rollout_path,
    adapters=job.adapters,
  )


def make_rollout_step(job: Job, *, temperature: float = 1.0):
  """Returns what draws rollouts; see `rollout.make_rollout_step`."""
  return rollout.make_rollout_step(
    job.model, **_drawing(job), temperature=temperature
  )


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
    and not job.config.data.rollout_path
    and settings["micro_batch_size"] == settings["batch_size"]
    and job.mesh.shape["fsdp"] == job.mesh.shape["tensor"] == 1
  )


def make_fused_step(job: Job, settings: dict[str, Any], optimizer):
  """Returns a method's step that draws its rollouts; see `fuses`."""
  model = job.model.with_rows(sharding.row_sharding(job.mesh))
  names = ("method", "beta", "kl_coef", "sft_coef", "label_smoothing")
  names += ("estimator", "max_margin", "target_margin", "kl_target")
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
  rewards_of: online.RewardSource | None = None,
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
  config = job.config.rollout
  temperature = settings["temperature"] or 1.0  # PPO's alone.
  rollout_step = make_rollout_step(job, temperature=temperature)
  # Each by the names of what it is given, should memory run out.
  name, given = f"{settings['method']}'s step", ("state", "reference")
  given += {
    "ppo": ("rollouts", "rewards", "key"),
    "rloo": ("rollouts", "rewards"),
    "grpo": ("rollouts", "rewards"),
  }.get(settings["method"], ("batch", "rollouts"))
  train_step = job.watch(name, train_step, *given)
  if fused_step is not None:
    given = ("state", "reference", "batch", "keys")
    fused_step = job.watch(name, fused_step, *given)
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
    return rollout_step(params, prompt, mask, keys_at(step, row)), row

  def keys_at(step: int, row):
    return keys.row_keys(jax.random.fold_in(key, step), row)

  if settings["method"] in ONLINE:
    return online.make_update(
      job, settings, train_step, reference, draw, rewards_of
    )
  reference_step = make_reference_step(job, settings)

  def draw_ahead(params, step: int):
    until = min(step + config.every_steps, settings["num_steps"])
    return {s: draw(params, s)[0] for s in range(step, until)}

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
    rollouts = timer.alone("rollout", "train", lambda: draw(params, step)[0])
    timer.alone(
      "reference", "train", lambda: reference_step(reference, rollouts.rows)
    )
    row_keys = keys_at(step, batch.row)
    state, metrics, _ = timer(
      "train", lambda: fused_step(state, reference, batch, row_keys)
    )
    return state, metrics

  return update if fused_step is None else fused_update
