# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Small pieces that several plots of the gallery share."""

from typing import Any

from hypo_jax.report.canvas import marker
from hypo_jax.report.style import light


def line(style: str, label: str, **kwargs: Any) -> Any:
  """Returns a legend's handle for a line without marks."""
  return marker(style, label, marker="", **kwargs)


def region_label(axes: Any, x: float, y: float, text: str, style: str) -> None:
  """Writes just below a horizontal line, in its colour."""
  axes.annotate(
    text,
    (x, y),
    xytext=(0, -4),
    textcoords="offset points",
    va="top",
    fontsize=9,
    color=light(style),
  )


def log_ticks(axis: Any, at_most: int) -> None:
  """Puts plain numbers on a logarithmic axis: plots here parse no formulas."""
  from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

  axis.set_major_locator(LogLocator(numticks=at_most))
  axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
  axis.set_minor_locator(NullLocator())
