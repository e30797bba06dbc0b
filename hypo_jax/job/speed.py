# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a job's steps took, from the rows of metrics.jsonl."""

from collections.abc import Sequence
from typing import Any

from hypo_jax import timing

_PART = "_seconds"
_BETWEEN = tuple(f"{phase}_seconds" for phase in timing.BETWEEN)

Row = dict[str, Any]


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
  """Returns by stage the means over its steps, and its counts.

  Times are means over the steps of rows in which nothing was compiled, or of
  all rows where there is no such row. What came after the last row, a final
  evaluation and checkpoint, is in none.

  Args:
    rows: of metrics.jsonl, in order; evaluations are not looked at.

  Returns:
    {stage: {"steps", "seconds_per_step", "seconds" (by part; they add up to
    it), "tokens_per_second", "mfu" (None where the devices' peak isn't known),
    "compilations", "compilations_after_warmup", "peak_memory_bytes"}}
  """
  by_stage: dict[str, list[Row]] = {}
  for row in rows:
    if "evaluation" not in row:
      by_stage.setdefault(row["stage"], []).append(row)
  return {stage: _stage(found) for stage, found in by_stage.items()}


def _stage(rows: list[Row]) -> dict[str, Any]:
  steps = [row["step"] for row in rows]
  updates = [b - a for a, b in zip([0, *steps], steps, strict=False)]
  weighted = list(zip(updates, rows, strict=True))
  steady = [(n, row) for n, row in weighted if not row["compilations"]]
  steady = steady or weighted

  def mean(name: str) -> float:
    total = sum(n * row.get(name, 0.0) for n, row in steady)
    return total / sum(n for n, _ in steady)

  def rate(name: str) -> float | None:
    """Mean over the updates' seconds, of rows that know it."""
    known = [
      (n * _updating(row), row[name])
      for n, row in steady
      if row[name] is not None
    ]
    seconds = sum(s for s, _ in known)
    return sum(s * value for s, value in known) / seconds if known else None

  parts = {
    key.removesuffix(_PART)
    for _, row in steady
    for key in row
    if key.endswith(_PART)
  }
  return {
    "steps": steps[-1],
    "seconds_per_step": mean("seconds_per_step"),
    "seconds": {p: mean(f"{p}{_PART}") for p in timing.in_order(sorted(parts))},
    "tokens_per_second": rate("tokens_per_second"),
    "mfu": rate("mfu"),
    "compilations": sum(row["compilations"] for row in rows),
    "compilations_after_warmup": sum(
      row["compilations_after_warmup"] for row in rows
    ),
    "peak_memory_bytes": max(row["peak_memory_bytes"] for row in rows),
  }


def _updating(row: Row) -> float:
  """Seconds of a step without checkpoints and evaluations."""
  return row["seconds_per_step"] - sum(row.get(n, 0.0) for n in _BETWEEN)
