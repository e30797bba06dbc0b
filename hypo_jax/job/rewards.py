# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Where a job's rewards come from, and the stage of a learned one."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hypo_jax import (
  evaluate,
  loop,
  reward_model,
  rewards,
  sharding,
  statistics,
  train,
)
from hypo_jax.batch import PreferenceBatch, Rollouts
from hypo_jax.checkpoint import (
  Checkpoints,
  fingerprint,
  json_values,
  write_json,
)
from hypo_jax.data import pipeline, tasks
from hypo_jax.job import online, steps, training
from hypo_jax.job.setup import Job

Tables = dict[str, dict[str, np.ndarray]]


def check(job: Job) -> None:
  """Raises ValueError where `config.reward` names nothing that there is.

  Or where it, or `config.data.judge`, fails: both are asked once, before the
  hours of what they will judge.
  """
  if job.config.reward not in ("", "model"):
    function = _text_function(job)
    if job.leader:
      prompts, retries = _one_prompt(job), job.config.reward_retries
      rewards.call(function, prompts, ["a word"], retries=retries)
  if job.config.data.judge and job.leader:
    job.task.judge(*_one_prompt(job), "a word")
  if job.config.reward == "model" and job.config.evaluate.reward_model_share:
    raise ValueError(
      "evaluate.reward_model_share: expected 0 where reward is model, since a "
      "job has one reward model, got "
      f"{job.config.evaluate.reward_model_share}"
    )


def _one_prompt(job: Job) -> list[Any]:
  return job.task.prompts["validation"][:1]


def rollout_prompts(job: Job, pairs: dict[str, tasks.Records]) -> list[Any]:
  """Returns the prompts that rollouts answer, for who judges them as texts."""
  own = job.task.prompts.get("rollout")
  return own or [record["prompt"] for record in pairs["train"]]


def make_rewards(
  job: Job, reference: Any, tables: Tables, prompts: Sequence[Any]
) -> online.Rewards:
  """Returns what gives rollouts their rewards, as `config.reward` names it.

  A learned model is trained first, or restored; every process gets all rewards.

  Args:
    job: the job.
    reference: the reference policy's parameters.
    tables: pairs by split.
    prompts: those that rollouts answer, by row.

  Raises:
    ValueError: for a name that stands for nothing, or a model that collapsed.
  """
  if job.config.reward == "model":
    params = train_reward_model(job, reference, tables)
    model = job.model.with_rows(sharding.row_sharding(job.mesh))
    score = jax.jit(partial(reward_model.completion_rewards, model))
    scorer = _sample_scorer(job)
    return online.Rewards(
      lambda rollouts, row: score(params, rollouts.rows),
      lambda prompts, rows, samples: scorer(params, rows, samples),
    )
  function = _text_function(job)

  def of_texts(prompts, prompt_rows, samples):
    del prompt_rows  # As text, they are in prompts.
    return _of_texts(job, prompts, function, samples)

  same = job.config.reward == "judge"
  return online.Rewards(
    partial(_of_rollouts, job, prompts, function), None if same else of_texts
  )


def _text_function(job: Job) -> rewards.RewardFunction:
  if job.config.reward != "judge":
    return rewards.load(job.config.reward)
  judge = job.task.judge
  if judge is None:
    raise ValueError(
      "reward: expected model or module:function for data without a judge, got "
      "'judge'"
    )

  def gold(prompts, completions):
    return [
      judge(*pair).reward for pair in zip(prompts, completions, strict=True)
    ]

  return gold


def _of_rollouts(job: Job, prompts, function, rollouts: Rollouts, row):
  """A function's rewards of a step's rollouts; row numbers their prompts."""
  rows = rollouts.rows
  tokens, mask, row = sharding.gather((rows.slot_tokens, rows.slot_mask, row))
  samples = statistics.PolicySamples(tokens, mask, None, None)
  asked = [prompts[r] for r in row]
  given = _of_texts(job, asked, function, samples)
  return sharding.put_rows(job.mesh, given)


def _of_texts(job: Job, prompts, function, samples) -> np.ndarray:
  """Rewards [n, k] of completions as text, given on the first process."""
  shape = samples.tokens.shape[:2]
  given = np.zeros(shape, np.float32)
  if job.leader:
    texts = evaluate.decode(job.tokens.tokenizer, samples)
    given = rewards.call(
      function,
      [prompt for prompt in prompts for _ in range(shape[1])],
      [text for group in texts for text in group],
      retries=job.config.reward_retries,
    ).reshape(shape)
  if jax.process_count() > 1:
    given = multihost_utils.broadcast_one_to_all(given)
  return given


