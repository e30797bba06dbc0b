# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The main job: fine-tune, get pairs, train each method, measure, report.

Every stage leaves a file or a checkpoint that is whole or absent, and is a pure
function of the configuration and of what the stages before left. So a job that
was killed anywhere goes on where it was, and ends with the same numbers.

    checkpoints/sft -> data/*.jsonl -> data/reference_log_probs/
      -> checkpoints/reward_model, where rewards are learned
      -> checkpoints/<method> -> evaluations/<policy>.json -> report.json, .html
"""

import contextlib
import dataclasses
import pathlib
from typing import Any

import jax

from hypo_jax.job import lock, rewards
from hypo_jax.job.optimum import measure_optimum
from hypo_jax.job.out_of_memory import explained
from hypo_jax.job.pairs import get_pairs, score_reference
from hypo_jax.job.results import make_evaluator, measure_all, write_report
from hypo_jax.job.setup import Job, set_up
from hypo_jax.job.training import check, fine_tune, train_method


def run_job(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
  """Runs all stages that are not done yet; returns the report.

  Raises:
    loop.Stopped: after a stop signal, when all is saved.
    OutOfMemory: where a device's memory ran out.
    ValueError: naming the key, for what can't be run; where another job is at
      work in the folder.
  """
  writes = jax.process_index() == 0
  held = lock.alone(workdir, "job") if writes else contextlib.nullcontext()
  with held, explained(config, workdir) as watch:
    return _run(dataclasses.replace(set_up(config, workdir), watch=watch))


def _run(job: Job) -> dict[str, Any]:
  for warning in job.warnings:
    job.say(f"warning: {warning}")
  check(job)
  rewards.check(job)
  with job.clock("sft"):
    reference = fine_tune(job)
  with job.clock("pairs"):
    pairs = get_pairs(job, reference)
  with job.clock("reference"):
    tables = score_reference(job, reference, pairs)
  learned, rewards_of = None, None
  if job.config.evaluate.reward_model_share:
    with job.clock("reward model"):
      learned = rewards.make_learned_rewards(job, reference, tables)
  with job.clock("reference"):
    evaluator, split = make_evaluator(
      job, reference, tables, "validation", learned
    )
  if job.config.reward:
    with job.clock("rewards"):
      prompts = rewards.rollout_prompts(job, pairs)
      rewards_of = rewards.make_rewards(job, reference, tables, prompts)
  histories = {}
  for name, settings in job.methods.items():
    with job.clock(name):
      histories[name] = train_method(
        job,
        name,
        settings,
        reference,
        tables,
        dataclasses.replace(evaluator, beta=settings["beta"]),
        split,
        rewards_of,
      )
  with job.clock("test"):
    evaluator, split = make_evaluator(job, reference, tables, "test", learned)
    measured = measure_all(job, reference, histories, evaluator, split)
    optimum = measure_optimum(job, reference, split)
  with job.clock("report"):
    return write_report(job, measured, histories, optimum)
