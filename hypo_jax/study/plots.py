# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The plots of a study: small panels, one a method or a control.

Bands are 95% t intervals over seeds. Curves over KL are drawn as far as most
seeds reach: win rates as frontiers, of the best evaluation up to each KL, other
fields at the first crossing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from hypo_jax.report.canvas import Plot, marker, render, style_axes
from hypo_jax.report.style import MARKERS, light
from hypo_jax.study import curves, plan
from hypo_jax.study.curves import Mean
from hypo_jax.study.plan import Row
from hypo_jax.study.scores import Results

# A judge's point is so many nats of preference (labels have temperature 0.25).
_NATS_PER_REWARD = 4.0
_COLOURS = ("dpo", "other1", "other2", "other3", "seen", "ink")
_LABELS = {"wins": "win rate", "reward_mean": "reward (judge)"}
# What the optimum calls them, and how they are read.
_OPTIMUM = {"wins": "win_rate", "reward_mean": "reward"}
_READINGS = {
  "wins": "The best evaluation up to each KL, chosen on half of the prompts "
  "and read off the other half. The higher curve is the better method.",
  "reward_mean": "Read where a method first reaches each KL. The higher curve "
  "is the better method there.",
}
_OPTIMUM_READING = (
  " The optimum is of the test prompts, methods are measured on validation "
  "prompts."
)
_KL = "KL to the reference, nats"
_INCH = 2.5  # of a panel's height
_DASHES = (0, (4, 2))

Optima = Mapping[int, Mapping[str, Any]]


def _optimum_marker() -> Any:
  return marker(
    "reference", "optimum of J as beta varies", marker="", linestyle=_DASHES
  )


def draw_mean(axes: Any, mean: Mean | None, style: str, **line: Any) -> None:
  """Draws a curve and its band; nothing where there is none."""
  if mean is None:
    return
  line = {"linewidth": 1.6} | line
  axes.plot(mean.x, mean.y, color=light(style), **line)
  axes.fill_between(
    mean.x, mean.low, mean.high, color=light(style), alpha=0.16, linewidth=0
  )


def _panels(
  name: str,
  title: str,
  reading: str,
  panels: Mapping[str, Callable[[Any], None]],
  handles: Sequence[Any],
  *,
  columns: int = 3,
  below: float = 0.15,
) -> Plot:
  """Draws a grid of panels, each by its function, all axes alike.

  Axes fit the lines: with two seeds, bands would squeeze them flat. There is
  room `below` them, as a share of their height.
  """
  columns = min(columns, len(panels))
  rows = math.ceil(len(panels) / columns)

  def draw(figure: Any, narrow: bool) -> None:
    wide = 1 if narrow else columns
    shape = (math.ceil(len(panels) / wide), wide)
    grid = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
      axes.set_visible(False)
    for axes, (head, fill) in zip(grid.flat, panels.items(), strict=False):
      fill(axes)
      axes.set_title(head, fontsize=9.5, color=light("ink"), loc="left")
      axes.label_outer()
    drawn = [line.get_ydata() for axes in grid.flat for line in axes.lines]
    if drawn:
      low, high = np.min(np.hstack(drawn)), np.max(np.hstack(drawn))
      height = max(high - low, 0.01)
      grid.flat[0].set_ylim(low - below * height, high + 0.15 * height)
    if handles:
      figure.legend(
        handles=list(handles),
        loc="outside upper left",
        ncols=min(len(handles), 4),
        frameon=False,
      )

  heights = (_INCH * rows + 0.5, _INCH * len(panels) + 0.5)
  return render(name, title, title, reading, draw, heights=heights)


def frontiers(
  name: str,
  rows: Sequence[Row],
  results: Results,
  optima: Optima,
  field: str,
) -> Plot:
  """A panel for each other method: its frontier, HyPO's, and the optimum's.

  Args:
    name: of the file.
    rows: of one table, HyPO's the first.
    results: of the cells that are done.
    optima: by seed; see `curves.of_optimum`.
    field: "wins" or "reward_mean".
  """
  best = curves.of_optimum(optima, rows[0].seeds, _OPTIMUM[field])
  main = curves.at_equal_kl(rows[0], results, field)

  def fill(row: Row) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
      style_axes(axes, _KL, _LABELS[field])
      draw_mean(axes, best, "reference", linestyle=_DASHES)
      draw_mean(axes, main, "hypo")
      draw_mean(axes, curves.at_equal_kl(row, results, field), "dpo")

    return draw

  handles = [
    marker("hypo", rows[0].label, marker=""),
    marker("dpo", "the panel's method", marker=""),
  ]
  if best is not None:
    handles.append(_optimum_marker())
  return _panels(
    name,
    f"{rows[-1].table}: {_LABELS[field]} at equal KL",
    _READINGS[field] + ("" if best is None else _OPTIMUM_READING),
    {row.label: fill(row) for row in rows[1:]},
    handles,
  )


