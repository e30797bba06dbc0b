# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Plots of what is solved exactly: optima and minimisers."""

from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.special import expit, logit

from hypo_jax.coverage import minimisers, optimum, population
from hypo_jax.coverage.gallery.drawing import line, log_ticks, region_label
from hypo_jax.report.canvas import Plot, legend, marker, render, style_axes
from hypo_jax.report.formatting import number
from hypo_jax.report.style import light

# The problem whose two minima tie: beta 0.1, preference 0.9.
TIED = minimisers.OnePair(first=0.2, unseen=0.05, preference=0.9, beta=0.1)


def ball() -> Plot:
  """KL of the optimum against 2 R / beta, over random problems."""
  rng = np.random.default_rng(0)
  count, size = 400, 8
  x = np.exp(rng.uniform(np.log(0.5), np.log(40), size=count))
  reference = rng.dirichlet(np.full(size, 0.3), size=count)
  rewards = rng.uniform(-1, 1, size=(count, size))
  rewards /= np.abs(rewards).max(axis=-1, keepdims=True)
  best = optimum.optimal_policy(reference, rewards * x[:, None] / 2, beta=1.0)
  kl = optimum.kl(best, reference)
  above = int((kl > optimum.largest_kl(x / 2, beta=1.0) + 1e-12).sum())
  grid = np.geomspace(0.5, 40, 200)
  largest = optimum.largest_kl(grid / 2, beta=1.0)

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(axes, "2R / beta", "KL(optimum ‖ reference), nats")
    axes.loglog(grid, grid, color=light("muted"), lw=1.2, ls="--")
    axes.loglog(grid, largest, color=light("other1"), lw=1.8)
    dots = {"color": light("hypo"), "alpha": 0.5, "markersize": 2.5}
    axes.loglog(x, np.maximum(kl, 1e-3), ".", **dots)
    axes.set_ylim(bottom=3e-3)
    log_ticks(axes.xaxis, 4)
    log_ticks(axes.yaxis, 6)
    handles = [
      line("muted", "bound 2R / beta", ls="--"),
      line("other1", "largest possible"),
      marker("hypo", f"{count} random problems", lw=0, markersize=4),
    ]
    legend(figure, handles, 1 if narrow else 3)

  title = "The optimum stays in a ball, whatever the reward"
  alt = (
    f"{title}. Of {count} random problems {above or 'none'} has a KL above the "
    "largest possible one, which is "
    f"{number(np.interp(10, grid, largest), 2)} nats where the bound is 10."
  )
  reading = (
    "The maximum of E[r] − beta KL(policy ‖ reference), with rewards in ±R, is "
    "at reference · exp(r / beta) / Z. Its KL is at most Z − 1 − log Z, "
    "Z = x / (1 − exp(−x)), x = 2R / beta (solid), which is below the bound x "
    "(dashed). The bound holds for a learned reward too: that is what keeps "
    "online RL near the reference. Each dot is a problem of 8 completions."
  )
  return render("ball", title, alt, reading, draw, heights=(4.0, 3.8))


def family() -> Plot:
  """DPO's loss and KL along its family of minimisers."""
  mass = 1 - np.geomspace(1, 1e-6, 400)
  h = logit(0.8)  # beta 1
  k = minimisers.OnePair(0.5, 0.1, 0.8, 1.0).conditional_kl(h)
  levels = {1e-2: "other3", 1e-4: "other2", 1e-8: "dpo"}
  losses = {q: _family_losses(mass, q, h) for q in levels}
  loss = losses[1e-2][0]
  kls = {q: minimisers.family_kl(mass, q, k) for q in levels}

  def draw(figure: Any, narrow: bool) -> None:
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(1, 2.2))
    style_axes(upper, "", "DPO's loss")
    style_axes(lower, "mass on the unseen completion", "reverse KL, nats")
    for q, style in levels.items():
      upper.plot(mass, losses[q], color=light(style), lw=1.8)
    upper.set_ylim(0.45, 0.75)
    for q, style in levels.items():
      lower.plot(mass, kls[q], color=light(style), lw=1.8)
      lower.plot(1, -np.log(q), "o", color=light(style), clip_on=False)
      a = minimisers.least_kl_mass(q, k)
      lower.plot(a, minimisers.least_kl(q, k), "*", color=light("hypo"), ms=10)
    lower.set_ylim(bottom=0)
    handles = [
      line(style, f"reference has {q:g}") for q, style in levels.items()
    ]
    handles.append(marker("hypo", "least KL", marker="*", lw=0, markersize=9))
    legend(figure, handles, 2 if narrow else 4)

  ends = ", ".join(f"{number(-np.log(q), 1)} for {q:g}" for q in levels)
  title = "DPO's minimisers are a family, and its loss cannot tell them apart"
  alt = (
    f"{title}. The loss is {number(loss, 3)} at every mass; the KL rises to "
    f"{ends}."
  )
  reading = (
    "One pair of completions, the first preferred with probability 0.8, beta "
    "1, and a third one that no pair speaks of. Any mass may go to the third: "
    "DPO's loss stays at its minimum, and the KL grows to −log reference "
    "(dots), without bound as the reference's probability falls. The star is "
    "the member nearest to the reference, at a* = q / (q + (1 − q) exp(−K)), "
    "where K is the KL within the pair."
  )
  return render("family", title, alt, reading, draw, heights=(4.8, 4.8))


