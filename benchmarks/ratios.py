# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of several programs side by side: ratios, targets, agreement.

A line is what `measure.main` prints, with the number of its repeat. Programs
are run in turn, so repeats are compared one with one: a ratio is the median
over repeats of peer / ours, with its range; slow minutes of the machine then
fall on both.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence

from benchmarks import cases, measure

Line = dict

# How many times our speed each peer's must be, at least, by case.
SPEED_TARGETS = {
  "dpo-tiny-64": {"trl": 2.6, "tunix": 2.2, "lean": 1.4},
  "dpo-tiny-256": {"trl": 3.5, "tunix": 2.5, "lean": 1.6},
  "dpo-small-128": {"trl": 3.5, "tunix": 2.5, "lean": 1.6},
  "hypo-tiny-256": {"trl": 4.0, "tunix": 3.3, "lean": 2.0},
  "hypo-small-128": {"trl": 3.3, "tunix": 2.4, "lean": 2.2},
  "gen-tiny-64": {"trl": 1.8, "tunix": 1.4},
  "gen-small-128": {"trl": 1.8, "tunix": 1.4},
}
# Our peak resident memory over TRL's, at most, wherever something is trained.
MEMORY_TARGET = 0.7
# Our HyPO step over our DPO step, at most.
HYPO_TARGETS = {
  ("hypo-tiny-256", "dpo-tiny-256"): 1.8,
  ("hypo-small-128", "dpo-small-128"): 1.9,
}
# Relative difference from ours up to which two programs did the same work, by
# what products are computed in.
_SAME = {"float32": 1e-3, "bfloat16": 3e-2}
# Nats of a sequence's KL up to which it is none: a KL of 0 has no scale.
_SAME_KL = {"float32": 1e-3, "bfloat16": 0.3}
# That of the rollouts' mean log-prob, which differs from draw to draw: 256
# tokens or more of deviation 1 nat around 8 give 0.8%. Greedy or truncated
# sampling is off by tens of percent.
_SAME_DRAWS = 0.05


@dataclasses.dataclass(frozen=True)
class Ratio:
  """A ratio over repeats that both programs have.

  Attributes:
    median: over repeats; nan where there is none.
    low: the smallest.
    high: the largest.
  """

  median: float
  low: float
  high: float

  def __str__(self) -> str:
    if math.isnan(self.median):
      return "-"
    return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def of(
  lines: Iterable[Line],
  above: tuple[str, str],
  below: tuple[str, str],
  field: str = "seconds",
) -> Ratio:
  """Returns field of `above` over field of `below`, repeat by repeat.

  Args:
    lines: of any programs and cases.
    above: program and case of the numerator.
    below: program and case of the denominator.
    field: a number in every line.
  """
  first, second = ({}, {})
  for line in lines:
    for found, wanted in ((first, above), (second, below)):
      if (line["program"], line["case"]) == wanted:
        found[line["repeat"]] = line[field]
  each = [first[r] / second[r] for r in first.keys() & second.keys()]
  if not each:
    return Ratio(math.nan, math.nan, math.nan)
  return Ratio(statistics.median(each), min(each), max(each))


def page(
  lines: Sequence[Line], names: Sequence[str], programs: Sequence[str]
) -> str:
  """Returns all tables in Markdown.

  Args:
    lines: what was measured.
    names: of cases, in their order.
    programs: ours and peers, in their order.
  """
  peers = [program for program in programs if program != cases.OURS]
  parts = [
    _speed(lines, names, peers),
    _memory(lines, names, programs),
    _own(lines, names),
    _agreement(lines, names, peers),
  ]
  return "\n\n".join(part for part in parts if part)


def disagreements(lines: Iterable[Line]) -> list[str]:
  """Returns a sentence for every check that differs from ours.

  Of the first step, from the same weights on the same pairs: log-probs and
  gradient norm must agree, and the loss be ln 2, whatever was drawn; the KL to
  the reference, which the policy then equals, be 0; and rollouts be about as
  likely as ours.
  """
  lines = list(lines)
  ours = {
    ln["case"]: ln["check"] for ln in lines if ln["program"] == cases.OURS
  }
  found = {}
  for line in lines:
    expected = {"loss": math.log(2), "kl": 0.0}
    expected |= {
      name: value
      for name, value in ours.get(line["case"], {}).items()
      if name not in expected
    }
    for name, value in line["check"].items():
      wanted = expected.get(name)
      if wanted is None:
        continue
      dtype = cases.get_case(line["case"]).size.compute_dtype
      relative = _SAME_DRAWS if name == "rollout_log_probs" else _SAME[dtype]
      absolute = _SAME_KL[dtype] if name == "kl" else 0.0
      if math.isclose(value, wanted, rel_tol=relative, abs_tol=absolute):
        continue
      found[line["program"], line["case"], name] = (
        f"{line['program']}, {line['case']}: {name} expected {wanted:.6g}, "
        f"got {value:.6g}"
      )
  return list(found.values())


def missing(
  lines: Iterable[Line],
  names: Iterable[str],
  programs: Sequence[str],
  repeats: int,
) -> list[tuple[str, int, str]]:
  """Returns (case, repeat, program) of what is not there, in running order.

  Repeat by repeat over all cases, programs in turn: a comparison that is
  stopped early has every case at least once.
  """
  there = {(ln["case"], ln["repeat"], ln["program"]) for ln in lines}
  return [
    (name, repeat, program)
    for repeat in range(repeats)
    for name in names
    for program in programs
    if (name, repeat, program) not in there
  ]


