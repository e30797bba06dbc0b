# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Tasks: what a job gets from a file, and what it is told about it."""

import json

from hypo_jax.data import tasks

KEYS = {
  "layout",
  "rows_read",
  "bad_rows",
  "blank_lines",
  "filters",
  "leaked_prompts",
}


def write_rows(path, num_rows=60, extra=()):
  rows = [
    {"prompt": f"ask {n}", "chosen": f"yes {n}", "rejected": "no"}
    for n in range(num_rows)
  ]
  lines = [json.dumps(row) for row in rows] + list(extra)
  path.write_text("\n".join(lines) + "\n")
  return path


def make_task(path, tmp_path, **changes):
  settings = {
    "num_prompts": {"validation": 5, "test": 5},
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
    "as_messages": False,
    "on_bad": "skip",
    "rollout_path": "",
  }
  return tasks.preference_file_task(
    str(path), data_dir=tmp_path / "data", **(settings | changes)
  )


def test_a_task_counts_what_its_file_held(tmp_path):
  path = write_rows(tmp_path / "rows.jsonl", extra=["", "{", "[]"])
  task = make_task(path, tmp_path)
  assert task.counts.keys() == KEYS
  assert task.counts["rows_read"] == 62
  assert task.counts["bad_rows"] == 2
  assert task.counts["blank_lines"] == 1
  assert task.counts["leaked_prompts"] == 0
  assert task.counts["filters"] == []
  assert sum(map(len, task.pairs.values())) == 60
  json.dumps(task.counts)  # Plain numbers and text.


def test_the_embedded_world_has_the_same_counts():
  task = tasks.reviews_task(
    num_demonstrations=1, num_prompts={"validation": 1, "test": 1}, seed=0
  )
  assert task.counts.keys() == KEYS
  assert task.counts["layout"] == "reviews"
