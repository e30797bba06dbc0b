# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Plots of coverage itself: the jump at 0, and two settings kept apart."""

from typing import Any

import numpy as np
from scipy.special import expit

from hypo_jax.coverage import minimisers, optimum
from hypo_jax.coverage.coefficients import (
  Tabular,
  global_coefficient,
  local_coefficient,
)
from hypo_jax.coverage.gallery.drawing import line, log_ticks
from hypo_jax.report.canvas import Plot, legend, marker, render, style_axes
from hypo_jax.report.elements import Table
from hypo_jax.report.formatting import number
from hypo_jax.report.style import light

_BETA = 0.5
_REWARDS = np.array([1.0, 0.0, -1.0])


def _beside(unseen: float) -> np.ndarray:
  return np.array([(1 - unseen) / 2, (1 - unseen) / 2, unseen])


def jump() -> Plot:
  """The local coefficient as the reference's probability falls, and at 0."""
  unseen = np.geomspace(1e-12, 0.2, 300)
  radii = {0.1: "other1", 1.0: "hypo", 3.0: "other2"}
  zero = 1e-15  # where 0 stands on the logarithmic axis
  references = np.stack([_beside(q) for q in unseen])
  at = {
    r: (
      local_coefficient(references, references, r),
      float(local_coefficient(_beside(0), _beside(0), r)),
    )
    for r in radii
  }

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(
      axes, "reference's probability of the third", "largest policy / reference"
    )
    for radius, style in radii.items():
      values, limit = at[radius]
      axes.loglog(unseen, values, color=light(style), lw=1.8)
      axes.loglog(zero, limit, "o", color=light(style), ms=7, clip_on=False)
    ticks = [zero] + [
      10.0**e for e in ((-12, -6, -2) if narrow else (-12, -10, -8, -6, -4, -2))
    ]
    axes.set_xticks(ticks, ["0"] + [f"{t:.0e}" for t in ticks[1:]])
    log_ticks(axes.yaxis, 7)
    axes.minorticks_off()
    axes.axvspan(zero * 8, 1e-12 / 8, color=light("panel"), zorder=0)
    handles = [line(s, f"KL ≤ {r:g} nats") for r, s in radii.items()]
    handles.append(marker("muted", "at exactly 0", lw=0, markersize=6))
    legend(figure, handles, 2 if narrow else 4)

  known = [
    float(local_coefficient(_beside(q), _beside(q), 1.0))
    for q in (1e-2, 1e-4, 1e-8)
  ]
  title = "The local coefficient jumps where the reference falls silent"
  numbers = ", ".join(f"{v:.2g}" for v in known)
  alt = (
    f"{title}. Within KL 1 it is {numbers} at 1e-2, 1e-4, 1e-8, and "
    f"{number(at[1.0][1], 1)} at 0."
  )
  reading = (
    "Three completions, pairs drawn from the reference, all policies within a "
    "KL ball. The rarer the third completion, the larger the factor by which a "
    f"policy in the ball can raise it: within one nat {numbers} at "
    "probability 1e-2, 1e-4 and 1e-8. At exactly 0 no policy at a finite KL "
    "says it, and the coefficient falls to what the other two allow. Local "
    "coverage is finite there because the support is, not because rare "
    "completions are harmless."
  )
  return render("jump", title, alt, reading, draw, heights=(4.2, 4.0))


def kl_by_method() -> Plot:
  """The largest KL of each method's minimisers, pairs omitting the third."""
  unseen = np.geomspace(1e-12, 0.3, 200)
  curves = {
    "DPO, supremum": ("dpo", -np.log(unseen)),
    "HyPO, any kl_coef": ("hypo", minimisers.least_kl(unseen, _pair_kl())),
    "online RL, any learned reward": (
      "other1",
      np.array([_worst_rlhf_kl(_beside(q)) for q in unseen]),
    ),
  }

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(axes, "reference's probability of the third", "reverse KL, nats")
    for style, values in curves.values():
      axes.semilogx(unseen, values, color=light(style), lw=1.8)
    axes.axhline(
      optimum.kl_bound(1.0, beta=_BETA), color=light("other1"), lw=1, ls="--"
    )
    axes.set_ylim(bottom=0)
    log_ticks(axes.xaxis, 4 if narrow else 7)
    handles = [line(style, name) for name, (style, _) in curves.items()]
    handles.append(line("other1", "2R / beta", ls="--"))
    legend(figure, handles, 1 if narrow else 4)

  title = "What bounds the KL where pairs leave something out"
  ends = "; ".join(
    f"{name} {number(values[0], 1)}" for name, (_, values) in curves.items()
  )
  alt = f"{title}. At reference probability 1e-12, in nats: {ends}."
  reading = (
    "Pairs compare the first two of three completions (true rewards 1 and 0, "
    f"beta {_BETA:g}); the reference gives the third the probability on the "
    "axis. The curve of DPO is what its minimisers approach, that of HyPO the "
    "largest over all kl_coef, and that of online RL the largest over all "
    "learned rewards in ±1, which stays below 2R / beta. Only DPO's grows "
    "without bound."
  )
  return render("bounds", title, alt, reading, draw, heights=(4.1, 4.0))


