# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Rollouts of the reference, drawn once a prompt and never refreshed.

What a method would have that samples before training and not during it. Each
row's completions follow from the seed and its number alone, so that a restart
draws the same.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from hypo_jax import evaluate, keys, sharding
from hypo_jax.batch import Rollouts, Rows
from hypo_jax.job.batches import Batches
from hypo_jax.job.setup import Job
from hypo_jax.timing import StepTimer


def make_kept_rollouts(
  job: Job,
  rollout_step: Callable[..., Rollouts],
  reference: Any,
  stage: Batches,
  *,
  batch_size: int,
) -> Callable[[Any, int, StepTimer], Rollouts]:
  """Returns rollouts_at(state, step, timer); the first call draws them all.

  Args:
    job: the job.
    rollout_step: of `rollout.make_rollout_step`.
    reference: the reference policy's parameters.
    stage: the method's batches, whose prompts are answered.
    batch_size: prompts that are answered at once.
  """
  key = job.key("preference", "reference rollout")
  kept: list[tuple[np.ndarray, Rollouts]] = []

  def draw() -> tuple[np.ndarray, Rollouts]:
    prompts = stage.visited()
    parts = []
    for numbers in evaluate.row_batches(len(prompts["row"]), batch_size):
      names = ("prompt_tokens", "prompt_mask", "row")
      tokens, mask, row = sharding.put_rows(
        job.mesh, tuple(prompts[name][numbers] for name in names)
      )
      row_keys = keys.row_keys(key, row)
      drawn = rollout_step(reference, tokens, mask, row_keys)
      parts.append(sharding.gather(drawn))
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return prompts["row"], joined

  def rollouts_at(state: Any, step: int, timer: StepTimer) -> Rollouts:
    del state  # They are the reference's.
    if not kept:
      kept.append(timer("rollout", draw))
    rows, drawn = kept[0]
    batch = stage.prompts_at(step)
    place = np.searchsorted(rows, batch["row"])
    share = Rollouts(
      Rows(
        batch["prompt_tokens"],
        batch["prompt_mask"],
        drawn.rows.slot_tokens[place],
        drawn.rows.slot_mask[place],
      ),
      drawn.token_log_probs[place],
    )
    return sharding.global_rows(job.mesh, share)

  return rollouts_at
