# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Signs of lost coverage: support by n-grams, weights, verdict, collapse."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hypo_jax.coverage import monitor, support
from hypo_jax.coverage.monitor import Diagnostics


def padded(rows, length=6):
  tokens = np.zeros((len(rows), length), np.int32)
  mask = np.zeros((len(rows), length), bool)
  for i, row in enumerate(rows):
    tokens[i, : len(row)], mask[i, : len(row)] = row, True
  return tokens, mask


def outside(offline, rollouts, order=3):
  known = support.offline_support(*padded(offline), order=order)
  tokens, mask = padded(rollouts)
  found = support.outside_support(known, tokens, mask)
  assert not found[~mask].any()
  return [f[m].tolist() for f, m in zip(found, mask, strict=True)]


def plain_outside(offline, rollouts, order):
  """The definition, word by word, on lists."""
  marked = [[None] * (order - 1) + list(row) for row in offline]
  pairs = {
    (tuple(row[t - n : t]), row[t])
    for row in marked
    for t in range(order - 1, len(row))
    for n in range(order)
  }
  contexts = {context for context, _ in pairs}
  result = []
  for row in rollouts:
    row = [None] * (order - 1) + list(row)
    flags = []
    for t in range(order - 1, len(row)):
      for n in reversed(range(order)):
        context = tuple(row[t - n : t])
        if context in contexts:
          flags.append((context, row[t]) not in pairs)
          break
      else:
        flags.append(True)
    result.append(flags)
  return result


ROWS = st.lists(st.lists(st.integers(0, 5), min_size=0, max_size=6), max_size=6)


@hypothesis.given(ROWS, ROWS, st.integers(1, 4))
def test_support_is_its_definition(offline, rollouts, order):
  assert outside(offline, rollouts, order) == plain_outside(
    offline, rollouts, order
  )


def test_offline_completions_are_inside_and_a_strange_token_counts_once():
  offline = [[5, 6, 7, 1], [5, 6, 8, 1]]
  assert outside(offline, offline) == [[False] * 4] * 2
  # 9 is nowhere offline; after it, contexts that hold it are unknown, and 7 is
  # known on its own.
  assert outside(offline, [[5, 9, 7, 1]]) == [[False, True, False, False]]
  # 7 begins no completion; 7 -> 8 is not said either.
  assert outside(offline, [[7, 8]]) == [[True, True]]
  # An id far beyond the offline ones is taken for no other n-gram.
  assert outside([[1, 2]], [[12]], order=2) == [[True]]
  # Two tokens before tell apart what one doesn't.
  assert outside([[1, 2, 3], [4, 2, 5]], [[1, 2, 5]], order=2) == [[False] * 3]
  assert outside([[1, 2, 3], [4, 2, 5]], [[1, 2, 5]], order=3) == [
    [False, False, True]
  ]


def test_share_counts_real_tokens_and_large_vocabularies():
  known = support.offline_support(*padded([[250_000, 2, 1]]))
  tokens, mask = padded([[250_000, 2, 1], [3, 1]])
  # 3 is unknown, and 1 after it is known on its own.
  assert support.outside_share(known, tokens, mask) == pytest.approx(1 / 5)
  assert support.outside_share(known, tokens, np.zeros_like(mask)) == 0.0


def test_effective_sample_share_by_hand():
  assert support.effective_sample_share(np.zeros(7)) == pytest.approx(1.0)
  log_ratio = -np.log(np.array([1.0, 2.0, 3.0]))
  share = support.effective_sample_share(log_ratio)
  assert share == pytest.approx(36 / 14 / 3)
  assert support.effective_sample_share(log_ratio + 900) == pytest.approx(share)
  one = np.array([0.0, 800.0, np.inf, np.inf])
  assert support.effective_sample_share(one) == pytest.approx(0.25)
  assert support.effective_sample_share(np.array([np.inf])) == 0.0


def run(*entries, stderr=0.01):
  """A history of (step, log-prob a token, KL)."""
  return [
    Diagnostics(step, log_prob, stderr, kl, unlikely=0.15, outside=0.02)
    for step, log_prob, kl in entries
  ]


def test_verdict_names_the_step_and_where_to_stop():
  history = run((0, -1, 0), (35, -1.05, 1.9), (40, -1.4, 2.5), (50, -1.8, 4))
  said = monitor.verdict(history)
  assert (said.lost_since, said.stop_at) == (40, 35)
  assert said.text.startswith(
    "coverage is being lost since step 40: raise kl_coef or stop at step 35"
  )
  assert "-1.80 ± 0.01 nats a token, -1.00 ± 0.01 at the start;" in said.text
  assert "15.0% of them" in said.text
  assert "2.0% of their tokens outside" in said.text and "KL 4.0" in said.text


