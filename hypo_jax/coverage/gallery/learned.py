# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Plots of what gradient descent reaches: tabular and log-linear policies."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import logit, softmax

from hypo_jax.coverage import descent, extrapolation, optimum, population
from hypo_jax.coverage.gallery.drawing import line
from hypo_jax.report.canvas import Plot, legend, render, style_axes
from hypo_jax.report.elements import Table
from hypo_jax.report.formatting import number
from hypo_jax.report.style import MARKERS, light

_STARTS = {
  "reference (0.1, 0.8, 0.1)": ((0.1, 0.8, 0.1), "dpo"),
  "reference (0.45, 0.45, 0.1)": ((0.45, 0.45, 0.1), "hypo"),
}


def example() -> Plot:
  """Unseen mass along gradient descent from two references."""
  paths, limits = {}, {}
  seen = np.array([True, True, False])
  rewards = np.array([logit(0.8), 0.0, 0.0])
  pairs = population.all_pairs(np.where(seen, 0.5, 0.0), rewards)
  for name, (reference, _) in _STARTS.items():
    paths[name] = _tabular_path(np.array(reference), pairs)[:, 2]
    limit = descent.tabular_limit(np.array(reference), seen, rewards, beta=1.0)
    limits[name] = limit[2]

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(axes, "step of gradient descent on DPO", "mass on the unseen")
    for name, (_, style) in _STARTS.items():
      axes.plot(paths[name], color=light(style), lw=1.8)
      axes.axhline(limits[name], color=light(style), lw=1, ls="--")
    axes.axhline(0.1, color=light("muted"), lw=1, ls=":")
    axes.set_ylim(0.07, 0.15)
    handles = [line(style, name) for name, (_, style) in _STARTS.items()]
    handles.append(line("muted", "limit, solved", ls="--"))
    legend(figure, handles, 1 if narrow else 3)

  title = "Bad minimisers exist, but need not be reached"
  ends = " and ".join(number(x, 3) for x in limits.values())
  alt = f"{title}. Unseen mass goes from 0.100 to {ends}."
  reading = (
    "A softmax-tabular policy of three completions, gradient descent from the "
    "reference, the first preferred to the second at 0.8, beta 1. The logit of "
    "the unseen third and the sum of the seen logits never move, so of the "
    "family of minimisers one is reached, and it can be told beforehand. Its "
    f"unseen mass, 0.1 at the start, ends at {ends}."
  )
  return render("descent", title, alt, reading, draw, heights=(3.8, 3.8))


def _tabular_path(reference: np.ndarray, pairs: population.Pairs) -> np.ndarray:
  with jax.enable_x64():
    ref = jnp.log(jnp.asarray(reference))

    def loss(logits):
      log_probs = jax.nn.log_softmax(logits)
      return population.dpo_loss(log_probs, ref, pairs, beta=1.0)

    run = partial(
      descent.descend, loss, learning_rate=1.0, num_steps=60, every=1
    )
    return softmax(np.asarray(jax.jit(run)(ref)), axis=-1)


