# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The loop of a stage, with an update that does nothing."""

import dataclasses
import math
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hypo_jax import loop, timing
from hypo_jax.checkpoint import Checkpoints
from hypo_jax.train import TrainState


class Log:
  def __init__(self):
    self.said, self.rows, self.evaluations = [], [], []

  def say(self, text):
    self.said.append(text)

  def write(self, step, metrics):
    self.rows.append((step, metrics))

  def write_evaluation(self, step, entry):
    self.evaluations.append((step, entry))

  def close(self):
    pass


def run(
  folder,
  loss,
  *,
  num_steps,
  log_every=1,
  train=None,
  more=(),
  checkpoints=None,
  **settings,
):
  """Runs a stage whose update is `train(step)`, then one step more."""
  log = Log()

  def update(state, step, timer):
    metrics = {"preference_loss": jnp.float32(loss), **dict(more)}
    after = dataclasses.replace(state, step=state.step + 1)
    if train:
      train(step, timer)
    return (
      (after, metrics) if train else timer("train", lambda: (after, metrics))
    )

  checkpoints = checkpoints or Checkpoints(folder, keep=1, frozen="none")
  state, history = loop.run_stage(
    "dpo",
    TrainState(jnp.zeros((), jnp.int32), {"w": jnp.ones(2)}, ()),
    update,
    num_steps=num_steps,
    checkpoints=checkpoints,
    open_log=lambda first_step: log,
    tokens_per_step=10,
    evaluate_at={0, 7},
    log_every=log_every,
    **{"evaluate": lambda state: {"kl": 0.0}} | settings,
  )
  checkpoints.close()
  return state, history, log


@pytest.mark.parametrize(
  ("loss", "warned"), [(math.log(2), True), (0.6930, False), (0.1, False)]
)
def test_demand_02_a_loss_that_stays_at_ln_2_is_warned_about(
  tmp_path, loss, warned
):
  _, _, log = run(tmp_path, loss, num_steps=25)
  warnings = [text for text in log.said if text.startswith("warning")]
  assert len(warnings) == warned
  assert not warned or "ln 2" in warnings[0]


def test_a_loss_that_is_no_number_is_warned_about_once(tmp_path):
  more = {"grad_norm": jnp.float32(math.inf)}
  _, _, log = run(tmp_path, math.nan, num_steps=3, more=more)
  (warning,) = [text for text in log.said if text.startswith("warning")]
  assert "preference_loss, grad_norm of step 1: not finite" in warning


@pytest.mark.parametrize(("kl", "refused"), [(-2.5, True), (1.5, False)])
def test_demand_02_a_reference_that_is_not_itself_is_refused(
  tmp_path, kl, refused
):
  more = {"kl": jnp.float32(kl), "rollout_length": jnp.float32(20.0)}
  if not refused:
    assert int(run(tmp_path, 0.7, num_steps=2, more=more)[0].step) == 2
    return
  with pytest.raises(ValueError, match="got -2.5 nats over 20 tokens"):
    run(tmp_path, 0.7, num_steps=2, more=more)


def test_a_kl_of_later_updates_is_no_error(tmp_path):
  run(tmp_path, 0.7, num_steps=1)
  more = {"kl": jnp.float32(9.0), "rollout_length": jnp.float32(20.0)}
  assert int(run(tmp_path, 0.7, num_steps=3, more=more)[0].step) == 3


@pytest.mark.parametrize("at", [0, 7])
def test_a_stop_signal_is_obeyed_wherever_it_comes(tmp_path, at):
  """In the last evaluation too, after which nothing asks for it."""

  def evaluate(state):
    if int(state.step) == at:
      signal.raise_signal(signal.SIGTERM)
    return {"kl": 0.0}

  message = f"stopped at step {at}; all of it is saved"
  with pytest.raises(loop.Stopped, match=message):
    run(tmp_path, 0.5, num_steps=7, evaluate=evaluate)
  state, history, _ = run(tmp_path, 0.5, num_steps=7)
  assert int(state.step) == 7
  assert [entry["step"] for entry in history] == [0, 7]


def test_a_stop_between_draws_says_from_where_it_goes_on(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=1, frozen="none", resume_every=4)

  def train(step, timer):
    if step == 5:
      signal.raise_signal(signal.SIGTERM)
    timer("train", lambda: None)

  with pytest.raises(loop.Stopped, match="stopped at step 6; saved to step 4"):
    run(
      tmp_path,
      0.5,
      num_steps=9,
      train=train,
      checkpoint_every=4,
      draw_every=4,
      checkpoints=checkpoints,
    )


