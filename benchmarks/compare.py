# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Ours beside every peer, in turn, with ratios against the targets.

    bash benchmarks/peers/setup.sh
    python -m benchmarks.compare [--case=dpo-tiny-64 ...] [--program=trl ...]

All cases are run over all programs in turn, A B C A B C, `--repeats` times,
each time in a process of its own: alone on the machine, or the figures mean
little. With the default settings a repeat of all cases takes half an hour or
more on two cores, most of it the peers' steps of the small model. Every run
is a line of JSON in `--path`: a stopped comparison goes on where it was, one
that is complete prints its tables again, and `--report` prints what is there
and what is missing without running anything. Figures of an older state of the
code are not told apart: for new ones, name another path.
"""

import pathlib
import time

from absl import app, flags

from benchmarks import apart, cases, programs, ratios, records

_PROGRAM = flags.DEFINE_multi_enum(
  "program", None, list(programs.PROGRAMS), "Which; ours always."
)
_REPEATS = flags.DEFINE_integer(
  "repeats", 3, "Processes a program and case.", 1
)
_PATH = flags.DEFINE_string(
  "path", str(cases.FOLDER / "compare.jsonl"), "What was measured."
)
_REPORT = flags.DEFINE_bool("report", False, "Run nothing.")


def main(argv: list[str]) -> None:
  del argv
  path = pathlib.Path(_PATH.value)
  settings = programs.settings()
  names = programs.chosen_cases()
  chosen = [
    name
    for name in programs.PROGRAMS
    if name == cases.OURS or not _PROGRAM.value or name in _PROGRAM.value
  ]
  try:
    lines = records.read(path)
    if not _REPORT.value:
      records.check_settings(path, lines, settings)
  except ValueError as error:
    raise SystemExit(str(error)) from error
  if not _REPORT.value:
    for todo in ratios.missing(lines, names, chosen, _REPEATS.value):
      line = _measured(*todo, settings)
      if line is not None:
        lines.append(line)
        records.append(path, line)
  print(ratios.page(lines, names, chosen))
  left = ratios.missing(lines, names, chosen, _REPEATS.value)
  for name, repeat, program in left:
    print(f"missing: {name}, {program}, repeat {repeat}")
  if left:
    raise SystemExit(1)


def _measured(name: str, repeat: int, program: str, settings) -> dict | None:
  """Runs a case once; prints how it went. None where it did not."""
  if remedy := programs.PROGRAMS[program].missing:
    print(f"{name}, {program}: its environment is missing: {remedy}")
    return None
  start = time.monotonic()
  try:
    line = programs.timed_apart(program, cases.get_case(name), **settings)
  except apart.Failed as error:
    print(error, flush=True)
    return None
  print(
    f"{name}, {program}, repeat {repeat}: {line['seconds']:.3f} s a step "
    f"({time.monotonic() - start:.0f} s in all)",
    flush=True,
  )
  return line | {"repeat": repeat}


if __name__ == "__main__":
  app.run(main)
