# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Times the steps of one program in this process: seconds, CPU, memory.

Every timed program, ours (`own`) and the peers', is a module that calls
`main("name", run, packages)`, where `run(case, clock)` builds the case's step
and calls

    clock.loop(step)      or, where a trainer owns the loop,
    clock.begin(); ...; check = ...; clock.end(check)

around each step until `clock.done`. The first call, with whatever is compiled
in it, is kept apart; then come warm-up steps, over which memory is watched;
then the timed ones, over which nothing else runs. One JSON line goes to
standard output, after all else.

Beside `cases` the standard library alone: it runs in every peer's environment.
Linux only.
"""

import argparse
import contextlib
import gc
import json
import os
import pathlib
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata

from benchmarks import cases

Check = dict[str, float]

# What a step's check may hold, all of the parameters before the update: a
# program that computes something else is found by it.
CHECKS = (
  "loss",
  "kl",
  "chosen_log_probs",
  "rejected_log_probs",
  "rollout_log_probs",
  "grad_norm",
)


class Clock:
  """Counts steps: one first, then `warmup`, then `steps` that are timed."""

  def __init__(self, *, steps: int, warmup: int):
    self._steps, self._warmup = steps, warmup
    self._seconds: list[float] = []
    self._cpu_seconds: list[float] = []
    self._first_check: Check = {}
    self._watch = _Watch()

  @property
  def num_calls(self) -> int:
    """Calls of the step in all."""
    return 1 + self._warmup + self._steps

  @property
  def done(self) -> bool:
    return len(self._seconds) >= self.num_calls

  def begin(self) -> None:
    """Starts a step; its inputs are there."""
    if 1 <= len(self._seconds) <= self._warmup:
      self._watch.start()
    self._start = time.perf_counter(), time.process_time()

  def end(self, check: Check | None = None) -> None:
    """Ends a step, all of whose results are computed.

    Args:
      check: some of CHECKS; those of the first step are kept.
    """
    now = time.perf_counter(), time.process_time()
    self._seconds.append(now[0] - self._start[0])
    self._cpu_seconds.append(now[1] - self._start[1])
    self._watch.stop()
    if len(self._seconds) == 1:
      self._first_check = check or {}
      gc.collect()

  def loop(self, step: Callable[[], Check]) -> None:
    """Calls step until done; it returns after its results are computed."""
    while not self.done:
      self.begin()
      self.end(step())

  def figures(self) -> dict:
    """Returns what was measured, as JSON takes it."""
    timed = self._seconds[1 + self._warmup :]
    cpu = self._cpu_seconds[1 + self._warmup :]
    return {
      "seconds": statistics.median(timed),
      "min_seconds": min(timed),
      "max_seconds": max(timed),
      "cpu_seconds": statistics.median(cpu),
      "first_seconds": self._seconds[0],
      "first_cpu_seconds": self._cpu_seconds[0],
      "steps": self._steps,
      "warmup": self._warmup,
      "anon_bytes": self._watch.peak,
      "peak_bytes": _status("VmHWM"),
      "check": {k: float(v) for k, v in self._first_check.items()},
    }


class _Watch:
  """The peak of a process's own memory (RssAnon) while it is on.

  The kernel keeps a peak (VmHWM) only of memory with mapped files, since the
  process began: compilation and libraries are in it.
  """

  def __init__(self):
    self.peak = 0
    self._thread: threading.Thread | None = None

  def start(self) -> None:
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._run, args=(self._stop,))
    self._thread.start()

  def stop(self) -> None:
    if self._thread is not None:
      self._stop.set()
      self._thread.join()
      self._thread = None

  def _run(self, stop: threading.Event) -> None:
    while not stop.wait(0.005):
      self.peak = max(self.peak, _status("RssAnon"))


def _status(name: str) -> int:
  text = pathlib.Path("/proc/self/status").read_text()
  found = re.search(rf"{name}:\s+(\d+) kB", text)
  return 1024 * int(found.group(1)) if found else 0


def main(
  program: str,
  run: Callable[[cases.Case, Clock], dict | None],
  packages: Sequence[str],
) -> None:
  """Runs a case of `program` as the command line says; prints its JSON line.

  Args:
    program: the name under which figures are kept.
    run: builds the step and drives the clock, as in the module docstring;
      what it returns is added to the line.
    packages: distributions whose versions go with the figures.
  """
  parser = argparse.ArgumentParser(prog=program)
  parser.add_argument("--case", required=True)
  parser.add_argument("--steps", type=int, default=5)
  parser.add_argument("--warmup", type=int, default=1)
  parser.add_argument("--threads", type=int, default=2)
  found = parser.parse_args()
  for name, least in (("steps", 1), ("warmup", 1), ("threads", 1)):
    if getattr(found, name) < least:
      sys.exit(f"{name}: expected at least {least}, got {getattr(found, name)}")
  try:
    case = cases.get_case(found.case)
  except ValueError as error:
    sys.exit(str(error))
  use_threads(found.threads)
  clock = Clock(steps=found.steps, warmup=found.warmup)
  # Progress bars and logs belong to the programs; the line alone is ours.
  with contextlib.redirect_stdout(sys.stderr):
    more = run(case, clock) or {}
  line = {"case": case.name, "program": program} | clock.figures() | more
  line["threads"] = found.threads
  line["versions"] = {name: metadata.version(name) for name in packages}
  print(json.dumps(line), flush=True)


def use_threads(number: int) -> None:
  """Binds this process to `number` of its cores; pools made later see them.

  Raises:
    SystemExit: if it has fewer.
  """
  allowed = sorted(os.sched_getaffinity(0))
  if len(allowed) < number:
    sys.exit(f"threads: expected at most {len(allowed)} cores, got {number}")
  os.sched_setaffinity(0, allowed[:number])
  os.environ["OMP_NUM_THREADS"] = str(number)
