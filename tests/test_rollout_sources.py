# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Where a job's rollouts come from, and how long they serve."""

import types

import jax
import numpy as np
import pytest
from test_train import BATCH, MESH, MODEL, POLICY, REFERENCE, ROLLOUT_STEP, C, K

from hypo_jax import keys, loop, timing, train
from hypo_jax.checkpoint import Checkpoints
from hypo_jax.data import pipeline
from hypo_jax.job import batches, steps

NUM_STEPS, SIZE, ROWS = 70, 4, 12
SETTINGS = {
  "method": "hypo",
  "kl_coef": 0.1,
  "offline_kl_coef": 0.0,
  "temperature": None,
  "batch_size": SIZE,
  "micro_batch_size": SIZE,
  "num_steps": NUM_STEPS,
}
PROMPTS = {
  name: np.concatenate([np.asarray(getattr(BATCH, name))] * 2)[:ROWS]
  for name in ("prompt_tokens", "prompt_mask")
}


def make_job(**rollout):
  settings = {"every_steps": 1, "source": "policy", "samples_per_prompt": K}
  return types.SimpleNamespace(
    config=types.SimpleNamespace(
      rollout=types.SimpleNamespace(**settings | rollout), seed=3
    ),
    mesh=MESH,
    model=MODEL,
    adapters=False,
    max_new_tokens=C,
    eos_token_ids=(1,),
    tokens=types.SimpleNamespace(
      tokenizer=types.SimpleNamespace(pad_token_id=0)
    ),
    watch=lambda name, function, *given: function,
    key=lambda *names: keys.named_key(3, *names),
  )


def make_stage(job):
  """Batches of pairs that are prompts and zeros."""
  zeros = {
    name: np.zeros((ROWS, C), bool if name.endswith("mask") else np.int32)
    for side in ("chosen", "rejected")
    for name in (f"{side}_tokens", f"{side}_mask")
  }
  zeros["pair_mask"] = np.zeros(ROWS, bool)
  for side in ("chosen", "rejected"):
    zeros[f"ref_{side}_log_probs"] = np.zeros(ROWS, np.float32)
  rows = PROMPTS | zeros
  batch_at = pipeline.make_batches(
    rows, batch_size=SIZE, seed=3, stage="preference"
  )

  def visited():
    return batches._visited(job, "preference", rows, SETTINGS)

  return batches.Batches(batch_at, batch_at, None, visited)


def params_at(step):
  """A policy that moves, so that a late draw is another draw."""
  return jax.tree.map(lambda x: x * (1 + 0.02 * step), POLICY)


def run(job, first=0, last=NUM_STEPS):
  """Returns by step the rollouts that an update was given."""
  given = {}

  def train_step(state, frozen, batch, rollouts):
    assert frozen is REFERENCE
    given[state.step] = jax.device_get(rollouts)
    return state, {}

  stage = make_stage(job)
  update = steps.make_update(job, SETTINGS, train_step, REFERENCE, stage)
  timer = timing.StepTimer()
  timer.alone = lambda *unused: None
  for step in range(first, last):
    state = types.SimpleNamespace(trainable=params_at(step), step=step)
    update(state, step, timer)
  return given, stage


def assert_same(first, second, atol=0.0):
  """Tokens are the same ones; log-probs up to atol."""
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    np.testing.assert_allclose(a, b, rtol=0.0, atol=atol)


@pytest.mark.parametrize("every", [1, 4, 16, 64])
def test_rollouts_come_from_the_parameters_of_the_last_draw(every):
  job = make_job(every_steps=every)
  given, stage = run(job)
  key = job.key("preference", "rollout")
  for step in {0, 1, every - 1, every, 17, NUM_STEPS - 1}:
    batch = stage.batch_at(step)
    expected = ROLLOUT_STEP(
      params_at(step - step % every),
      batch["prompt_tokens"],
      batch["prompt_mask"],
      keys.row_keys(jax.random.fold_in(key, step), batch["row"]),
    )
    assert_same(given[step], jax.device_get(expected))
  # Gone on from the last step that drew.
  start = (NUM_STEPS - 1) // every * every
  again, _ = run(job, first=start)
  for step, rollouts in again.items():
    assert_same(rollouts, given[step])


def test_rollouts_of_the_reference_are_drawn_once_and_kept():
  job = make_job(source="reference")
  given, stage = run(job)
  key = job.key("preference", "reference rollout")
  drawn = ROLLOUT_STEP(
    REFERENCE,
    PROMPTS["prompt_tokens"],
    PROMPTS["prompt_mask"],
    keys.row_keys(key, np.arange(ROWS)),
  )
  drawn = jax.device_get(drawn)
  for step, rollouts in given.items():
    row = stage.batch_at(step)["row"]
    expected = jax.tree.map(lambda x, row=row: x[row], drawn)
    # They are drawn here in one batch, there in several: other rounding.
    assert_same(rollouts, expected, atol=1e-5)
  # Rows 0 and 8 have one prompt, and draws of their own.
  tokens = drawn.rows.slot_tokens
  assert (tokens[0] != tokens[8]).any()
  again, _ = run(job, first=37)
  for step, rollouts in again.items():
    assert_same(rollouts, given[step])


def test_only_prompts_that_a_step_comes_to_are_answered():
  job = make_job(source="reference")
  stage = make_stage(job)
  settings = SETTINGS | {"num_steps": 2}
  visited = batches._visited(job, "preference", PROMPTS, settings)
  rows = [stage.batch_at(step)["row"] for step in range(2)]
  np.testing.assert_array_equal(visited["row"], np.unique(rows))
  assert len(visited["row"]) == len(visited["prompt_mask"]) == 2 * SIZE


class Log:
  def say(self, text):
    pass

  def write(self, step, metrics):
    pass

  def write_evaluation(self, step, entry):
    pass

  def close(self):
    pass


@pytest.mark.parametrize(
  ("every", "kept"),
  [(1, [0, 100, 200]), (16, [0, 112, 208]), (64, [0, 128, 256])],
)
def test_checkpoints_wait_for_a_draw_that_can_be_gone_on_from(
  tmp_path, every, kept
):
  """Evaluations stand at other steps; a run that is killed loses little."""
  updated = []

  def update(state, step, timer):
    updated.append(step)
    return train.TrainState(state.step + 1, state.trainable, ()), {}

  checkpoints = Checkpoints(tmp_path, keep=9, frozen="", resume_every=every)

  def run():
    loop.run_stage(
      "hypo",
      train.TrainState(np.int32(0), {"w": np.ones(1)}, ()),
      update,
      num_steps=270,
      checkpoints=checkpoints,
      open_log=lambda step: Log(),
      tokens_per_step=1,
      evaluate=lambda state: {},
      evaluate_at={30, 250},
      checkpoint_every=100,
      draw_every=every,
    )

  run()
  assert [s for s in checkpoints.steps() if s not in (30, 250, 270)] == kept
  run()  # What is finished is not trained again.
  assert updated == list(range(270))
  checkpoints.close()
