# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Histograms of an inspection's token lengths against the limits."""

from typing import Any

from hypo_jax.report.canvas import Plot, legend, patch, render, style_axes
from hypo_jax.report.formatting import percent, whole
from hypo_jax.report.style import light

# Palette's name of what a histogram shows.
COLOURS = {"prompt": "seen", "chosen": "hypo", "rejected": "dpo"}


def lengths_plot(inspection: dict[str, Any]) -> Plot:
  """Draws prompts above, both sides of the pairs below, limits dashed."""
  lengths, rows = inspection["lengths"], inspection["cuts"]["rows"]
  names = [name for name in COLOURS if name in lengths]
  panels = [names[:1], names[1:]]

  def draw(figure: Any, narrow: bool) -> None:
    del narrow
    axes = figure.subplots(2)
    for panel, shown in zip(axes, panels, strict=True):
      style_axes(panel, "", "rows")
      for name in shown:
        _draw_bars(panel, lengths[name]["histogram"], light(COLOURS[name]))
      limit = lengths[shown[0]]["limit"]
      panel.axvline(limit, color=light("ink"), lw=1.2, ls="--")
      panel.annotate(
        f"limit {limit}",
        (limit, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        color=light("ink"),
      )
      panel.set_xlim(left=0)
      panel.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes[0].set_title("prompts", loc="left", fontsize=10, color=light("ink"))
    axes[1].set_title(
      "completions", loc="left", fontsize=10, color=light("ink")
    )
    axes[1].set_xlabel("tokens", color=light("muted"))
    handles = [
      patch(name, facecolor=light(COLOURS[name]), alpha=0.6) for name in names
    ]
    legend(figure, handles, len(handles))

  said = [
    f"{name}: median {whole(values['quantiles']['50'])}, 99% within "
    f"{whole(values['quantiles']['99'])}, {percent(values['over'] / rows)} "
    f"above the limit of {whole(values['limit'])}"
    for name, values in lengths.items()
    if name in COLOURS
  ]
  title = "Lengths"
  return render(
    "lengths",
    title,
    f"{title} in tokens. {'; '.join(said)}.",
    "Tokens before anything is cut, a completion's EOS included. What lies "
    "right of a dashed limit is cut: a prompt loses its beginning, a "
    "completion its end. The last bar holds everything that is longer.",
    draw,
    heights=(4.6, 4.6),
  )


def _draw_bars(axes: Any, histogram: dict[str, Any], colour: str) -> None:
  edges = histogram["edges"]
  edges = [*edges, edges[-1] + edges[1]]
  counts = [*histogram["counts"], histogram["beyond"]]
  axes.stairs(counts, edges, fill=True, color=colour, alpha=0.3)
  axes.stairs(counts, edges, color=colour, lw=1.3)
