# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Seconds of a step by phase, and memory, by a clock that the tests move."""

import jax.numpy as jnp
import pytest

from hypo_jax import timing


@pytest.fixture
def work(monkeypatch):
  """work(seconds) lets them pass."""
  now = [100.0]
  monkeypatch.setattr(timing, "perf_counter", lambda: now[0])

  def pass_time(seconds):
    now[0] += seconds

  return pass_time


def update_of(work, *, data, train, other=0.0):
  def update(state, step, timer):
    timer("data", lambda: work(data))
    timer("train", lambda: work(train))
    work(other)
    return state

  return update


def test_untimed_updates_take_their_shares_from_the_timed_one(work):
  """Nine updates of 10 s and a timed one, which alone shows its phases."""
  timer = timing.StepTimer()
  for step in range(9):
    timer.update(
      update_of(work, data=0, train=0, other=10), None, step, timed=False
    )
  timed = update_of(work, data=4, train=12, other=4)
  timer.update(timed, None, 9, timed=True)
  seconds = timer.end_window().seconds
  # 110 s over ten updates, cut as 4 : 12 : 4.
  assert seconds == pytest.approx({"data": 2.2, "train": 6.6, "other": 2.2})
  assert list(seconds) == ["data", "train", "other"]


def test_a_phase_of_some_updates_counts_as_often_as_it_ran(work):
  """A draw of rollouts in one of three updates."""
  timer = timing.StepTimer()

  def update(state, step, timer):
    if step % 3 == 0:
      timer("rollout", lambda: work(9))
    timer("train", lambda: work(2))

  for step in range(6):
    timer.update(update, None, step, timed=step in (3, 5))
  seconds = timer.end_window().seconds
  assert seconds == pytest.approx({"rollout": 3, "train": 2, "other": 0})


def test_a_phase_of_another_name_counts_too(work):
  timer = timing.StepTimer()

  def update(state, step, timer):
    timer("rollout", lambda: work(1))
    timer("judge", lambda: work(2))
    timer("train", lambda: work(3))

  timer.update(update, None, 0, timed=True)
  timer.between("checkpoint", lambda: work(4))
  seconds = timer.end_window().seconds
  assert seconds == pytest.approx(
    {"rollout": 1, "train": 3, "judge": 2, "checkpoint": 4, "other": 0}
  )
  assert list(seconds) == ["rollout", "train", "judge", "checkpoint", "other"]


def test_what_is_between_updates_is_taken_as_it_is(work):
  timer = timing.StepTimer()
  update = update_of(work, data=0, train=1)
  timer.update(update, None, 0, timed=True)
  timer.between("checkpoint", lambda: work(5))
  timer.between("evaluation", lambda: work(3))
  timer.between("evaluation", lambda: work(3))
  timer.update(update, None, 1, timed=True)
  seconds = timer.end_window().seconds
  expected = {"data": 0, "train": 1, "checkpoint": 2.5, "evaluation": 3}
  assert seconds == pytest.approx(expected | {"other": 0})
  timer.update(update, None, 2, timed=True)
  assert "checkpoint" not in timer.end_window().seconds


def test_a_part_inside_a_program_is_taken_out_of_it(work):
  timer, calls = timing.StepTimer(), []

  def part():
    calls.append(0)
    work(9 if len(calls) < 4 else 1)  # The fastest counts.

  update = update_of(work, data=0, train=4)
  for step in range(3):
    timer.update(update, None, step, timed=True)
    timer.alone("reference", "train", part)
  assert len(calls) == 4  # Once to compile, three times timed.
  timer.begin_window()
  timer.update(update, None, 3, timed=True)
  seconds = timer.end_window().seconds
  expected = {"data": 0, "reference": 1, "train": 3, "other": 0}
  assert seconds == pytest.approx(expected)


def test_two_parts_are_taken_out_of_the_same_whole(work):
  timer = timing.StepTimer()
  timer.alone("rollout", "train", lambda: work(5))
  timer.alone("reference", "train", lambda: work(2))
  timer.begin_window()
  timer.update(update_of(work, data=0, train=10), None, 0, timed=True)
  expected = {"data": 0, "rollout": 5, "reference": 2, "train": 3, "other": 0}
  assert timer.end_window().seconds == pytest.approx(expected)
  # Together they take longer than this update: they share it.
  timer.update(update_of(work, data=0, train=3.5), None, 1, timed=True)
  expected |= {"rollout": 2.5, "reference": 1, "train": 0}
  assert timer.end_window().seconds == pytest.approx(expected)


def test_a_part_that_alone_takes_longer_than_its_program_leaves_nothing(work):
  timer = timing.StepTimer()
  timer.alone("reference", "train", lambda: work(7))
  timer.begin_window()
  timer.update(update_of(work, data=0, train=2), None, 0, timed=True)
  seconds = timer.end_window().seconds
  assert seconds["train"] == 0 and seconds["reference"] == pytest.approx(2)


def test_peak_memory_grows_by_what_is_held():
  before = timing.peak_memory_bytes()
  held = [jnp.full((64, 2**20), i, jnp.float32) for i in range(2)]
  held = [x.block_until_ready() for x in held]
  # The process may have held more before than it does now.
  assert timing.peak_memory_bytes() >= before
  assert timing.peak_memory_bytes() > sum(x.nbytes for x in held)
