# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The plots of a report: those for which it has numbers."""

from hypo_jax.report import curves, reliability, shares, signs
from hypo_jax.report.canvas import Plot
from hypo_jax.report.tables import Report, has_judge


def make_plots(report: Report) -> list[Plot]:
  """Returns the plots for which the report has numbers.

  Args:
    report: what report.json holds.
  """
  key = "win_rate" if has_judge(report) else "pair_accuracy"
  plots = []
  if found := curves.curves(report, "kl", key):
    plots.append(curves.frontier(report, found, key))
  if found := curves.curves(report, "step", "kl"):
    plots.append(curves.kl_over_steps(report, found))
  if found := signs.signs(report):
    plots.append(signs.plot(report, found))
  if found := shares.histograms(report):
    plots.append(shares.rewards(report, found))
  if found := shares.masses(report):
    plots.append(shares.coverage(found))
  if found := reliability.bins(report):
    plots.append(reliability.plot(report, found))
  return plots