def _family_losses(mass: np.ndarray, unseen: float, h: float) -> np.ndarray:
  """DPO's loss of the policies with this mass on the unseen; beta 1."""
  share = expit(h)
  seen = np.stack([share * (1 - mass), (1 - share) * (1 - mass)], axis=-1)
  policies = np.concatenate([seen, mass[:, None]], axis=-1)
  reference = np.array([(1 - unseen) / 2, (1 - unseen) / 2, unseen])
  pairs = population.all_pairs(np.array([0.5, 0.5, 0.0]), np.array([h, 0, 0]))
  with jax.enable_x64(), np.errstate(divide="ignore"):  # No mass at the start.
    policies, reference = (np.log(x) for x in (policies, reference))
    one = partial(population.dpo_loss, pairs=pairs, beta=1.0)
    return np.asarray(jax.vmap(one, (0, None))(policies, reference))


def path() -> Plot:
  """HyPO's minimiser as kl_coef goes to 0, with the jump of a tied problem."""
  smooth = minimisers.OnePair(first=0.5, unseen=0.1, preference=0.8, beta=1.0)
  tie = minimisers.tie(TIED, 0.2, 0.3)
  coefs = np.geomspace(1e-3, 10, 160)
  coefs = np.sort(np.append(coefs, [tie - 1e-6, tie + 1e-6]))
  shown = (
    ("preference 0.8, beta 1", smooth, "other1"),
    ("preference 0.9, beta 0.1", TIED, "hypo"),
  )
  best = {
    name: [minimisers.hypo_minima(pair, c)[0] for c in coefs]
    for name, pair, _ in shown
  }

  def draw(figure: Any, narrow: bool) -> None:
    upper, lower = figure.subplots(2, sharex=True)
    style_axes(upper, "", "h / DPO's h")
    style_axes(lower, "kl_coef", "reverse KL, nats")
    for name, pair, style in shown:
      limit = pair.dpo_log_ratio()
      upper.semilogx(
        coefs, [m.h / limit for m in best[name]], color=light(style), lw=1.8
      )
      lower.semilogx(
        coefs, [m.kl for m in best[name]], color=light(style), lw=1.8
      )
      lower.axhline(pair.kl(limit), color=light(style), lw=1, ls="--")
    upper.axhline(1, color=light("muted"), lw=1, ls="--")
    log_ticks(lower.xaxis, 6)
    handles = [line(style, name) for name, _, style in shown]
    handles.append(line("muted", "nearest minimiser of DPO", ls="--"))
    legend(figure, handles, 1 if narrow else 3)

  title = "HyPO's minimiser, and where it jumps"
  left, right = minimisers.hypo_minima(TIED, tie)
  hs = sorted([left.h, right.h])
  alt = (
    f"{title}. At kl_coef {tie:.5f} minima at h {number(hs[0], 2)} and "
    f"{number(hs[1], 2)} tie."
  )
  reading = (
    "HyPO's minimiser always has the unseen mass a*, so its KL is at most K. "
    "But the KL prices the preference too: h, the log-ratio between the two "
    "seen completions, is below DPO's, and reaches it only as kl_coef goes to "
    "0, where the policy tends to the minimiser of DPO nearest to the "
    f"reference. With beta 0.1 two minima tie at kl_coef {tie:.5f}: there the "
    f"best policy jumps from h {number(hs[1], 2)} to {number(hs[0], 2)}."
  )
  return render("path", title, alt, reading, draw, heights=(4.8, 4.8))


