# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The report's words and tables say what its numbers say."""

import copy
import math
import re

import pytest
from fake_report import make_report, with_matched, without_judge

from hypo_jax import report as reporting
from hypo_jax.report import formatting, tables


def test_headline_takes_the_largest_kl_that_both_methods_reach():
  text = reporting.headline(make_report())
  assert text.startswith(
    "At equal KL (2 nats) HyPO wins 0.71 of comparisons with the reference's "
    "samples, DPO 0.62: a difference of 0.09 ± 0.02 (standard error). "
    "At lower KL, HyPO minus DPO: −0.029 ± 0.011 at 1 nat."
  )


@pytest.mark.parametrize(
  ("difference", "words"),
  [
    (0.041, "a difference of 0.04 ± 0.02"),
    (0.039, "no clear difference (+0.04 ± 0.02"),
    (0.0, "no clear difference (0.00 ± 0.02"),
    (-0.039, "no clear difference (−0.04 ± 0.02"),
    (-0.041, "DPO is ahead by 0.04 ± 0.02"),
  ],
)
def test_a_difference_counts_beyond_two_standard_errors(difference, words):
  row = (1.0, 0.6 + difference, 0.6, difference, 0.02)
  assert words in reporting.headline(with_matched(row))


def test_a_difference_without_an_error_decides_nothing():
  text = reporting.headline(with_matched((1.0, 0.9, 0.6, 0.3, None)))
  assert "a difference of 0.30, of unknown error" in text


@pytest.mark.parametrize(
  ("hypo", "dpo", "words"),
  [
    (None, None, "Neither HyPO nor DPO reached a KL of 1 nat:"),
    (None, 0.6, "HyPO never reached a KL of 1 nat, DPO did:"),
    (0.6, None, "DPO never reached a KL of 1 nat, HyPO did:"),
  ],
)
def test_headline_says_which_method_reached_no_kl(hypo, dpo, words):
  rows = [(kl, hypo, dpo, None, None) for kl in (1.0, 2.0)]
  report = with_matched(*rows)
  assert reporting.headline(report).startswith(words)
  assert "nothing can be compared" in reporting.terminal_summary(report)


def test_headline_shows_the_three_checkpoints_apart_each_with_its_kl():
  report = make_report()
  dpo = report["policies"]["dpo"]
  sentence = (
    f"DPO's best checkpoint (step 30, KL {dpo['best']['kl_rao_blackwell']:.2f} "
    f"nats) wins {dpo['best']['win_rate']:.3f} ± 0.011 of comparisons; its "
    f"final one (step 400, KL 15.00 nats) {dpo['win_rate']:.3f} ± 0.011; its "
    "best-pair-loss one (step 100, KL "
  )
  assert sentence in reporting.headline(report)


def test_checkpoints_of_one_step_are_told_once():
  text = reporting.headline(make_report())
  assert "HyPO's final and best checkpoint (step 400, KL 2." in text
  report = make_report()
  hypo = report["policies"]["hypo"]
  hypo["best_pair_loss"] = hypo["best"]
  text = reporting.headline(report)
  assert "HyPO's best-pair-loss, final and best checkpoint (step 400" in text


def test_without_a_judge_the_words_are_pair_accuracy_and_kl():
  text = reporting.headline(without_judge())
  assert "no judge" in text
  assert "wins" not in text
  assert "of held-out pairs rightly" in text
  assert "KL 15.00 nats" in text


@pytest.mark.parametrize(
  ("accuracy", "words"),
  [
    (
      0.58,
      "orders 0.58 of held-out pairs rightly (95% interval 0.52 to 0.64), ",
    ),
    (
      0.55,
      "(95% interval 0.49 to 0.61): no effect, since the start's 0.5 lies",
    ),
    (0.42, "(95% interval 0.36 to 0.48), below the start's 0.5."),
  ],
)
def test_pair_accuracy_around_the_starts_is_no_effect(accuracy, words):
  report = without_judge()
  report["policies"]["hypo"] |= {
    "pair_accuracy": accuracy,
    "pair_accuracy_stderr": 0.03,
  }
  assert words in reporting.headline(report)


def test_a_single_method_needs_no_comparison():
  report = make_report()
  assert "at equal KL" in reporting.terminal_summary(report)
  del report["policies"]["hypo"]
  assert reporting.headline(report).startswith("DPO's best checkpoint")
  assert "at equal KL" not in reporting.terminal_summary(report)


@pytest.mark.parametrize(
  ("value", "error", "text"),
  [
    (0.7134, 0.0214, "0.71 ± 0.02"),
    (0.7134, 0.0124, "0.713 ± 0.012"),
    (-0.0004, 0.03, "0.00 ± 0.03"),
    (-1.25, 0.3, "−1.2 ± 0.3"),
    (0.5, 0.0, "0.50 ± 0.00"),
    (0.5, 0.00951, "0.500 ± 0.010"),
    (None, 0.1, "n/a"),
    (math.nan, 0.1, "n/a"),
    (math.inf, None, "n/a"),
    (0.5, math.nan, "0.50"),
  ],
)
def test_a_value_has_the_decimals_that_its_error_deserves(value, error, text):
  digits = formatting.places([error])
  assert formatting.with_error(value, error, digits) == text


@pytest.mark.parametrize("make", [make_report, without_judge])
def test_terminal_summary_is_at_most_100_columns_wide(make):
  report = make()
  long = "a_baseline_with_quite_a_long_name_that_nobody_shortened"
  report["policies"][long] = copy.deepcopy(report["policies"]["dpo"])
  lines = reporting.terminal_summary(report).splitlines()
  assert max(map(len, lines)) <= 100
  assert any(line.startswith(long) for line in lines)


def test_terminal_summary_has_a_row_for_each_checkpoint():
  text = reporting.terminal_summary(make_report())
  rows = [re.split(r"\s{2,}", line) for line in text.splitlines()]
  starts = [tuple(row[:3]) for row in rows]
  assert ("DPO", "best", "30") in starts
  assert ("DPO", "final", "400") in starts
  assert ("DPO", "best pair loss", "100") in starts
  assert ("HyPO", "best, final", "400") in starts
  assert "DPO: coverage is being lost since step 40: raise kl_coef" in text
  assert "Time: 5 min 18 s." in text  # 41.2 + 7.5 + 66.0 + 203.4 = 318.1 s


def test_terminal_summary_needs_no_optional_field():
  entry = {"step": 10, "kl": 0.5, "win_rate": 0.6}
  policies = {"reference": {"step": 0}, "dpo": entry}
  text = reporting.terminal_summary({"policies": policies})
  assert "DPO's final checkpoint (step 10, KL 0.50 nats) wins 0.60" in text


def test_matched_table_shows_where_a_kl_was_never_reached():
  table = tables.matched_table(make_report())
  assert table[2] == ["2", "0.713", "0.622", "+0.091 ± 0.021"]
  assert table[3] == ["3", "not reached", "0.561", "–"]
