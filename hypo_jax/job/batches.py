# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The batches of a job's stages: which rows, in which order, how long.

Every process holds all rows, and so chooses the same lengths.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hypo_jax.data import buckets, pipeline
from hypo_jax.job.methods import draws
from hypo_jax.job.setup import Job

Arrays = dict[str, np.ndarray]
BatchAt = Callable[[int], Arrays]


@dataclasses.dataclass(frozen=True)
class Batches:
  """A stage's batches; each function gives this process's share by step.

  Attributes:
    batch_at: of pairs, or of demonstrations.
    prompts_at: of what rollouts answer; the same where they share prompts.
    buckets: lengths that micro-batches are cut to.
    visited: returns all that `prompts_at` gives over the stage, on every
      process and each row once: "prompt_tokens", "prompt_mask" and "row",
      int32, ascending.
  """

  batch_at: BatchAt
  prompts_at: BatchAt
  buckets: buckets.Buckets
  visited: Callable[[], Arrays]


class _Table(NamedTuple):
  """Rows, the lengths that each must be given, and its tokens."""

  rows: Arrays
  lengths: np.ndarray
  tokens: np.ndarray


def of_demonstrations(job: Job, rows: Arrays, micro_batch_size: int) -> Batches:
  """Returns the batches of supervised fine-tuning."""
  config = job.config.sft
  rows = buckets.trim(rows)
  lengths = buckets.row_lengths(rows)
  (batch_at,), found = _batches(
    job,
    {"sft": _Table(rows, lengths, lengths.sum(axis=1))},
    num_steps=config.num_steps,
    batch_size=config.batch_size,
    micro_batch_size=micro_batch_size,
    slots=1,
    cut=True,
  )
  visited = partial(_visited, job, "sft", rows, config)
  return Batches(batch_at, batch_at, found, visited)


def of_pairs(
  job: Job, settings: dict[str, Any], pairs: Arrays, *, cut: bool = True
) -> Batches:
  """Returns a method's batches.

  One order and one set of rows a step for every method: they differ in nothing
  else. Rollouts, whose lengths nobody knows beforehand, count as long as they
  may be. Without `cut`, all micro-batches have the longest lengths.
  """
  pairs = buckets.trim(pairs)
  samples = job.config.rollout.samples_per_prompt if draws(settings) else 0
  drawn = samples * job.max_new_tokens
  sides = sum(pairs[f"{s}_mask"].sum(axis=1) for s in ("chosen", "rejected"))
  apart = bool(samples and job.config.data.rollout_path)
  lengths = buckets.row_lengths(pairs)
  tokens = lengths[:, 0] + sides + (0 if apart else drawn)
  if samples:
    lengths[:, 1] = np.maximum(lengths[:, 1], job.max_new_tokens)
  tables = {"preference": _Table(pairs, lengths, tokens)}
  if apart:
    prompts = job.tokens.prompts(job.task.prompts["rollout"])
    prompts = buckets.trim(prompts)
    lengths = buckets.row_lengths(prompts)
    lengths[:, 1] = job.max_new_tokens
    tables["rollout"] = _Table(prompts, lengths, lengths[:, 0] + drawn)
  found, chosen = _batches(
    job,
    tables,
    num_steps=settings["num_steps"],
    batch_size=settings["batch_size"],
    micro_batch_size=settings["micro_batch_size"],
    slots=2 + samples,
    cut=cut,
  )
  name, table = list(tables.items())[-1]
  visited = partial(_visited, job, name, table.rows, settings)
  return Batches(found[0], found[-1], chosen, visited)


def visited_rows(
  job: Job, stage: str, num_rows: int, settings: Any
) -> np.ndarray:
  """Returns the numbers of the rows that some step comes to, ascending.

  Args:
    job: the job.
    stage: "sft", "preference" or "rollout".
    num_rows: of the table.
    settings: have num_steps and batch_size.
  """
  size, num_steps = settings["batch_size"], settings["num_steps"]
  if size * num_steps >= num_rows:
    return np.arange(num_rows)
  rows_at = pipeline.make_order(
    num_rows, batch_size=size, seed=job.config.seed, stage=stage
  )
  return np.unique([rows_at(step) for step in range(num_steps)])


def _visited(job: Job, stage: str, rows: Arrays, settings: Any) -> Arrays:
  """See `Batches`; settings have num_steps and batch_size."""
  row = visited_rows(job, stage, len(rows["prompt_mask"]), settings)
  names = ("prompt_tokens", "prompt_mask")
  return {name: rows[name][row] for name in names} | {"row": row}


def _batches(
  job: Job,
  tables: dict[str, _Table],
  *,
  num_steps: int,
  batch_size: int,
  micro_batch_size: int,
  slots: int,
  cut: bool,
) -> tuple[list[BatchAt], buckets.Buckets]:
  """Returns batches of each table, by the stage whose order it has."""
  how = {"batch_size": batch_size, "seed": job.config.seed}
  longest = max(int(t.lengths[:, 1].max()) for t in tables.values())
  chosen = buckets.choose(
    [table.lengths for table in tables.values()],
    [table.tokens for table in tables.values()],
    [
      pipeline.make_order(len(table.tokens), stage=stage, **how)
      for stage, table in tables.items()
    ],
    limits=(
      job.tokens.prompt_length,
      max(job.tokens.completion_length, longest),
    ),
    num_steps=num_steps,
    micro_batch_size=micro_batch_size,
    slots=slots,
    most=buckets.MOST if cut else 0,
  )
  found = [
    pipeline.make_batches(
      table.rows,
      stage=stage,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      # Where all micro-batches have one length, rows stay in random order.
      tokens=table.lengths @ [1, slots] if chosen.lengths else None,
      micro_batch_size=micro_batch_size,
      **how,
    )
    for stage, table in tables.items()
  ]
  return found, chosen
