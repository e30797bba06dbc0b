# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The report's numbers as rows of text, for the terminal and the page.

A policy has up to three checkpoints: the best on validation prompts, the final
one, and the one of best held-out pair loss, which is what one would pick
without a judge. Checkpoints of the same step are one row.
"""

from typing import Any

from hypo_jax.report.formatting import (
  finite,
  kl_of,
  number,
  percent,
  places,
  policy_name,
  whole,
  with_error,
)

Report = dict[str, Any]
Entry = dict[str, Any]
Table = list[list[str]]

# Checkpoints of a policy: how tables call them, where its entry lies.
_CHECKPOINTS = (
  ("best", "best"),
  ("final", None),
  ("best pair loss", "best_pair_loss"),
)
# Heading, value's key, error's key, how it is written ("kl": see `kl_of`).
Column = tuple[str, str, str | None, str]
COLUMNS: tuple[Column, ...] = (
  ("step", "step", None, "whole"),
  ("win rate", "win_rate", "win_rate_stderr", "error"),
  ("KL (nats)", "", None, "kl"),
  ("reward", "reward_mean", "reward_stderr", "error"),
  ("invalid", "invalid_rate", None, "percent"),
  ("pair accuracy", "pair_accuracy", "pair_accuracy_stderr", "error"),
)
MORE_COLUMNS: tuple[Column, ...] = (
  ("win rate, equal length", "win_rate_length_matched", None, "error"),
  ("reward, learned", "learned_reward_mean", "learned_reward_stderr", "error"),
  ("KL, log-ratio", "kl", "kl_stderr", "error"),
  ("KL a token", "kl_per_token", None, "error"),
  ("KL, twice as long", "kl_long", None, "error"),
  ("KL, training prompts", "kl_train_prompts", None, "error"),
  ("tokens outside the pairs", "outside_support", None, "percent"),
  (
    "log-prob under the reference",
    "ref_log_prob",
    "ref_log_prob_stderr",
    "error",
  ),
  (
    "the same a token",
    "ref_log_prob_per_token",
    "ref_log_prob_per_token_stderr",
    "error",
  ),
  ("unlikely tokens", "ref_unlikely_tokens", None, "percent"),
  ("unlikely rollouts", "ref_unlikely_rollouts", None, "percent"),
  ("effective samples", "effective_sample_share", None, "percent"),
  ("chosen log-ratio", "chosen_log_ratio", None, "error"),
  ("rejected log-ratio", "rejected_log_ratio", None, "error"),
  ("ended by EOS", "eos_rate", None, "percent"),
  ("length (tokens)", "length_mean", None, "error"),
  ("tokens trained on", "tokens", None, "whole"),
)


def has_judge(report: Report) -> bool:
  """Returns whether any trained policy has a win rate."""
  return any(
    finite(p.get("win_rate")) is not None
    for name, p in report["policies"].items()
    if name != "reference"
  )


def methods(report: Report) -> list[str]:
  """Returns the trained policies: HyPO and DPO first, then the others."""
  names = [n for n in report["policies"] if n != "reference"]
  first = [n for n in ("hypo", "dpo") if n in names]
  return first + [n for n in names if n not in first]


def checkpoints(report: Report, name: str) -> list[tuple[str, Entry]]:
  """Returns a policy's checkpoints, labelled; those of one step are joined."""
  policy = report["policies"][name]
  if name == "reference":
    return [("", policy)]
  by_step: dict[Any, tuple[list[str], Entry]] = {}
  for label, key in _CHECKPOINTS:
    entry = policy if key is None else policy.get(key)
    if entry:
      by_step.setdefault(entry.get("step", label), ([], entry))[0].append(label)
  return [(", ".join(labels), entry) for labels, entry in by_step.values()]


def policy_table(report: Report, columns: tuple[Column, ...]) -> Table:
  """Returns rows of text, a heading first; columns without a value are left."""
  labelled = [
    (policy_name(name), label, entry)
    for name in ("reference", *methods(report))
    if name in report["policies"]
    for label, entry in checkpoints(report, name)
  ]
  table = [
    ["policy", *(policy for policy, _, _ in labelled)],
    ["checkpoint", *(label for _, label, _ in labelled)],
  ]
  entries = [entry for _, _, entry in labelled]
  for heading, key, error_key, kind in columns:
    if kind == "kl":
      pairs = [kl_of(e) for e in entries]
    else:
      pairs = [(e.get(key), e.get(error_key)) for e in entries]
    if any(finite(value) is not None for value, _ in pairs):
      table.append([heading, *_cells(pairs, kind)])
  return [list(row) for row in zip(*table, strict=True)]


def _cells(pairs: list[tuple[Any, Any]], kind: str) -> list[str]:
  """A column of (value, error), with the decimals of its smallest error."""
  if kind in ("whole", "percent"):
    form = whole if kind == "whole" else percent
    return [form(value) for value, _ in pairs]
  digits = places(error for _, error in pairs)
  if kind == "kl":
    digits = min(digits, 2)
  return [with_error(value, error, digits) for value, error in pairs]


def matched_table(report: Report) -> Table:
  """Returns win rates at equal KL as rows of text, a heading first."""
  rows = report.get("matched_kl") or []
  digits = places(row.get("stderr") for row in rows)
  table = [["KL (nats)", "HyPO", "DPO", "HyPO − DPO"]]
  for row in rows:
    rates = [
      "not reached" if row.get(m) is None else number(row[m], digits)
      for m in ("hypo", "dpo")
    ]
    gap = "–"
    if row.get("difference") is not None:
      gap = with_error(
        row["difference"], row.get("stderr"), digits, signed=True
      )
    table.append([f"{row['kl']:g}", *rates, gap])
  return table


def comparison_table(report: Report) -> Table:
  """Returns win-rate differences between checkpoints, paired by prompt."""
  rows = report.get("comparisons") or {}
  digits = places(row.get("stderr") for row in rows.values())
  table = [["compared", "difference", "KL (nats)", "other's KL", "its step"]]
  for names, row in rows.items():
    mine, _, other = names.partition(" - ")
    method, _, kind = other.partition(" ")
    kind = kind.replace("_", " ") or "final"
    table.append(
      [
        f"{policy_name(mine)} final − {policy_name(method)} {kind}",
        with_error(
          row.get("difference"), row.get("stderr"), digits, signed=True
        ),
        number(row.get("kl"), 2),
        number(row.get("other_kl"), 2),
        whole(row.get("other_step")),
      ]
    )
  return table


def plain(table: Table, *, width: int) -> str:
  """Returns aligned columns; the last ones are left out where they won't fit.

  Args:
    table: rows of text, a heading first.
    width: of the longest line, in characters.
  """
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  while len(widths) > 2 and sum(widths) + 2 * (len(widths) - 1) > width:
    widths.pop()
  words = [i == 0 or h == "checkpoint" for i, h in enumerate(table[0])]
  lines = []
  for row in table:
    cells = zip(row, widths, words, strict=False)
    aligned = [c.ljust(w) if left else c.rjust(w) for c, w, left in cells]
    lines.append("  ".join(aligned).rstrip()[:width])
  return "\n".join(lines)