def proxy(
  rows: Sequence[Row], results: Results, optima: Optima, *, by: str
) -> Plot | None:
  """A panel a method with a learned reward: it and the judge, over KL or steps.

  Over KL each is read where training first gets there; over steps nothing is
  left out, where the KL falls again included.

  Args:
    rows: of one table.
    results: of the cells that are done.
    optima: by seed; see `curves.of_optimum`.
    by: "kl" or "step".

  Returns None where no cell has a learned reward.
  """
  field = "proxy_reward_mean"
  rows = [
    row
    for row in rows
    if any(field in h[0] for h in curves.histories(row, results))
  ]
  if not rows:
    return None

  read = curves.at_equal_kl if by == "kl" else curves.by_step

  read = partial(read, results=results, gained=True)
  best = None
  if by == "kl":
    best = curves.of_optimum(optima, rows[0].seeds, "reward", gained=True)

  def fill(row: Row) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
      style_axes(axes, _KL if by == "kl" else "step", "reward gained")
      draw_mean(axes, best, "reference", linestyle=_DASHES)
      learned = read(row, field=field)
      if learned is not None:
        in_points = (v / _NATS_PER_REWARD for v in learned[1:])
        draw_mean(axes, Mean(learned.x, *in_points), "dpo")
      draw_mean(axes, read(row, field="reward_mean"), "hypo")

    return draw

  handles = [
    marker("hypo", "the judge", marker=""),
    marker("dpo", "the learned reward, over 4", marker=""),
  ]
  if best is not None:
    handles.append(_optimum_marker())
  return _panels(
    "proxy" if by == "kl" else "proxy_by_step",
    "What the learned reward says, and what the judge says, over "
    + ("KL" if by == "kl" else "steps"),
    "A gap that opens is over-optimisation of the learned reward."
    if by == "step"
    else "Read where a method first reaches each KL. A gap that opens is "
    "over-optimisation of the learned reward.",
    {row.label: fill(row) for row in rows},
    handles,
    columns=2,
  )


def controls(
  tables: Mapping[str, Sequence[Row]],
  results: Results,
  main: Row,
  optima: Optima,
  field: str,
) -> Plot:
  """A panel a control: its rows' frontiers, beside HyPO's; see `frontiers`."""
  best = curves.of_optimum(optima, main.seeds, _OPTIMUM[field])
  own = curves.at_equal_kl(main, results, field)

  def fill(rows: Sequence[Row]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
      style_axes(axes, _KL, _LABELS[field])
      draw_mean(axes, best, "reference", linestyle=_DASHES)
      draw_mean(axes, own, "hypo", linewidth=2.6)
      handles = []
      for i, row in enumerate(r for r in rows if r.cell != main.cell):
        mean = curves.at_equal_kl(row, results, field)
        colour = _COLOURS[i % len(_COLOURS)]
        line = {"linestyle": "-" if i < len(_COLOURS) else ":"}
        draw_mean(axes, mean, colour, linewidth=1.2, **line)
        handles.append(marker(colour, row.label, marker="", **line))
      style = {"fontsize": 6.5, "frameon": False, "handlelength": 1.6}
      axes.legend(handles=handles, ncols=2, loc="lower right", **style)

    return draw

  return _panels(
    f"controls_{_OPTIMUM[field]}",
    f"Controls: {_LABELS[field]} at equal KL",
    _READINGS[field] + ("" if best is None else _OPTIMUM_READING),
    {title: fill(rows) for title, rows in tables.items()},
    [
      marker("hypo", main.label, marker=""),
      *([] if best is None else [_optimum_marker()]),
    ],
    columns=2,
    below=0.35,  # for the legends
  )


def epochs(rows: Sequence[Row], results: Results) -> Plot:
  """Win rate and share of invalid completions over epochs, by pairs."""
  counts = {r.cell: r.settings.get("data.num_pairs", 512) for r in rows}
  styles = dict(zip(counts, _COLOURS, strict=False))

  def fill(field: str, label: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
      style_axes(axes, "epochs", label)
      axes.set_xscale("log")
      # By default as formulas, which the plots' settings don't set.
      axes.xaxis.set_major_formatter("{x:g}")
      for row in rows:
        mean = curves.by_step(row, results, field)
        if mean is not None:
          past = mean.x > 0
          passed = mean.x[past] * 64 / counts[row.cell]
          mean = Mean(passed, *(v[past] for v in mean[1:]))
          draw_mean(axes, mean, styles[row.cell], marker=MARKERS["hypo"], ms=2)

    return draw

  return _panels(
    "epochs",
    "DPO over epochs",
    "More pairs, and more passes over them.",
    {
      "win rate": fill("win_rate", "share"),
      "invalid": fill("invalid_rate", "share"),
    },
    [marker(styles[r.cell], r.label, marker="") for r in rows],
    columns=2,
  )


def make_plots(
  rows: Sequence[Row], results: Results, optima: Optima
) -> list[Plot]:
  """Returns the plots of a subset's rows."""
  tables = plan.tables(rows)
  plots = []
  for title, suffix in (
    (plan.MAIN_TABLE, ""),
    (plan.JUDGE_TABLE, "_judge"),
    (plan.AREA_TABLE, "_area"),
    (plan.SMOKE_TABLE, ""),
  ):
    if found := tables.pop(title, None):
      main = plan.main_row(rows, title)
      shown = [main, *(row for row in found if row.cell != main.cell)]
      for field, short in _OPTIMUM.items():
        name = f"frontier_{short}{suffix}"
        plots.append(frontiers(name, shown, results, optima, field))
      for by in () if suffix else ("kl", "step"):
        if plot := proxy(found, results, optima, by=by):
          plots.append(plot)
  tables = {t: r for t, r in tables.items() if not plan.is_tuning(r[0])}
  if tables:
    main = plan.main_row([row for found in tables.values() for row in found])
    plots += [controls(tables, results, main, optima, f) for f in _OPTIMUM]
    plots.append(epochs(tables[plan.EPOCHS_TABLE], results))
  return plots
