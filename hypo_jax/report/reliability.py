# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How sure a learned reward is of held-out pairs, and how often it is right."""

from typing import Any, NamedTuple

from hypo_jax.report.canvas import Plot, legend, marker, render, style_axes
from hypo_jax.report.formatting import finite, number, places, with_error
from hypo_jax.report.style import MARKERS, light
from hypo_jax.report.tables import Report

# Which pairs, and the palette's name of their series.
_SPLITS = {"validation": "other1", "test": "hypo"}


class Reliability(NamedTuple):
  """One split's bins that hold pairs, and what they come to."""

  certainty: list[float]
  accuracy: list[float]
  stderr: list[float]
  summary: dict[str, Any]


def reliabilities(report: Report) -> dict[str, Reliability]:
  """Returns by split what the report holds of the reward model's pairs."""
  found = {}
  for split in _SPLITS:
    summary = (report.get("reward_model") or {}).get(split) or {}
    keys = ("certainty", "accuracy", "stderr")
    rows = [
      tuple(finite(row.get(key)) for key in keys)
      for row in summary.get("bins") or []
    ]
    rows = [row for row in rows if None not in row]
    if rows:
      columns = map(list, zip(*rows, strict=True))
      found[split] = Reliability(*columns, summary)
  return found


def plot(found: dict[str, Reliability]) -> Plot:
  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(axes, "probability that the model gives", "share it gets right")
    line = {"color": light("muted"), "lw": 1.0, "ls": (0, (2, 3))}
    axes.plot([0.5, 1.0], [0.5, 1.0], **line)
    for split, each in found.items():
      axes.errorbar(
        each.certainty,
        each.accuracy,
        yerr=each.stderr,
        color=light(_SPLITS[split]),
        marker=MARKERS[_SPLITS[split]],
        markersize=5,
        linewidth=1.6,
        elinewidth=1.0,
      )
    axes.set_xlim(0.5, 1.0)
    handles = [marker(_SPLITS[split], f"{split} pairs") for split in found]
    handles.append(marker("muted", "calibrated", marker="", lw=1.0, ls=":"))
    legend(figure, handles, len(handles))

  parts = []
  for split, each in found.items():
    error = each.summary.get("accuracy_stderr")
    digits = places([error])
    right = with_error(each.summary.get("accuracy"), error, digits)
    off = number(each.summary.get("calibration_error"), digits)
    parts.append(f"{right} of {split} pairs right, calibration error {off}")
  reading = (
    "Pairs by how probable the learned reward calls its choice; on the dotted "
    "line it is right as often as it says. Above it is too modest, below too "
    "sure. Bars are one standard error; the calibration error is the mean "
    "distance, weighted by pairs."
  )
  title = "How far the learned reward can be trusted"
  alt = f"{title}: {'; '.join(parts)}."
  return render("reliability", title, alt, reading, draw, heights=(3.6, 3.4))
