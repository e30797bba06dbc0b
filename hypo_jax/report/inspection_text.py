# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""An inspection in the terminal: tables, bars, three rows, what will hurt."""

import textwrap
from typing import Any

from hypo_jax.report import inspection_tables as tables
from hypo_jax.report.formatting import whole
from hypo_jax.report.tables import plain

Inspection = dict[str, Any]

_WIDTH = 100
_BAR = 60
# Tokens of a segment that the terminal lists; the page has all.
_SHOWN = 32
# ANSI: green, bold, red; the context stays as it is.
_COLOURS = {"scored": "32", "eos": "1;32", "cut": "31"}
_LEGEND = (
  "Tokens are set apart by |. The loss scores what stands under chosen and "
  "rejected, EOS included; [cut] and [padding] it never sees."
)


def inspection_summary(inspection: Inspection, *, colour: bool = False) -> str:
  """Returns the inspection as plain text of at most 100 columns.

  Args:
    inspection: what `data.inspection.inspect_records` gives, and "source",
      where the rows come from.
    colour: whether to colour tokens by ANSI codes, as a terminal shows them.
  """
  parts = [
    _fill(tables.facts(inspection)),
    _table(tables.rows_table(inspection)),
    _table(tables.reading_table(inspection)),
    _notes(inspection),
    _table(tables.length_table(inspection)),
    *_histograms(inspection),
    _table(tables.cuts_table(inspection)),
    _table(tables.duplicates_table(inspection)),
    _table(tables.bias_table(inspection)),
    _table(tables.labels_table(inspection)),
    _fill(_LEGEND),
    *(_example(row, colour) for row in inspection["examples"]),
    _findings(inspection),
  ]
  return "\n\n".join(part for part in parts if part)


def _fill(text: str, indent: str = "") -> str:
  return textwrap.fill(
    text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False
  )


def _table(table: list[list[str]]) -> str:
  return plain(table, width=_WIDTH) if table else ""


def _notes(inspection: Inspection) -> str:
  notes = inspection.get("notes") or []
  return "\n".join(_fill(tables.visible(note), "  ") for note in notes)


def _histograms(inspection: Inspection) -> list[str]:
  """Bars of the prompts, then of both sides next to each other."""
  lengths = inspection["lengths"]
  sides = [name for name in ("chosen", "rejected") if name in lengths]
  return [
    _bars({name: lengths[name] for name in names})
    for names in (["prompt"], sides)
  ]


def _bars(lengths: dict[str, Any]) -> str:
  """Bars by tokens, with the limit marked at the line that it lies in."""
  first = next(iter(lengths.values()))
  edges, limit = first["histogram"]["edges"], first["limit"]
  columns = [tables.bins(values["histogram"]) for values in lengths.values()]
  most = max(max(count for _, count in column) for column in columns)
  size = _BAR // len(columns)
  counts = [[whole(count) for _, count in column] for column in columns]
  places = [size + 1 + max(map(len, column)) for column in counts]
  heads = [n.ljust(place) for n, place in zip(lengths, places, strict=True)]
  label_width = max(len("tokens"), *(len(label) for label, _ in columns[0]))
  lines = [f"{'tokens':<{label_width}}  {'  '.join(heads)}".rstrip()]
  for i, (label, _) in enumerate(columns[0]):
    cells = []
    for column, texts, place in zip(columns, counts, places, strict=True):
      count = column[i][1]
      # Something for every row that there is.
      bar = "█" * (round(size * count / most) or bool(count))
      cells.append(f"{bar} {texts[i]}".strip().ljust(place))
    line = f"{label:>{label_width}}  {'  '.join(cells)}"
    if i < len(edges) - 1 and edges[i] <= limit < edges[i + 1]:
      line += f"  ← limit {limit}"
    lines.append(line.rstrip())
  return "\n".join(lines)


def _example(row: dict[str, Any], colour: bool) -> str:
  place = tables.visible(row["place"])
  lines = [f"{row['why']}: {place}, {row['split']}"]
  for name in ("prompt", "chosen", "rejected"):
    if name not in row:
      continue
    pieces = [
      piece
      for segment in row[name]["segments"]
      for piece in _segment(segment, name == "prompt")
    ]
    if padding := row[name]["padding"]:
      place = 0 if name == "prompt" else len(pieces)
      pieces.insert(place, ("padding", f" [{padding} padding] "))
    lines += _wrap(f"  {name:<10}", pieces, colour)
  return "\n".join(lines)


def _segment(segment: dict[str, Any], from_end: bool) -> list[tuple[str, str]]:
  """A segment's (kind, text) pieces: its tokens, those next to the answer."""
  kind, tokens = segment["kind"], segment["tokens"]
  shown = tokens[-_SHOWN:] if from_end else tokens[:_SHOWN]
  more = segment["more"] + len(tokens) - len(shown)
  pieces = [(kind, tables.visible(token["text"]) + "|") for token in shown]
  total = len(tokens) + segment["more"]
  if kind == "cut":
    # What was cut is told apart in words too, not by colour alone.
    first = f"[{total} cut: " + ("… " if from_end and more else "")
    last = (" …" if more and not from_end else "") + "]"
    return [(kind, first), *pieces, (kind, last), ("", " ")]
  if more:
    note = (kind, f"[{more} more] " if from_end else f" [{more} more] ")
    return [note, *pieces] if from_end else [*pieces, note]
  return pieces


def _wrap(head: str, pieces: list[tuple[str, str]], colour: bool) -> list[str]:
  """Joins pieces into lines; colour codes take no width."""
  indent = len(head)
  lines, filled = [head], indent
  for kind, text in pieces:
    for part in _split(text, _WIDTH - indent):
      if filled == indent and part.startswith(" ["):
        part = part[1:]
      if filled > indent and filled + len(part) > _WIDTH:
        lines.append(" " * indent)
        filled = indent
      filled += len(part)
      code = _COLOURS.get(kind)
      lines[-1] += f"\x1b[{code}m{part}\x1b[0m" if colour and code else part
  return [line.rstrip() for line in lines]


def _split(text: str, width: int) -> list[str]:
  return [text[i : i + width] for i in range(0, len(text), width)]


def _findings(inspection: Inspection) -> str:
  lines = []
  if inspection["findings"]:
    lines.append("What will hurt:")
  for finding in inspection["findings"]:
    mark = "STOP" if finding["level"] == "stop" else "warning"
    text = f"- {mark}: {finding['text']}. → {finding['advice']}."
    lines.append(_fill(text, "  "))
  lines.append(f"Verdict: {inspection['verdict']['text']}.")
  return "\n".join(lines)
