# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How sure a learned reward is of held-out pairs, and how often it is right."""

from typing import Any, NamedTuple

from hypo_jax.report.canvas import Plot, legend, marker, render, style_axes
from hypo_jax.report.formatting import finite, number, places, with_error
from hypo_jax.report.style import light
from hypo_jax.report.tables import Report


class Bin(NamedTuple):
  """Pairs that the model is about equally sure of."""

  certainty: float
  accuracy: float
  low: float
  high: float
  count: float


def bins(report: Report) -> list[Bin]:
  """Returns the bins that hold pairs, of all held-out pairs."""
  held_out = (report.get("reward_model") or {}).get("held_out") or {}
  found = []
  for row in held_out.get("bins") or []:
    values = [row.get(k) for k in ("certainty", "accuracy")]
    values += [*(row.get("interval") or (None, None)), row.get("count")]
    numbers = [finite(v) for v in values]
    if None not in numbers:
      found.append(Bin(*numbers))
  return found


def plot(report: Report, found: list[Bin]) -> Plot:
  """Draws accuracy against certainty over a histogram of the pairs."""
  held_out = report["reward_model"]["held_out"]
  style = "other1"
  certainty, accuracy, low, high, count = zip(*found, strict=True)

  def draw(figure: Any, narrow: bool) -> None:
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    style_axes(upper, "", "share called rightly")
    style_axes(lower, "certainty: predicted probability of the call", "pairs")
    upper.plot((0.5, 1), (0.5, 1), color=light("muted"), lw=1.0, ls=(0, (2, 3)))
    below = [a - b for a, b in zip(accuracy, low, strict=True)]
    above = [b - a for a, b in zip(accuracy, high, strict=True)]
    upper.errorbar(
      certainty,
      accuracy,
      yerr=(below, above),
      color=light(style),
      marker="o",
      markersize=5.0,
      linewidth=1.4,
      elinewidth=1.2,
      capsize=3.0,
    )
    lower.bar(certainty, count, width=0.03, color=light(style), alpha=0.5)
    lower.set_xlim(0.49, 1.01)
    upper.set_ylim(min(0.45, *low) - 0.02, 1.02)
    handles = [
      marker(style, "held-out pairs, 95% interval", marker="o"),
      marker("muted", "calibrated", marker="", ls=(0, (2, 3)), lw=1.0),
    ]
    legend(figure, handles, 1 if narrow else 2)

  digits = places([held_out.get("accuracy_stderr")])
  right = with_error(
    held_out.get("accuracy"), held_out.get("accuracy_stderr"), digits
  )
  chance = number(held_out.get("calibration_error_by_chance"), 3)
  facts = (
    f"The reward model calls {right} of {held_out.get('count')} held-out pairs "
    f"rightly; its expected calibration error is "
    f"{number(held_out.get('calibration_error'), 3)}, where a calibrated model "
    f"would show {chance} with as many pairs."
  )
  reading = (
    f"{facts} A point is the pairs of a bin; below the dotted line the model "
    "is surer than it is right. The bars count the pairs of each bin."
  )
  title = "The reward model’s calibration"
  parts = [
    f"certainty {number(c, 2)}: right {number(a, 2)}" for c, a, *_ in found
  ]
  alt = f"{title}. {facts} {'; '.join(parts)}."
  return render("reliability", title, alt, reading, draw, heights=(4.6, 4.4))
