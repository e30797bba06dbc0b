# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Curves over training: win rate against KL, and KL against steps.

Axes of KL are drawn on the scale of its square root: near the reference, where
the methods are compared, a method moves by tenths of a nat, and one that runs
away ends tens of nats off.
"""

import math
from typing import Any, NamedTuple

from hypo_jax.report.canvas import Plot, legend, marker, render, style_axes
from hypo_jax.report.formatting import finite, kl_of, number, policy_name
from hypo_jax.report.style import MARKERS, light, series
from hypo_jax.report.tables import Report, methods

_KL_READING = (
  "KL(policy ‖ reference) is how far a policy has moved from the reference: "
  "the mean log-ratio of its own samples, in nats a sequence."
)


class Curve(NamedTuple):
  """A method's history: x, y, and y with one standard error less and more."""

  steps: list[Any]
  x: list[float]
  y: list[float]
  low: list[float]
  high: list[float]


def curves(report: Report, x: str, y: str) -> dict[str, Curve]:
  """By method, two quantities of its history, where both are known twice."""
  found = {}
  for name in methods(report):
    points = [
      (entry.get("step"), _interval(entry, x)[0], *_interval(entry, y))
      for entry in report["policies"][name].get("history") or []
    ]
    points = [p for p in points if p[1] is not None and p[2] is not None]
    if len(points) > 1:
      found[name] = Curve(*map(list, zip(*points, strict=True)))
  return found


def _interval(entry: dict[str, Any], key: str) -> tuple[float | None, ...]:
  """A quantity, less and more one error; of the KL the root its axis shows."""
  if key == "kl":
    value, error = kl_of(entry)
  else:
    value, error = finite(entry.get(key)), finite(entry.get(f"{key}_stderr"))
  if value is None:
    return None, None, None
  ends = (value, value - (error or 0.0), value + (error or 0.0))
  return tuple(map(_root, ends)) if key == "kl" else ends


def _root(kl: float) -> float:
  # A sampled estimate near the reference may be below zero.
  return math.sqrt(max(kl, 0.0))


def optimum(report: Report) -> Curve | None:
  """Returns the optimum's win rate over KL, where the report has it twice."""
  points = [
    (None, _interval(entry, "kl")[0], *_interval(entry, "win_rate"))
    for entry in (report.get("optimum") or {}).get("frontier") or []
  ]
  points = [p for p in points if p[1] is not None and p[2] is not None]
  if len(points) < 2:
    return None
  return Curve(*map(list, zip(*points, strict=True)))


def _draw_optimum(axes: Any, curve: Curve) -> None:
  axes.plot(curve.x, curve.y, color=light("ink"), lw=1.3, ls="--", zorder=3)
  axes.add_patch(_band(curve, light("ink")))


def _draw_curve(axes: Any, curve: Curve, style: str) -> None:
  """A line, its points, and a band of one standard error on both sides."""
  axes.plot(
    curve.x,
    curve.y,
    color=light(style),
    marker=MARKERS[style],
    markersize=3.5,
    linewidth=1.6,
    clip_on=False,
  )
  axes.add_patch(_band(curve, light(style)))
  axes.autoscale_view()


def _band(curve: Curve, colour: str) -> Any:
  """One patch, so that a curve that turns back isn't darker where it does."""
  from matplotlib.patches import PathPatch
  from matplotlib.path import Path

  points = list(zip(curve.x, curve.low, curve.high, strict=True))
  corners = []
  for pair in zip(points, points[1:], strict=False):
    # All quadrangles the same way round: overlaps then fill once.
    (x0, low0, high0), (x1, low1, high1) = sorted(pair)
    corners += [(x0, low0), (x1, low1), (x1, high1), (x0, high0), (x0, low0)]
  codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
  path = Path(corners, codes * (len(points) - 1))
  return PathPatch(path, facecolor=colour, alpha=0.16, linewidth=0)


def _kl_axis(
  axis: Any, levels: list[float], *, root: float, gap: float
) -> None:
  """Ticks of square roots: the levels first, then round numbers between.

  Args:
    axis: of the axes.
    levels: KL, nats.
    root: the largest square root of a KL on the axis.
    gap: the least distance of two ticks, as a share of `root`.
  """
  if root <= 0:
    return
  top = math.floor(2 * math.log10(root))
  rounds = [m * 10.0**e for e in (top, top - 1, top - 2) for m in (7, 5, 2, 1)]
  ticks = [0.0]
  for level in [*sorted(levels), *rounds]:
    tick = math.sqrt(level)
    if tick <= root and all(abs(tick - t) > gap * root for t in ticks):
      ticks.append(tick)
  axis.set_ticks(sorted(ticks), [f"{t * t:.3g}" for t in sorted(ticks)])


