# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The result in words, for the terminal and the page.

The comparison at equal KL comes first, since a method that moves further from
the reference can win more without being better. Then each method's own
checkpoints, each with its KL beside it. A difference counts only beyond two of
its standard errors.
"""

import textwrap
from typing import Any

from hypo_jax.report.formatting import (
  duration,
  finite,
  kl_of,
  nats,
  number,
  percent,
  places,
  policy_name,
  whole,
  with_error,
)
from hypo_jax.report.speed import memory_line, speed_lines
from hypo_jax.report.tables import (
  COLUMNS,
  Report,
  checkpoints,
  has_judge,
  matched_table,
  methods,
  plain,
  policy_table,
)

_WIDTH = 100
# Before training every margin is 0, and ties count half.
_START_ACCURACY = 0.5


def matched_row(report: Report) -> dict[str, Any] | None:
  """Returns the comparison at the largest KL that HyPO and DPO both reach."""
  rows = _compared(report)
  return rows[-1] if rows else None


def _compared(report: Report) -> list[dict[str, Any]]:
  rows = [
    row
    for row in report.get("matched_kl") or []
    if all(finite(row.get(k)) is not None for k in ("kl", "difference"))
  ]
  return sorted(rows, key=lambda row: row["kl"])


def _leader(row: dict[str, Any]) -> str | None:
  """Who is ahead by more than two standard errors; None if nobody is."""
  error = finite(row.get("stderr"))
  if error is None or abs(row["difference"]) <= 2 * error:
    return None
  return "HyPO" if row["difference"] > 0 else "DPO"


def compares_at_equal_kl(report: Report) -> bool:
  """Whether there is a judge, and both HyPO and DPO to compare."""
  return has_judge(report) and {"hypo", "dpo"} <= set(report["policies"])


def verdict(report: Report) -> str:
  """Returns the result in a few words."""
  if not has_judge(report):
    return "Pair accuracy and KL, without a judge"
  row = matched_row(report)
  if row is not None:
    leader = _leader(row)
    what = f"{leader} is ahead" if leader else "No clear difference"
    return f"{what} at a KL of {nats(row['kl'])}"
  if compares_at_equal_kl(report):
    return "No comparison at equal KL"
  names = " and ".join(map(policy_name, methods(report)))
  return f"{names} against the reference"


def headline(report: Report) -> str:
  """Returns what came out, in sentences made from the numbers.

  Args:
    report: what report.json holds.
  """
  sentences = claim(report)
  order = sorted(methods(report), key=lambda n: n != "dpo")
  sentences += [describe_checkpoints(report, name) for name in order]
  return " ".join(sentences)


def claim(report: Report) -> list[str]:
  """Returns the sentences about equal KL, or why there are none."""
  if not has_judge(report):
    effects = [_pair_effect(report, name) for name in methods(report)]
    return [
      "There is no judge, so this report speaks of pair accuracy and KL only.",
      *filter(None, effects),
    ]
  if not compares_at_equal_kl(report):
    return []
  rows = _compared(report)
  if not rows:
    return [_why_not_compared(report)]
  *others, row = rows
  sentences = [_equal_kl(row)]
  if others:
    gaps = [f"{_gap(r, signed=True)} at {nats(r['kl'])}" for r in others]
    sentences.append(f"At lower KL, HyPO minus DPO: {', '.join(gaps)}.")
  return sentences


def _pair_effect(report: Report, name: str) -> str | None:
  """Says whether a final policy's pair accuracy differs from the start's."""
  entry = report["policies"][name]
  value = finite(entry.get("pair_accuracy"))
  error = finite(entry.get("pair_accuracy_stderr"))
  if value is None or not error:
    return None
  low, high = value - 1.96 * error, value + 1.96 * error
  digits = places([error])
  text = (
    f"{policy_name(name)}, final, orders {number(value, digits)} of held-out "
    f"pairs rightly (95% interval {number(low, digits)} to "
    f"{number(high, digits)})"
  )
  if low <= _START_ACCURACY <= high:
    return f"{text}: no effect, since the start's 0.5 lies inside."
  where = "above" if low > _START_ACCURACY else "below"
  return f"{text}, {where} the start's 0.5."


def _gap(row: dict[str, Any], *, signed: bool) -> str:
  error = row.get("stderr")
  value = row["difference"] if signed else abs(row["difference"])
  return with_error(value, error, places([error]), signed=signed)


def _equal_kl(row: dict[str, Any]) -> str:
  digits = places([row.get("stderr")])
  first, second = "hypo", "dpo"
  leader = _leader(row)
  if leader == "DPO":
    first, second = second, first
  text = (
    f"At equal KL ({nats(row['kl'])}) {policy_name(first)} wins "
    f"{number(row.get(first), digits)} of comparisons with the reference's "
    f"samples, {policy_name(second)} {number(row.get(second), digits)}: "
  )
  if finite(row.get("stderr")) is None:
    return (
      text + f"a difference of {_gap(row, signed=False)}, of unknown error."
    )
  if leader is None:
    gap = _gap(row, signed=True)
    return text + f"no clear difference ({gap}, standard error)."
  ahead = "DPO is ahead by" if leader == "DPO" else "a difference of"
  return text + f"{ahead} {_gap(row, signed=False)} (standard error)."


def _why_not_compared(report: Report) -> str:
  rows = report.get("matched_kl") or []
  levels = [r["kl"] for r in rows if finite(r.get("kl")) is not None]
  if not levels:
    return "HyPO and DPO were not compared at equal KL."
  reached = {
    m: any(finite(r.get(m)) is not None for r in rows) for m in ("hypo", "dpo")
  }
  lowest = nats(min(levels))
  if not any(reached.values()):
    what = f"Neither HyPO nor DPO reached a KL of {lowest}"
  elif all(reached.values()):
    what = "HyPO and DPO have no KL in common"
  else:
    yes, no = ("HyPO", "DPO") if reached["hypo"] else ("DPO", "HyPO")
    what = f"{no} never reached a KL of {lowest}, {yes} did"
  return f"{what}: nothing can be compared at equal KL."


def describe_checkpoints(report: Report, name: str) -> str:
  """Returns one sentence on a method's checkpoints, each with its KL."""
  key, verb, rest = "win_rate", "wins", " of comparisons"
  if not has_judge(report):
    key, verb, rest = "pair_accuracy", "orders", " of held-out pairs rightly"
  found = checkpoints(report, name)
  digits = places(e.get(f"{key}_stderr") for _, e in found)
  kl_digits = min(places(kl_of(e)[1] for _, e in found), 2)
  parts = []
  for i, (label, entry) in enumerate(found):
    label = label.replace("best pair loss", "best-pair-loss")
    label = ", ".join(label.split(", ")[::-1])
    label = " and ".join(label.rsplit(", ", 1))  # The last comma alone.
    kl = number(kl_of(entry)[0], kl_digits)
    where = f"(step {whole(entry.get('step'))}, KL {kl} nats)"
    score = with_error(entry.get(key), entry.get(f"{key}_stderr"), digits)
    if i == 0:
      who = f"{policy_name(name)}'s {label} checkpoint {where}"
      parts.append(f"{who} {verb} {score}{rest}")
    else:
      parts.append(f"its {label} one {where} {score}")
  return "; ".join(parts) + "."


