# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What bounds a case: the time of its step by kind of operation.

    python -m benchmarks.profile [--case=hypo-tiny-256 ...] [--steps=5]

Each case in a process of its own runs `--steps` steps under JAX's profiler; the
kinds are those of `operations`, read from the programs' texts. Seconds are of
all threads together (`trace`), a step. They add up to the process's CPU seconds
where nothing else runs; what a profile costs is in both. GFLOP/s are of one
thread, beside a thread's share of the rate of a large product.

A line of JSON a case, then a table. CPU only.
"""

import json
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import app, flags

from benchmarks import apart, cases, measure, operations, own, programs, trace

_FOLDER = flags.DEFINE_string(
  "folder", None, "Trace one case in here, into it."
)

# Threads' time as a share of CPU time: beyond it, others were on these cores.
_ALONE = 1.1


class _Traced:
  """Runs steps as `measure.Clock` does, the timed ones under the profiler."""

  def __init__(self, folder: str, *, steps: int, warmup: int):
    self._folder, self._steps, self._warmup = folder, steps, warmup
    self.figures: dict[str, float] = {}

  def loop(self, step: Callable[[], Any]) -> None:
    for _ in range(1 + self._warmup):
      step()
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(self._folder, profiler_options=options):
      start = time.perf_counter(), time.process_time()
      for _ in range(self._steps):
        step()
      end = time.perf_counter(), time.process_time()
    names = "seconds", "cpu_seconds"
    self.figures = {
      name: (after - before) / self._steps
      for name, before, after in zip(names, start, end, strict=True)
    }


def main(argv: list[str]) -> None:
  del argv
  settings = programs.settings()
  names = programs.chosen_cases()
  if _FOLDER.value:
    threads = settings.pop("threads")
    measure.use_threads(threads)
    clock = _Traced(_FOLDER.value, **settings)
    more = own.run(cases.get_case(names[0]), clock)
    print(json.dumps(clock.figures | more))
    return
  lines = []
  for name in names:
    try:
      lines.append(_profiled(name, settings))
    except apart.Failed as error:
      raise SystemExit(str(error)) from error
    print(json.dumps(lines[-1]), flush=True)
  print("\n\n".join(map(table, lines)))


def _profiled(name: str, settings: dict[str, int]) -> dict:
  """Returns a case's figures, those of kinds by program."""
  arguments = [f"--case={name}"]
  arguments += [f"--{key}={value}" for key, value in settings.items()]
  with tempfile.TemporaryDirectory() as folder:
    texts = pathlib.Path(folder, "texts")
    dump = f"--xla_dump_to={texts} --xla_dump_hlo_as_text"
    line = apart.run(
      "benchmarks.profile",
      [f"--folder={folder}/trace", *arguments],
      name,
      environment={"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {dump}"},
    )
    found = trace.totals(trace.read(pathlib.Path(folder, "trace")))
    known = read_texts(texts)
  kinds = by_kind(found, known, settings["steps"])
  return {"case": name} | settings | line | {"kinds": kinds}


def read_texts(
  folder: pathlib.Path,
) -> dict[int, dict[str, operations.Operation]]:
  """Returns the operations of each program that XLA wrote, by its number."""
  return {
    int(found[1]): operations.read(path.read_text())
    for path in folder.glob("*cpu_after_optimizations.txt")
    if (found := re.match(r"module_(\d+)\.", path.name))
  }


def by_kind(
  found: dict[trace.Operation | str, trace.Total],
  known: dict[int, dict[str, operations.Operation]],
  steps: int,
) -> dict[str, dict[str, dict[str, float]]]:
  """Adds up operations of a kind.

  Args:
    found: as `trace.totals` returns it.
    known: each program's operations by its number.
    steps: that the trace holds.

  Returns:
    by program and kind: seconds, calls and flops, a step. What belongs to no
    operation is in a program without a name.
  """
  kinds: dict[str, dict[str, dict[str, float]]] = {}
  other = operations.Operation("other")
  for what, total in found.items():
    if isinstance(what, str):
      program, operation = "", operations.Operation(what)
    else:
      program = what.program
      operation = known.get(what.program_id, {}).get(what.name, other)
    sums = kinds.setdefault(program, {}).setdefault(
      operation.kind, dict.fromkeys(("seconds", "calls", "flops"), 0.0)
    )
    sums["seconds"] += total.seconds / steps
    sums["calls"] += total.calls / steps
    sums["flops"] += total.calls * operation.flops / steps
  return kinds


def table(line: dict) -> str:
  """Returns a case's kinds in Markdown, programs and kinds by their time."""
  a_thread = line["product_flops_per_second"] / line["threads"]
  whole = sum(
    k["seconds"] for kinds in line["kinds"].values() for k in kinds.values()
  )
  lines = [
    f"### {line['case']}",
    "",
    "| program | kind | s | share | calls | GFLOP | GFLOP/s | of a large "
    "product |",
    "|---|---|---|---|---|---|---|---|",
  ]
  order = sorted(
    line["kinds"],
    key=lambda p: -sum(k["seconds"] for k in line["kinds"][p].values()),
  )
  for program in order:
    kinds = sorted(
      line["kinds"][program].items(), key=lambda item: -item[1]["seconds"]
    )
    for kind, sums in kinds:
      if sums["seconds"] < 0.002 * whole:
        continue
      speed = "- | - | -"
      if sums["flops"]:
        reached = sums["flops"] / sums["seconds"]
        speed = (
          f"{sums['flops'] / 1e9:.1f} | {reached / 1e9:.0f} | "
          f"{reached / a_thread:.0%}"
        )
      lines.append(
        f"| {program or '-'} | {kind} | {sums['seconds']:.4f} | "
        f"{sums['seconds'] / whole:.0%} | {sums['calls']:.0f} | {speed} |"
      )
  lines += [
    "",
    f"Threads {whole:.3f} s, CPU {line['cpu_seconds']:.3f} s, wall "
    f"{line['seconds']:.3f} s a step; a large product {a_thread / 1e9:.0f} "
    "GFLOP/s a thread.",
  ]
  if whole > _ALONE * line["cpu_seconds"]:
    lines.append(
      "Threads waited for a core: something else ran; only shares count."
    )
  return "\n".join(lines)


if __name__ == "__main__":
  app.run(main)
