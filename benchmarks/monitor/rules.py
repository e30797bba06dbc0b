# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Statistics that a warning could rest on, and how well each one would do.

A statistic is a number of each evaluation, larger where coverage is worse, made
of what the monitor may see; it warns at the first evaluation where it exceeds
its threshold. Runs that collapse should be warned of by then, the others never.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.monitor.cells import Run

Statistic = Callable[[Run], np.ndarray]


def column(run: Run, name: str) -> np.ndarray:
  """Returns a field of the run's evaluations, nan where it is None."""
  return np.array([e[name] for e in run.history], np.float64)


def _rise(name: str) -> Statistic:
  def statistic(run: Run) -> np.ndarray:
    values = column(run, name)
    return values - values[0]

  return statistic


def _fall(name: str) -> Statistic:
  rise = _rise(name)
  return lambda run: -rise(run)


def _kl_per_step(run: Run) -> np.ndarray:
  """Nats a step since the evaluation before."""
  kl, step = column(run, "kl_rao_blackwell"), column(run, "step")
  return np.concatenate([[0.0], np.diff(kl) / np.diff(step)])


STATISTICS: dict[str, Statistic] = {
  "KL, nats": _rise("kl_rao_blackwell"),
  "KL's growth, nats a step": _kl_per_step,
  "rise of tokens outside the pairs": _rise("outside_support"),
  "rise of unlikely tokens": _rise("ref_unlikely_tokens"),
  "unlikely rollouts": lambda run: column(run, "ref_unlikely_rollouts"),
  "rise of unlikely rollouts": _rise("ref_unlikely_rollouts"),
  "fall of the reference's log-prob a token": _fall("ref_log_prob_per_token"),
  "-log of the effective sample share": lambda run: (
    -np.log(column(run, "effective_sample_share"))
  ),
  "fall of chosen, nats": _fall("chosen_log_ratio"),
  "fall of rejected, nats": _fall("rejected_log_ratio"),
}


class Fit(NamedTuple):
  """A statistic's threshold, and what it rests on.

  Attributes:
    threshold: warns above it.
    quiet: the largest value in a run without a lasting collapse.
    loud: the smallest of the largest values up to a lasting collapse.
  """

  threshold: float
  quiet: float
  loud: float

  @property
  def apart(self) -> bool:
    """Whether a threshold tells the runs apart."""
    return self.quiet < self.loud

  @property
  def ratio(self) -> float:
    """Of loud to quiet; by how much the threshold may be off."""
    return self.loud / self.quiet if self.quiet > 0 else np.inf


def fit(
  statistic: Statistic, runs: Sequence[Run], *, passing: bool = False
) -> Fit:
  """Fits a threshold: half-way between quiet runs and collapsing ones.

  Where the two overlap it still lies half-way: between the largest value that
  must not warn and the smallest that must.

  Args:
    statistic: of each run's evaluations.
    runs: some of which collapse, some not.
    passing: whether a collapse that passes must be warned of too. Else such a
      run counts as quiet: nobody would have wanted to stop it.
  """
  must = [r.collapse is not None if passing else r.lasting for r in runs]
  quiet = max(
    np.nanmax(statistic(r)) for r, m in zip(runs, must, strict=True) if not m
  )
  loud = min(
    np.nanmax(statistic(r)[: _end(r)])
    for r, m in zip(runs, must, strict=True)
    if m
  )
  return Fit(float((quiet + loud) / 2), float(quiet), float(loud))


def _end(run: Run) -> int:
  """Evaluations up to the collapse and with it."""
  steps = [e["step"] for e in run.history]
  return steps.index(run.collapse) + 1


class Warned(NamedTuple):
  """What came of watching a run.

  Attributes:
    run: the run.
    at: number of the evaluation that warned; None if none did.
  """

  run: Run
  at: int | None

  @property
  def lead(self) -> int | None:
    """Evaluations from the warning to the collapse; negative: too late."""
    if self.at is None or self.run.collapse is None:
      return None
    return _end(self.run) - 1 - self.at

  @property
  def lead_steps(self) -> int | None:
    if self.lead is None:
      return None
    return self.run.collapse - self.run.history[self.at]["step"]

  @property
  def outcome(self) -> str:
    if self.run.collapse is None:
      return "silent" if self.at is None else "false"
    if self.at is None:
      return "missed"
    return "in time" if self.lead >= 0 else "late"


def watch(run: Run, warns: np.ndarray) -> Warned:
  """Returns what comes of warnings, bool by evaluation."""
  return Warned(run, int(warns.argmax()) if warns.any() else None)


class Score(NamedTuple):
  """How well runs were watched.

  Attributes:
    warned: runs with a warning.
    rightly: those of them that collapsed.
    collapsed: runs that collapsed.
    in_time: those of them that were warned of by then.
    ahead: those that were warned of at least an evaluation before.
    leads: evaluations, of those warned of at all.
    lead_steps: the same in steps.
  """

  warned: int
  rightly: int
  collapsed: int
  in_time: int
  ahead: int
  leads: list[int]
  lead_steps: list[int]


def score(watched: Sequence[Warned]) -> Score:
  warned = [w for w in watched if w.at is not None]
  rightly = [w for w in warned if w.run.collapse is not None]
  return Score(
    warned=len(warned),
    rightly=len(rightly),
    collapsed=sum(w.run.collapse is not None for w in watched),
    in_time=sum(w.outcome == "in time" for w in watched),
    ahead=sum(w.lead is not None and w.lead >= 1 for w in watched),
    leads=[w.lead for w in rightly],
    lead_steps=[w.lead_steps for w in rightly],
  )
