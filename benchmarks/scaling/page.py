# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the sweep in Markdown, with the exponents that they show."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from benchmarks import fits
from benchmarks.scaling import axes
from benchmarks.scaling.axes import FORMS

# How far two forms of one update may differ, relative.
_TOLERANCES = {"loss": 1e-4, "kl_rao_blackwell": 1e-3, "grad_norm": 1e-3}
_MIB = 2**20
_PROGRAMS = ("rollout", "update")

Found = Mapping[axes.Key, dict]


class Quantity(NamedTuple):
  """Something measured at a point.

  Attributes:
    title: what it is.
    unit: of its figures.
    of: from a line; None where the line lacks it.
  """

  title: str
  unit: str
  of: Callable[[dict], float | None]


def _seconds(name: str):
  return lambda line: line[name]["seconds"] if axes.is_timed(line) else None


def _own(line: dict) -> float | None:
  if not axes.is_timed(line):
    return None
  return max(line[name]["anon_bytes"] for name in _PROGRAMS) / _MIB


def _temporaries(name: str):
  return lambda line: line["temporaries"][name] / _MIB


QUANTITIES = {
  "update": Quantity("update", "s", _seconds("update")),
  "rollout": Quantity("rollout", "s", _seconds("rollout")),
  "memory": Quantity("own memory", "MiB", _own),
  "update_temporaries": Quantity(
    "temporaries of the update", "MiB", _temporaries("update")
  ),
  "rollout_temporaries": Quantity(
    "temporaries of the rollout", "MiB", _temporaries("rollout")
  ),
}


class Curve(NamedTuple):
  """A quantity along an axis, of points that have it."""

  x: list[int]
  y: list[float]


def curve(found: Found, axis: str, form: str, quantity: str) -> Curve:
  """Returns one quantity of one form along an axis."""
  x, y = [], []
  for value, point in axes.points(axis).items():
    line = found.get((point, form))
    number = QUANTITIES[quantity].of(line) if line else None
    if number is not None:
      x.append(value)
      y.append(number)
  return Curve(x, y)


def sharing(found: Found, axis: str, quantity: str) -> Curve:
  """Returns separate / shared along an axis, of points that have both."""
  shared, separate = (curve(found, axis, form, quantity) for form in FORMS)
  both = [x for x in shared.x if x in separate.x]
  known = [dict(zip(c.x, c.y, strict=True)) for c in (separate, shared)]
  return Curve(both, [known[0][x] / known[1][x] for x in both])


def page(found: Found, names: Sequence[str]) -> str:
  """Returns a section an axis: a table, and the exponents below it."""
  return "\n\n".join(_section(found, name) for name in names)


def _section(found: Found, axis: str) -> str:
  forms = FORMS if axis in axes.BOTH_FORMS else FORMS[:1]
  heads = [axis, "form", "rollout, s", "update, s", "CPU s", "own MiB"]
  heads += [f"{name} temporaries, MiB" for name in _PROGRAMS]
  rows = [heads, ["---"] * len(heads)]
  for value, point in axes.points(axis).items():
    for form in forms:
      if (point, form) in found:
        rows.append([f"{value:,}", form, *_cells(found[point, form])])
  table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
  exponents = [
    text for form in forms if (text := _exponents(found, axis, form))
  ]
  if axis in axes.BOTH_FORMS:
    exponents += _ratios(found, axis)
  if axis == "vocabulary":
    exponents += _of_a_word(found)
  return "\n".join([f"## {axis}", "", table, "", *exponents])


def _cells(line: dict) -> list[str]:
  planned = [f"{line['temporaries'][k] / _MIB:.1f}" for k in _PROGRAMS]
  if not axes.is_timed(line):
    return ["-"] * 4 + planned
  timed = [
    f"{line[k]['seconds']:.3f} ({line[k]['min_seconds']:.3f} to "
    f"{line[k]['max_seconds']:.3f})"
    for k in _PROGRAMS
  ]
  cpu = sum(line[k]["cpu_seconds"] for k in _PROGRAMS)
  return [*timed, f"{cpu:.2f}", f"{_own(line):.0f}", *planned]


def _exponents(found: Found, axis: str, form: str) -> str:
  """One item: how each quantity of a form grows along the axis."""
  texts = []
  for name, quantity in QUANTITIES.items():
    x, y = curve(found, axis, form, name)
    if len(x) > 2 and min(y) > 0:
      texts.append(f"{quantity.title} {fits.power(x, y)}")
  return f"- {form}, exponents: {'; '.join(texts)}" if texts else ""


def _ratios(found: Found, axis: str) -> list[str]:
  """One item a quantity: separate sequences against shared rows."""
  items = []
  for name in ("update", "update_temporaries"):
    x, y = sharing(found, axis, name)
    if x:
      each = ", ".join(f"{b:.2f} at {a:,}" for a, b in zip(x, y, strict=True))
      items.append(f"- separate / shared, {QUANTITIES[name].title}: {each}")
  return items


def _of_a_word(found: Found) -> list[str]:
  """What a word of the vocabulary adds to the update's temporaries."""
  x, y = curve(found, "vocabulary", "shared", "update_temporaries")
  if len(x) < 3:
    return []
  line = fits.line(x, y)
  a_logit = 4 * axes.base("vocabulary").batch / _MIB  # of every row
  return [
    f"- a word adds {line.slope * 1024:.3f} ± {line.stderr * 1024:.3f} KiB to "
    f"the update's temporaries: {line.slope / a_logit:.1f} float32 logits a "
    f"row, from {line.start:.0f} MiB at none"
  ]


def disagreements(found: Found) -> list[str]:
  """Returns a text for each figure in which a point's two forms differ."""
  texts = []
  for (point, form), line in found.items():
    other = found.get((point, FORMS[0]), {})
    if form == FORMS[0] or "check" not in line or "check" not in other:
      continue
    for name, tolerance in _TOLERANCES.items():
      expected, actual = other["check"][name], line["check"][name]
      if not abs(actual - expected) <= tolerance * abs(expected):
        texts.append(
          f"{axes.named(point)}, {form}: {name} expected {expected:.6g}, as "
          f"with shared prompts, got {actual:.6g}"
        )
  return texts
