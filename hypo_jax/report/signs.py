# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Signs of lost coverage over training: what `diagnostics` measures, drawn."""

from typing import Any, NamedTuple

from hypo_jax.report.canvas import Plot, legend, marker, render, style_axes
from hypo_jax.report.formatting import (
  finite,
  number,
  percent,
  policy_name,
  whole,
)
from hypo_jax.report.style import MARKERS, light, series
from hypo_jax.report.tables import Report, methods

# Title, keys of the lines (the second is dashed), whether it is a share.
_PANELS = (
  ("tokens outside the pairs", ("outside_support",), True),
  ("tokens unlikely for the reference", ("ref_unlikely_tokens",), True),
  ("rollouts unlikely for the reference", ("ref_unlikely_rollouts",), True),
  ("reference’s log-prob a token", ("ref_log_prob_per_token",), False),
  ("effective samples of all", ("effective_sample_share",), True),
  (
    "change of chosen (dashed: rejected)",
    ("chosen_log_ratio", "rejected_log_ratio"),
    False,
  ),
)
_KEYS = tuple(key for _, keys, _ in _PANELS for key in keys)
_READING = (
  "On held-out prompts. Outside: no offline pair goes on so, judged by the "
  "longest known context of up to two tokens. Unlikely: below what 99% of the "
  "reference’s own tokens, or 95% of its rollouts, reach. Effective samples: "
  "how many rollouts still speak for the reference, weighted by exp(−log-"
  "ratio). Change: mean log-ratio of held-out pairs’ completions, nats. A "
  "vertical line is where the monitor begins to say that coverage is being "
  "lost."
)


class Line(NamedTuple):
  """One quantity of one method over its evaluations."""

  steps: list[float]
  values: list[float]


def signs(report: Report) -> dict[str, dict[str, Line]]:
  """By method, the quantities that its history holds at least twice."""
  found = {}
  for name in methods(report):
    history = report["policies"][name].get("history") or []
    lines = {}
    for key in _KEYS:
      points = [(finite(e.get("step")), finite(e.get(key))) for e in history]
      points = [p for p in points if None not in p]
      if len(points) > 1:
        lines[key] = Line(*map(list, zip(*points, strict=True)))
    if lines:
      found[name] = lines
  return found


def plot(report: Report, found: dict[str, dict[str, Line]]) -> Plot:
  """Draws a panel for each sign that some method has."""
  styles = series(methods(report))
  shown = [
    panel
    for panel in _PANELS
    if any(key in lines for lines in found.values() for key in panel[1])
  ]
  lost = {n: _lost_since(report, n) for n in found}

  def draw(figure: Any, narrow: bool) -> None:
    columns = 1 if narrow else 2
    rows = -(-len(shown) // columns)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
      axes.remove()
    for axes, (title, keys, share) in zip(panels, shown, strict=False):
      style_axes(axes, "", "")
      axes.set_title(title, loc="left", fontsize=10, color=light("ink"))
      for name, lines in found.items():
        _draw(axes, lines, keys, styles[name], lost[name])
      if share:
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.3g}%")
        axes.set_ylim(bottom=0)
      axes.set_xlim(left=0)
    figure.supxlabel("training step", fontsize=10, color=light("muted"))
    handles = [marker(styles[n], policy_name(n)) for n in found]
    legend(figure, handles, 3 if narrow else len(handles))

  title = "Signs of lost coverage over training"
  alt = f"{title}. {' '.join(_said(n, found[n], lost[n]) for n in found)}"
  rows = -(-len(shown) // 2)
  heights = (0.9 + 1.75 * rows, 0.9 + 1.6 * len(shown))
  return render("signs", title, alt, _READING, draw, heights=heights)


def _draw(
  axes: Any,
  lines: dict[str, Line],
  keys: tuple[str, ...],
  style: str,
  lost: float | None,
) -> None:
  for key, dashes in zip(keys, ("-", "--"), strict=False):
    if key in lines:
      axes.plot(
        lines[key].steps,
        lines[key].values,
        color=light(style),
        marker=MARKERS[style],
        markersize=3.0,
        linewidth=1.4,
        linestyle=dashes,
      )
  if lost is not None:
    axes.axvline(lost, color=light(style), linewidth=1.0, linestyle=(0, (2, 3)))


def _lost_since(report: Report, name: str) -> float | None:
  return finite(report["policies"][name].get("coverage_lost_since"))


def _said(name: str, lines: dict[str, Line], lost: float | None) -> str:
  """The last values of a method, for who can't see the plot."""
  parts = [
    f"{title} {percent(value) if share else number(value, 2)}"
    for title, keys, share in _PANELS
    if keys[0] in lines
    for value in [lines[keys[0]].values[-1]]
  ]
  text = f"{policy_name(name)} ends with {', '.join(parts)}"
  if lost is not None:
    text += f"; coverage is being lost since step {whole(lost)}"
  return f"{text}."
