# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What all plots share: sizes, rendering as PNG and SVG, axes, legends.

Uses Figure objects only, so no display, backend or pyplot state of the caller
is touched.
"""

import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from hypo_jax.report.style import MARKERS, light, themed

# Widths in inches; an inch is 96 pixels of the page.
_WIDE, _NARROW = 8.0, 3.75
_SETTINGS = {
  "font.size": 10.0,
  # Policies are named by the user; a "$" is no formula.
  "text.parse_math": False,
  "text.usetex": False,
  # The page's own font, and the same bytes for the same report.
  "svg.fonttype": "none",
  "svg.hashsalt": "hypo_jax",
  "hatch.linewidth": 0.8,
}


class Plot(NamedTuple):
  """One plot.

  Attributes:
    name: of its file.
    title: what it shows.
    alt: the same with its main numbers, for who can't see it.
    reading: how to read it.
    png: the file's bytes, on white.
    wide: SVG for a wide page; colours are CSS variables of `style.PALETTE`.
    narrow: SVG for a phone.
  """

  name: str
  title: str
  alt: str
  reading: str
  png: bytes
  wide: str
  narrow: str


def render(
  name: str,
  title: str,
  alt: str,
  reading: str,
  draw: Callable[[Any, bool], None],
  *,
  heights: tuple[float, float],
) -> Plot:
  """Draws a plot wide and narrow.

  Args:
    name: of the file.
    title: what it shows.
    alt: the same in numbers.
    reading: how to read it.
    draw: gets an empty figure and whether it is the narrow one.
    heights: of the wide and of the narrow one, in inches.
  """
  # Slow to import, and nothing but the report needs it.
  import matplotlib
  from matplotlib.figure import Figure

  with matplotlib.rc_context(_SETTINGS):
    figures = []
    for width, height in zip((_WIDE, _NARROW), heights, strict=True):
      figure = Figure(figsize=(width, height), layout="constrained")
      draw(figure, width == _NARROW)
      figures.append(figure)
    png = io.BytesIO()
    figures[0].savefig(png, format="png", dpi=160, facecolor=light("paper"))
    wide, narrow = (
      _svg(figure, f"{name}-{i}") for i, figure in enumerate(figures)
    )
  return Plot(name, title, alt, reading, png.getvalue(), wide, narrow)


def _svg(figure: Any, prefix: str) -> str:
  """The figure as SVG that may stand in a page beside others."""
  file = io.StringIO()
  figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
  text = file.getvalue()
  text = text[text.index("<svg") :]
  text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
  # A page's SVG needs no namespaces, and takes the width that it is given.
  text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
  text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", text)
  text = re.sub(r'\bid="', f'id="{prefix}-', text)
  text = text.replace("url(#", f"url(#{prefix}-")
  text = text.replace('href="#', f'href="#{prefix}-')
  return themed(text)


def style_axes(axes: Any, x_label: str, y_label: str) -> None:
  axes.set_xlabel(x_label, color=light("muted"))
  axes.set_ylabel(y_label, color=light("muted"))
  axes.set_facecolor("none")
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set_color(light("line"))
  axes.tick_params(color=light("line"), labelcolor=light("muted"))
  axes.grid(color=light("line"), linewidth=0.6)
  axes.set_axisbelow(True)


def legend(figure: Any, handles: list[Any], columns: int) -> None:
  figure.legend(
    handles=handles,
    loc="outside upper left",
    ncols=columns,
    frameon=False,
    labelcolor=light("ink"),
    handlelength=1.6,
    columnspacing=1.4,
  )


def marker(style: str, label: str, **kwargs: Any) -> Any:
  """Returns a legend's handle for a line; `style` names a palette colour."""
  from matplotlib.lines import Line2D

  kwargs = {
    "marker": MARKERS.get(style, "o"),
    "markersize": 5.0,
    "lw": 1.6,
  } | kwargs
  return Line2D([], [], color=light(style), label=label, **kwargs)


def patch(label: str, **kwargs: Any) -> Any:
  """Returns a legend's handle for an area."""
  from matplotlib.patches import Patch

  return Patch(label=label, **kwargs)
