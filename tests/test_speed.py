# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a report says of speed, from rows of metrics as a stage logs them."""

import pytest

from hypo_jax.job import speed
from hypo_jax.report import formatting
from hypo_jax.report.speed import memory_line, speed_lines, speed_table


def row(step, *, train, compilations=0, stage="hypo", **more):
  seconds = {"train_seconds": train, "other_seconds": 0.5} | more
  total = sum(seconds.values())
  updating = total - more.get("evaluation_seconds", 0.0)
  return {
    "stage": stage,
    "step": step,
    "seconds_per_step": total,
    "tokens_per_second": 60 / updating,
    "mfu": 0.3 / updating,
    "compilations": compilations,
    "compilations_after_warmup": max(compilations - 3, 0),
    "peak_memory_bytes": 2**30 + step,
  } | seconds


ROWS = [
  row(1, train=30.0, compilations=3),
  row(10, train=1.5, rollout_seconds=1.0),
  row(20, train=2.5, rollout_seconds=1.0, evaluation_seconds=4.0),
]


def test_means_go_over_the_steps_in_which_nothing_was_compiled():
  figures = speed.summarise(ROWS)["hypo"]
  # Nine steps of the second row, ten of the third.
  assert list(figures["seconds"]) == ["rollout", "train", "evaluation", "other"]
  train, evaluation = (9 * 1.5 + 10 * 2.5) / 19, 10 * 4 / 19
  expected = {"train": train, "evaluation": evaluation, "rollout": 1.0}
  assert figures["seconds"] == pytest.approx(expected | {"other": 0.5})
  assert figures["seconds_per_step"] == pytest.approx(
    sum(figures["seconds"].values())
  )
  updating = train + 1.5
  assert figures["tokens_per_second"] == pytest.approx(60 / updating)
  assert figures["mfu"] == pytest.approx(0.3 / updating)
  assert figures["steps"] == 20
  assert figures["compilations"] == 3
  assert figures["compilations_after_warmup"] == 0
  assert figures["peak_memory_bytes"] == 2**30 + 20


def test_rows_of_a_device_without_a_known_peak_are_left_out_of_mfu():
  """A job may go on elsewhere."""
  rows = [ROWS[0], ROWS[1] | {"mfu": None}, ROWS[2]]
  mfu = speed.summarise(rows)["hypo"]["mfu"]
  assert mfu == pytest.approx(ROWS[2]["mfu"])
  assert (
    speed.summarise([r | {"mfu": None} for r in rows])["hypo"]["mfu"] is None
  )


def test_a_stage_that_only_compiled_is_told_as_it_was():
  figures = speed.summarise(ROWS[:1])["hypo"]
  assert figures["seconds_per_step"] == 30.5


def test_evaluations_are_no_steps():
  rows = [{"stage": "hypo", "step": 20, "evaluation": {"kl": 1.0}}, *ROWS]
  assert speed.summarise(rows) == speed.summarise(ROWS)


def test_stages_stay_apart_and_an_unknown_peak_stays_unknown():
  rows = [row(1, train=2.0, stage="sft") | {"mfu": None}, *ROWS]
  found = speed.summarise(rows)
  assert list(found) == ["sft", "hypo"]
  assert found["sft"]["mfu"] is None and found["sft"]["steps"] == 1


def test_a_line_has_the_parts_the_rate_and_what_should_not_be():
  rows = [*ROWS, row(30, train=2.5, compilations=4)]
  report = {"speed": speed.summarise(rows)}
  (line,) = speed_lines(report, width=100)
  assert line == (
    "HyPO: 5.63 s a step (rollout 1, train 2.03, evaluation 2.11, other 0.5), "
    "17 tokens/s, MFU 0.09, 1\n  compiled after warm-up"
  )
  assert memory_line(report) == (
    "Training compiled 7 programs, 1 of them after warm-up; peak memory 1.0 "
    "GiB."
  )


def test_a_table_has_a_column_a_stage_and_leaves_out_what_none_has():
  rows = [row(1, train=0.02, stage="sft") | {"mfu": None}, *ROWS]
  table = speed_table({"speed": speed.summarise(rows)})
  cells = {first: rest for first, *rest in table}
  assert cells["milliseconds a step"] == ["SFT", "HyPO"]
  assert cells["in all"] == ["520", "5,632"]
  assert cells["train"] == ["20.0", "2,026"]
  assert cells["rollout"] == ["–", "1,000"]
  assert cells["MFU"] == ["n/a", "0.09"]
  assert "data" not in cells and "trace" not in cells
  assert [first for first, *_ in table[2:6]] == [
    "rollout",
    "train",
    "evaluation",
    "other",
  ]


def test_a_report_without_speed_says_nothing():
  assert speed_lines({}, width=100) == [] and memory_line({}) == ""


@pytest.mark.parametrize(
  ("total", "parts", "text"),
  [
    (0.084, {"train": 0.0801, "data": 0.0002}, "84 ms a step (train 80.1)"),
    (2.0, {"train": 1.5, "other": 0.5}, "2 s a step (train 1.5, other 0.5)"),
    (0.5, {}, "500 ms a step"),
    (1234.5, {"train": 1234.5}, "1,234 s a step (train 1,234)"),
  ],
)
def test_a_steps_seconds_are_told_in_one_unit(total, parts, text):
  assert formatting.step_seconds(total, parts) == text