def _pair_kl() -> float:
  """K of DPO's minimisers on the two seen completions."""
  pair = minimisers.OnePair(0.5, 0.1, float(expit(1.0)), _BETA)
  return float(pair.conditional_kl(pair.dpo_log_ratio()))


def learned_reward() -> Plot:
  """What online RL loses to a learned reward that is wrong on the third."""
  guess = np.linspace(-1, 3, 201)
  settings = {
    "A: the reference never says it": (_beside(0.0), "other1"),
    "B: the reference says it at 0.05": (_beside(0.05), "dpo"),
    "B: at 1e-6": (_beside(1e-6), "other3"),
  }
  rewards = np.tile(_REWARDS, (len(guess), 1))
  rewards[:, 2] = guess
  beta = 0.1
  lost, kl = {}, {}
  for name, (reference, _) in settings.items():
    policy = optimum.optimal_policy(reference, rewards, beta=beta)
    best = optimum.optimal_value(reference, _REWARDS, beta=beta)
    value = optimum.objective(policy, reference, _REWARDS, beta=beta)
    lost[name], kl[name] = best - value, optimum.kl(policy, reference)
  bound = optimum.kl_bound(guess.max(), beta=beta)

  def draw(figure: Any, narrow: bool) -> None:
    upper, lower = figure.subplots(2, sharex=True)
    style_axes(upper, "", "J lost")
    style_axes(lower, "learned reward of the third", "reverse KL, nats")
    for name, (_, style) in settings.items():
      upper.plot(guess, lost[name], color=light(style), lw=1.8)
      lower.plot(guess, kl[name], color=light(style), lw=1.8)
    upper.axvline(_REWARDS[2], color=light("muted"), lw=1, ls=":")
    handles = [line(style, name) for name, (_, style) in settings.items()]
    legend(figure, handles, 1 if narrow else 3)

  worst = {name: number(x.max(), 2) for name, x in lost.items()}
  title = "Two settings that are easily confused"
  alt = f"{title}. Most of J lost: " + "; ".join(
    f"{name}: {value}" for name, value in worst.items()
  )
  reading = (
    "Online RL with a learned reward, right on the two seen completions and "
    "arbitrary on the third, whose true reward is −1 (beta 0.1). In A, the "
    "paper's setting, pairs come from the reference, which never says the "
    "third: the policy can't say it either, and nothing is lost. In B the "
    "pairs merely omit it: the policy stays in its ball (2R / beta is "
    f"{bound:g} nats at the right end, where R = 3), and may be as wrong as "
    "the learned reward. Local coverage protects online RL in A; in B both "
    "coefficients are infinite, and only the KL is bounded."
  )
  return render("settings", title, alt, reading, draw, heights=(4.8, 4.9))


def settings_table() -> Table:
  """Coefficients and worst KL of each method's minimisers, in A and in B."""
  rows = [["setting", "A: reference 0", "B: 0.05", "B: 1e-6"]]
  references = [_beside(q) for q in (0.0, 0.05, 1e-6)]
  pairs = _beside(0.0)
  conditional = _pair_kl()

  def row(label, value):
    rows.append([label, *(_text(value(ref)) for ref in references)])

  row(
    "global coefficient, all policies / pairs",
    lambda ref: global_coefficient(Tabular(3), pairs),
  )
  row(
    "local coefficient within 1 nat / pairs",
    lambda ref: local_coefficient(ref, pairs, 1.0),
  )
  row(
    "KL of DPO's minimisers, supremum",
    lambda ref: -_log(ref[2]),
  )
  row(
    "KL of HyPO's minimisers, any kl_coef",
    lambda ref: (
      minimisers.least_kl(ref[2], conditional) if ref[2] else conditional
    ),
  )
  row(
    "KL of online RL, any learned reward in ±1",
    _worst_rlhf_kl,
  )
  return rows


def _worst_rlhf_kl(reference: np.ndarray) -> float:
  """The largest over rewards in +-1, which is at a corner.

  dKL / dr has the sign of r - E_policy[r], for each completion's r: along it
  the KL falls, then rises, and is largest at an end.
  """
  signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
  best = optimum.optimal_policy(reference, signs, beta=_BETA)
  return float(optimum.kl(best, reference).max())


def _log(x: float) -> float:
  return float(np.log(x)) if x else -np.inf


def _text(value: Any) -> str:
  value = float(value)
  return "∞" if np.isinf(value) else f"{value:.3g}"