def describe_coverage(report: Report) -> list[str]:
  """Returns the coverage monitor's line on each method that has one."""
  return [
    f"{policy_name(name)}: {line}."
    for name in methods(report)
    if (line := report["policies"][name].get("coverage_verdict"))
  ]


def describe_optimum(report: Report) -> list[str]:
  """Returns what the methods that learn from rewards make of what there is."""
  sentences = []
  for row in (report.get("optimum") or {}).get("values") or []:
    digits = places([row.get("value_stderr"), row.get("reference_stderr")])
    value = with_error(row.get("value"), row.get("value_stderr"), digits)
    start = with_error(
      row.get("reference"), row.get("reference_stderr"), digits
    )
    text = (
      f"Of E[reward] − {row['beta']:g} KL no policy has more than {value}, the "
      f"reference {start}"
    )
    shares = [
      f"{policy_name(name)} {percent(share)}"
      for name, share in (row.get("recovered") or {}).items()
      if finite(share) is not None
    ]
    if not row.get("reliable"):
      text += " (too few samples carry the first)"
    if shares:
      text += f"; of the gain, final policies have: {', '.join(shares)}"
    sentences.append(f"{text}.")
  return sentences


def terminal_summary(report: Report) -> str:
  """Returns headline and tables as plain text of at most 100 columns.

  Args:
    report: what report.json holds.
  """
  parts = [
    textwrap.fill(headline(report), _WIDTH, break_on_hyphens=False),
    plain(policy_table(report, COLUMNS), width=_WIDTH),
  ]
  if compares_at_equal_kl(report) and report.get("matched_kl"):
    parts.append(
      "Win rate at equal KL\n" + plain(matched_table(report), width=_WIDTH)
    )
  verdicts = [
    textwrap.fill(line, _WIDTH, break_on_hyphens=False)
    for line in describe_optimum(report) + describe_coverage(report)
  ]
  if verdicts:
    parts.append("\n".join(verdicts))
  if lines := speed_lines(report, width=_WIDTH):
    parts.append("\n".join([*lines, memory_line(report)]).rstrip())
  times = [finite(s) for s in (report.get("wall_seconds") or {}).values()]
  note = "± is one standard error over prompts; KL(policy ‖ reference)."
  if times:
    note += f" Time: {duration(sum(t for t in times if t is not None))}."
  return "\n\n".join([*parts, note])