@pytest.mark.parametrize(
  "history",
  [
    run((0, -1.0, 0.0)),
    run((0, -1.0, 0.0), (10, -1.01, 9.0)),  # far, but within what it says
    run((0, -1.0, 0.0), (10, -0.4, 9.0)),  # of what it says, the likeliest
    run((0, -1.0, 0.0), (10, -2.0, 9.0), (20, -1.0, 1.0)),  # came back
    run((0, -9.0, 0.0), (10, -9.05, 1.0)),
  ],
)
def test_verdict_is_silent(history):
  said = monitor.verdict(history)
  assert said.lost_since is said.stop_at is None
  assert said.text.startswith(f"coverage is kept up to step {history[-1].step}")


def test_verdict_counts_the_last_stretch_only():
  history = run(*((s, -u, 1.0) for s, u in enumerate([1, 3, 1, 3, 3])))
  assert monitor.verdict(history)[:2] == (3, 2)


@pytest.mark.parametrize(
  ("log_prob", "kl"), [(-1, np.nan), (-1, np.inf), (np.nan, 1), (-np.inf, 1)]
)
def test_numbers_that_are_not_finite_are_a_loss(log_prob, kl):
  assert monitor.verdict(run((0, -1, 0), (5, log_prob, kl)))[:2] == (5, 0)


def test_verdict_takes_its_threshold():
  history = run((0, -1.0, 0.0), (10, -1.25, 1.0))
  assert monitor.verdict(history, fall_limit=0.2).lost_since == 10
  assert monitor.verdict(history, fall_limit=0.25).lost_since is None


def test_a_fall_within_two_errors_of_the_difference_is_none():
  history = ((0, -4.06, 0.0), (300, -4.21, 5.0))
  error = 0.15 / 2 / np.sqrt(2)
  assert monitor.verdict(run(*history, stderr=1.01 * error)).lost_since is None
  assert monitor.verdict(run(*history, stderr=0.99 * error)).lost_since == 300
  # Of one prompt no error is known: the limit alone.
  found = monitor.verdict(run(*history, stderr=np.nan))
  assert found.lost_since == 300
  assert "reference -4.21 nats a token, -4.06 at the start" in found.text
  # A small error makes no loss of a fall within the limit.
  near = ((0, -4.06, 0.0), (300, -4.15, 5.0))
  assert monitor.verdict(run(*near, stderr=1e-6)).lost_since is None


def test_collapse_is_a_fall_or_too_many_invalid():
  steps = [0, 10, 20, 30]
  assert monitor.collapse(steps, [0.0, 0.5, 0.45, 0.4]) == 30
  assert monitor.collapse(steps, [0.0, 0.5, 0.45, 0.41]) is None
  assert monitor.collapse(steps, [0, 0, 0, 0], [0.1, 0.2, 0.21, 0.5]) == 20
  assert monitor.collapse([], []) is None


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: monitor.verdict([]), "history: expected at least one"),
    (
      lambda: monitor.verdict(run((5, 0, 0), (5, 0, 0))),
      "history: expected rising steps",
    ),
    (
      lambda: monitor.verdict(run((0, np.nan, 0))),
      "history: expected a finite log-prob at the start",
    ),
    (lambda: monitor.collapse([0], [1.0, 2.0]), "expected 1 values, got 2"),
    (
      lambda: support.effective_sample_share(np.array([np.nan])),
      "log_ratio: expected no nan",
    ),
    (
      lambda: support.effective_sample_share(np.zeros(0)),
      r"log_ratio: expected shape \[N\]",
    ),
    (
      lambda: support.offline_support(*padded([[-1]])),
      "tokens: expected ids >= 0, got -1",
    ),
    (
      lambda: support.offline_support(*padded([[2**30]]), order=3),
      "order: expected at least 1",
    ),
    (
      lambda: support.offline_support(np.zeros((1, 2)), np.ones((1, 2), bool)),
      r"tokens: expected int \[N, C\], got float64",
    ),
    (
      lambda: support.offline_support(
        np.zeros((1, 2), int), np.ones((1, 3), bool)
      ),
      "mask: expected bool",
    ),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
