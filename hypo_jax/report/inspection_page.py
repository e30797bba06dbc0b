# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""inspect.html: what is in the data, what will hurt, three rows in full."""

from typing import Any

from hypo_jax.report import inspection_tables as tables
from hypo_jax.report.elements import (
  document,
  escape,
  figures,
  flat_settings,
  plot_section,
  table_region,
)
from hypo_jax.report.lengths import lengths_plot

Inspection = dict[str, Any]

# Kind of token: what it means to the loss.
_KINDS = {
  "context": "prompt, not scored",
  "scored": "scored",
  "eos": "EOS, scored",
  "cut": "cut, never seen",
  "padding": "padding, never seen",
}


def make_inspection_page(inspection: Inspection) -> str:
  """Returns the page.

  Args:
    inspection: what `data.inspection.inspect_records` gives, with "source"
      (where the rows come from), "notes" (rows that were skipped, in words)
      and "settings" (of the configuration).
  """
  parts = [
    _top(inspection),
    _findings(inspection),
    _rows(inspection),
    plot_section(lengths_plot(inspection)),
    table_region(tables.length_table(inspection), "Lengths in tokens"),
    _section("cuts", "What the limits cut", tables.cuts_table(inspection)),
    _section(
      "duplicates",
      "Repetitions and contradictions",
      tables.duplicates_table(inspection),
      "Same prompt and same completions, white space aside. A pair that is "
      "also there with its sides swapped has one wrong label.",
    ),
    _section(
      "length-bias",
      "Length of chosen against rejected",
      tables.bias_table(inspection),
      "Scored is what the loss sees, after cutting. The test asks whether "
      "chance alone would make so many chosen sides the longer, or the "
      "shorter, ones.",
    ),
    _section(
      "labels",
      "Labels",
      tables.labels_table(inspection),
      "A margin below zero contradicts the label, one of zero says nothing.",
    ),
    _examples(inspection),
    _settings(inspection),
  ]
  title = f"{inspection['verdict']['text']} – hypo_jax data"
  return document(title, [part for part in parts if part])


def _top(inspection: Inspection) -> str:
  return (
    '<header>\n<p class="kicker">hypo_jax data</p>\n'
    f"<h1>{escape(inspection['verdict']['text'])}</h1>\n"
    f'<p class="claim">{escape(tables.facts(inspection))}</p>\n'
    f"{figures(tables.figures(inspection))}\n</header>"
  )


def _findings(inspection: Inspection) -> str:
  head = '<section id="findings">\n<h2>What will hurt</h2>\n'
  items = "".join(
    f'<li class="{finding["level"]}"><strong>'
    f"{'Stop' if finding['level'] == 'stop' else 'Warning'}:</strong> "
    f"{escape(finding['text'])}. "
    f'<span class="advice">→ {escape(finding["advice"])}.</span></li>\n'
    for finding in inspection["findings"]
  )
  if not items:
    return f"{head}<p>Nothing that was looked for.</p>\n</section>"
  return f'{head}<ul class="findings">\n{items}</ul>\n</section>'


def _rows(inspection: Inspection) -> str:
  parts = ['<section id="rows">\n<h2>Rows</h2>']
  parts.append(table_region(tables.rows_table(inspection), "Rows by split"))
  if reading := tables.reading_table(inspection):
    parts.append(table_region(reading, "What reading counted"))
  if notes := inspection.get("notes"):
    items = "".join(f"<li>{escape(tables.visible(n))}</li>" for n in notes)
    parts.append(
      f"<details><summary>Notes of reading</summary><ul>{items}</ul></details>"
    )
  return "\n".join(parts) + "\n</section>"


def _section(
  name: str, title: str, table: list[list[str]], note: str = ""
) -> str:
  if not table:
    return ""
  text = f"\n<p>{escape(note)}</p>" if note else ""
  return (
    f'<section id="{name}">\n<h2>{escape(title)}</h2>{text}\n'
    f"{table_region(table, title)}\n</section>"
  )


def _examples(inspection: Inspection) -> str:
  legend = " ".join(
    f'<span class="token {kind}">{escape(text)}</span>'
    for kind, text in _KINDS.items()
  )
  rows = "\n".join(map(_example, inspection["examples"]))
  return (
    '<section id="examples">\n<h2>Rows as the loss sees them</h2>\n'
    "<p>Each box is a token, its id under the pointer; ↵ is a line break. "
    "The rows are chosen by length alone.</p>\n"
    f'<p class="tokens">{legend}</p>\n{rows}\n</section>'
  )


def _example(row: dict[str, Any]) -> str:
  parts = [
    f'<article class="sample"><h3>{escape(row["why"].capitalize())} '
    f'<span class="note">{escape(tables.visible(row["place"]))}, '
    f"{escape(row['split'])}</span></h3>"
  ]
  for name in ("prompt", "chosen", "rejected"):
    if name in row:
      parts.append(
        f'<p class="note">{name}</p>\n<p class="tokens">'
        f"{_tokens(row[name], name == 'prompt')}</p>"
      )
  return "\n".join(parts) + "</article>"


def _tokens(shown: dict[str, Any], is_prompt: bool) -> str:
  pieces = []
  for segment in shown["segments"]:
    kind = segment["kind"]
    tokens = [
      f'<span class="token {kind}" title="{token["id"]}">'
      f"{escape(tables.visible(token['text']))}</span>"
      for token in segment["tokens"]
    ]
    if segment["more"]:
      more = f'<span class="token {kind} more">{segment["more"]} more</span>'
      tokens = [more, *tokens] if is_prompt else [*tokens, more]
    pieces += tokens
  if shown["padding"]:
    padding = f'<span class="token padding">{shown["padding"]} × padding</span>'
    pieces = [padding, *pieces] if is_prompt else [*pieces, padding]
  # Lines may break between tokens, which stand close together.
  return "<wbr>".join(pieces)


def _settings(inspection: Inspection) -> str:
  settings = inspection.get("settings")
  if not settings:
    return ""
  table = [["setting", "value"], *flat_settings(settings, "")]
  return (
    '<section id="settings">\n<details><summary>Settings</summary>'
    f"{table_region(table, 'Settings')}</details>\n</section>"
  )