def _speed(lines, names, peers) -> str:
  rows = []
  for name in names:
    row = [name, _median(lines, cases.OURS, name, "seconds", "{:.3f}")]
    for peer in peers:
      ratio = of(lines, (peer, name), (cases.OURS, name))
      target = SPEED_TARGETS.get(name, {}).get(peer)
      row += [
        _median(lines, peer, name, "seconds", "{:.3f}"),
        f"{ratio}{_verdict(ratio, at_least=target)}",
      ]
    rows.append(row)
  heads = ["case", "ours, s"]
  for peer in peers:
    heads += [f"{peer}, s", f"{peer} / ours"]
  return _table("Seconds a step, and ratios", heads, rows)


def _memory(lines, names, programs) -> str:
  rows = []
  for name in names:
    row, field = [name], "peak_bytes"
    # Where there is a GPU, its memory is what counts.
    if any("device_peak_bytes" in ln for ln in lines if ln["case"] == name):
      field = "device_peak_bytes"
    for program in programs:
      cell = _median(lines, program, name, field, "{:.2f}", 2**30)
      if field == "peak_bytes":
        own = _median(lines, program, name, "anon_bytes", "{:.2f}", 2**30)
        cell += f" / {own}"
      row.append(cell)
    trained = cases.get_case(name).kind != "gen"
    ratio = of(lines, (cases.OURS, name), ("trl", name), field)
    target = MEMORY_TARGET if trained else None
    rows.append([*row, f"{ratio}{_verdict(ratio, at_most=target)}"])
  return _table(
    "GiB: peak resident since the start / peak of own memory in warm steps; "
    "on a GPU, the peak of its memory",
    ["case", *programs, "ours / trl"],
    rows,
  )


def _own(lines, names) -> str:
  rows = []
  for name in names:
    case, line = cases.get_case(name), _lines(lines, cases.OURS, name)
    if not line:
      continue
    rates = [cases.flops(case) / ln["seconds"] for ln in line]
    shares = [
      rate / ln["product_flops_per_second"]
      for rate, ln in zip(rates, line, strict=True)
    ]
    row = [
      name,
      f"{cases.flops(case) / 1e9:.0f}",
      f"{cases.decode_bytes(case) / 1e9:.1f}",
      f"{statistics.median(rates) / 1e9:.0f}",
      f"{statistics.median(shares):.0%}",
      _median(lines, cases.OURS, name, "first_seconds", "{:.1f}")
      + _median(lines, cases.OURS, name, "first_cpu_seconds", " ({:.0f})"),
      "",
    ]
    for (hypo, dpo), target in HYPO_TARGETS.items():
      if hypo == name:
        ratio = of(lines, (cases.OURS, hypo), (cases.OURS, dpo))
        row[-1] = f"{ratio}{_verdict(ratio, at_most=target)}"
    rows.append(row)
  heads = ["case", "GFLOP", "GB of weights to decode", "GFLOP/s"]
  heads += [
    "share of a large product's rate",
    "first call, s (CPU s)",
    "over DPO",
  ]
  return _table("Our own step", heads, rows)


def _agreement(lines, names, peers) -> str:
  rows = []
  for name in names:
    row = [name]
    for peer in [cases.OURS, *peers]:
      found = _lines(lines, peer, name)
      checks = found[0]["check"] if found else {}
      row.append(
        ", ".join(
          f"{checks[check]:.6g}" for check in measure.CHECKS if check in checks
        )
        or "-"
      )
    if set(row[1:]) != {"-"}:
      rows.append(row)
  text = _table(
    "The first step: " + ", ".join(c.replace("_", " ") for c in measure.CHECKS),
    ["case", cases.OURS, *peers],
    rows,
  )
  found = disagreements(ln for ln in lines if ln["case"] in names)
  if found:
    text += "\n\nNOT THE SAME WORK:\n" + "\n".join(found)
  return text


def _lines(lines, program: str, name: str) -> list[Line]:
  return [ln for ln in lines if ln["program"] == program and ln["case"] == name]


def _median(lines, program, name, field, form, unit=1.0) -> str:
  values = [ln[field] for ln in _lines(lines, program, name)]
  return form.format(statistics.median(values) / unit) if values else "-"


def _verdict(
  ratio: Ratio, *, at_least: float | None = None, at_most: float | None = None
) -> str:
  """Returns the target and whether it is met; nothing where there is none."""
  if at_least is None and at_most is None:
    return ""
  if at_least is not None:
    text, met = f"at least {at_least:g}", ratio.median >= at_least
  else:
    text, met = f"at most {at_most:g}", ratio.median <= at_most
  if math.isnan(ratio.median):
    return f" [{text}]"
  return f" [{text}: {'met' if met else 'missed'}]"


def _table(title: str, heads: Sequence[str], rows: list[list[str]]) -> str:
  if not rows:
    return ""
  lines = [heads, ["---"] * len(heads), *rows]
  return "\n".join(
    [f"{title}:", "", *("| " + " | ".join(line) + " |" for line in lines)]
  )
