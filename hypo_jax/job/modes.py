# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What can be done with a trained checkpoint: evaluate, sample, export."""

import pathlib
from collections.abc import Sequence
from typing import Any

from hypo_jax import evaluate, models, train
from hypo_jax.checkpoint import best_step
from hypo_jax.job.pairs import get_pairs, score_reference
from hypo_jax.job.results import make_evaluator
from hypo_jax.job.setup import Job
from hypo_jax.job.training import (
  abstract_state,
  best_field,
  preference_checkpoints,
  restore_reference,
)


def load_policy(
  job: Job, checkpoint: str, reference: Any
) -> tuple[models.Policy, int]:
  """Returns the main method's policy at a checkpoint, and its step.

  Args:
    job: a job whose training has begun.
    checkpoint: "last", "best" or a step.
    reference: the reference policy's parameters.

  Raises:
    ValueError: if there is no such checkpoint.
  """
  method = job.config.preference.method
  checkpoints = preference_checkpoints(job, method, reference)
  steps = checkpoints.steps()
  if not steps:
    raise ValueError(
      f"workdir: expected checkpoints in {checkpoints.directory}, found none; "
      "run --mode=train first"
    )
  target = abstract_state(job, job.methods[method], reference)
  state, history = checkpoints.restore(target, steps[-1])
  step = steps[-1]
  if checkpoint == "best":
    step = best_step(history, best_field(job))
  elif checkpoint != "last":
    step = int(checkpoint) if checkpoint.isdecimal() else -1
  if step not in steps:
    raise ValueError(
      f"checkpoint: expected last, best or one of {steps}, got {checkpoint}"
    )
  if step != steps[-1]:
    state, _ = checkpoints.restore(target, step)
  checkpoints.close()
  policy = models.Policy(
    job.model.apply,
    train.policy_params(state.trainable, reference, job.adapters),
    job.model.config,
    job.tokens.tokenizer,
    job.model,
  )
  return policy, step


def evaluate_checkpoint(job: Job, checkpoint: str) -> dict[str, Any]:
  """Measures a checkpoint on the test; fields as in report.json."""
  reference = restore_reference(job)
  policy, step = load_policy(job, checkpoint, reference)
  tables = score_reference(job, reference, get_pairs(job, reference))
  evaluator, split = make_evaluator(job, reference, tables, "test")
  key = job.key("evaluate", "test")
  entry, _, _ = evaluator.measure(policy.params, split, key)
  del entry["wins"]
  return {"step": step} | entry


def sample_checkpoint(
  job: Job, checkpoint: str, prompts: Sequence[str]
) -> list[list[str]]:
  """Returns completions of each prompt, at temperature 1.

  Args:
    job: the job.
    checkpoint: see `load_policy`.
    prompts: texts, as the task's tokenizer takes them.
  """
  reference = restore_reference(job)
  policy, _ = load_policy(job, checkpoint, reference)
  rows = job.tokens.prompts(list(prompts))
  samples = job.samplers["test"](
    policy.params,
    policy.params,
    rows["prompt_tokens"],
    rows["prompt_mask"],
    job.key("sample"),
  )
  short = samples.cut(job.tokens.completion_length)
  return evaluate.decode(job.tokens.tokenizer, short)


def export_checkpoint(job: Job, checkpoint: str) -> pathlib.Path:
  """Writes a checkpoint as a Hugging Face folder; returns the folder."""
  policy, step = load_policy(job, checkpoint, restore_reference(job))
  folder = job.workdir / "export" / str(step)
  models.save(policy, folder)
  return folder