def test_metrics_and_evaluations_come_at_their_steps(tmp_path):
  state, history, log = run(tmp_path, 0.5, num_steps=9, log_every=4)
  assert int(state.step) == 9
  assert [entry["step"] for entry in history] == [0, 7]
  assert [step for step, _ in log.rows] == [1, 4, 8, 9]
  assert log.evaluations == [(0, {"kl": 0.0}), (7, {"kl": 0.0})]
  assert all(row["tokens_per_second"] > 0 for _, row in log.rows)


def test_an_evaluation_is_shown_in_two_lines_and_remarked_on(tmp_path):
  entry = {"kl": 1.5, "kl_stderr": 0.25, "kl_rao_blackwell": 1.0}
  entry |= {"outside_support": 0.0625, "reward_mean": None}

  def remark(history):
    return "it moved" if history[-1]["step"] == 7 else None

  settings = {"evaluate": lambda state: entry, "remark": remark}
  _, _, log = run(tmp_path, 0.5, num_steps=8, **settings)
  assert log.said == [
    "step    0  KL 1.50 ± 0.25",
    "           Rao-Blackwell KL 1.00  outside the pairs 6.2%",
    "step    7  KL 1.50 ± 0.25",
    "           Rao-Blackwell KL 1.00  outside the pairs 6.2%",
    "it moved",
  ]


def test_an_evaluation_is_told_when_it_is_made_and_not_on_resuming(tmp_path):
  told = []

  def tell(history):
    told.append([entry["step"] for entry in history])

  run(tmp_path, 0.5, num_steps=5, on_evaluation=tell)
  assert told == [[0]]
  run(tmp_path, 0.5, num_steps=9, on_evaluation=tell)
  assert told == [[0], [0, 7]]


def parts(row):
  return {
    p: row[f"{p}_seconds"] for p in timing.PHASES if f"{p}_seconds" in row
  }


def test_demand_16_the_parts_of_a_step_add_up_to_its_seconds(
  tmp_path, monkeypatch
):
  """One second of data, six of rollouts in every third step, by a clock."""
  now = [0.0]
  monkeypatch.setattr(timing, "perf_counter", lambda: now[0])

  def work(seconds):
    now[0] += seconds

  def train(step, timer):
    timer("data", lambda: work(1))
    if step % 3 == 0:
      # The first draw compiles.
      timer("rollout", lambda: work(6 if step else 600))
    timer("train", lambda: work(2))

  _, _, log = run(
    tmp_path,
    0.5,
    num_steps=12,
    log_every=5,
    train=train,
    evaluate=lambda state: work(20) or {"kl": 0.0},
    draw_every=3,
    seconds_at_peak=1.5,
  )
  assert [step for step, _ in log.rows] == [1, 5, 10, 12]
  # Steps 4, 7 and 10 draw too; the evaluation follows step 7.
  draws = {1: 1, 5: 1 / 4, 10: 2 / 5, 12: 0}
  for step, row in log.rows:
    evaluation = 20 / 5 if step == 10 else 0
    expected = {"data": 1, "train": 2, "other": 0}
    rollout = 600 if step == 1 else 6 * draws[step]
    expected |= {"rollout": rollout} if rollout else {}
    expected |= (
      {"evaluation": evaluation, "checkpoint": 0} if evaluation else {}
    )
    assert parts(row) == pytest.approx(expected), step
    updating = 3 + rollout
    assert row["seconds_per_step"] == pytest.approx(updating + evaluation)
    assert row["tokens_per_second"] == pytest.approx(10 / updating)
    assert row["mfu"] == pytest.approx(1.5 / updating)
    share = rollout / (2 + rollout)
    assert row.get("rollout_share", 0) == pytest.approx(share)


def test_demand_17_a_program_compiled_after_warm_up_is_seen(tmp_path):
  double = jax.jit(lambda x: 2 * x)

  def train(step, timer):
    double(np.ones(5 if step < 6 else 7, np.float32))

  _, _, log = run(tmp_path, 0.5, num_steps=9, log_every=4, train=train)
  late = {step: row["compilations_after_warmup"] for step, row in log.rows}
  assert late == {1: 0, 4: 0, 8: 1, 9: 0}
  assert dict(log.rows)[1]["compilations"] >= 1


def test_demand_16_unlogged_steps_do_not_await_the_device(
  tmp_path, monkeypatch
):
  """Awaited: timed steps, and before a checkpoint, and no other."""
  awaited = []
  monkeypatch.setattr(
    jax, "block_until_ready", lambda x: (awaited.append(now[0]), x)[1]
  )
  now = [0]

  def train(step, timer):
    now[0] = step
    timer("train", lambda: None)

  run(tmp_path, 0.5, num_steps=9, log_every=4, train=train, evaluate=None)
  # Before an update its number is still the one before.
  assert set(awaited) <= {0, 2, 3, 6, 7, 8}
  assert 3 in awaited and 7 in awaited
