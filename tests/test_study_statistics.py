# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Scores at equal KL and their tests, by hand and against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from hypo_jax import statistics
from hypo_jax.study import frontier, inference

#        reference   up    past 2   back   up to 3
KL = np.array([0.0, 1.0, 2.0, 1.5, 3.0])
WIN = np.array([0.5, 0.6, 0.7, 0.9, 0.8])


@pytest.mark.parametrize(
  ("level", "score"),
  [
    (0.0, 0.5),
    (0.5, 0.55),
    (1.0, 0.6),
    (1.5, 0.65),  # Where it first was, not where it came back with 0.9.
    (2.0, 0.7),
    (2.5, 0.9 - 0.1 * (2.5 - 1.5) / 1.5),  # On the way from 1.5 to 3.
    (3.0, 0.8),
    (4.0, 0.8),  # Never reached: at the largest KL.
  ],
)
def test_a_curve_is_read_where_it_first_reaches_a_kl(level, score):
  assert frontier.at_kl(KL, WIN, level) == pytest.approx(score)


def test_the_largest_kl_need_not_be_the_last():
  assert frontier.at_kl([0, 3.0, 1.0], [0.5, 0.7, 0.9], 4.0) == 0.7
  assert frontier.largest_kl([0, 3.0, 1.0]) == 3.0


def test_area_by_hand():
  # 0 to 2 along the rise, 2 to 3 on the line from 1.5 to 3, 3 to 4 level.
  at_two = 0.9 - 0.1 * 0.5 / 1.5
  total = 2 * 0.6 + (at_two + 0.8) / 2 + 0.8
  assert frontier.area(KL, WIN, 4.0) == pytest.approx(total / 4)
  assert frontier.area([0.0], [0.5], 4.0) == 0.5
  # A curve that leaps over the limit counts up to it.
  assert frontier.area([0.0, 8.0], [0.5, 0.9], 4.0) == pytest.approx(0.6)


curves = st.lists(
  st.tuples(st.floats(0.01, 9.0), st.floats(0.0, 1.0)), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(curves)
def test_area_is_the_mean_of_the_readings(points):
  kl, score = np.array([(0.0, 0.5), *points]).T
  edges = sorted({0.0, 4.0, *(k for k in kl if k < 4.0)})
  total = sum(
    # Inside the pieces, for the curve may leap at their ends.
    integrate.fixed_quad(
      lambda xs: [frontier.at_kl(kl, score, x) for x in xs], low, high, n=3
    )[0]
    for low, high in zip(edges, edges[1:], strict=False)
  )
  assert frontier.area(kl, score, 4.0) == pytest.approx(total / 4, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(curves, st.floats(0.05, 9.0))
def test_a_reading_agrees_with_the_report_s_matched_kl(points, level):
  kl, score = np.array([(0.0, 0.5), *points]).T
  history = [
    {"kl_rao_blackwell": k, "wins": [s]} for k, s in zip(kl, score, strict=True)
  ]
  there = statistics.at_kl(history, level)
  if there is not None:
    assert frontier.at_kl(kl, score, level) == pytest.approx(float(there[0]))
  else:
    assert level > max(kl)


def test_the_best_evaluation_is_chosen_on_one_half_and_read_on_the_other():
  # By prompt: even ones prefer the second evaluation, odd ones the third.
  scores = [[0.5, 0.5], [0.9, 0.2], [0.1, 0.8], [1.0, 1.0]]
  kl = [0.0, 1.0, 2.0, 3.0]
  # Even prompts choose 1, read 0.2 on odd ones; odd choose 2, read 0.1.
  assert frontier.selected_at(kl, scores, 2.5) == pytest.approx(0.15)
  # Odd prompts choose the reference up to KL 1.
  assert frontier.selected_at(kl, scores, 1.0) == pytest.approx((0.2 + 0.5) / 2)
  assert frontier.selected_at(kl, scores, 0.5) == 0.5
  assert frontier.selected_at(kl, scores, 9.0) == 1.0
  area = (0.5 + 0.35 + 0.15 + 1.0) / 4
  assert frontier.selected_area(kl, scores, 4.0) == pytest.approx(area)


def test_noise_does_not_flatter_what_is_chosen():
  rng = np.random.default_rng(0)
  kl = np.linspace(0.0, 3.0, 20)
  read = [
    frontier.selected_at(kl, rng.normal(0.7, 0.3, (20, 64)), 4.0)
    for _ in range(200)
  ]
  estimate = inference.estimate(read)
  assert abs(estimate.mean - 0.7) < 0.01
  # The best of the same prompts would be ahead by two standard errors of one.
  best = [rng.normal(0.7, 0.3, (20, 64)).mean(1).max() for _ in range(200)]
  assert np.mean(best) > 0.76


@pytest.mark.parametrize(
  ("kl", "score", "message"),
  [
    ([0.0, 1.0], [0.5], r"shapes \(2,\) and \(1,\)"),
    ([], [], "at least 1"),
    ([0.0, np.nan], [0.5, 0.5], "got nan and 0.5 at evaluation 1"),
    ([0.2, 1.0], [0.5, 0.6], "begins at 0, got 0.2"),
  ],
)
def test_a_broken_curve_is_refused(kl, score, message):
  for read in (frontier.at_kl, frontier.area):
    with pytest.raises(ValueError, match=message):
      read(np.array(kl), np.array(score), 1.0)


def test_the_interval_is_scipy_s():
  values = np.random.default_rng(1).normal(0.3, 1.0, 10)
  found = inference.estimate(values)
  test = stats.ttest_1samp(values, 0.0)
  interval = test.confidence_interval(0.95)
  assert found.mean == pytest.approx(values.mean())
  assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
  assert found.p == pytest.approx(test.pvalue)
  assert found.count == 10


def test_paired_differences_are_scipy_s_paired_test():
  rng = np.random.default_rng(2)
  one, other = rng.normal(size=(2, 10))
  found = inference.estimate(one - other)
  assert found.p == pytest.approx(stats.ttest_rel(one, other).pvalue)


def test_few_or_equal_values():
  assert inference.estimate([]) == (None, None, None, None, 0)
  assert inference.estimate([0.5]) == (0.5, None, None, None, 1)
  assert inference.estimate([0.5, 0.5]) == (0.5, 0.5, 0.5, 0.0, 2)
  assert inference.estimate([0.0, 0.0]).p == 1.0
  with pytest.raises(ValueError, match="finite numbers, got .*nan"):
    inference.estimate([0.1, np.nan])


def test_holm_by_hand():
  # 0.01 x 4, 0.02 x 3, 0.03 x 2 below the one before, 0.04 likewise.
  assert inference.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx(
    [0.06, 0.04, 0.06, 0.06]
  )
  assert inference.holm([0.5, 0.9]) == [1.0, 1.0]
  assert inference.holm([]) == []


def test_a_missing_comparison_still_counts():
  assert inference.holm([0.01, None, None]) == [0.03, None, None]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), st.floats(0, 0.9))
def test_holm_rejects_what_stepping_down_rejects(p_values, level):
  """Holm's procedure in its own words, against the adjusted values."""
  rejected, left = set(), len(p_values)
  for i in sorted(range(len(p_values)), key=p_values.__getitem__):
    if p_values[i] * left > level:
      break
    rejected.add(i)
    left -= 1
  adjusted = inference.holm(p_values)
  assert {i for i, a in enumerate(adjusted) if a <= level} == rejected
