# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a study: the cells that are missing, then the page that compares all.

The same command goes on where it was stopped: it runs what is not done, failed
cells again among it, and writes the page anew from what is there.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from hypo_jax.checkpoint import write_json
from hypo_jax.job import cells, lock, workers
from hypo_jax.study import methods, page, plan, tuning


def run_study(config: Any, workdir: pathlib.Path) -> list[str]:
  """Runs the cells that are missing, writes the page; returns what failed.

  Args:
    config: a job's, with a section `study` (configs/study.py).
    workdir: holds a folder a seed.

  Returns:
    A line for each cell that failed, with its folder.

  Raises:
    ValueError: naming the argument, for a study that can't be planned, a
      finished cell of other settings, or a folder in which another runs.
    loop.Stopped: after a stop signal.
  """
  with lock.alone(workdir, "study"):  # Subsets share cells.
    return _run_study(config, workdir)


def _run_study(config: Any, workdir: pathlib.Path) -> list[str]:
  subset = config.study.subset
  if subset == "all" and (failed := _run_subset(config, workdir, "tuning")):
    return failed
  return _run_subset(config, workdir, subset)


def _run_subset(config: Any, workdir: pathlib.Path, subset: str) -> list[str]:
  rows = _rows(config, subset)
  failed = _run_rows(config, workdir, rows)
  results = _read(workdir, rows)
  study = config.study
  folder = pathlib.Path(study.results) if study.results else workdir
  optima = _optima(workdir, rows)
  path = page.write(folder, subset, rows, results, optima, failed)
  print(f"page: {path}")
  if subset == "tuning" and not failed:
    _choose(config, results)
  return list(failed.values())


def _rows(config: Any, subset: str) -> list[plan.Row]:
  study, path = config.study, pathlib.Path(config.study.chosen)
  chosen = json.loads(path.read_text()) if path.exists() else None
  return plan.make_rows(
    subset,
    seeds=study.seeds,
    control_seeds=study.control_seeds,
    tuning_seeds=study.tuning_seeds,
    chosen=chosen,
  )


def _folder(workdir: pathlib.Path, seed: int, name: str) -> pathlib.Path:
  return workdir / str(seed) / name


def _read(
  workdir: pathlib.Path, rows: Sequence[plan.Row]
) -> dict[tuple[int, str], dict[str, Any]]:
  """Returns what came out of each cell that is done."""
  found = {}
  for seed, name in plan.cells(rows):
    path = _folder(workdir, seed, name) / cells.DONE
    if path.exists():
      found[seed, name] = json.loads(path.read_text())
  return found


def _optima(
  workdir: pathlib.Path, rows: Sequence[plan.Row]
) -> dict[int, dict[str, Any]]:
  """Returns the optimum of each seed whose start is made."""
  found = {}
  for seed in {seed for row in rows for seed in row.seeds}:
    path = _folder(workdir, seed, "start") / "evaluations" / "optimum.json"
    if path.exists():
      optimum = json.loads(path.read_text())
      found[seed] = optimum["values"][0] | {"frontier": optimum["frontier"]}
  return found


def _choose(
  config: Any, results: dict[tuple[int, str], dict[str, Any]]
) -> None:
  """Writes the chosen settings, once every setting of every method is tried.

  Args:
    config: the study's.
    results: of all cells of tuning.

  Raises:
    ValueError: where the file says otherwise.
  """
  rows = _rows(config, "tuning")
  chosen: dict[str, Any] = {rule: {} for rule in plan.RULES}
  for name in methods.METHODS:
    grid = methods.grid(name)
    histories = {
      row.cell: [results[seed, row.cell]["history"] for seed in row.seeds]
      for row in rows
      if row.cell in grid
    }
    for rule, found in chosen.items():
      found[name] = dict(grid[tuning.choose(histories, rule)])
  path = pathlib.Path(config.study.chosen)
  if path.exists() and json.loads(path.read_text()) != chosen:
    raise ValueError(
      f"study.chosen: expected {path} as this tuning leaves it, it says "
      "otherwise; remove it to take the new settings"
    )
  write_json(path, chosen)
  print(f"chosen settings: {path}")


def _run_rows(
  config: Any, workdir: pathlib.Path, rows: Sequence[plan.Row]
) -> dict[tuple[int, str], str]:
  """Runs what is not done; returns a line for each cell that failed."""
  tested = {(s, r.cell) for r in rows for s in r.seeds if not plan.is_tuning(r)}
  closer = {"evaluate.also_at_steps": tuple(config.study.evaluate_at)}
  wanted = {
    key: values | closer if key in tested else values
    for key, values in plan.cells(rows).items()
  }
  missing = []
  for key, values in wanted.items():
    folder = _folder(workdir, *key)
    # A typo shows before anything runs.
    own = cells.cell_config(config, key[0], values)
    if (folder / cells.DONE).exists():
      cells.check_claimed(folder, own)
    else:
      missing.append(key)
      (folder / cells.FAILED).unlink(missing_ok=True)
  print(f"{len(wanted)} cells, {len(missing)} to run", flush=True)
  settings = {key: wanted[key] for key in missing}
  workers.run(config, workdir, settings, tested)
  failed = {}
  for key in missing:
    folder = _folder(workdir, *key)
    if not (folder / cells.DONE).exists():
      path = folder / cells.FAILED
      lines = path.read_text().strip().splitlines() if path.exists() else []
      failed[key] = f"{folder}: {lines[-1] if lines else 'not run'}"
  return failed
