# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Traces of a few steps."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from hypo_jax import timing, traces


def events(folder):
  """A trace's events as Perfetto reads them; TensorBoard's file has the same.

  Returns those with a name and a duration, in the order of their beginnings.
  """
  (path,) = folder.glob("plugins/profile/*/*.trace.json.gz")
  with gzip.open(path) as file:
    found = json.load(file)["traceEvents"]
  found = [e for e in found if "name" in e and e.get("ph") == "X"]
  (path,) = folder.glob("plugins/profile/*/*.xplane.pb")
  planes = jax.profiler.ProfileData.from_file(str(path)).planes
  others = [e.name for p in planes for line in p.lines for e in line.events]
  ours = ("step", "data", "rollout", "train")
  for name in ours:
    assert others.count(name) == [e["name"] for e in found].count(name)
  return sorted(found, key=lambda e: e["ts"])


def run(traced, update, *, first=1, num_steps):
  """As the loop of a stage does it."""
  state = jnp.eye(100)
  for number in range(first, num_steps + 1):
    if traced.begins(number):
      traced.begin(state)
    with jax.profiler.StepTraceAnnotation("step", step_num=number):
      state = update(state, number)
    if traced.ends(number):
      traced.end(state)


def test_demand_16_the_trace_holds_its_steps_and_their_phases(tmp_path):
  timer = timing.StepTimer()
  train = jax.jit(lambda x: x @ x)

  def update(state, step, timer):
    timer("data", lambda: None)
    return timer("train", lambda: train(state))

  run(
    traces.StepTraces(tmp_path / "dpo", (3, 5)),
    lambda state, n: timer.update(update, state, n - 1, timed=n == 4),
    num_steps=6,
  )
  found = events(tmp_path / "dpo")
  steps = [e["args"]["step_num"] for e in found if e["name"] == "step"]
  assert steps == ["3", "4"]
  names = [e["name"] for e in found]
  assert names.count("data") == names.count("train") == 2
  first, last = (e for e in found if e["name"] == "step")
  for e in found:
    if e["name"] in ("data", "train"):
      assert first["ts"] <= e["ts"]
      assert e["ts"] + e["dur"] <= last["ts"] + last["dur"]


def test_a_stage_that_goes_on_inside_the_range_traces_the_rest(tmp_path):
  traced = traces.StepTraces(tmp_path, (3, 7))
  run(traced, lambda state, n: state + 1, first=5, num_steps=8)
  steps = [
    e["args"]["step_num"] for e in events(tmp_path) if e["name"] == "step"
  ]
  assert steps == ["5", "6"]


def test_a_stage_that_stops_in_the_middle_leaves_a_whole_trace(tmp_path):
  traced = traces.StepTraces(tmp_path, (2, 100))
  run(traced, lambda state, n: state + 1, num_steps=3)
  traced.close()
  traced.close()
  steps = [
    e["args"]["step_num"] for e in events(tmp_path) if e["name"] == "step"
  ]
  assert steps == ["2", "3"]


def test_without_steps_nothing_is_traced(tmp_path):
  traced = traces.StepTraces(tmp_path / "none", ())
  run(traced, lambda state, n: state, num_steps=2)
  traced.close()
  assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
  "steps",
  [(10,), (10, 10), (13, 10), (0, 3), (10, 22), (1, 2, 3), (1.0, 3.0)],
)
def test_steps_that_cannot_be_traced_are_refused(steps):
  with pytest.raises(ValueError, match=r"profile\.steps: expected two"):
    traces.check_steps(steps, 20, "profile.steps")


@pytest.mark.parametrize("steps", [(), (1, 2), (10, 13), (1, 21)])
def test_steps_within_the_run_are_taken(steps):
  traces.check_steps(steps, 20, "profile.steps")