def make_learned_rewards(job: Job, reference: Any, tables: Tables):
  """Returns what `evaluate.Evaluator.learned_rewards` is, or None.

  The model is trained on the pairs kept apart for it, or restored.
  """
  if not job.config.evaluate.reward_model_share:
    return None
  apart = tables | {"train": tables["reward_model"]}
  params = train_reward_model(job, reference, apart)
  return partial(_sample_scorer(job), params)


def _sample_scorer(job: Job):
  size = job.config.evaluate.batch_size or job.config.preference.batch_size
  return reward_model.make_sample_scorer(
    job.model, batch_size=size, mesh=job.mesh
  )


def train_reward_model(job: Job, reference: Any, tables: Tables) -> Any:
  """Fits the pairs, or restores what did; returns centred parameters.

  Writes evaluations/reward_model.json: how often, and how surely, it is right
  on held-out pairs.

  Raises:
    ValueError: if it gives every completion the same reward.
  """
  config = job.config.reward_model
  optimizer = train.make_optimizer(
    learning_rate=config.learning_rate, num_steps=config.num_steps
  )
  model = job.model.with_rows(sharding.row_sharding(job.mesh))
  step = reward_model.make_reward_step(
    model,
    optimizer,
    margin=config.margin,
    micro_batch_size=min(
      config.batch_size, job.config.preference.micro_batch_size
    ),
    adapters=job.adapters,
  )
  frozen = reference if job.adapters else None
  batch_at = pipeline.make_batches(
    tables["train"],
    batch_size=config.batch_size,
    seed=job.config.seed,
    stage="reward_model",
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )

  def update(state, number, timer):
    batch = PreferenceBatch(**batch_at(number))
    batch = sharding.global_rows(job.mesh, batch)
    return timer("train", lambda: step(state, frozen, batch))

  start = reward_model.start(
    steps.start_params(job, reference, "reward_model"),
    model.config.width,
    job.key("reward_model", "head"),
  )
  checkpoints = Checkpoints(
    job.workdir / "checkpoints" / "reward_model",
    keep=1,
    frozen=fingerprint(reference),
  )
  length = job.tokens.prompt_length + 2 * job.tokens.completion_length
  state, _ = loop.run_stage(
    "reward_model",
    train.init_state(start, optimizer, job.mesh),
    update,
    num_steps=config.num_steps,
    checkpoints=checkpoints,
    open_log=partial(training.open_log, job, "reward_model", config.num_steps),
    tokens_per_step=config.batch_size * length,
    checkpoint_every=job.config.checkpoint.every_steps,
  )
  checkpoints.close()
  return _measured(job, model, state.trainable, reference, tables)


def _measured(job: Job, model, trainable, reference, tables: Tables) -> Any:
  """Centres the model on the training pairs; measures it on the others."""
  params = reward_model.whole(trainable, reference, job.adapters)
  scorer = reward_model.make_pair_scorer(
    model, batch_size=job.config.preference.batch_size, mesh=job.mesh
  )
  seen = scorer(params, tables["train"])[tables["train"]["pair_mask"]]
  reward_model.check_spread(seen)
  params = reward_model.centred(params, float(seen.mean()))
  result = {"mean_before_centring": float(seen.mean())}
  result["std"] = float(seen.std())
  margins = {}
  for split in ("validation", "test"):
    pairs = tables[split]
    scored = scorer(params, pairs)[pairs["pair_mask"]]
    margins[split] = scored[:, 0] - scored[:, 1]
    result[split] = statistics.reliability(margins[split])
  # Nothing of this run's model was chosen by either split.
  held_out = statistics.reliability(np.concatenate([*margins.values()]))
  result["held_out"] = held_out
  job.say(
    f"reward model: {held_out['accuracy']:.3f} ± "
    f"{held_out['accuracy_stderr']:.3f} of {held_out['count']} held-out pairs "
    f"right, calibration error {held_out['calibration_error']:.3f} "
    f"({held_out['calibration_error_by_chance']:.3f} by chance)"
  )
  path = job.workdir / "evaluations" / "reward_model.json"
  if job.leader:
    path.parent.mkdir(exist_ok=True)
    write_json(path, json_values(result))
  return params
