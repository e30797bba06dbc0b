# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Where completions lie: on the scale of rewards, and in the offline pairs."""

from typing import Any, NamedTuple

from hypo_jax.report.canvas import Plot, legend, patch, render, style_axes
from hypo_jax.report.formatting import finite, number, percent, policy_name
from hypo_jax.report.style import light, series
from hypo_jax.report.tables import Report, checkpoints, methods

_MASSES = (
  ("seen", "seen", "in the offline pairs"),
  ("unseen_valid", "unseen", "unseen, valid"),
  ("invalid", "paper", "invalid"),
)


class Histogram(NamedTuple):
  edges: list[float]
  shares: list[float]
  mean: float | None


def histograms(report: Report) -> dict[str, Histogram]:
  """By policy, final checkpoint, shares of completions by reward."""
  found = {}
  for name in ("reference", *methods(report)):
    policy = report["policies"].get(name, {})
    histogram = policy.get("reward_histogram") or {}
    edges = list(map(finite, histogram.get("edges") or []))
    counts = list(map(finite, histogram.get("counts") or []))
    known = None not in edges and None not in counts
    if known and len(edges) == len(counts) + 1 and sum(counts) > 0:
      shares = [count / sum(counts) for count in counts]
      found[name] = Histogram(edges, shares, finite(policy.get("reward_mean")))
  return found


def rewards(report: Report, found: dict[str, Histogram]) -> Plot:
  styles = series(["reference", *methods(report)])
  rows = len(found)

  def draw(figure: Any, narrow: bool) -> None:
    panels = figure.subplots(rows, sharex=True, squeeze=False)
    for axes, (name, histogram) in zip(
      panels[:, 0], found.items(), strict=True
    ):
      colour = light(styles[name])
      style_axes(axes, "", "")
      axes.stairs(
        histogram.shares, histogram.edges, fill=True, color=colour, alpha=0.35
      )
      axes.stairs(histogram.shares, histogram.edges, color=colour, lw=1.3)
      title = policy_name(name)
      if histogram.mean is not None:
        axes.axvline(histogram.mean, color=light("ink"), lw=1.2, ls="--")
        title += f", mean {number(histogram.mean, 2)}"
      axes.set_title(title, loc="left", fontsize=10, color=light("ink"))
      axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
      axes.yaxis.set_major_locator(_few_ticks())
    panels[-1, 0].set_xlabel("reward", color=light("muted"))
    figure.supylabel("share of completions", fontsize=10, color=light("muted"))

  reading = (
    "Rewards of each final policy's completions of unseen test prompts; the "
    "dashed line is the mean. A heap at the left end is text that the judge "
    "holds worthless, which a mean alone hides. Each panel has its own scale."
  )
  title = "Rewards of the completions"
  means = [
    f"{policy_name(n)} mean {number(h.mean, 2)}" for n, h in found.items()
  ]
  alt = f"{title}, a histogram for each policy. {'; '.join(means)}."
  heights = (0.8 + 1.1 * rows, 0.8 + 1.1 * rows)
  return render("rewards", title, alt, reading, draw, heights=heights)


def _few_ticks() -> Any:
  from matplotlib.ticker import MaxNLocator

  return MaxNLocator(nbins=2, prune=None)


def masses(report: Report) -> dict[str, list[float]]:
  """By policy and checkpoint, the shares of `_MASSES`."""
  found = {}
  for name in ("reference", *methods(report)):
    if name not in report["policies"]:
      continue
    for label, entry in checkpoints(report, name):
      where = entry.get("coverage") or {}
      shares = [finite(where.get(key)) for key, _, _ in _MASSES]
      if None not in shares:
        found[f"{policy_name(name)} {label}".strip()] = shares
  return found


def coverage(found: dict[str, list[float]]) -> Plot:
  names = list(found)

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(axes, "share of completions", "")
    axes.grid(visible=False)
    labels = [n.replace(" ", "\n", 1) if narrow else n for n in names]
    left = [0.0] * len(names)
    for i, (_, colour, _) in enumerate(_MASSES):
      widths = [found[name][i] for name in names]
      look = _mass_look(colour)
      axes.barh(range(len(names)), widths, left=left, height=0.62, **look)
      for row, width in enumerate(widths):
        if width >= (0.12 if narrow else 0.06):
          _mass_label(axes, left[row] + width / 2, row, width, colour)
      left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(names)), labels, color=light("ink"))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}%")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles = [patch(label, **_mass_look(c)) for _, c, label in _MASSES]
    legend(figure, handles, 2 if narrow else 3)

  reading = (
    "Each bar splits what a policy says on test prompts: made of what the "
    "offline pairs hold, valid but unlike them, or invalid. The pairs say "
    "nothing about the last two."
  )
  title = "Where the completions lie"
  parts = [
    f"{name}: "
    + ", ".join(
      f"{percent(share)} {label}"
      for share, (_, _, label) in zip(shares, _MASSES, strict=True)
    )
    for name, shares in found.items()
  ]
  alt = f"{title}. {'; '.join(parts)}."
  heights = (1.1 + 0.42 * len(names), 1.3 + 0.55 * len(names))
  return render("coverage", title, alt, reading, draw, heights=heights)


def _mass_look(colour: str) -> dict[str, Any]:
  """Told apart without colour too: dark, pale, hatched."""
  if colour == "paper":
    look = {"facecolor": light("paper"), "hatch": "////"}
    return look | {"edgecolor": light("muted"), "linewidth": 0.8}
  return {"facecolor": light(colour), "linewidth": 0}


def _mass_label(
  axes: Any, x: float, row: int, share: float, colour: str
) -> None:
  box = {"facecolor": light("paper"), "edgecolor": "none", "pad": 1.5}
  axes.text(
    x,
    row,
    f"{100 * share:.0f}%",
    ha="center",
    va="center",
    fontsize=9,
    color=light("paper" if colour == "seen" else "ink"),
    bbox=box if colour == "paper" else None,
  )