def _levels(report: Report) -> list[float]:
  rows = report.get("matched_kl") or []
  return [r["kl"] for r in rows if (finite(r.get("kl")) or 0.0) > 0]


def frontier(report: Report, found: dict[str, Curve], key: str) -> Plot:
  what = "Win rate" if key == "win_rate" else "Pair accuracy"
  styles = series(methods(report))
  levels = _levels(report) if key == "win_rate" else []
  best = optimum(report) if key == "win_rate" else None
  drawn = [*found.values()] + ([best] if best else [])
  most = max(max(curve.x) for curve in drawn)
  better = "At equal KL (dotted lines) the higher curve is the better method"
  if not levels:
    better = f"At equal KL the higher curve has the better {what.lower()}"

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(axes, "KL(policy ‖ reference), nats", what)
    for level in levels:
      if math.sqrt(level) <= most:
        line = {"linewidth": 1.0, "linestyle": (0, (2, 3))}
        axes.axvline(math.sqrt(level), color=light("muted"), **line)
    if best:
      _draw_optimum(axes, best)
    for name, curve in found.items():
      _draw_curve(axes, curve, styles[name])
      _draw_ends(axes, curve, styles[name], report["policies"][name])
    _kl_axis(axes.xaxis, levels, root=most, gap=0.11 if narrow else 0.06)
    axes.set_xlim(left=0)
    handles = [marker(styles[n], policy_name(n)) for n in found]
    handles += [
      marker("muted", "start", marker="o", lw=0, markerfacecolor="none"),
      marker("muted", "best", marker="*", lw=0, markersize=11),
      marker("muted", "end", marker="o", lw=0, markersize=8),
    ]
    if best:
      handles.append(marker("ink", "optimum", marker="", lw=1.3, ls="--"))
    legend(figure, handles, 3 if narrow else len(handles))

  reading = f"{_KL_READING} {better}; bands are one standard error."
  if best:
    reading += (
      " The dashed line is the optimum: the policy with the most reward that "
      "there is at each KL, reckoned from the reference's own samples with the "
      "exact judge, as far as they carry it."
    )
  title = f"{what} against distance from the reference"
  ends = [
    f"{policy_name(n)} ends at {number(c.y[-1], 2)} and KL "
    f"{number(c.x[-1] ** 2, 2)}"
    for n, c in found.items()
  ]
  if best:
    ends.append(
      f"the optimum reaches {number(best.y[-1], 2)} at KL "
      f"{number(best.x[-1] ** 2, 2)}"
    )
  alt = f"{title}, over training. {'; '.join(ends)}."
  name = "frontier"
  return render(name, title, alt, reading, draw, heights=(4.4, 3.9))


def _draw_ends(
  axes: Any, curve: Curve, style: str, policy: dict[str, Any]
) -> None:
  """Marks start, end and the best checkpoint, on the validation curve."""
  common = {"color": light(style), "clip_on": False, "zorder": 4, "lw": 0}
  edge = {"markeredgecolor": light("paper"), "markeredgewidth": 1.0}
  start = {"markerfacecolor": light("paper"), "markersize": 7, "marker": "o"}
  axes.plot(curve.x[:1], curve.y[:1], **common, **start)
  axes.plot(
    curve.x[-1:],
    curve.y[-1:],
    marker=MARKERS[style],
    markersize=8.5,
    **common,
    **edge,
  )
  step = (policy.get("best") or {}).get("step")
  if step is not None and step in curve.steps:
    i = curve.steps.index(step)
    star = {"marker": "*", "markersize": 15}
    axes.plot(curve.x[i], curve.y[i], **(common | edge | star | {"zorder": 5}))


def kl_over_steps(report: Report, found: dict[str, Curve]) -> Plot:
  styles = series(methods(report))
  most = max(max(curve.high) for curve in found.values())

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(axes, "training step", "KL(policy ‖ reference), nats")
    for name, curve in found.items():
      _draw_curve(axes, curve, styles[name])
    _kl_axis(axes.yaxis, _levels(report), root=most, gap=0.065)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    handles = [marker(styles[n], policy_name(n)) for n in found]
    legend(figure, handles, 3 if narrow else len(handles))

  reading = (
    "A policy starts at 0 as a copy of the reference; a line that keeps rising "
    "is leaving what the offline pairs say anything about. The axis is "
    "stretched near 0, on the scale of the square root."
  )
  ends = [
    f"{policy_name(n)} ends at {number(c.y[-1] ** 2, 2)} nats"
    for n, c in found.items()
  ]
  title = "Distance from the reference over training"
  alt = f"{title}. {'; '.join(ends)}."
  return render("kl", title, alt, reading, draw, heights=(3.6, 3.4))
