# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What the monitor's calibration makes of runs whose numbers are given."""

import numpy as np
import pytest

from benchmarks.monitor import cells, page, rules
from hypo_jax.coverage import monitor

STEPS = (0, 10, 20, 30)


def run(unlikely, rewards, invalid=(0.0,) * 4, kind="DPO"):
  blank = dict.fromkeys(cells.INPUTS, 0.5)
  blank["ref_log_prob_per_token_stderr"] = 0.01
  history = [
    blank
    | {"step": s, "ref_unlikely_rollouts": u, "ref_log_prob_per_token": -u}
    for s, u in zip(STEPS, unlikely, strict=True)
  ]
  outcome = [
    dict(zip(cells.OUTCOME, row, strict=True))
    for row in zip(STEPS, rewards, invalid, strict=True)
  ]
  return cells.as_run(kind, "0", history, outcome)


GONE = run((0.05, 0.1, 0.3, 0.5), (0.0, 0.3, 0.25, 0.1))
PASSING = run((0.05, 0.1, 0.05, 0.05), (0.0, 0.3, 0.15, 0.3))
KEPT = run((0.05, 0.08, 0.06, 0.04), (0.0, 0.3, 0.25, 0.3))


def test_a_collapse_may_pass():
  assert (GONE.collapse, GONE.lasting) == (30, True)
  assert (PASSING.collapse, PASSING.lasting) == (20, False)
  assert (KEPT.collapse, KEPT.lasting) == (None, False)
  invalid = run((0, 0, 0, 0), (0, 0, 0, 0.5), (0, 0, 0, 0.3))
  assert (invalid.collapse, invalid.lasting) == (30, True)


def test_a_run_is_over_when_its_reward_stays_far_below_its_highest():
  assert not cells.is_gone([0.5, 0.2, 0.2])
  assert cells.is_gone([0.5, 0.2, 0.2, 0.2])
  assert not cells.is_gone([0.5, 0.2, 0.35, 0.2])


def test_a_threshold_lies_half_way_between_quiet_and_lasting_collapses():
  found = rules.fit(
    rules.STATISTICS["unlikely rollouts"], [GONE, PASSING, KEPT]
  )
  assert found == pytest.approx((0.3, 0.1, 0.5)) and found.apart
  # The collapse that passes must be warned of by its own time.
  every = rules.fit(
    rules.STATISTICS["unlikely rollouts"], [GONE, PASSING, KEPT], passing=True
  )
  assert every == pytest.approx((0.09, 0.08, 0.1))


@pytest.mark.parametrize(
  ("warned", "run", "outcome", "lead", "steps"),
  [
    ((0, 1, 0, 1), GONE, "in time", 2, 20),
    ((0, 0, 0, 1), GONE, "in time", 0, 0),
    ((0, 0, 0, 0), GONE, "missed", None, None),
    ((0, 0, 0, 1), PASSING, "late", -1, -10),
    ((0, 1, 0, 0), KEPT, "false", None, None),
    ((0, 0, 0, 0), KEPT, "silent", None, None),
  ],
)
def test_what_a_warning_comes_to(warned, run, outcome, lead, steps):
  found = rules.watch(run, np.array(warned, bool))
  assert (found.outcome, found.lead, found.lead_steps) == (outcome, lead, steps)


def test_scores_count_runs():
  watched = [
    rules.watch(r, np.array(w, bool))
    for r, w in (
      (GONE, (0, 0, 1, 1)),
      (GONE, (0, 0, 0, 0)),
      (PASSING, (0, 0, 0, 1)),
      (KEPT, (0, 1, 0, 0)),
      (KEPT, (0, 0, 0, 0)),
    )
  ]
  found = rules.score(watched)
  assert found[:5] == (3, 2, 3, 1, 1)
  assert (found.leads, found.lead_steps) == ([1, -1], [10, -10])


def test_what_warns_live_is_an_evaluation_at_a_time():
  limit = monitor.FALL_LIMIT
  falls = (0.0, limit + 0.01, limit - 0.01, limit + 0.01)
  found = page.warns(run(falls, (0.0,) * 4))
  assert found.tolist() == [False, True, False, True]


def test_the_reward_given_up_is_counted_from_the_advised_stop():
  watched = rules.watch(GONE, np.array([0, 0, 0, 1], bool))
  assert page.given_up(watched) == pytest.approx(0.05)


def test_the_page_counts_by_kind():
  hypo = KEPT._replace(kind="HyPO")
  text = page.make_page([GONE, KEPT], [GONE, PASSING, hypo])
  assert "Judged: 3 runs on seeds 0, of which 2 collapse, 1 lastingly" in text
  name = "fall of the reference's log-prob a token"
  assert f"| {name} | 0.03 | 0.45 | yes | 0.24 | 1 of 1 |" in text
  limit = f"{monitor.FALL_LIMIT:.3g}"
  assert f"| **{name}, as frozen** | 0.03 | 0.45 | yes | {limit} | 1 of" in text
  assert "Precision 1 of 1: 1.00 (0.21 to 1.00)" in text
  assert "recall 1 of 2: 0.50" in text and "ahead 1 of 2: 0.50" in text
  assert f"The monitor goes by the {name} (15.00), frozen at" in text
  rows = {line.split(" | ")[0]: line for line in text.splitlines()}
  assert rows["| DPO"].startswith("| DPO | 2 | 2 | 1 | 1 | 0 | 1 | 0 | 1 (1 to")
  assert rows["| HyPO"].startswith("| HyPO | 1 | 0 | 0 | 0 | 0 | 0 | 0 |")


def test_what_was_asked_of_the_monitor_is_answered_kind_by_kind():
  many, slow = cells.SILENT
  (loose,) = cells.WARNED
  quiet, fallen = (0.0, 0.01, 0.02, 0.01), (0.0, 0.1, 0.3, 0.5)
  kept, gone = (0.0, 0.3, 0.25, 0.3), (0.0, 0.3, 0.25, 0.1)
  runs = [
    run(quiet, kept, kind=many),
    run(fallen, gone, kind=many),  # It collapses: nothing was asked.
    run(fallen, kept, kind=slow),
    run(quiet, kept, kind=slow),
    run(fallen, gone, kind=loose),
  ]
  lines = page.make_page([GONE, KEPT], runs).splitlines()
  silent = "silent where nothing collapses"
  assert f"- {many}, {silent}: yes, 1 of 1." in lines
  assert f"- {slow}, {silent}: **no**, 1 of 2." in lines
  assert f"- {loose}, warned of: yes, 1 of 1." in lines
