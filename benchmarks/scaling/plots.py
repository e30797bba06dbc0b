# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Plots of the sweep: a panel an axis, both scales logarithmic."""

import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks import fits
from benchmarks.scaling import axes, page
from benchmarks.scaling.axes import FORMS
from hypo_jax.report.style import light

_TITLES = {
  "prompt": "prompt length, tokens",
  "completion": "completion length, tokens",
  "rollouts": "rollouts a prompt",
  "vocabulary": "vocabulary, words",
  "batch": "batch, pairs",
  "devices": "virtual devices on the same cores",
}
_COLOURS = {
  "update": "hypo",
  "rollout": "dpo",
  "memory": "other1",
  "update_temporaries": "hypo",
  "rollout_temporaries": "dpo",
}
_STYLES = {"shared": ("-", "o"), "separate": ("--", "s")}
# File, and the quantities that it shows.
_FILES = {
  "scaling_seconds": ("update", "rollout"),
  "scaling_memory": ("memory", "update_temporaries", "rollout_temporaries"),
}


def write(
  found: page.Found, names: Sequence[str], folder: pathlib.Path
) -> list[pathlib.Path]:
  """Writes the plots that there are figures for; returns their paths."""
  folder.mkdir(parents=True, exist_ok=True)
  written = []
  for name, quantities in _FILES.items():
    shown = [n for n in names if _has_any(found, n, quantities)]
    if shown:
      written.append(folder / f"{name}.png")
      _figure(found, shown, quantities).savefig(written[-1], dpi=130)
  return written


def _has_any(found, axis: str, quantities: Sequence[str]) -> bool:
  return any(
    len(page.curve(found, axis, FORMS[0], q).x) > 1 for q in quantities
  )


def _figure(found, names: Sequence[str], quantities: Sequence[str]) -> Any:
  # Slow to import, and only the plots need it.
  from matplotlib.figure import Figure

  columns = min(3, len(names))
  rows = -(-len(names) // columns)
  figure = Figure(
    figsize=(3.7 * columns, 3.1 * rows + 0.5), layout="constrained"
  )
  panels = figure.subplots(rows, columns, squeeze=False).ravel()
  for panel, axis in zip(panels, names, strict=False):
    _panel(panel, found, axis, quantities)
  for panel in panels[len(names) :]:
    panel.remove()
  shown: dict[str, Any] = {}
  for panel in figure.axes:
    for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
      shown.setdefault(label, handle)
  figure.legend(
    shown.values(),
    shown.keys(),
    loc="outside lower center",
    ncols=min(len(shown), 3),
    frameon=False,
  )
  return figure


def _panel(panel: Any, found, axis: str, quantities: Sequence[str]) -> None:
  for quantity in quantities:
    colour = light(_COLOURS[quantity])
    for form in FORMS:
      x, y = page.curve(found, axis, form, quantity)
      if form != FORMS[0] and quantity.startswith("rollout"):
        continue  # drawn alike in both forms
      if x:
        line, marker = _STYLES[form]
        label = page.QUANTITIES[quantity].title
        if form != FORMS[0]:
          label += ", prompts repeated"
        panel.plot(x, y, line, marker=marker, ms=4, color=colour, label=label)
      if form == FORMS[0] and len(x) > 2 and min(y) > 0:
        panel.annotate(
          f"{fits.power(x, y).exponent:.2f}",
          (x[-1], y[-1]),
          xytext=(5, 0),
          textcoords="offset points",
          va="center",
          fontsize=8,
          color=colour,
        )
  panel.set_xscale("log", base=2)
  panel.set_yscale("log")
  ticks = axes.AXES[axis]
  panel.set_xticks(ticks, [_short(value) for value in ticks])
  panel.minorticks_off()
  panel.margins(x=0.14)
  panel.set_xlabel(_TITLES[axis])
  panel.grid(color=light("line"), lw=0.6)
  panel.spines[["top", "right"]].set_visible(False)


def _short(value: int) -> str:
  return f"{value // 1024}k" if value >= 4096 else str(value)
