# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The loop of one stage: update, log, evaluate, save; again.

Resuming: restore the latest whole checkpoint, cut the logs back to its step,
go on from there. A stop signal is heeded after the update in progress, by all
processes at the same step, which save before they leave.
"""

import contextlib
import math
import signal
from collections.abc import Callable, Container, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hypo_jax.checkpoint import Checkpoints, abstract
from hypo_jax.logs import StageLog
from hypo_jax.timing import BETWEEN, StepTimer, Window, peak_memory_bytes
from hypo_jax.traces import StepTraces
from hypo_jax.train import TrainState

# A loss this close to ln 2 for this many logged steps means that policy and
# reference never part: nothing is learned, or one is taken for the other.
_LN2, _STUCK_WITHIN, _STUCK_STEPS = float(np.log(2.0)), 1e-4, 20
# Nats a token that a policy may lie from the reference on its own rollouts
# while it still is the reference. bfloat16's rounding makes a hundredth of it.
_APART = 0.1
# Column of an evaluation's second line: that of the first one's figures.
_SIGNS_AT = len("step    0  ")


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


def run_stage(
  name: str,
  state: TrainState,
  update: Callable[[TrainState, int, StepTimer], tuple[TrainState, dict]],
  *,
  num_steps: int,
  checkpoints: Checkpoints,
  open_log: Callable[[int | None], StageLog],
  tokens_per_step: int,
  seconds_at_peak: float | None = None,
  traces: StepTraces | None = None,
  evaluate: Callable[[TrainState], dict[str, Any]] | None = None,
  evaluate_at: Container[int] = (),
  remark: Callable[[list[dict[str, Any]]], str | None] | None = None,
  on_evaluation: Callable[[list[dict[str, Any]]], None] | None = None,
  checkpoint_every: int = 100,
  log_every: int = 10,
  draw_every: int = 1,
) -> tuple[TrainState, list[dict[str, Any]]]:
  """Runs a stage to its end, from its latest checkpoint if it has one.

  A logged row holds the metrics of its update, and of the updates since the row
  before: `seconds_per_step`, which the seconds of `timing.PHASES` add up to;
  `tokens_per_second` and `mfu`, which leave checkpoints and evaluations out;
  programs compiled, and those of them that an update after the first compiled;
  the peak of memory. The evaluation and the checkpoint at a logged step come
  after its row, and count in the next.

  Args:
    name: of the stage.
    state: step 0; donated.
    update: (state, step, timer) -> (state, metrics), metrics scalars.
    num_steps: the stage's length.
    checkpoints: of this stage.
    open_log: makes the log, given the step to go on from, None for the start.
    tokens_per_step: for tokens_per_second.
    seconds_at_peak: what a step's operations take at the devices' peak; for
      mfu, which is None without it.
    traces: which steps are traced; None for none.
    evaluate: returns a history entry; called at steps in `evaluate_at`.
    evaluate_at: steps, counted in updates done.
    remark: on the history so far, after each evaluation; what it returns is
      said at once.
    on_evaluation: called with the history after each evaluation, before it is
      saved; for plots that grow while the stage runs.
    checkpoint_every: updates between checkpoints, beside the evaluations'; each
      waits for the next draw of rollouts, so that it can be gone on from.
    log_every: updates between logged steps.
    draw_every: updates that share one draw of rollouts.

  Returns:
    The final state and the history, one entry an evaluation.

  Raises:
    Stopped: after a stop signal, when all is saved.
    ValueError: the first update finds a KL on rollouts though nothing is
      learned yet.
  """
  history: list[dict[str, Any]] = []
  start = checkpoints.resume_step(num_steps)
  if start is not None:
    state, history = checkpoints.restore(abstract(state), start)
  first = step = start or 0
  log = open_log(start)
  timer, doubts = StepTimer(), _Doubts()
  traces = traces or StepTraces(checkpoints.directory, ())
  if start:
    log.say(f"going on from step {step}")

  def is_logged(index: int) -> bool:
    return (index + 1) % log_every == 0 or index in (0, num_steps - 1)

  def is_timed(index: int) -> bool:
    """The first, logged ones, and before each of them the last that draws."""
    following = range(index, min(index + draw_every, num_steps))
    draws = index % draw_every == 0 and any(map(is_logged, following))
    return index == first or is_logged(index) or draws

  def is_kept(index: int) -> bool:
    """Whether checkpoint_every asks for one here; see the docstring."""
    before = (index - draw_every) // checkpoint_every
    return index % draw_every == 0 and index // checkpoint_every > before

  def record() -> None:
    """Evaluates the current state where it is due, and saves it."""
    due = evaluate is not None and step in evaluate_at
    saved = due or is_kept(step) or step == num_steps
    if saved:  # What is still under way belongs to the updates.
      jax.block_until_ready(state)
    if due and not (history and history[-1]["step"] == step):
      entry = timer.between("evaluation", lambda: evaluate(state))
      history.append({"step": step, **entry})
      log.write_evaluation(step, entry)
      for line in filter(None, (f(history[-1]) for f in (_describe, _signs))):
        log.say(line)
      if remark and (text := remark(history)):
        log.say(text)
      if on_evaluation is not None:
        on_evaluation(history)
    if saved:
      timer.between("checkpoint", lambda: checkpoints.save(state, history))

  def advance() -> tuple[TrainState, dict]:
    timed = is_timed(step)
    if timed:  # What is still under way belongs to no phase of this step.
      jax.block_until_ready(state)
    if traces.begins(step + 1):
      timer.between("trace", lambda: traces.begin(state))
    with jax.profiler.StepTraceAnnotation("step", step_num=step + 1):
      result = timer.update(update, state, step, timed=timed)
    if traces.ends(step + 1):
      timer.between("trace", lambda: traces.end(result))
    return result

  def stop_if_told() -> None:
    if stop.agreed():
      checkpoints.save(state, history)
      log.close()
      kept = checkpoints.resume_step(num_steps)
      how = "all of it is saved" if kept == step else f"saved to step {kept}"
      raise Stopped(f"{name}: stopped at step {step}; {how}")

  with StopSignal() as stop, contextlib.closing(traces):
    if start is None:
      record()
    timer.begin_window()
    while step < num_steps:
      stop_if_told()
      state, metrics = advance()
      step += 1
      if is_logged(step - 1):
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        if step == 1:
          _check_first(name, metrics)
        window = timer.end_window()
        log.write(
          step, metrics | _speed(window, tokens_per_step, seconds_at_peak)
        )
        for line in doubts.about(step, metrics):
          log.say(line)
      record()
    stop_if_told()  # Or what was told during the last would be forgotten.
  log.close()
  return state, history


def _speed(
  window: Window, tokens: int, seconds_at_peak: float | None
) -> dict[str, float | None]:
  """Returns a row's figures of speed; see `run_stage`."""
  seconds = window.seconds
  updating = sum(s for p, s in seconds.items() if p not in BETWEEN)
  figures = {
    "seconds_per_step": sum(seconds.values()),
    "tokens_per_second": tokens / updating,
    "mfu": seconds_at_peak and seconds_at_peak / updating,
    "compilations": window.compilations,
    "compilations_after_warmup": window.compilations_after_warmup,
    "peak_memory_bytes": peak_memory_bytes(),
  }
  if rollout := seconds.get("rollout"):
    learning = (seconds.get(part, 0.0) for part in ("reference", "train"))
    figures["rollout_share"] = rollout / (rollout + sum(learning))
  return figures | {f"{p}_seconds": s for p, s in seconds.items()}


