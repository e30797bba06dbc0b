# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Win rates, KL, matched KL and coverage on arrays small enough to check."""

import numpy as np
import pytest

from hypo_jax import statistics
from hypo_jax.statistics import Judged, PolicySamples


def samples(log_ratio, token_kl=None, tokens=None, mask=None) -> PolicySamples:
  log_ratio = np.asarray(log_ratio, np.float32)
  ones = np.ones(log_ratio.shape, bool)
  return PolicySamples(
    np.zeros(log_ratio.shape, np.int32) if tokens is None else tokens,
    ones if mask is None else mask,
    log_ratio,
    log_ratio if token_kl is None else np.asarray(token_kl),
    np.zeros_like(log_ratio),
  )


def test_wins_count_every_comparison_and_ties_half():
  rewards = np.array([[1.0, 0.0]])
  reference = np.array([[0.0, 0.0, 2.0]])
  # 1 beats 0, 0 and loses to 2; 0 ties 0, 0 and loses to 2: 2 + 1 of 6.
  np.testing.assert_allclose(statistics.wins(rewards, reference), [0.5])


def test_a_policy_against_itself_wins_half():
  rewards = np.random.default_rng(0).normal(size=(50, 8)).round(1)
  np.testing.assert_allclose(
    statistics.wins(rewards, rewards).mean(), 0.5, atol=1e-12
  )


def test_numbers_by_prompt_give_the_means_back():
  rng = np.random.default_rng(0)
  shape = (5, 3, 4)
  mask = rng.random(shape) < 0.7
  drawn = PolicySamples(
    rng.integers(0, 9, shape), mask, rng.random(shape), rng.random(shape)
  )
  mine, other = (
    Judged(
      rng.integers(0, 3, (5, k)), np.ones((5, k)), rng.integers(2, 4, (5, k))
    )
    for k in (3, 2)
  )
  learned = rng.random((5, 3))
  found = statistics.by_prompt(drawn, (0,), mine, other, learned)
  assert {len(values) for values in found.values()} == {5}
  described = statistics.describe_samples(drawn, 4, (0,))
  described |= statistics.describe_judged(mine, other)
  for key, mean in (
    ("kl", described["kl"]),
    ("ended", described["eos_rate"]),
    ("kl_rao_blackwell", described["kl_rao_blackwell"]),
    ("length", described["length_mean"]),
    ("reward", described["reward_mean"]),
    ("learned_reward", learned.mean()),
  ):
    np.testing.assert_allclose(np.mean(found[key]), mean, rtol=1e-12)
  matched = sum(found["matched_won"]) / sum(found["matched"])
  expected = described["win_rate_length_matched"]
  np.testing.assert_allclose(matched, expected, rtol=1e-12)
  alone = {"kl", "kl_rao_blackwell", "length", "ended"}
  assert statistics.by_prompt(drawn, (0,)).keys() == alone


def test_length_matched_win_rate_compares_equal_clause_counts_only():
  mine = Judged(np.array([[1.0, -1.0]]), np.ones((1, 2), bool), [[1, 2]])
  other = Judged(np.array([[0.0, 0.0]]), np.ones((1, 2), bool), [[1, 3]])
  mine = mine._replace(clauses=np.array(mine.clauses))
  other = other._replace(clauses=np.array(other.clauses))
  assert statistics.length_matched_win_rate(mine, other) == 1.0
  none = other._replace(clauses=np.array([[7, 7]]))
  assert statistics.length_matched_win_rate(mine, none) is None


def test_errors_are_over_prompts_not_completions():
  # Two prompts, whose completions agree among themselves.
  drawn = samples(np.repeat([[[0.0]], [[2.0]]], 8, axis=1))
  result = statistics.describe_samples(drawn, 1, (9,))
  assert result["kl"] == 1.0
  # Standard deviation sqrt(2) over sqrt(2) prompts; 16 draws would say 0.26.
  assert result["kl_stderr"] == pytest.approx(1.0)


