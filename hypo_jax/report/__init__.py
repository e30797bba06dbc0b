# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What came out of a run, or lies in its data: words, tables, plots, a page.

Every word about the result is made from the report's numbers, favourable or
not, and every number that has a standard error is shown with it. The page needs
nothing from outside: no script, no font, no picture but its own SVG. Nothing is
measured here, and numbers that are missing or not finite read "n/a".
"""

import os
import pathlib
from typing import Any

from hypo_jax.report.card import model_card
from hypo_jax.report.inspection_page import make_inspection_page
from hypo_jax.report.inspection_text import inspection_summary
from hypo_jax.report.page import make_page
from hypo_jax.report.plots import make_plots
from hypo_jax.report.summary import headline, terminal_summary

__all__ = [
  "headline",
  "inspection_summary",
  "model_card",
  "terminal_summary",
  "write_inspection",
  "write_report",
]


def write_report(
  workdir: str | os.PathLike[str],
  report: dict[str, Any],
  samples: list[dict[str, Any]],
  config: dict[str, Any],
) -> None:
  """Writes plots/*.png and report.html; a kill leaves no half of a file.

  Args:
    workdir: where to write; made if it doesn't exist.
    report: what report.json holds.
    samples: what samples.jsonl holds, "prompt", "completions" and "rewards" (by
      policy) in each row.
    config: the resolved configuration, shown as it is.

  Raises:
    ValueError: if `report` has no "policies".
  """
  if not report.get("policies"):
    raise ValueError(
      f"report: expected at least one of 'policies', got keys {list(report)}"
    )
  workdir = pathlib.Path(workdir)
  folder = workdir / "plots"
  folder.mkdir(parents=True, exist_ok=True)
  plots = make_plots(report)
  for plot in plots:
    _write(folder / f"{plot.name}.png", plot.png)
  page = make_page(report, samples, config, plots)
  # Prompts from JSON may hold lone surrogates, which UTF-8 can't.
  _write(workdir / "report.html", page.encode("utf-8", errors="replace"))


def write_inspection(
  workdir: str | os.PathLike[str], inspection: dict[str, Any]
) -> None:
  """Writes inspect.html; a kill leaves no half of it.

  Args:
    workdir: where to write; made if it doesn't exist.
    inspection: as `inspection_page.make_inspection_page` takes it.
  """
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  page = make_inspection_page(inspection)
  _write(workdir / "inspect.html", page.encode("utf-8", errors="replace"))


def _write(path: pathlib.Path, content: bytes) -> None:
  aside = path.with_name(path.name + ".aside")
  aside.write_bytes(content)
  os.replace(aside, path)
