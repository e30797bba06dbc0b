# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""An inspection's numbers as rows of text, for the terminal and the page."""

from typing import Any

from hypo_jax.report.formatting import (
  NOT_AVAILABLE,
  finite,
  number,
  percent,
  whole,
  with_error,
)

Inspection = dict[str, Any]
Table = list[list[str]]

_QUANTILES = ("5", "50", "95", "99")


def facts(inspection: Inspection) -> str:
  """Returns how much there is, and how much of it training sees."""
  kind = inspection["kind"]
  text = f"{whole(inspection['cuts']['rows'])} {kind}"
  if inspection.get("source"):
    text += f" from {visible(inspection['source'])}"
  stage = "preference" if kind == "pairs" else "sft"
  to_train = inspection["rows"].get("train", {}).get("rows", 0)
  if (settings := inspection["stages"].get(stage)) and to_train:
    steps, size = settings["num_steps"], settings["batch_size"]
    text += (
      f". {whole(steps)} updates of {whole(size)} see {whole(steps * size)}: "
      f"{steps * size / to_train:.2g} epochs of the {whole(to_train)} in train"
    )
  return text + "."


def figures(inspection: Inspection) -> list[tuple[str, str, str]]:
  """Returns the numbers that say most: (label, value, "")."""
  cuts, rows = inspection["cuts"], inspection["cuts"]["rows"]
  items = [
    (inspection["kind"], whole(rows), ""),
    ("prompts cut", percent(cuts["prompts"] / rows), ""),
    ("with a cut completion", percent(cuts["completions"] / rows), ""),
  ]
  if inspection["length_bias"]:
    share = inspection["length_bias"]["scored"]["share_longer"]
    items.append(("chosen longer, of unequal", percent(share), ""))
  if labels := inspection["labels"]:
    wrong = (labels["negative"] + labels["zero"]) / labels["rows"]
    items.append((f"no better by the {labels['by']}", percent(wrong), ""))
  return items


def reading_table(inspection: Inspection) -> Table:
  """Returns what reading counted; [] where nothing was read from a file."""
  reading, rows = inspection["reading"], []
  if reading.get("rows_read"):
    rows.append(["layout", str(reading.get("layout", NOT_AVAILABLE))])
    for key in ("rows_read", "bad_rows", "blank_lines"):
      rows.append([key.replace("_", " "), whole(reading.get(key))])
    for step in reading.get("filters") or []:
      before, after = whole(step["before"]), whole(step["after"])
      rows.append([f"filter {step['name']}", f"{before} → {after}"])
    rows.append(["prompts in two splits", whole(reading.get("leaked_prompts"))])
  if rollouts := inspection["rollouts"]:
    rows.append(["prompts for rollouts", whole(rollouts["prompts"])])
    rows.append(["of them cut", whole(rollouts["cut"])])
    rows.append(["of them held out", whole(rollouts["held_out"])])
  return [["reading", ""], *rows] if rows else []


def rows_table(inspection: Inspection) -> Table:
  """Returns rows by split, and how many are cut."""
  table = [["split", "rows", "prompts", "prompt cut", "completion cut"]]
  for split, counts in inspection["rows"].items():
    table.append(
      [
        split,
        whole(counts["rows"]),
        whole(counts["prompts"]),
        _of(counts["cut_prompts"], counts["rows"]),
        _of(counts["cut_completions"], counts["rows"]),
      ]
    )
  return table


def length_table(inspection: Inspection) -> Table:
  """Returns lengths in tokens, by prompt and side."""
  heads = ["shortest", *(f"{q}%" for q in _QUANTILES), "longest"]
  table = [["tokens", "mean", *heads, "limit", "longer"]]
  for name in ("prompt", "chosen", "rejected"):
    if name not in inspection["lengths"]:
      continue
    values = inspection["lengths"][name]
    points = [values["quantiles"][q] for q in _QUANTILES]
    table.append(
      [
        name,
        number(values["mean"], 1),
        *map(whole, (values["min"], *points, values["max"], values["limit"])),
        _of(values["over"], inspection["cuts"]["rows"]),
      ]
    )
  return table


