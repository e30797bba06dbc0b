# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a report shows of the optimum, and of a reward that says nothing."""

import numpy as np
import pytest
from fake_report import make_report, without_judge
from test_report_page import words_of

from hypo_jax.job import optimum
from hypo_jax.report import plots, summary


def with_optimum(*, reliable=True, recovered=None):
  rng = np.random.default_rng(0)
  found = optimum.describe(rng.uniform(-1, 1, (512, 16)), [0.1])
  (row,) = found["values"]
  row |= {"reliable": reliable, "recovered": recovered or {}}
  return make_report() | {"optimum": found}


def plot_of(report, name):
  found = [plot for plot in plots.make_plots(report) if plot.name == name]
  return found[0] if found else None


def test_the_frontier_shows_the_optimum_where_there_is_one():
  report = with_optimum()
  last = report["optimum"]["frontier"][-1]
  plot = plot_of(report, "frontier")
  text = f"the optimum reaches {last['win_rate']:.2f} at KL {last['kl']:.2f}"
  assert text in plot.alt
  assert "dashed line is the optimum" in plot.reading
  for drawing in (plot.wide, plot.narrow):
    assert ">optimum<" in drawing and "var(--ink)" in drawing
  plain = plot_of(make_report(), "frontier")
  assert "optimum" not in plain.alt + plain.reading + plain.wide
  # Pair accuracy has none.
  blind = without_judge() | {"optimum": report["optimum"]}
  assert "optimum" not in plot_of(blind, "frontier").wide


def test_what_methods_make_of_the_gain_is_told():
  report = with_optimum(recovered={"rloo": 0.823, "ppo": None})
  row = report["optimum"]["values"][0]
  (sentence,) = summary.describe_optimum(report)
  assert sentence.startswith("Of E[reward] − 0.1 KL no policy has more than 0.")
  assert f"{row['value']:.3f} ± 0.00" in sentence
  assert sentence.endswith("of the gain, final policies have: RLOO 82%.")
  assert sentence in words_of(report).replace("\u00a0", " ")
  told = " ".join(summary.terminal_summary(report).split())
  assert sentence in told
  assert max(map(len, summary.terminal_summary(report).splitlines())) <= 100


def test_an_optimum_that_few_samples_carry_is_told_to_be_one():
  (sentence,) = summary.describe_optimum(with_optimum(reliable=False))
  assert "(too few samples carry the first)." in sentence
  assert summary.describe_optimum(make_report()) == []


@pytest.mark.parametrize(
  "broken", [{}, {"held_out": {}}, {"held_out": {"bins": []}}]
)
def test_a_reliability_without_bins_is_left_out(broken):
  report = make_report() | {"reward_model": broken}
  assert plot_of(report, "reliability") is None
