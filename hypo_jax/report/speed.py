# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What the steps took, in a line a stage and as a table."""

import textwrap
from collections.abc import Iterable
from typing import Any

from hypo_jax.report.formatting import (
  NOT_AVAILABLE,
  finite,
  number,
  policy_name,
  size,
  step_seconds,
  whole,
)

Report = dict[str, Any]
Table = list[list[str]]


def speed_lines(report: Report, *, width: int) -> list[str]:
  """Returns a line for each stage that trained, folded at `width`."""
  lines = []
  for stage, figures in (report.get("speed") or {}).items():
    total = finite(figures.get("seconds_per_step"))
    if total is None:
      continue
    took = step_seconds(total, figures.get("seconds") or {})
    facts = [took, f"{whole(figures.get('tokens_per_second'))} tokens/s"]
    if finite(figures.get("mfu")) is not None:
      facts.append(f"MFU {number(figures['mfu'], 2)}")
    late = figures.get("compilations_after_warmup")
    if late:
      facts.append(f"{whole(late)} compiled after warm-up")
    line = f"{_stage(stage)}: {', '.join(facts)}"
    lines.append(textwrap.fill(line, width, subsequent_indent="  "))
  return lines


def memory_line(report: Report) -> str:
  """Returns the programs compiled and the peak of memory, or ""."""
  stages = (report.get("speed") or {}).values()
  peaks = [finite(s.get("peak_memory_bytes")) for s in stages]
  if None in peaks or not peaks:
    return ""
  programs = sum(s.get("compilations") or 0 for s in stages)
  late = sum(s.get("compilations_after_warmup") or 0 for s in stages)
  return (
    f"Training compiled {whole(programs)} programs, {whole(late)} of them "
    f"after warm-up; peak memory {size(max(peaks))}."
  )


def speed_table(report: Report) -> Table:
  """Returns rows of text, a heading first: a column for each stage.

  Milliseconds come first; a part that no stage has is left out.
  """
  stages = report.get("speed") or {}
  found = list(stages.values())
  parts = [figures.get("seconds") or {} for figures in found]
  table = [
    ["milliseconds a step", *map(_stage, stages)],
    ["in all", *(_milliseconds(f, "seconds_per_step") for f in found)],
  ]
  for part in _joined(parts):
    table.append([part, *(_milliseconds(p, part) for p in parts)])
  for label, key, form in (
    ("tokens a second", "tokens_per_second", whole),
    ("MFU", "mfu", lambda value: number(value, 2)),
    ("programs compiled", "compilations", whole),
    ("of them after warm-up", "compilations_after_warmup", whole),
    ("peak memory", "peak_memory_bytes", _size),
  ):
    values = [figures.get(key) for figures in found]
    if any(finite(value) is not None for value in values):
      table.append([label, *map(form, values)])
  return table


def _joined(orders: list[Iterable[str]]) -> list[str]:
  """Names of all of several orders, each after those before it in its own."""
  joined: list[str] = []
  for order in orders:
    place = 0
    for name in order:
      if name not in joined:
        joined.insert(place, name)
      place = joined.index(name) + 1
  return joined


def _milliseconds(figures: dict[str, Any], key: str) -> str:
  value = finite(figures.get(key))
  if value is None:
    return "–"
  return number(1e3 * value, 0 if value >= 0.1 else 1)


def _size(value: Any) -> str:
  return NOT_AVAILABLE if finite(value) is None else size(value)


def _stage(name: str) -> str:
  return "SFT" if name == "sft" else policy_name(name)