def cuts_table(inspection: Inspection) -> Table:
  """Returns what the limits do to the rows."""
  cuts = inspection["cuts"]
  names = {
    "prompts": "prompt cut, from the left",
    "completions": "any completion cut, from the right, EOS lost",
    "chosen_only": "chosen alone cut",
    "rejected_only": "rejected alone cut",
    "same_scored": "both sides the same scored tokens",
    "empty": "a completion of no tokens: no weight",
  }
  table = [["rows with", "count", "share"]]
  for key, text in names.items():
    if key in cuts:
      table.append([text, whole(cuts[key]), percent(cuts[key] / cuts["rows"])])
  return table


def duplicates_table(inspection: Inspection) -> Table:
  """Returns repetitions and contradictions; [] without pairs."""
  counts, rows = inspection["duplicates"], inspection["cuts"]["rows"]
  if not counts:
    return []
  table = [["rows that", "count", "share"]]
  names = {
    "shared_prompt": "share their prompt with another row",
    "repeated": "repeat a pair seen before",
    "contradictory": "contradict another: its sides swapped",
    "identical": "have the same text on both sides",
  }
  for key, text in names.items():
    table.append([text, whole(counts[key]), percent(counts[key] / rows)])
  return table


def bias_table(inspection: Inspection) -> Table:
  """Returns chosen against rejected in length; [] without pairs."""
  both = inspection["length_bias"]
  if not both:
    return []
  table = [["chosen against rejected", "whole texts", "as scored"]]
  columns = [both["text"], both["scored"]]
  for key, text in (
    ("longer", "chosen longer"),
    ("shorter", "chosen shorter"),
    ("equal", "equal"),
  ):
    table.append([text, *(whole(c[key]) for c in columns)])
  table += [
    ["longer, of the unequal", *(percent(c["share_longer"]) for c in columns)],
    ["95% interval", *map(_interval, columns)],
    ["p, sign test", *(_p_value(c["p"]) for c in columns)],
    [
      "mean difference (tokens)",
      *(
        with_error(c["mean"], c["mean_stderr"], 1, signed=True) for c in columns
      ),
    ],
    [
      "median difference (tokens)",
      *(number(c["median"], 1, signed=True) for c in columns),
    ],
  ]
  return table


def labels_table(inspection: Inspection) -> Table:
  """Returns what scores or the judge say of the labels; [] without either."""
  labels = inspection["labels"]
  if not labels:
    return []
  rows = labels["rows"]
  table = [[f"margin, chosen − rejected, by the {labels['by']}", ""]]
  table += [
    ["pairs", whole(rows)],
    ["below zero", _of(labels["negative"], rows)],
    ["zero", _of(labels["zero"], rows)],
  ]
  for q, value in labels["quantiles"].items():
    table.append([f"{q}% quantile", number(value, 2, signed=True)])
  return table


def visible(text: str) -> str:
  """Returns text whose control characters can be seen, and do nothing.

  A terminal would obey them, and nobody sees a line break in a token.
  """
  shown = {"\n": "↵", "\t": "⇥", "\r": "␍"}
  return "".join(
    shown.get(c) or (c if c.isprintable() else f"\\x{ord(c):02x}") for c in text
  )


def bins(histogram: dict[str, Any]) -> list[tuple[str, int]]:
  """Returns (lengths, count) of each bar; the last one is all beyond."""
  edges = histogram["edges"]
  pairs = list(zip(edges, edges[1:], histogram["counts"], strict=False))
  labels = [
    (f"{low}" if high - low == 1 else f"{low}–{high - 1}", count)
    for low, high, count in pairs
  ]
  return [*labels, (f"{edges[-1]}+", histogram["beyond"])]


def _of(count: int, total: int) -> str:
  return f"{whole(count)} ({percent(count / total)})"


def _interval(bias: dict[str, Any]) -> str:
  if finite(bias["low"]) is None:
    return NOT_AVAILABLE
  return f"{percent(bias['low'])} to {percent(bias['high'])}"


def _p_value(p: float) -> str:
  if p < 0.0001:
    return "below 0.0001"
  return number(p, 4 if p < 0.1 else 2)
