# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Whether batches are there when a step wants them: batches/s against steps/s.

    python -m benchmarks.pipeline [--config=FILE] [--config.some.key=VALUE]

A batch is made on the host while the device runs the step before, so it holds
nothing up unless it takes longer than that step. Ordering, gathering and
placing a batch are timed apart from the config's updates without rollouts, its
shortest ones. Pairs are the config's data, tokenised once beforehand, or random
ones of full length for the embedded world. Exits with 1 if a batch took more
than half of a step.
"""

import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from benchmarks.random_pairs import random_pairs
from hypo_jax import sharding, timing, train
from hypo_jax.batch import PreferenceBatch
from hypo_jax.job import batches, setup, steps

_CONFIG = config_flags.DEFINE_config_file("config", "configs/hypo.py", "A job.")
_STEPS = flags.DEFINE_integer("steps", 20, "Updates that are timed.")
_BATCHES = flags.DEFINE_integer("batches", 200, "Batches that are timed.")
_WARMUP = 2
# Share of a step that a batch may take.
_MOST = 0.5


def main(argv: list[str]) -> None:
  if argv[1:]:
    raise app.UsageError(f"expected flags only, got {argv[1:]}")
  with tempfile.TemporaryDirectory() as folder:
    job = setup.set_up(_CONFIG.value, pathlib.Path(folder))
  settings = job.config.preference.to_dict()
  settings |= {"method": "dpo", "kl_coef": 0.0}
  stage = batches.of_pairs(job, settings, _pairs(job))
  batch = _batch_seconds(job, stage)
  step = _step_seconds(job, settings, stage)
  share = batch / step
  print(
    f"{1 / batch:,.0f} batches/s, {1 / step:,.2f} steps/s: a batch takes "
    f"{1000 * batch:.2f} ms, {share:.2%} of a step; {stage.buckets}"
  )
  if share > _MOST:
    sys.exit(f"expected at most {_MOST:.0%} of a step, got {share:.0%}")


def _pairs(job: setup.Job) -> dict[str, np.ndarray]:
  if job.task.pairs is None:
    return random_pairs(job)
  start = time.perf_counter()
  pairs, counts = job.tokens.pairs(job.task.pairs["train"])
  seconds = time.perf_counter() - start
  print(f"{counts}: tokenised in {seconds:.1f} s")
  unknown = np.zeros(len(pairs["pair_mask"]), np.float32)
  return pairs | {f"ref_{s}_log_probs": unknown for s in ("chosen", "rejected")}


def _batch_seconds(job: setup.Job, stage: batches.Batches) -> float:
  def make(step: int) -> Any:
    batch = PreferenceBatch(**stage.batch_at(step))
    return sharding.global_rows(job.mesh, batch)

  return _median(make, _BATCHES.value)


def _step_seconds(job, settings: dict[str, Any], stage) -> float:
  optimizer = steps.make_optimizer(settings)
  update = steps.make_train_step(
    job, settings, optimizer, buckets=stage.buckets.lengths
  )
  run = steps.make_update(job, settings, update, job.params, stage)
  state = train.init_state(job.params, optimizer, job.mesh)

  def one(step: int) -> Any:
    nonlocal state
    state, metrics = run(state, step, timing.StepTimer())
    return metrics

  return _median(one, _STEPS.value)


def _median(function: Callable[[int], Any], count: int) -> float:
  """Returns the median of seconds of function(0), function(1), ..."""
  seconds = []
  for number in range(_WARMUP + count):
    start = time.perf_counter()
    jax.block_until_ready(function(number))
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds[_WARMUP:])


if __name__ == "__main__":
  app.run(main)