def test_kl_speaks_of_the_training_limit_and_kl_long_of_twice():
  drawn = samples([[[1.0, 2.0, 4.0, 8.0]]])
  result = statistics.describe_samples(drawn, 2, (9,))
  assert result["kl"] == 3.0 and result["kl_long"] == 15.0
  assert result["kl_per_token"] == 1.5
  assert statistics.describe_samples(drawn.cut(2), 2, (9,))["kl_long"] is None


def test_demand_04_endings_lengths_and_repetition_are_told():
  tokens = np.array([[[5, 9, 0, 0], [4, 4, 4, 4]]], np.int32)
  mask = np.array([[[1, 1, 0, 0], [1, 1, 1, 1]]], bool)
  drawn = samples(np.zeros((1, 2, 4)), tokens=tokens, mask=mask)
  result = statistics.describe_samples(drawn, 4, (9,))
  assert result["eos_rate"] == 0.5
  assert result["length_mean"] == 3.0
  # Two 3-grams, (4, 4, 4) twice.
  assert result["distinct_ngrams"] == 0.5


def test_pairs_ties_count_half_and_masked_pairs_nothing():
  log_probs = np.array([[-1.0, -2.0], [-1.0, -1.0], [-9.0, 0.0]], np.float32)
  result = statistics.describe_pairs(
    log_probs,
    np.zeros_like(log_probs),
    np.array([True, True, False]),
    beta=1.0,
  )
  assert result["pair_accuracy"] == 0.75
  expected = (np.log1p(np.exp(-1.0)) + np.log(2.0)) / 2
  assert result["pair_loss"] == pytest.approx(expected, rel=1e-6)


def history(kls, rates):
  return [
    {"step": i, "kl_rao_blackwell": kl, "wins": [rate, rate + 0.2]}
    for i, (kl, rate) in enumerate(zip(kls, rates, strict=True))
  ]


def test_matched_kl_interpolates_the_first_crossing_and_pairs_prompts():
  hypo = history([0.0, 2.0, 1.5], [0.5, 0.7, 0.9])
  dpo = history([0.0, 4.0], [0.5, 0.3])
  rows = {row["kl"]: row for row in statistics.matched_kl(
    {"hypo": hypo, "dpo": dpo}, levels=(1.0, 2.0, 3.0)
  )}  # fmt: skip
  assert rows[1.0]["hypo"] == pytest.approx(0.7)
  assert rows[1.0]["dpo"] == pytest.approx(0.55)
  assert rows[1.0]["difference"] == pytest.approx(0.15)
  assert rows[1.0]["stderr"] == pytest.approx(0.0, abs=1e-12)
  assert rows[3.0]["hypo"] is None and rows[3.0]["difference"] is None


def test_one_prompt_has_no_error():
  mean, stderr = statistics.mean_and_stderr([0.75])
  assert mean == 0.75 and np.isnan(stderr)


def test_the_error_of_a_ratio_is_that_of_drawing_prompts_anew():
  rng = np.random.default_rng(0)
  sizes = rng.integers(1, 20, (4000, 50))
  totals = rng.normal(-2.0 * sizes, np.sqrt(sizes))
  found = [
    statistics.ratio_and_stderr(*x) for x in zip(totals, sizes, strict=True)
  ]
  ratios, stderrs = np.transpose(found)
  assert ratios.mean() == pytest.approx(-2.0, abs=0.01)
  assert np.sqrt((stderrs**2).mean()) == pytest.approx(ratios.std(), rel=0.05)
  # Of equal sizes it is a mean's.
  mean, stderr = statistics.mean_and_stderr(totals[0])
  found = statistics.ratio_and_stderr(totals[0], np.full(50, 4))
  assert found == pytest.approx((mean / 4, stderr / 4))


def test_the_error_of_a_ratio_of_one_prompt_or_of_no_tokens_is_not_known():
  assert np.isnan(statistics.ratio_and_stderr([-3.0], [2])[1])
  ratio, stderr = statistics.ratio_and_stderr([0.0, 0.0], [0, 0])
  assert ratio == 0.0 and np.isnan(stderr)
