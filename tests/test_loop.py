# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The loop of a stage, with an update that does nothing."""

import dataclasses
import math

import jax.numpy as jnp
import pytest

from hypo_jax import loop
from hypo_jax.checkpoint import Checkpoints
from hypo_jax.train import TrainState


class Log:
  def __init__(self):
    self.said, self.rows = [], []

  def say(self, text):
    self.said.append(text)

  def write(self, step, metrics):
    self.rows.append((step, metrics))

  def close(self):
    pass


def run(folder, loss, *, num_steps, log_every=1):
  log = Log()

  def update(state, step, timer):
    del step
    metrics = {"preference_loss": jnp.float32(loss)}
    after = dataclasses.replace(state, step=state.step + 1)
    return timer("train", lambda: (after, metrics))

  checkpoints = Checkpoints(folder, keep=1, frozen="none")
  state, history = loop.run_stage(
    "dpo",
    TrainState(jnp.zeros((), jnp.int32), {"w": jnp.ones(2)}, ()),
    update,
    num_steps=num_steps,
    checkpoints=checkpoints,
    open_log=lambda first_step: log,
    tokens_per_step=10,
    evaluate=lambda state: {"kl": 0.0},
    evaluate_at={0, 7},
    log_every=log_every,
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


def test_metrics_and_evaluations_come_at_their_steps(tmp_path):
  state, history, log = run(tmp_path, 0.5, num_steps=9, log_every=4)
  assert int(state.step) == 9
  assert [entry["step"] for entry in history] == [0, 7]
  assert [step for step, _ in log.rows] == [1, 4, 8, 9]
  assert all(row["tokens_per_second"] > 0 for _, row in log.rows)