def tied() -> Plot:
  """HyPO's loss over h on both sides of the tie."""
  tie = minimisers.tie(TIED, 0.2, 0.3)
  h = np.linspace(-3, 34, 800)
  coefs = {0.20: "other1", tie: "hypo", 0.30: "other2"}

  def draw(figure: Any, narrow: bool) -> None:
    axes = figure.subplots()
    style_axes(axes, "h: log-ratio of the first minus the second", "loss")
    for coef, style in coefs.items():
      axes.plot(h, TIED.hypo_loss(h, coef), color=light(style), lw=1.8)
      minima = minimisers.hypo_minima(TIED, coef)
      best = [m for m in minima if m.loss - minima[0].loss < 1e-9]
      axes.plot(
        [m.h for m in best], [m.loss for m in best], "o", color=light(style)
      )
    handles = [line(s, f"kl_coef {c:.5g}") for c, s in coefs.items()]
    handles.append(marker("muted", "lowest", lw=0))
    legend(figure, handles, 2 if narrow else 4)

  title = "Two minima of HyPO's loss can tie"
  loss = minimisers.hypo_minima(TIED, tie)[0].loss
  alt = f"{title}: at kl_coef {tie:.5f} both are at {number(loss, 4)}."
  reading = (
    "Preference 0.9, beta 0.1, reference (0.2, 0.8) on the seen completions "
    "and 0.05 on the unseen. The KL is flat once one completion has all the "
    "mass, so the loss has a second minimum close to DPO's; a slightly smaller "
    "or larger kl_coef makes one of the two the better."
  )
  return render("tie", title, alt, reading, draw, heights=(3.9, 3.6))


def deterministic() -> Plot:
  """Deterministic labels: no finite minimiser for small kl_coef."""
  pair = minimisers.OnePair(first=0.2, unseen=0.05, preference=1.0, beta=0.1)
  h = np.geomspace(0.05, 400, 600)
  coefs = {0.05: "hypo", 0.3: "other1", 1.0: "other2"}
  grid = np.geomspace(1e-3, 10, 200)
  best = [minimisers.hypo_minima(pair, c)[0] for c in grid]
  last = max(c for c, m in zip(grid, best, strict=True) if np.isinf(m.h))

  def draw(figure: Any, narrow: bool) -> None:
    upper, lower = figure.subplots(2)
    style_axes(upper, "h", "loss")
    for coef, style in coefs.items():
      loss = pair.hypo_loss(h, coef)
      upper.loglog(h, loss, color=light(style), lw=1.8)
      upper.axhline(coef * pair.kl(np.inf), color=light(style), lw=0.9, ls="--")
    log_ticks(upper.xaxis, 6)
    log_ticks(upper.yaxis, 4)
    style_axes(lower, "kl_coef", "KL of the infimum, nats")
    kl = np.array([m.kl for m in best])
    lower.semilogx(grid, kl, color=light("hypo"), lw=1.8)
    log_ticks(lower.xaxis, 6)
    bound = -np.log(0.05)
    lower.axhline(bound, color=light("dpo"), lw=1.2, ls="--")
    region_label(lower, 2e-3, bound, "DPO: up to −log reference", "dpo")
    handles = [line(s, f"kl_coef {c:g}") for c, s in coefs.items()]
    handles.append(line("muted", "limit at h = ∞", ls="--"))
    legend(figure, handles, 2 if narrow else 4)

  title = "Deterministic labels: no finite minimiser, yet a finite KL"
  alt = (
    f"{title}. Up to kl_coef {last:.2g} the infimum is at h = ∞, with KL "
    f"{number(best[0].kl, 2)} nats."
  )
  reading = (
    "The first completion is always preferred (beta 0.1, reference as above). "
    "DPO wants h = ∞. For small kl_coef so does HyPO: its loss falls towards "
    "the dashed limit and never reaches it. But the KL there is "
    f"{number(best[0].kl, 2)} nats, −log of the reference's mass on first and "
    "unseen together, while minimisers of DPO may have any up to −log of the "
    f"unseen alone. Above kl_coef {last:.2g} the minimum is finite."
  )
  return render("deterministic", title, alt, reading, draw, heights=(5.2, 5.2))
