# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What the steps took, in a line a stage and as a table."""

import textwrap
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

# Parts of a step in its order, by their key in report.json.
_PARTS = (
  "data",
  "rollout",
  "reference",
  "train",
  "checkpoint",
  "evaluation",
  "trace",
  "other",
)


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
  """Returns rows of text, a heading first; a column without a value is left."""
  stages = report.get("speed") or {}
  table = [["stage", *map(_stage, stages)]]
  found = list(stages.values())
  parts = [f.get("seconds") or {} for f in found]
  table.append(["step, ms", *_milliseconds(found, "seconds_per_step")])
  for part in _PARTS:
    if any(finite(p.get(part)) is not None for p in parts):
      table.append([part, *_milliseconds(parts, part)])
  tokens = [whole(f.get("tokens_per_second")) for f in found]
  table.append(["tokens/s", *tokens])
  if any(finite(f.get("mfu")) is not None for f in found):
    table.append(["MFU", *(number(f.get("mfu"), 2) for f in found)])
  for heading, key in (
    ("compiled", "compilations"),
    ("after warm-up", "compilations_after_warmup"),
  ):
    table.append([heading, *(whole(f.get(key)) for f in found)])
  peaks = (finite(f.get("peak_memory_bytes")) for f in found)
  sizes = [NOT_AVAILABLE if p is None else size(p) for p in peaks]
  table.append(["peak memory", *sizes])
  return [list(row) for row in zip(*table, strict=True)]


def _milliseconds(found: list[dict[str, Any]], key: str) -> list[str]:
  """A column in milliseconds; a stage that has no such part has a dash."""
  cells = []
  for figures in found:
    value = finite(figures.get(key))
    cells.append("–" if value is None else number(1e3 * value, 1))
  return cells


def _stage(name: str) -> str:
  return "SFT" if name == "sft" else policy_name(name)
