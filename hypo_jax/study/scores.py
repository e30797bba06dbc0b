# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What is read off a cell, and how rows are compared over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hypo_jax.study import frontier, inference
from hypo_jax.study.inference import Estimate
from hypo_jax.study.plan import Row

LEVELS = (1.0, 2.0, 3.0, 4.0)  # nats
LIMIT = 4.0  # of areas, nats
AREA = "area"
# In the order of the tables. The verdict goes by the area of the selected.
OUTCOMES = (AREA, *(f"kl_{level:g}" for level in LEVELS))

# What came out of a cell, by seed and cell.
Results = Mapping[tuple[int, str], Mapping[str, Any]]


def curve(
  history: Sequence[Mapping[str, Any]], field: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns KL [m] and a field of the evaluations [m] or [m, n].

  Args:
    history: a cell's evaluations on validation prompts, from step 0.
    field: "win_rate", "wins" (by prompt), "reward_mean" or another.

  At step 0, and wherever the KL is exactly 0 (the first update of a warm-up has
  rate 0), the policy is the reference: its win rate against itself is 0.5, and
  need not be estimated. A curve ends where training diverged,
  before the first evaluation whose KL or field is not a number (None).
  """
  diverged = [None in (e["kl_rao_blackwell"], e[field]) for e in history]
  if any(diverged):
    history = history[: diverged.index(True)]
  kl = np.array([entry["kl_rao_blackwell"] for entry in history], np.float64)
  values = np.array([entry[field] for entry in history], np.float64)
  kl[0] = 0.0
  if field in ("win_rate", "wins"):
    values[kl == 0] = 0.5
  return kl, values


def score(result: Mapping[str, Any]) -> dict[str, float]:
  """Returns a cell's scores.

  Args:
    result: what cell.json holds.

  Returns:
    OUTCOMES, win rates by first crossing; the same with "selected_" before
    them; "largest_kl"; "evaluations_1" and "evaluations_4", how many have a KL
    of at most that, those of the reference itself left out; and, where the cell
    was tested, "win_rate", "kl", "invalid_rate" and "reward" of its "last_",
    "best_" and "best_pair_loss_" checkpoint, those that are numbers.
  """
  history = result["history"]
  kl, win = curve(history, "win_rate")
  _, wins = curve(history, "wins")
  found = {AREA: frontier.area(kl, win, LIMIT)}
  found[f"selected_{AREA}"] = frontier.selected_area(kl, wins, LIMIT)
  for level in LEVELS:
    found[f"kl_{level:g}"] = frontier.at_kl(kl, win, level)
    selected = frontier.selected_at(kl, wins, level)
    found[f"selected_kl_{level:g}"] = selected
  found["largest_kl"] = frontier.largest_kl(kl)
  for level in (LEVELS[0], LEVELS[-1]):
    found[f"evaluations_{level:g}"] = float(np.sum((kl > 0) & (kl <= level)))
  for which, entry in result["test"].items():
    found |= {
      f"{which}_win_rate": entry["win_rate"],
      f"{which}_kl": entry["kl_rao_blackwell"],
      f"{which}_invalid_rate": entry["invalid_rate"],
      f"{which}_reward": entry["reward_mean"],
    }
  return {name: value for name, value in found.items() if value is not None}


class Line(NamedTuple):
  """A row's figures over its seeds.

  Attributes:
    row: the row.
    scores: by seed, of the cells that are done.
    missing: seeds whose cell is not.
    values: by score, over the seeds that there are.
    differences: by score, to the main row, over the seeds that both have; None
      for the main row itself.
    adjusted: by outcome, Holm's p over the table's rows; None where the row or
      the main one misses a seed, for no verdict is given then.
  """

  row: Row
  scores: dict[int, dict[str, float]]
  missing: tuple[int, ...]
  values: dict[str, Estimate]
  differences: dict[str, Estimate] | None
  adjusted: dict[str, float | None]


def compare(
  rows: Sequence[Row],
  results: Results,
  main: str | None,
  *,
  correct: bool = True,
) -> list[Line]:
  """Returns a line a row, each held against the cell `main`.

  Args:
    rows: of one table.
    results: of all cells that are done.
    main: name of the cell; it need not be a row. None compares nothing.
    correct: give Holm's p.
  """
  by_seed = [
    {
      seed: score(results[seed, row.cell])
      for seed in row.seeds
      if (seed, row.cell) in results
    }
    for row in rows
  ]
  seeds = {seed for row in rows for seed in row.seeds}
  mine = {s: score(results[s, main]) for s in seeds if (s, main) in results}
  lines = []
  for row, scores in zip(rows, by_seed, strict=True):
    missing = tuple(seed for seed in row.seeds if seed not in scores)
    both = [s for s in row.seeds if s in scores and s in mine]
    differences = None
    if main is not None and row.cell != main:
      differences = {
        name: inference.estimate(
          [scores[s][name] - mine[s][name] for s in both]
        )
        for name in _names([*scores.values(), *(mine[s] for s in both)])
      }
    values = {
      name: inference.estimate([found[name] for found in scores.values()])
      for name in _names([*scores.values()])
    }
    lines.append(Line(row, scores, missing, values, differences, {}))
  return _adjusted(lines, mine) if correct else lines


def _names(found: list[dict[str, float]]) -> list[str]:
  """Returns the scores that all have."""
  return [n for n in (found[0] if found else {}) if all(n in f for f in found)]


def _adjusted(lines: list[Line], mine: dict[int, Any]) -> list[Line]:
  """Fills in Holm's p values, each outcome over all rows but the main one."""
  others = [i for i, ln in enumerate(lines) if ln.differences is not None]
  for outcome in (*OUTCOMES, *(f"selected_{name}" for name in OUTCOMES)):
    p_values = []
    for i in others:
      line = lines[i]
      whole = not line.missing and set(line.row.seeds) <= set(mine)
      found = line.differences.get(outcome)
      p_values.append(found.p if whole and found else None)
    for i, p in zip(others, inference.holm(p_values), strict=True):
      lines[i].adjusted[outcome] = p
  return lines
