# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How a HyPO step's cost grows, along one size at a time.

    python -m benchmarks.scaling [--axis=prompt ...] [--untimed | --report]

Axes: prompt length, completion length, rollouts a prompt, vocabulary, batch,
and devices (virtual ones on the same cores, which cut rows and weights: what
cutting costs, not what more machines gain). All else stays at `point.Point()`.
Along the first three the same update also runs without prefix sharing
(`separate`); both forms must agree in loss, KL and gradient norm.

A point and form is a process of its own (`point`) and a line of JSON in
`--path`: a stopped sweep goes on where it was. `--untimed` only compiles: the
temporaries that the compiler plans do not depend on what else the machine does.
`--report` runs nothing. Tables and exponents (`page`) go to standard output,
plots to `--plots`. Alone on two cores all of it takes about ten minutes.
"""

import dataclasses
import json
import pathlib

from absl import app, flags

from benchmarks import apart, cases, records
from benchmarks.scaling import axes, page, plots

_AXIS = flags.DEFINE_multi_enum("axis", None, list(axes.AXES), "Which; or all.")
_STEPS = flags.DEFINE_integer("steps", 3, "Timed steps a process.", 1)
_WARMUP = flags.DEFINE_integer("warmup", 1, "Untimed steps before them.", 1)
_THREADS = flags.DEFINE_integer("threads", 2, "Cores a process may use.", 1)
_PATH = flags.DEFINE_string(
  "path", str(cases.FOLDER / "scaling.jsonl"), "What was measured."
)
_PLOTS = flags.DEFINE_string("plots", str(cases.FOLDER), "Folder of plots.")
_UNTIMED = flags.DEFINE_bool("untimed", False, "Compile alone.")
_REPORT = flags.DEFINE_bool("report", False, "Run nothing.")


def main(argv: list[str]) -> None:
  del argv
  path = pathlib.Path(_PATH.value)
  names = _AXIS.value or list(axes.AXES)
  settings = {
    "steps": _STEPS.value,
    "warmup": _WARMUP.value,
    "threads": _THREADS.value,
  }
  try:
    lines = records.read(path)
    if not _REPORT.value and not _UNTIMED.value:
      timed = filter(axes.is_timed, lines)
      records.check_settings(path, timed, settings)
  except ValueError as error:
    raise SystemExit(str(error)) from error
  todo = axes.missing(lines, names, timed=not _UNTIMED.value)
  while todo and not _REPORT.value:
    line = _measured(todo.pop(0), settings)
    lines.append(line)
    records.append(path, line)
  found = axes.by_key(lines)
  if wrong := page.disagreements(found):
    raise SystemExit("\n".join(wrong))
  print(page.page(found, names))
  for file in plots.write(found, names, pathlib.Path(_PLOTS.value)):
    print(f"wrote {file}")
  for point, form in todo:
    print(f"missing: {axes.named(point)}, {form}")


def _measured(key: axes.Key, settings: dict[str, int]) -> dict:
  """Runs a point and form in a process; prints how it went."""
  point, form = key
  label = f"{axes.named(point)}, {form}"
  asked = settings | {"steps": 0} if _UNTIMED.value else settings
  arguments = [
    f"--point={json.dumps(dataclasses.asdict(point))}",
    f"--form={form}",
    *(f"--{name}={value}" for name, value in asked.items()),
  ]
  virtual = f"--xla_force_host_platform_device_count={point.devices}"
  try:
    line = apart.run(
      "benchmarks.scaling.point",
      arguments,
      label,
      environment={"XLA_FLAGS": virtual},
    )
  except apart.Failed as error:
    raise SystemExit(str(error)) from error
  told = f"{label}: temporaries {line['temporaries']['update'] / 2**20:.0f} MiB"
  if axes.is_timed(line):
    told += f", update {line['update']['seconds']:.3f} s"
  print(told, flush=True)
  return line | asked


if __name__ == "__main__":
  app.run(main)
