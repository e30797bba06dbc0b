# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The loop of one stage: update, log, evaluate, save; again.

Resuming: restore the latest whole checkpoint, cut the logs back to its step,
go on from there. A stop signal is heeded after the update in progress, by all
processes at the same step, which save before they leave.
"""

import signal
import time
from collections.abc import Callable, Container
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hypo_jax.checkpoint import Checkpoints, abstract
from hypo_jax.logs import StageLog
from hypo_jax.train import TrainState

# A loss this close to ln 2 for this many logged steps means that policy and
# reference never part: nothing is learned, or one is taken for the other.
_LN2, _STUCK_WITHIN, _STUCK_STEPS = float(np.log(2.0)), 1e-4, 20


class Stopped(Exception):
  """A stop signal came; everything up to its step is saved."""


class StopSignal:
  """Turns SIGINT and SIGTERM into a flag that all processes agree on."""

  def __init__(self):
    self._flag = False

  def __enter__(self):
    def note(signum, frame):
      del signum, frame
      self._flag = True

    self._old = {
      s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)
    }
    return self

  def __exit__(self, *unused):
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def agreed(self) -> bool:
    """Whether any process was told to stop; a collective call."""
    if jax.process_count() == 1:
      return self._flag
    flags = multihost_utils.process_allgather(np.array(self._flag))
    return bool(np.any(flags))


class StepTimer:
  """Seconds of a step's phases; the device is awaited on timed steps only."""

  def __init__(self):
    self.enabled = False
    self.seconds: dict[str, float] = {}

  def __call__(self, phase: str, run: Callable[[], Any]) -> Any:
    if not self.enabled:
      return run()
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    self.seconds[phase] = time.perf_counter() - start
    return result


def run_stage(
  name: str,
  state: TrainState,
  update: Callable[[TrainState, int, StepTimer], tuple[TrainState, dict]],
  *,
  num_steps: int,
  checkpoints: Checkpoints,
  open_log: Callable[[int], StageLog],
  tokens_per_step: int,
  evaluate: Callable[[TrainState], dict[str, Any]] | None = None,
  evaluate_at: Container[int] = (),
  checkpoint_every: int = 100,
  log_every: int = 10,
) -> tuple[TrainState, list[dict[str, Any]]]:
  """Runs a stage to its end, from its latest checkpoint if it has one.

  Args:
    name: of the stage.
    state: step 0; donated.
    update: (state, step, timer) -> (state, metrics), metrics scalars.
    num_steps: the stage's length.
    checkpoints: of this stage.
    open_log: makes the log, given the step to go on from.
    tokens_per_step: for tokens_per_second.
    evaluate: returns a history entry; called at steps in `evaluate_at`.
    evaluate_at: steps, counted in updates done.
    checkpoint_every: updates between checkpoints, beside the evaluations'.
    log_every: updates between logged steps.

  Returns:
    The final state and the history, one entry an evaluation.

  Raises:
    Stopped: after a stop signal, when all is saved.
  """
  history: list[dict[str, Any]] = []
  start = checkpoints.resume_step()
  if start is not None:
    state, history = checkpoints.restore(abstract(state), start)
  step = start or 0
  log = open_log(step)
  timer, stuck = StepTimer(), 0
  if start:
    log.say(f"going on from step {step}")

  def record() -> None:
    """Evaluates the current state where it is due, and saves it."""
    due = evaluate is not None and step in evaluate_at
    if due and not (history and history[-1]["step"] == step):
      entry = {"step": step, **evaluate(state)}
      history.append(entry)
      log.say(_describe(entry))
    if due or step % checkpoint_every == 0 or step == num_steps:
      checkpoints.save(state, history)

  with StopSignal() as stop:
    if start is None:
      record()
    since, window = time.perf_counter(), 0
    while step < num_steps:
      if stop.agreed():
        checkpoints.save(state, history)
        log.close()
        raise Stopped(f"{name}: stopped at step {step}; all of it is saved")
      logged = (step + 1) % log_every == 0 or step in (0, num_steps - 1)
      if logged:  # What is still under way belongs to no phase of this step.
        jax.block_until_ready(state)
      timer.enabled, timer.seconds = logged, {}
      state, metrics = update(state, step, timer)
      step, window = step + 1, window + 1
      if logged:
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        elapsed = time.perf_counter() - since
        timing = _timing(timer, elapsed / window, tokens_per_step)
        log.write(step, metrics | timing)
        stuck = stuck + 1 if _at_ln2(metrics) else 0
        if stuck == _STUCK_STEPS:
          log.say(
            "warning: the loss has stayed at ln 2; is the policy being "
            "trained, and is the reference another model?"
          )
      record()
      if logged:
        since, window = time.perf_counter(), 0
  log.close()
  return state, history


def _timing(timer: StepTimer, seconds: float, tokens: int) -> dict[str, float]:
  timing = {
    "seconds_per_step": seconds,
    "tokens_per_second": tokens / seconds,
  }
  if "rollout" in timer.seconds:
    timed = sum(timer.seconds.values())
    timing["rollout_share"] = timer.seconds["rollout"] / timed
  return timing


def _at_ln2(metrics: dict[str, float]) -> bool:
  loss = metrics.get("preference_loss")
  return loss is not None and abs(loss - _LN2) < _STUCK_WITHIN


def _describe(entry: dict[str, Any]) -> str:
  shown = {
    "win rate": ("win_rate", ".3f"),
    "KL": ("kl", ".2f"),
    "reward": ("reward_mean", ".3f"),
    "invalid": ("invalid_rate", ".1%"),
    "pair accuracy": ("pair_accuracy", ".3f"),
    "chosen log-ratio": ("chosen_log_ratio", ".2f"),
  }
  parts = [
    f"{label} {entry[key]:{form}}"
    for label, (key, form) in shown.items()
    if entry.get(key) is not None
  ]
  return f"step {entry['step']:>4}  " + "  ".join(parts)
