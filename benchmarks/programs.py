# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The timed programs, how one case of them is run, and flags that say which."""

import dataclasses
import pathlib
import sys

from absl import flags

from benchmarks import apart, cases

_CASE = flags.DEFINE_multi_enum(
  "case", None, list(cases.CASES), "Which; if none is named, all for a CPU."
)
_STEPS = flags.DEFINE_integer("steps", 5, "Timed steps a process.", 1)
_WARMUP = flags.DEFINE_integer("warmup", 1, "Untimed steps before them.", 1)
_THREADS = flags.DEFINE_integer("threads", 2, "Cores a process may use.", 1)

_FOLDER = cases.ROOT / ".venv-peers"


@dataclasses.dataclass(frozen=True)
class Program:
  """Something to time.

  Attributes:
    name: as figures name it.
    module: run with `python -m`; see `measure.main`.
    python: the interpreter of the program's own environment.
  """

  name: str
  module: str
  python: pathlib.Path

  @property
  def missing(self) -> str | None:
    """What to do before it can run, or None."""
    if self.python.exists():
      return None
    return f"bash benchmarks/peers/setup.sh {self.name}"


PROGRAMS = {
  cases.OURS: Program(
    cases.OURS, "benchmarks.own", pathlib.Path(sys.executable)
  )
} | {
  name: Program(
    name, f"benchmarks.peers.{name}_peer", _FOLDER / name / "bin" / "python"
  )
  for name in cases.PEERS
}


def chosen_cases() -> list[str]:
  """Returns the names that the command line asks for."""
  return _CASE.value or list(cases.ON_CPU)


def settings() -> dict[str, int]:
  """Returns the command line's arguments of `timed_apart`."""
  return {
    "steps": _STEPS.value,
    "warmup": _WARMUP.value,
    "threads": _THREADS.value,
  }


def timed_apart(
  name: str, case: cases.Case, *, steps: int, warmup: int, threads: int
) -> dict:
  """Returns the figures of a case, timed in a process of its own.

  Args:
    name: of PROGRAMS.
    case: what to time.
    steps: timed ones.
    warmup: untimed steps after the first.
    threads: cores that the process may use.

  Raises:
    apart.Failed: the process ended with an error, or printed no figures.
  """
  program = PROGRAMS[name]
  arguments = [f"--case={case.name}", f"--steps={steps}"]
  arguments += [f"--warmup={warmup}", f"--threads={threads}"]
  return apart.run(
    program.module,
    arguments,
    f"{name}, {case.name}",
    python=program.python,
  )
