# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Traces of a few training steps, for TensorBoard's profiler and Perfetto.

What is written lies in `<folder>/plugins/profile/<time>/`: an .xplane.pb, which
TensorBoard opens (with the package xprof), and a .trace.json.gz, which
ui.perfetto.dev opens. Each step is one event of its number; the phases of
`timing.StepTimer` are events inside it.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax


def check_steps(steps: Sequence[Any], num_steps: int, name: str) -> None:
  """Raises ValueError for steps that can't be traced.

  Args:
    steps: empty, or the first step and the one after the last, counted from 1.
    num_steps: of the stage.
    name: of the setting, for the error.
  """
  if not steps:
    return
  whole = all(type(s) is int for s in steps) and len(steps) == 2
  if not whole or not 1 <= steps[0] < steps[1] <= num_steps + 1:
    raise ValueError(
      f"{name}: expected two increasing whole numbers, as 10,13 for the steps "
      f"10, 11 and 12, between 1 and {num_steps + 1} (there are {num_steps} "
      f"steps), got {tuple(steps)}"
    )


class StepTraces:
  """Traces the steps first, ..., last - 1 of a stage.

  Args:
    folder: where; made when the first of them begins.
    steps: (first, last), counted from 1 as the log counts; empty for none.
  """

  def __init__(self, folder: pathlib.Path, steps: Sequence[int]):
    self.folder = folder
    self._first, self._last = steps or (0, 0)
    self._running = False

  def begins(self, number: int) -> bool:
    """Whether the trace has to be begun before a step."""
    return not self._running and self._first <= number < self._last

  def begin(self, state: Any) -> None:
    """Begins the trace when `state`, all earlier work, is there."""
    jax.block_until_ready(state)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Slows steps down, and names no phase.
    jax.profiler.start_trace(self.folder, profiler_options=options)
    self._running = True

  def ends(self, number: int) -> bool:
    """Whether the trace has to be ended after a step."""
    return self._running and number == self._last - 1

  def end(self, state: Any) -> None:
    """Ends the trace when `state`, what its last step gives, is there."""
    jax.block_until_ready(state)
    self.close()

  def close(self) -> None:
    """Ends a trace that is under way, as when the stage stops in the middle."""
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
