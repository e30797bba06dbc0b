# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A job's rewards: of rollouts and of an evaluation's samples; bad ones."""

import types

import jax
import numpy as np
import pytest
from test_reward_model import (
  BACKBONE,
  BATCH,
  CONFIG,
  MESH,
  MODEL,
  PARAMS,
  B,
  random_pairs,
)

from hypo_jax import reward_model, statistics
from hypo_jax.batch import Rollouts, pair_rows
from hypo_jax.job import batches, rewards, training
from hypo_jax.models import scalar_head

ROWS = pair_rows(BATCH)
SAMPLES = statistics.PolicySamples(
  np.asarray(ROWS.slot_tokens), np.asarray(ROWS.slot_mask), None, None
)
PROMPTS = [f"prompt {i}" for i in range(B)]
PROMPT_ROWS = {
  name: np.asarray(getattr(BATCH, name))
  for name in ("prompt_tokens", "prompt_mask")
}


def make_job(reward, batch_size=3):
  config = types.SimpleNamespace(
    reward=reward,
    reward_retries=0,
    preference=types.SimpleNamespace(batch_size=batch_size),
    evaluate=types.SimpleNamespace(batch_size=0),
  )
  decode = lambda ids: " ".join(map(str, ids))  # noqa: E731
  return types.SimpleNamespace(
    config=config,
    mesh=MESH,
    model=MODEL,
    leader=True,
    adapters=False,
    tokens=types.SimpleNamespace(
      tokenizer=types.SimpleNamespace(decode=decode)
    ),
    task=types.SimpleNamespace(judge=lambda *texts: None),
  )


def count_words(prompts, completions):
  """Words, and a tenth of the prompt's number."""
  return [
    len(c.split()) + int(p.split()[1]) / 10
    for p, c in zip(prompts, completions, strict=True)
  ]


def test_a_functions_rewards_are_of_each_prompts_own_completions():
  given = rewards.make_rewards(
    make_job("test_job_rewards:count_words"), None, {}, PROMPTS
  )
  lengths = SAMPLES.mask.sum(-1) + np.arange(B)[:, None] / 10
  found = given.of_samples(PROMPTS, PROMPT_ROWS, SAMPLES)
  np.testing.assert_allclose(found, lengths, rtol=1e-6)
  # Rollouts come with the numbers of their prompts, in any order.
  order = np.array([5, 0, 7, 3], np.int32)
  rollouts = Rollouts(jax.tree.map(lambda x: x[order], ROWS), None)
  found = given.of_rollouts(rollouts, order)
  np.testing.assert_allclose(found, lengths[order], rtol=1e-6)


def test_a_learned_reward_is_the_models_of_either(monkeypatch):
  monkeypatch.setattr(rewards, "train_reward_model", lambda *_: PARAMS)
  given = rewards.make_rewards(make_job("model"), None, {}, PROMPTS)
  expected = reward_model.completion_rewards(MODEL, PARAMS, ROWS)
  found = given.of_samples(PROMPTS, PROMPT_ROWS, SAMPLES)
  assert found.shape == (B, 2)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  found = given.of_rollouts(Rollouts(ROWS, None), None)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_judges_rewards_have_no_proxy():
  assert (
    rewards.make_rewards(make_job("judge"), None, {}, []).of_samples is None
  )


def test_a_reward_model_that_collapsed_ends_the_job():
  """With its level and what to do; nothing could be learned from it."""
  constant = reward_model.start(BACKBONE, CONFIG.width, jax.random.key(1))
  constant["reward_head"] = scalar_head.init(CONFIG.width)
  constant = reward_model.centred(constant, -0.5)
  tables = dict.fromkeys(("train", "validation", "test"), random_pairs())
  with pytest.raises(
    ValueError, match=r"reward model: .* got 0 around 0.5.*collapsed.*learning"
  ):
    rewards._measured(make_job("model"), MODEL, constant, None, tables)


def broken(prompts, completions):
  raise TimeoutError("no answer")


def test_a_function_is_asked_once_before_anything_runs():
  job = make_job("test_job_rewards:broken")
  job.config.data = types.SimpleNamespace(judge="")
  job.task.prompts = {"validation": PROMPTS}
  with pytest.raises(ValueError, match="broken: .*TimeoutError.*'prompt 0'"):
    rewards.check(job)
  job.config.reward = "test_job_rewards:count_words"
  rewards.check(job)


def test_a_pair_that_was_not_scored_is_not_trained_on():
  job = types.SimpleNamespace(config=types.SimpleNamespace(seed=0))
  table = {"pair_mask": np.ones(8, bool)}
  for side in ("chosen", "rejected"):
    table[f"ref_{side}_log_probs"] = np.zeros(8)
  table["ref_rejected_log_probs"][5] = np.nan
  with pytest.raises(ValueError, match="ref_rejected_log_probs: .* row 5"):
    training._check_scored(job, {"batch_size": 4, "num_steps": 2}, table)
  # Nobody minds one that no step comes to.
  short = {"batch_size": 4, "num_steps": 1}
  seen = batches.visited_rows(job, "preference", 8, short)
  table["ref_rejected_log_probs"][:] = np.nan
  table["ref_rejected_log_probs"][seen] = 0.0
  assert len(seen) == 4
  training._check_scored(job, short, table)
