# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What large pages save: the default's updates with and without them.

    python -m benchmarks.large_pages

XLA on CPU maps a step's scratch memory anew each time, and the kernel fills it
page by page. glibc asks for large pages when told so before a process starts,
so each case runs in processes of its own, in turn: A B A B.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
from absl import app, flags

from benchmarks.random_pairs import random_pairs
from configs import hypo
from hypo_jax import timing, train
from hypo_jax.job import batches, setup, steps

_METHOD = flags.DEFINE_string("method", None, "Time one method, in here.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Processes a case.")
_WARMUP, _STEPS = 3, 20


def main(argv: list[str]) -> None:
  del argv
  if _METHOD.value:
    print(statistics.median(seconds(_METHOD.value)))
    return
  for method in ("dpo", "hypo"):
    figures: dict[str, list[float]] = {"": [], "glibc.malloc.hugetlb=1": []}
    for _ in range(_REPEATS.value):
      for tunables, found in figures.items():
        found.append(_timed_apart(method, tunables))
    plain, large = (statistics.median(f) for f in figures.values())
    print(
      f"{method}: {1e3 * plain:.0f} ms an update, {1e3 * large:.0f} ms with "
      f"large pages, ratio {large / plain:.2f}"
    )


def _timed_apart(method: str, tunables: str) -> float:
  command = [sys.executable, "-m", "benchmarks.large_pages"]
  found = subprocess.run(
    [*command, f"--method={method}"],
    env=os.environ | {"GLIBC_TUNABLES": tunables},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return float(found.stdout)


def seconds(method: str) -> list[float]:
  """Times a method's updates, rollouts included, on random pairs."""
  with tempfile.TemporaryDirectory() as folder:
    job = setup.set_up(hypo.get_config(), pathlib.Path(folder))
  settings = job.methods[method]
  optimizer = steps.make_optimizer(settings)
  update = steps.make_update(
    job,
    settings,
    steps.make_train_step(job, settings, optimizer),
    job.params,
    batches.of_pairs(job, settings, random_pairs(job)),
  )
  state = train.init_state(job.params, optimizer, job.mesh)
  found = []
  for step in range(_WARMUP + _STEPS):
    start = time.perf_counter()
    state, _ = jax.block_until_ready(update(state, step, timing.StepTimer()))
    found.append(time.perf_counter() - start)
  return found[_WARMUP:]


if __name__ == "__main__":
  app.run(main)
