# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Rollouts held against the pairs and the reference, on arrays by hand."""

import numpy as np
import pytest

from hypo_jax import diagnostics
from hypo_jax.statistics import PolicySamples

PAIR = np.array([[5, 6, 1], [5, 7, 1]])


def pairs(real=True):
  mask = np.ones_like(PAIR, bool)
  return {
    "chosen_tokens": PAIR,
    "chosen_mask": mask,
    "rejected_tokens": PAIR[::-1],
    "rejected_mask": mask,
    "pair_mask": np.array([real, real]),
  }


def samples(tokens, mask, log_ratio, ref_log_probs):
  mask = np.asarray(mask, bool)
  return PolicySamples(
    np.asarray(tokens),
    mask,
    np.where(mask, log_ratio, 0.0),
    np.zeros(mask.shape),
    np.where(mask, ref_log_probs, 0.0),
  )


# One prompt with two completions, one with two others; the last token of each
# but the first is padding.
ROLLOUTS = samples(
  [[[5, 6, 1], [5, 1, 0]], [[5, 7, 0], [5, 6, 0]]],
  [[[1, 1, 1], [1, 1, 0]], [[1, 1, 0], [1, 1, 0]]],
  np.log(2.0) / 2,
  [[[-1, -2, -3], [-1, -9, 0]], [[-1, -2, 0], [-1, -4, 0]]],
)


def uniform(log_probs):
  """The reference's own: a token a rollout, one rollout a prompt."""
  log_probs = np.asarray(log_probs, float)[:, None, None]
  return samples(np.ones(log_probs.shape, int), log_probs < 1, 0.0, log_probs)


@pytest.mark.parametrize(
  ("tokens", "seen"),
  [
    ([5, 6, 1], True),
    ([5, 7, 1], True),
    ([5, 6, 7], False),
    ([6, 1], False),  # No pair begins so.
    ([1], False),
    ([9, 1], False),
    ([5], True),  # As far as it goes.
  ],
)
def test_a_completion_is_seen_where_some_pair_says_all_of_it(tokens, seen):
  row = np.array([[tokens + [0] * (3 - len(tokens))]])
  mask = np.arange(3) < np.array([[[len(tokens)]]])
  drawn = samples(row, mask, 0.0, -1.0)
  shares = diagnostics.seen_shares(
    drawn, None, diagnostics.offline_support(pairs())
  )
  assert shares == {
    "seen": float(seen),
    "unseen_valid": float(not seen),
    "invalid": 0.0,
  }


def test_shares_add_up_and_the_invalid_are_only_that():
  shares = diagnostics.seen_shares(
    ROLLOUTS,
    np.array([[True, True], [True, False]]),
    diagnostics.offline_support(pairs()),
  )
  assert shares == {"seen": 0.5, "unseen_valid": 0.25, "invalid": 0.25}


def test_floors_are_quantiles_of_the_references_own():
  known = diagnostics.covered(pairs(), uniform(-np.arange(101.0)))
  assert known.token_floor == pytest.approx(-99.0)
  assert known.rollout_floor == pytest.approx(-95.0)


def test_padding_is_no_likely_token():
  own = uniform(-np.arange(101.0))
  padded = PolicySamples(*(np.pad(x, ((0, 0), (0, 0), (0, 3))) for x in own))
  assert diagnostics.covered(pairs(), padded)[1:] == pytest.approx((-99, -95))


def test_the_reference_itself_is_unlikely_as_often_as_its_quantiles_say():
  own = uniform(np.random.default_rng(0).normal(-50.0, 3.0, 4000))
  known = diagnostics.covered(pairs(), own)
  found = diagnostics.describe_coverage(own, known)
  assert found["ref_unlikely_tokens"] == pytest.approx(0.01)
  assert found["ref_unlikely_rollouts"] == pytest.approx(0.05)


def test_rollouts_by_hand():
  known = diagnostics.covered(pairs(), ROLLOUTS)
  known = known._replace(token_floor=-3.5, rollout_floor=-5.5)
  found = diagnostics.describe_coverage(ROLLOUTS, known)
  # 1 after (mark, 5) is in no pair; nine real tokens.
  assert found["outside_support"] == pytest.approx(1 / 9)
  # -9 and -4 of the tokens; -6 and -10 of the rollouts.
  assert found["ref_unlikely_tokens"] == pytest.approx(2 / 9)
  assert found["ref_unlikely_rollouts"] == pytest.approx(2 / 4)
  # Prompts' means are (-6 - 10) / 2 and (-3 - 5) / 2.
  assert found["ref_log_prob"] == pytest.approx(-6.0)
  assert found["ref_log_prob_stderr"] == pytest.approx(2.0)
  # 5 and 4 tokens: residuals -16 + 24 / 9 * 5 and -8 + 24 / 9 * 4, over a mean
  # of 4.5.
  assert found["ref_log_prob_per_token"] == pytest.approx(-24 / 9)
  stderr = found["ref_log_prob_per_token_stderr"]
  assert stderr == pytest.approx(8 / 3 / 4.5)
  weights = np.array([2**-1.5, 0.5, 0.5, 0.5])
  assert found["effective_sample_share"] == pytest.approx(
    weights.sum() ** 2 / (weights**2).sum() / 4
  )


def test_masked_pairs_support_nothing():
  known = diagnostics.covered(pairs(real=False), ROLLOUTS)
  assert diagnostics.describe_coverage(ROLLOUTS, known)["outside_support"] == 1


def test_a_log_ratio_that_is_nan_leaves_no_effective_samples():
  broken = ROLLOUTS._replace(log_ratio=np.full((2, 2, 3), np.nan))
  known = diagnostics.covered(pairs(), ROLLOUTS)
  found = diagnostics.describe_coverage(broken, known)
  assert found["effective_sample_share"] is None


def entry(step, log_prob):
  return {
    "step": step,
    "kl_rao_blackwell": 1.0,
    "outside_support": 0.01,
    "ref_log_prob_per_token": log_prob,
    "ref_log_prob_per_token_stderr": None,  # As of one prompt, from disk.
    "ref_unlikely_rollouts": 0.05,
  }


def test_a_loss_is_warned_of_once_when_it_begins():
  start = entry(0, -1.0)
  history = [start, entry(5, -2.0)]
  warned = diagnostics.coverage_warning(history)
  found = diagnostics.coverage_verdict(history)
  assert found["coverage_lost_since"] == 5
  assert warned == f"warning: {found['coverage_verdict']}"
  assert "being lost since step 5" in warned
  assert diagnostics.coverage_warning([*history, entry(9, -2.0)]) is None
  assert diagnostics.coverage_warning([start]) is None
  found = diagnostics.coverage_verdict([*history, entry(9, -1.0)])
  assert found["coverage_lost_since"] is None
