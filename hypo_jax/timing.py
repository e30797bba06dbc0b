# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Where the seconds of a training step go, and how much memory it takes.

Updates run asynchronously: the host clock sees what a phase takes only where
the device is awaited before and after it, which is done on few updates, the
*timed* ones. On the others only the calls of each phase are counted. A *window*
is the updates from one logged step to the next:

    seconds(phase) ~ calls in the window * seconds of the last timed call,

scaled by one factor, so that together with the wall-clock seconds of what runs
between updates (BETWEEN) they add up to the window's own.
Data is so counted as if nothing ran beside it: an upper bound.

What stands inside one compiled program has no clock of its own. Such a part may
be run alone, at the start; its seconds are then taken out of the program's, as
an estimate: inside, it may share work with the rest.
"""

import collections
import resource
import sys
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple

import jax

from hypo_jax import compilations

# Phases that are known, in the order of a step; an update may have others.
PHASES = (
  "data",
  "rollout",
  "reference",
  "train",
  "checkpoint",
  "evaluation",
  "trace",
  "other",
)


# Those between updates: no part of what a step costs on its own.
BETWEEN = ("checkpoint", "evaluation", "trace")


def in_order(phases: Iterable[str]) -> list[str]:
  """Returns phases in the order of a step; unknown ones come after train."""

  def place(phase: str) -> tuple[int, bool]:
    known = phase in PHASES
    return PHASES.index(phase if known else "train"), not known

  return sorted(phases, key=place)


# One would do, but for what else a machine does meanwhile.
_RUNS_ALONE = 3


class Window(NamedTuple):
  """What a window's updates took.

  Attributes:
    seconds: an update, by phase in the order of a step; they add up to the
      window's wall clock over its number of updates.
    compilations: programs compiled since the window before.
    compilations_after_warmup: those of them that an update compiled, other than
      the first of all.
  """

  seconds: dict[str, float]
  compilations: int
  compilations_after_warmup: int


class StepTimer:
  """Times updates and what runs between them, window by window.

  Attributes:
    timed: whether the device is awaited before and after each phase.
  """

  def __init__(self):
    self.timed = False
    # Of the last timed call; "other" is what a timed update had beside them.
    self._seconds: dict[str, float] = {}
    self._alone: dict[str, tuple[str, float]] = {}
    self._compiled = compilations.count()
    self._recompiled = 0
    self._warm = False
    self.begin_window()

  def begin_window(self) -> None:
    """Leaves out what was before."""
    self._start = perf_counter()
    self._updates = 0
    self._calls: collections.Counter[str] = collections.Counter()
    self._between: collections.Counter[str] = collections.Counter()

  def __call__(self, phase: str, run: Callable[[], Any]) -> Any:
    """Runs a phase of an update; counts it, and times it on timed ones."""
    self._calls[phase] += 1
    with jax.profiler.TraceAnnotation(phase):
      if not self.timed:
        return run()
      start = perf_counter()
      result = jax.block_until_ready(run())
      self._seconds[phase] = perf_counter() - start
      return result

  def update(
    self,
    update: Callable[..., Any],
    state: Any,
    step: int,
    *,
    timed: bool,
  ) -> Any:
    """Runs update(state, step, self), whose phases call this timer.

    Args:
      update: see `loop.run_stage`.
      state: donated; nothing of it may be under way if timed.
      step: updates done.
      timed: whether to await the device at each phase.
    """
    self.timed = timed
    self._updates += 1
    calls, compiled = self._calls.copy(), compilations.count()
    start = perf_counter()
    result = update(state, step, self)
    if timed:
      jax.block_until_ready(result)
      whole = perf_counter() - start
      phases = sum(self._seconds[phase] for phase in self._calls - calls)
      self._seconds["other"] = max(whole - phases, 0.0)
    if self._warm:
      self._recompiled += compilations.count() - compiled
    self._warm = True
    return result

  def between(self, phase: str, run: Callable[[], Any]) -> Any:
    """Runs what stands between updates; the caller awaits them before it."""
    start = perf_counter()
    with jax.profiler.TraceAnnotation(phase):
      result = run()
    self._between[phase] += perf_counter() - start
    return result

  def alone(self, part: str, inside: str, run: Callable[[], Any]) -> Any:
    """Times a part of a phase alone, at the first call; later ones do nothing.

    The fastest of a few runs counts.

    Args:
      part: its name.
      inside: the phase whose program it stands in.
      run: does as much of it as one call of the phase does.

    Returns:
      What `run` returned, of the first call; None of later ones.
    """
    if part in self._alone:
      return None
    result = jax.block_until_ready(run())  # Compiles.
    seconds = []
    for _ in range(_RUNS_ALONE):
      start = perf_counter()
      jax.block_until_ready(run())
      seconds.append(perf_counter() - start)
    self._alone[part] = inside, min(seconds)
    return result

  def end_window(self) -> Window:
    """Returns a window's figures and begins the next.

    At least one update of it must have been timed, the last where updates
    differ.
    """
    wall = perf_counter() - self._start
    calls = self._calls + collections.Counter(other=self._updates)
    seconds = {p: n * self._seconds[p] for p, n in calls.items()}
    scale = (wall - self._between.total()) / sum(seconds.values())
    for inside in {inside for inside, _ in self._alone.values()}:
      seconds |= self._parted(inside, seconds[inside])
    split = {p: scale * s for p, s in seconds.items()} | self._between
    updates, recompiled = self._updates, self._recompiled
    compiled, self._compiled = self._compiled, compilations.count()
    self._recompiled = 0
    self.begin_window()
    return Window(
      {phase: split[phase] / updates for phase in in_order(split)},
      self._compiled - compiled,
      recompiled,
    )

  def _parted(self, inside: str, seconds: float) -> dict[str, float]:
    """Returns a phase's seconds and, taken out of them, those of its parts."""
    parts = {p: s for p, (i, s) in self._alone.items() if i == inside}
    # Parts that alone take longer than the whole leave nothing of it.
    whole = max(self._seconds[inside], sum(parts.values()))
    split = {part: alone / whole * seconds for part, alone in parts.items()}
    return split | {inside: max(seconds - sum(split.values()), 0.0)}


def peak_memory_bytes() -> int:
  """Returns the most memory that was in use on one device, so far.

  Where devices don't count (a CPU), the process's own peak, resident.
  """
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
  if peaks:
    return max(peaks)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == "darwin" else 1024 * peak
