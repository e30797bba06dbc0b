# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The stages that train: supervised fine-tuning, then one per method."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from hypo_jax import diagnostics, evaluate, loop, sharding, statistics, train
from hypo_jax.batch import Rows
from hypo_jax.checkpoint import Checkpoints, fingerprint
from hypo_jax.job import batches, online, steps, work
from hypo_jax.job.methods import (
  ONLINE,
  check_job,
  draw_every,
  draws,
  initial_kl_coef,
)
from hypo_jax.job.setup import Job
from hypo_jax.logs import StageLog
from hypo_jax.models import lora
from hypo_jax.traces import StepTraces, check_steps


def open_log(job: Job, stage: str, num_steps: int, first_step: int | None):
  """Opens a stage's log; its steps follow those of the stages before it."""
  lengths = {"sft": job.config.sft.num_steps}
  if job.config.reward == "model" or job.config.evaluate.reward_model_share:
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


def _sft_checkpoints(job: Job, *, read_only: bool = False) -> Checkpoints:
  folder = job.workdir / "checkpoints" / "sft"
  return Checkpoints(folder, keep=1, frozen="none", read_only=read_only)


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
  _check_enough(job)
  for settings in job.methods.values():
    check_steps(
      job.config.profile.steps, settings["num_steps"], "profile.steps"
    )
    steps.abstract_state(job, settings, shapes)
    steps.make_train_step(job, settings, steps.make_optimizer(settings))


def _check_enough(job: Job) -> None:
  """Refuses batches larger than what a file holds, as far as that is known."""
  rollouts = job.task.prompts.get("rollout")
  for settings in job.methods.values():
    size = settings["batch_size"]
    for what, rows in (
      ("pairs", job.task.pairs and job.task.pairs["train"]),
      ("prompts of data.rollout_path", draws(settings) and rollouts),
    ):
      if rows and len(rows) < size:
        raise ValueError(
          f"preference.batch_size: expected at most the {len(rows)} {what}, "
          f"got {size}"
        )
  sft, rows = job.config.sft, job.task.demonstrations
  if sft.num_steps and len(rows) < sft.batch_size:
    raise ValueError(
      f"sft.batch_size: expected at most the {len(rows)} demonstrations, got "
      f"{sft.batch_size}"
    )


def restore_reference(job: Job) -> Any:
  """Returns the reference policy's parameters of a job that is past it.

  Raises:
    ValueError: if supervised fine-tuning is not done.
  """
  if not job.config.sft.num_steps:
    return job.params
  with contextlib.closing(_sft_checkpoints(job, read_only=True)) as checkpoints:
    if job.config.sft.num_steps not in checkpoints.steps():
      raise ValueError(
        f"workdir: expected a finished fine-tuning in {checkpoints.directory}; "
        "run --mode=train first"
      )
    start = jax.eval_shape(lambda: steps.start_params(job, job.params, "sft"))
    target = steps.abstract(job, _sft_optimizer(job), start)
    state, _ = checkpoints.restore(target, job.config.sft.num_steps)
  return _fine_tuned(job, state.trainable)


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
    train.init_state(
      steps.start_params(job, job.params, "sft"), optimizer, job.mesh
    ),
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


def preference_checkpoints(
  job: Job, name: str, reference: Any, *, read_only: bool = False
) -> Checkpoints:
  """Opens the checkpoints of one method."""
  return Checkpoints(
    job.workdir / "checkpoints" / name,
    keep=job.config.checkpoint.keep,
    frozen=fingerprint(reference),
    best_by=(best_field(job), "pair_fit"),
    resume_every=draw_every(job.config, job.methods[name]),
    read_only=read_only,
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
  rewards_of: online.Rewards | None = None,
  *,
  on_evaluation: Callable[[list[dict[str, Any]]], None] | None = None,
) -> list[dict[str, Any]]:
  """Trains one method from the reference; returns its history.

  `rewards_of` is needed by the methods in `methods.ONLINE` alone;
  `on_evaluation` is as in `loop.run_stage`.
  """
  optimizer = steps.make_optimizer(settings)
  # Steps of online methods have one length, as fused ones do.
  whole = steps.fuses(job, settings) or settings["method"] in ONLINE
  stage = batches.of_pairs(job, settings, tables["train"], cut=not whole)
  job.say(f"{name}: {stage.buckets}")
  _check_scored(job, settings, tables["train"])
  fused_step = None
  if steps.fuses(job, settings):
    fused_step = steps.make_fused_step(job, settings, optimizer)
  update = steps.make_update(
    job,
    settings,
    steps.make_train_step(
      job, settings, optimizer, buckets=stage.buckets.lengths
    ),
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
    entry, samples, _ = evaluator.measure(params, split, key)
    del entry["by_pair"]  # Every checkpoint holds the history; means suffice.
    if rewards_of is not None and rewards_of.of_samples is not None:
      entry |= _proxy(
        rewards_of, split, samples.cut(evaluator.completion_length)
      )
    tokens = int(state.step) * tokens_per_step
    return {"tokens": tokens, "pair_fit": -entry["pair_loss"]} | entry

  start = train.init_state(
    steps.method_params(job, settings, reference, name),
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
    seconds_at_peak=_seconds_at_peak(job, settings),
    evaluate=job.watch(f"evaluating {name}", measure),
    evaluate_at=evaluation_steps(job, settings["num_steps"]),
    remark=diagnostics.coverage_warning,
    on_evaluation=on_evaluation,
    checkpoint_every=job.config.checkpoint.every_steps,
    draw_every=draw_every(job.config, settings),
  )
  checkpoints.close()
  job.say(
    f"{name}: {diagnostics.coverage_verdict(history)['coverage_verdict']}"
  )
  return history


def _check_scored(
  job: Job, settings: dict[str, Any], table: dict[str, np.ndarray]
) -> None:
  """Raises ValueError where a step comes to a pair that was not scored."""
  count = len(table["pair_mask"])
  rows = batches.visited_rows(job, "preference", count, settings)
  for name in ("ref_chosen_log_probs", "ref_rejected_log_probs"):
    missing = rows[np.isnan(table[name][rows])]
    if len(missing):
      raise ValueError(
        f"{name}: expected the reference's log-prob of every pair that a step "
        f"comes to, got none of {len(missing)}, the first in row {missing[0]}"
      )


def _proxy(rewards_of: online.Rewards, split, samples) -> dict[str, float]:
  """What is learned from says of an evaluation, beside what its judge does."""
  given = rewards_of.of_samples(split.prompts, split.prompt_rows, samples)
  mean, stderr = statistics.mean_and_stderr(given.mean(-1))
  return {"proxy_reward_mean": mean, "proxy_reward_stderr": stderr}


def _seconds_at_peak(job: Job, settings: dict[str, Any]):
  """Returns a step's seconds at the peak, or None where that isn't known."""
  if settings["method"] in ONLINE:
    return None
  return work.seconds_at_peak(job, lambda: work.method_flops(job, settings))


def _completions_a_prompt(job: Job, settings: dict[str, Any]) -> int:
  """Returns the slots of a row that are trained on: pair, rollouts."""
  samples = job.config.rollout.samples_per_prompt
  if settings["method"] == "online_dpo":  # The best and the worst of them.
    return 2
  if settings["method"] in ONLINE:
    return samples
  return 2 + samples if settings["kl_coef"] else 2