def _check_first(name: str, metrics: dict[str, float]) -> None:
  """Refuses metrics in which the reference, as policy, is not the reference.

  An update's metrics are of the parameters before it, and a method starts from
  the reference. One program scores both; where it scores them differently, the
  KL means nothing, and its gradient leads anywhere.
  """
  kl, length = (metrics.get(key) for key in ("kl", "rollout_length"))
  if kl is not None and length and abs(kl) > _APART * length:
    raise ValueError(
      f"{name}: expected no KL on the first rollouts, since the policy still "
      f"is the reference, got {kl:.3g} nats over {length:.3g} tokens: this "
      f"device or compiler (XLA_FLAGS?) scores the two differently"
    )


class _Doubts:
  """What logged metrics give reason to doubt; each is told once."""

  def __init__(self):
    self._diverged, self._stuck = False, 0

  def about(self, step: int, metrics: dict[str, float]) -> Iterator[str]:
    """Yields warnings, given the metrics of every logged step in turn."""
    if not self._diverged and (broken := _broken(metrics)):
      self._diverged = True
      yield (
        f"warning: {', '.join(broken)} of step {step}: not finite, and "
        "nothing can be learned from here on; lower the learning rate"
      )
    self._stuck = self._stuck + 1 if _at_ln2(metrics) else 0
    if self._stuck == _STUCK_STEPS:
      yield (
        "warning: the loss has stayed at ln 2; is the policy being trained, "
        "and is the reference another model?"
      )


def _broken(metrics: dict[str, float]) -> list[str]:
  """Returns which of the loss and its gradient are not finite."""
  names = ("loss", "preference_loss", "policy_loss", "grad_norm")
  return [n for n in names if not math.isfinite(metrics.get(n, 0.0))]


def _at_ln2(metrics: dict[str, float]) -> bool:
  loss = metrics.get("preference_loss")
  return loss is not None and abs(loss - _LN2) < _STUCK_WITHIN


def _describe(entry: dict[str, Any]) -> str:
  text = _shown(
    entry,
    {
      "win rate": ("win_rate", ".3f"),
      "KL": ("kl", ".2f"),
      "reward": ("reward_mean", ".3f"),
      "learned reward": ("learned_reward_mean", ".3f"),
      "invalid": ("invalid_rate", ".1%"),
      "pair accuracy": ("pair_accuracy", ".3f"),
    },
  )
  return f"step {entry['step']:>4}  {text}"


def _signs(entry: dict[str, Any]) -> str:
  """Where rollouts lie and how far the pairs moved; "" where nobody looked."""
  text = _shown(
    entry,
    {
      "Rao-Blackwell KL": ("kl_rao_blackwell", ".2f"),
      "outside the pairs": ("outside_support", ".1%"),
      "unlikely tokens": ("ref_unlikely_tokens", ".1%"),
      "reference a token": ("ref_log_prob_per_token", ".2f"),
      "effective samples": ("effective_sample_share", ".1%"),
      "chosen": ("chosen_log_ratio", ".2f"),
      "rejected": ("rejected_log_ratio", ".2f"),
    },
  )
  return f"{'':<{_SIGNS_AT}}{text}" if text else ""


def _shown(entry: dict[str, Any], fields: dict[str, tuple[str, str]]) -> str:
  """Returns the fields that the entry has, labelled; of a KL its error too."""
  parts = []
  for label, (key, form) in fields.items():
    if entry.get(key) is not None:
      text = f"{label} {entry[key]:{form}}"
      if key.startswith("kl") and entry.get(f"{key}_stderr") is not None:
        text += f" ± {entry[f'{key}_stderr']:{form}}"
      parts.append(text)
  return "  ".join(parts)
