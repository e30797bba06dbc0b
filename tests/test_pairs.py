# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The reference's log-probs of the pairs that a job trains on."""

import types

import numpy as np
import pytest

from hypo_jax.data import pipeline
from hypo_jax.job import pairs

ROWS = 50


def fake_job(folder, *sizes_and_steps):
  """A job whose reference says minus the row's number of each pair."""

  def scorer(reference, table):
    return np.stack([-table["number"], -table["number"]], axis=1)

  def as_arrays(records):
    number = np.array([record["number"] for record in records])
    return {"number": number, "pair_mask": np.ones(len(number), bool)}, None

  return types.SimpleNamespace(
    config=types.SimpleNamespace(seed=3),
    workdir=folder,
    leader=True,
    methods={
      str(i): {"batch_size": size, "num_steps": steps}
      for i, (size, steps) in enumerate(sizes_and_steps)
    },
    tokens=types.SimpleNamespace(pairs=as_arrays),
    pair_scorer=scorer,
    barrier=lambda name: None,
    say=lambda text: None,
  )


def batch_rows(size, steps):
  batch_at = pipeline.make_batches(
    {"x": np.zeros(ROWS)}, batch_size=size, seed=3, stage="preference"
  )
  return {row for step in range(steps) for row in batch_at(step)["row"]}


@pytest.mark.parametrize("trials", [[(4, 3)], [(4, 3), (8, 2)], [(8, 7)]])
def test_every_pair_that_training_comes_to_is_scored_and_no_other(
  tmp_path, trials
):
  records = {
    "train": [{"number": i} for i in range(ROWS)],
    "test": [{"number": i} for i in range(7)],
  }
  tables = pairs.score_reference(fake_job(tmp_path, *trials), None, records)
  for name in ("ref_chosen_log_probs", "ref_rejected_log_probs"):
    np.testing.assert_array_equal(tables["test"][name], -np.arange(7))
    scored = np.flatnonzero(~np.isnan(tables["train"][name]))
    np.testing.assert_array_equal(tables["train"][name][scored], -scored)
    visited = set().union(*(batch_rows(*trial) for trial in trials))
    if all(size * steps < ROWS for size, steps in trials):
      assert set(scored) == visited
    else:
      assert len(scored) == ROWS