def draws() -> Plot:
  """How often unseen mass grows over random tabular problems."""
  correlations = np.linspace(-1, 1, 21)
  sizes = {2: "other3", 4: "other1", 16: "hypo"}
  count = 4000
  grown = {n: _grown_shares(n, correlations, count) for n in sizes}

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(
      axes,
      "correlation of reward and log reference, seen completions",
      "share with more unseen mass",
    )
    for size, style in sizes.items():
      axes.plot(correlations, grown[size], color=light(style), lw=1.8)
    axes.set_ylim(-0.02, 1.02)
    handles = [line(s, f"{n} seen") for n, s in sizes.items()]
    legend(figure, handles, 3)

  middle = {n: x[len(x) // 2] for n, x in grown.items()}
  title = "How often gradient descent on DPO feeds the unseen"
  numbers = ", ".join(
    f"{100 * x:.0f}% with {n} seen" for n, x in middle.items()
  )
  alt = f"{title}. Without correlation: {numbers}."
  reading = (
    f"Shares of {count:,} random tabular problems, by the exact condition "
    "(beta 1, reward and log reference of the seen completions N(0, 1)). "
    "Unseen mass grows where the reference's favourites are worth less: the "
    "seen logits move with sum zero, and pushing down a likely completion "
    "frees more mass than lifting a rare one takes. Without correlation it "
    f"grows in {numbers}: in tabular policies growth is no rule."
  )
  return render("draws", title, alt, reading, draw, heights=(3.9, 3.8))


def _grown_shares(size, correlations, count) -> np.ndarray:
  rng = np.random.default_rng(size)
  log_reference, other = rng.normal(size=(2, count, size))
  reference = softmax(log_reference, axis=-1)
  shares = []
  for c in correlations:
    rewards = c * log_reference + math.sqrt(1 - c * c) * other
    grows = descent.unseen_mass_grows(
      reference, np.ones_like(reference, bool), rewards, beta=1.0
    )
    shares.append(grows.mean())
  return np.array(shares)


class Method(NamedTuple):
  """One way to a policy over the same random problems."""

  label: str
  method: str
  labels: int | None  # sampled pairs; None for exact labels
  style: str


_METHODS = (
  Method("online RL", "rlhf", None, "other1"),
  Method("DPO, exact labels", "dpo", None, "dpo"),
  Method("HyPO, exact labels", "hypo", None, "hypo"),
  Method("DPO, 64 labels", "dpo", 64, "dpo"),
  Method("HyPO, 64 labels", "hypo", 64, "hypo"),
)
_COUNT = 200
_FURTHEST = -12  # of a plotted change, nats
_QUANTITIES = {
  "unseen_mass": "all unseen",
  "best_unseen": "best unseen",
  "best_seen": "best seen",
}
_SHARES = {"seen_rising": "of the seen", "unseen_rising": "of the unseen"}


class Outcome(NamedTuple):
  """What a method did to the problems of one misfit."""

  changes: extrapolation.Changes
  lost: np.ndarray  # J* - J, [B]
  kl: np.ndarray  # [B]


def extrapolate(misfit: float) -> dict[str, Outcome]:
  """Finds every method's policy for the same 200 problems."""
  problems = extrapolation.draw_problems(_COUNT, misfit=misfit, seed=0)
  exact = extrapolation.exact_labels(problems)
  best = optimum.optimal_value(
    problems.reference, problems.rewards, beta=extrapolation.BETA
  )
  found = {}
  for label, method, labels, _ in _METHODS:
    pairs = exact
    if labels:
      pairs = extrapolation.sampled_labels(exact, labels, seed=1)
    log_probs = extrapolation.train(method, problems, pairs)
    policy = np.exp(log_probs)
    value = optimum.objective(
      policy, problems.reference, problems.rewards, beta=extrapolation.BETA
    )
    found[label] = Outcome(
      extrapolation.changes(log_probs, problems),
      best - value,
      optimum.kl(policy, problems.reference),
    )
  return found


def spread(found: dict[str, Outcome]) -> Plot:
  """Changes of unseen mass and of the best unseen completion."""
  names = [m.label for m in _METHODS]

  def draw(figure: Any, narrow: bool) -> None:
    shape = {"nrows": 2} if narrow else {"ncols": 2}
    panels = figure.subplots(**shape, sharey=not narrow)
    for axes, key in zip(panels, ("unseen_mass", "best_unseen"), strict=True):
      style_axes(axes, f"log policy / reference, {_QUANTITIES[key]}", "")
      axes.axvline(0, color=light("muted"), lw=1)
      for row, method in enumerate(_METHODS):
        values = getattr(found[method.label].changes, key)
        low, q1, middle, q3, high = np.quantile(
          values, [0.05, 0.25, 0.5, 0.75, 0.95]
        )
        colour = light(method.style)
        axes.plot([low, high], [row, row], color=colour, lw=1.2)
        axes.plot([q1, q3], [row, row], color=colour, lw=5, alpha=0.5)
        axes.plot(
          middle, row, MARKERS[method.style], color=colour, markersize=7
        )
      axes.set_xlim(left=max(axes.get_xlim()[0], _FURTHEST))
      axes.set_yticks(range(len(names)), names, color=light("ink"))
      axes.invert_yaxis() if narrow or key == "unseen_mass" else None
      axes.grid(axis="y", visible=False)

  title = "Shared features carry unseen completions along"
  alt = (
    f"{title}. Log change of the best unseen completion, median and 5 to 95%: "
    + "; ".join(f"{name} {_change(found[name])}" for name in names)
  )
  reading = (
    f"{_COUNT} random problems, log-linear policies with 8 features, reward "
    "linear in them, each policy at the minimum of its loss that lies downhill "
    "from the reference (HyPO's loss, and J, may have another elsewhere: they "
    "aren't convex). Marks are medians, "
    "thick lines half of the problems, thin ones 90%. Online RL raises the "
    f"best unseen completion in {_percent(found, 'online RL')} of them. With "
    "exact labels DPO's minimiser is its optimum, and extrapolates like it; "
    f"HyPO's KL term then only costs ({_lost(found, 'exact labels')}). With 64 "
    "sampled labels DPO scatters, raises the best unseen in "
    f"{_percent(found, 'DPO, 64 labels')}, and where a direction separates the "
    "labels has no minimum at all: some completions then vanish (lines that "
    "leave the picture). The KL term, which holds HyPO closer to the "
    f"reference, pays ({_lost(found, '64 labels')})."
  )
  return render("spread", title, alt, reading, draw, heights=(3.6, 6.2))


def rising(outcome: Outcome, key: str) -> float:
  """Returns the share of problems in which a probability rises."""
  return float((getattr(outcome.changes, key) > 0).mean())


def _percent(found: dict[str, Outcome], label: str) -> str:
  return f"{100 * rising(found[label], 'best_unseen'):.0f}%"


def _change(outcome: Outcome, key: str = "best_unseen") -> str:
  """A log change: median, and from 5 to 95% of the problems."""
  low, middle, high = np.quantile(
    getattr(outcome.changes, key), [0.05, 0.5, 0.95]
  )
  return (
    f"{number(middle, 1, signed=True)} ({number(low, 1)} to {number(high, 1)})"
  )


def _lost(found: dict[str, Outcome], labels: str) -> str:
  gaps = {m: found[f"{m}, {labels}"].lost.mean() for m in ("HyPO", "DPO")}
  hypo, dpo = (number(x, 2 if x > 0.01 else 3) for x in gaps.values())
  return f"J* − J is {hypo} on average, DPO's {dpo}"


def rising_table(found: dict[str, Outcome]) -> Table:
  """In how many problems a probability rises, and how many rise in each."""
  rows = [["rises in", *_QUANTITIES.values(), *_SHARES.values()]]
  for label, outcome in found.items():
    cells = []
    for key in _QUANTITIES:
      share = rising(outcome, key)
      rises = stats.binomtest(round(share * _COUNT), _COUNT)
      low, high = rises.proportion_ci(method="wilson")
      cells.append(f"{100 * share:.0f}% ({100 * low:.0f} to {100 * high:.0f})")
    for key in _SHARES:
      cells.append(f"{100 * getattr(outcome.changes, key).mean():.0f}%")
    rows.append([label, *cells])
  return rows


def outcome_table(found: dict[str, Outcome]) -> Table:
  """How far probabilities move, and what the policies are worth."""
  heads = ("all unseen", "best unseen", "KL, nats", "J* − J")
  rows = [["log change, median (5 to 95%)", *heads]]
  for label, outcome in found.items():
    cells = [_change(outcome, key) for key in ("unseen_mass", "best_unseen")]
    for values, digits in ((outcome.kl, 2), (outcome.lost, 3)):
      error = values.std(ddof=1) / math.sqrt(_COUNT)
      cells.append(f"{number(values.mean(), digits)} ± {error:.{digits}f}")
    rows.append([label, *cells])
  return rows
