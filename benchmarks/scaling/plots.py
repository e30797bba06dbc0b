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
    title="at a line's end: its exponent over the whole range",
    loc="outside lower center",
    ncols=min(len(shown), 3),
    frameon=False,
  )
  return figure


def _panel(panel: Any, found, axis: str, quantities: Sequence[str]) -> None:
  ends = []
  for quantity in quantities:
    colour, title = light(_COLOURS[quantity]), page.QUANTITIES[quantity].title
    for form in FORMS:
      if form != FORMS[0] and (
        axis not in axes.BOTH_FORMS or quantity.startswith("rollout")
      ):
        continue  # not measured, or drawn alike
      x, y = page.curve(found, axis, form, quantity)
      if not x:
        continue
      line, marker = _STYLES[form]
      label = title if form == FORMS[0] else f"{title}, prompts repeated"
      panel.plot(x, y, line, marker=marker, ms=4, color=colour, label=label)
      if len(x) > 2 and min(y) > 0:
        ends.append((y[-1], x[-1], fits.power(x, y).exponent, colour))
  _write_exponents(panel, sorted(ends))
  _scale(panel, axis, page.QUANTITIES[quantities[0]].unit)


def _write_exponents(panel: Any, ends: list[tuple]) -> None:
  """Writes each line's at its end; the outermost away from the others."""
  for number, (y, x, exponent, colour) in enumerate(ends):
    inner = 0 < number < len(ends) - 1
    above = "bottom" if number else "top"
    panel.annotate(
      # Adding 0 turns -0.00 to 0.00.
      f"{round(exponent, 2) + 0.0:.2f}",
      (x, y),
      xytext=(6, 0),
      textcoords="offset points",
      va="center" if inner else above,
      fontsize=8,
      color=colour,
    )


def _scale(panel: Any, axis: str, unit: str) -> None:
  from matplotlib.ticker import LogLocator, StrMethodFormatter

  panel.set_xscale("log", base=2)
  panel.set_yscale("log")
  ticks = axes.AXES[axis]
  panel.set_xticks(ticks, [_short(value) for value in ticks])
  panel.minorticks_off()
  panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
  panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
  panel.margins(x=0.16)
  panel.set_xlabel(_TITLES[axis])
  panel.set_ylabel(unit)
  panel.grid(color=light("line"), lw=0.6)
  panel.spines[["top", "right"]].set_visible(False)


def _short(value: int) -> str:
  return f"{value // 1024}k" if value >= 4096 else str(value)
