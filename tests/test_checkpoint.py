# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole or absent, the best kept, the frozen parameters known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hypo_jax import checkpoint, sharding, train
from hypo_jax.logs import StageLog

PARAMS = {"a": jnp.arange(6.0).reshape(2, 3), "b": {"c": jnp.ones(4)}}


def state_at(step: int) -> train.TrainState:
  state = train.init_state(PARAMS, optax.adam(1e-3), sharding.make_mesh())
  moved = jax.tree.map(lambda x: x + step, state.trainable)
  return train.TrainState(jnp.int32(step), moved, state.opt_state)


def opened(path, **changes):
  settings = {"keep": 1, "frozen": "abc", "best_by": ("reward_mean",)}
  return checkpoint.Checkpoints(path, **settings | changes)


def test_the_latest_and_the_best_are_kept_and_restored_bit_for_bit(tmp_path):
  checkpoints, history = opened(tmp_path / "c"), []
  for step, reward in [(0, 0.1), (5, 0.9), (10, 0.3), (15, 0.2)]:
    history = [*history, {"step": step, "reward_mean": reward}]
    checkpoints.save(state_at(step), history)
  assert checkpoints.steps() == [5, 15]
  again = opened(tmp_path / "c")
  assert again.resume_step() == 15
  target = checkpoint.abstract(state_at(0))
  state, entries = again.restore(target, 5)
  assert entries == history[:2]
  for a, b in zip(
    jax.tree.leaves(state), jax.tree.leaves(state_at(5)), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  assert checkpoint.best_step(history, "reward_mean") == 5


def test_the_best_outlives_a_restart(tmp_path):
  history = []
  for step, reward in [(0, 0.9), (5, 0.1), (10, 0.2), (15, 0.3)]:
    history.append({"step": step, "reward_mean": reward})
    opened(tmp_path / "c").save(state_at(step), history)
  assert opened(tmp_path / "c").steps() == [0, 15]


def test_reading_leaves_a_save_under_way_alone(tmp_path):
  opened(tmp_path / "c").save(state_at(5), [])
  under_way = tmp_path / "c" / "10.orbax-checkpoint-tmp"
  under_way.mkdir()
  reader = opened(tmp_path / "c", read_only=True)
  assert reader.steps() == [5]
  state, _ = reader.restore(checkpoint.abstract(state_at(0)), 5)
  assert int(state.step) == 5
  reader.close()
  assert under_way.exists()
  writer = opened(tmp_path / "c")
  writer.save(state_at(15), [])
  writer.close()
  assert not under_way.exists()
  assert opened(tmp_path / "none", read_only=True).steps() == []
  assert not (tmp_path / "none").exists()


def test_only_refresh_steps_are_resumed_from(tmp_path):
  checkpoints = opened(tmp_path / "c", resume_every=4)
  for step in (0, 4, 5, 6):
    checkpoints.save(state_at(step), [])
  assert checkpoints.resume_step() == 4
  # At the end nothing more is drawn.
  assert checkpoints.resume_step(6) == 6
  assert checkpoints.resume_step(7) == 4


def test_a_half_written_checkpoint_is_not_taken_for_a_whole_one(tmp_path):
  checkpoints = opened(tmp_path / "c")
  checkpoints.save(state_at(0), [])
  # What a kill leaves: orbax writes under a temporary name.
  half = tmp_path / "c" / "7.orbax-checkpoint-tmp-123"
  half.mkdir()
  (half / "state").mkdir()
  assert opened(tmp_path / "c").resume_step() == 0


def test_other_frozen_parameters_are_refused(tmp_path):
  opened(tmp_path / "c").save(state_at(0), [])
  other = opened(tmp_path / "c", frozen="def")
  with pytest.raises(ValueError, match="frozen.*def.*abc"):
    other.restore(checkpoint.abstract(state_at(0)), 0)


def test_fingerprint_sees_any_weight_and_no_layout():
  base = checkpoint.fingerprint(PARAMS)
  assert checkpoint.fingerprint(PARAMS) == base
  moved = {**PARAMS, "a": PARAMS["a"].at[1, 2].add(1e-6)}
  swapped = {**PARAMS, "a": PARAMS["a"][::-1]}
  assert checkpoint.fingerprint(moved) != base
  assert checkpoint.fingerprint(swapped) != base


def test_metrics_are_cut_back_to_the_restored_step(tmp_path):
  def log(first_step):
    return StageLog(
      tmp_path,
      "hypo",
      num_steps=9,
      first_step=first_step,
      step_offset=0,
      active=True,
    )

  killed = log(None)  # before its first checkpoint
  killed.write_evaluation(0, {"kl": 8.0})
  killed.close()
  first = log(None)
  first.write_evaluation(0, {"kl": 0.0, "wins": [1.0], "win_rate": None})
  for step in (1, 2, 3):
    first.write(step, {"loss": 1.0})
  first.write_evaluation(3, {"kl": 9.0})
  first.close()
  path = tmp_path / "metrics.jsonl"
  path.write_text(path.read_text() + '{"stage": "hy')  # killed in a line
  second = log(2)
  second.write(3, {"loss": 2.0})
  second.close()
  evaluated, *rows = map(json.loads, path.read_text().splitlines())
  assert evaluated["step"] == 0
  assert evaluated["evaluation"] == {"kl": 0.0, "win_rate": None}
  assert [row["loss"] for row in rows] == [1.0, 1.0, 2.0]
