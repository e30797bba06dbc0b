# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What pages are made of: the document, tables, plots, large numbers.

Text from data is escaped wherever it stands; plots are inline SVG in a wide and
a narrow drawing, of which the style sheet shows one.
"""

import html
import json
from typing import Any

from hypo_jax.report.canvas import Plot
from hypo_jax.report.formatting import finite
from hypo_jax.report.style import CSS

Table = list[list[str]]

# Headings whose column holds words, not numbers.
_WORDS = ("policy", "checkpoint", "compared", "stage", "setting", "value")


def document(title: str, parts: list[str]) -> str:
  """Returns a page that needs nothing from outside.

  Args:
    title: text.
    parts: HTML, in order.
  """
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
    f"<title>{escape(title)}</title>\n<style>\n{CSS}</style>\n</head>\n"
    "<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
  )


def escape(text: Any) -> str:
  # A value and its error stay on one line.
  return html.escape(str(text)).replace(" ± ", "\u00a0±\u00a0")


def figures(items: list[tuple[str, str, str]]) -> str:
  """Numbers, large: (label, value, its error or "")."""
  return f'<dl class="figures">{"".join(map(_figure, items))}</dl>'


def _figure(item: tuple[str, str, str]) -> str:
  label, value, error = map(escape, item)
  if error and "n/a" not in (value, error):
    value += f' <span class="error">± {error}</span>'
  return f"<div><dt>{label}</dt><dd>{value}</dd></div>"


def plot_section(plot: Plot) -> str:
  drawings = "".join(
    f'<div class="{kind}" role="img" aria-label="{escape(plot.alt)}">{svg}'
    "</div>"
    for kind, svg in (("wide", plot.wide), ("narrow", plot.narrow))
  )
  return (
    f'<section id="{plot.name}">\n<h2>{escape(plot.title)}</h2>\n'
    f'<figure class="plot">{drawings}'
    f"<figcaption>{escape(plot.reading)}</figcaption></figure>\n</section>"
  )


def table_region(
  table: Table, label: str, dots: dict[str, str] | None = None
) -> str:
  """A table in a container of its own that scrolls sideways.

  Args:
    table: rows of text, a heading first.
    label: what it shows, for who can't see it.
    dots: palette colour by text of the first column.
  """
  words = [h in _WORDS for h in table[0]]
  classes = [' class="word"' if w else "" for w in words]
  head = "".join(
    f'<th scope="col"{c}>{escape(h)}</th>'
    for h, c in zip(table[0], classes, strict=True)
  )
  body = []
  for first, *rest in table[1:]:
    colour = (dots or {}).get(first)
    dot = ""
    if colour:
      style = f"background: var(--{colour})"
      dot = f'<span class="dot" style="{style}"></span>'
    cells = "".join(
      f"<td{c}>{escape(cell)}</td>"
      for cell, c in zip(rest, classes[1:], strict=True)
    )
    body.append(f'<tr><th scope="row">{dot}{escape(first)}</th>{cells}</tr>')
  return (
    f'<div class="scroll" role="region" aria-label="{escape(label)}" '
    f'tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>'
    + "\n".join(body)
    + "</tbody></table></div>"
  )


def flat_settings(value: Any, path: str) -> Table:
  """Nested settings as rows of dotted path and value."""
  if isinstance(value, dict) and value:
    parts = [
      flat_settings(v, f"{path}.{key}" if path else str(key))
      for key, v in value.items()
    ]
    return sum(parts, [])
  if isinstance(value, float) and finite(value) is None:
    return [[path, "n/a"]]
  return [[path, json.dumps(value, ensure_ascii=False, default=str)]]
