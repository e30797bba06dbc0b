# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Filters: what each leaves out, in which order, and what it counts."""

import pytest

from hypo_jax.data.filters import Filters, apply


def pair(prompt="ask", chosen="yes", rejected="no!", margin=None):
  record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
  if margin is not None:
    record |= {"chosen_score": 5.0 + margin, "rejected_score": 5.0}
  return record


def test_all_are_off_by_default():
  records = [pair(), pair(), pair(chosen="y" * 1_000, margin=-3)]
  assert apply(records, Filters()) == (records, [])


def test_margins_below_the_limit_or_unknown_are_left_out():
  records = [pair(margin=m) for m in (-2, 0, 0.5, 1, 3)] + [pair()]
  kept, counts = apply(records, Filters(min_margin=1))
  assert kept == records[3:5]
  assert counts == [{"name": "min_margin", "before": 6, "after": 2}]
  with pytest.raises(ValueError, match="expected a layout with scores"):
    apply([pair()], Filters(min_margin=1))


def test_length_ratios_above_the_limit_are_left_out_on_either_side():
  # Four characters to two is at the limit, five to two above it.
  texts = [("abcd", "ab"), ("ab", "abcd"), ("abcde", "ab"), ("ab", "abcde")]
  records = [pair(chosen=a, rejected=b) for a, b in texts]
  kept, _ = apply(records, Filters(max_length_ratio=2))
  assert kept == records[:2]


def test_the_first_pairs_of_a_prompt_stay():
  records = [pair(f"ask {n % 2}", f"yes {n}") for n in range(6)]
  records.append(pair(" ask  0\n", "more"))  # The same but for white space.
  kept, _ = apply(records, Filters(max_pairs_per_prompt=2))
  assert kept == records[:4]


def test_a_prompt_that_differs_in_case_alone_is_a_duplicate():
  message = [{"role": "user", "content": "ASK"}]
  records = [pair("Ask"), pair("ask me"), pair("ask "), pair(message)]
  kept, _ = apply(records, Filters(drop_duplicate_prompts=True))
  assert kept == records[:2]
  kept, _ = apply(records, Filters(max_pairs_per_prompt=1))
  assert kept == records


def test_filters_run_in_order_each_on_what_is_left():
  records = [
    pair("a", margin=0),  # Too close; else it would be the first of its prompt.
    pair("a", chosen="y" * 99, margin=2),  # Too long; likewise.
    pair("a", chosen="first", margin=2),
    pair("a", chosen="next", margin=2),
    pair("A", chosen="last", margin=2),
  ]
  filters = Filters(
    min_margin=1,
    max_length_ratio=10,
    max_pairs_per_prompt=1,
    drop_duplicate_prompts=True,
  )
  kept, counts = apply(records, filters)
  assert kept == [records[2]]
  assert [(c["name"], c["before"], c["after"]) for c in counts] == [
    ("min_margin", 5, 4),
    ("max_length_ratio", 4, 3),
    ("max_pairs_per_prompt", 3, 2),
    ("drop_duplicate_prompts", 2, 1),
  ]


def test_a_filter_that_leaves_nothing_is_an_error():
  with pytest.raises(ValueError, match="min_margin: expected.*none of 1"):
    apply([pair(margin=1)], Filters(min_margin=2))


@pytest.mark.parametrize(
  "wrong",
  [
    {"min_margin": -1},
    {"min_margin": float("nan")},
    {"max_length_ratio": 0.5},
    {"max_pairs_per_prompt": -1},
  ],
)
def test_wrong_limits_are_named(wrong):
  (name,) = wrong
  with pytest.raises(ValueError, match=f"data.filter.{name}: expected"):
    Filters(**wrong)
