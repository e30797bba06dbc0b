# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Online DPO: pairs made of a policy's own rollouts."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from hypo_jax import objective, scoring
from hypo_jax.batch import PreferenceBatch, Rollouts
from hypo_jax.online import draws


def make_labeller(
  model, *, samples_per_prompt: int
) -> Callable[..., PreferenceBatch]:
  """Returns label(reference, rollouts, rewards [B, k], row [B]).

  The batch pairs each prompt's rollout of the highest reward with that of the
  lowest, the first of equals. A prompt whose rewards are all equal, or whose
  pair has an empty side, gets no weight.

  Args:
    model: see `train`.
    samples_per_prompt: k, at least 2.

  Source: Guo et al. 2024 (arXiv 2402.04792), with k = 2; best against worst of
    more is our choice.
  """
  draws.check_samples("online_dpo", samples_per_prompt)

  def label(reference, rollouts: Rollouts, rewards, row) -> PreferenceBatch:
    places = jnp.stack([rewards.argmax(axis=1), rewards.argmin(axis=1)], axis=1)

    def pick(x):
      return jnp.take_along_axis(x, places[..., None], axis=1)

    rows = dataclasses.replace(
      rollouts.rows,
      slot_tokens=pick(rollouts.rows.slot_tokens),
      slot_mask=pick(rollouts.rows.slot_mask),
    )
    scored = objective.score_rows(model, reference, rows)
    log_probs = scoring.sequence_log_probs(scored, rows.slot_mask)
    differ = rewards.max(axis=1) > rewards.min(axis=1)
    return PreferenceBatch(
      prompt_tokens=rows.prompt_tokens,
      prompt_mask=rows.prompt_mask,
      chosen_tokens=rows.slot_tokens[:, 0],
      chosen_mask=rows.slot_mask[:, 0],
      rejected_tokens=rows.slot_tokens[:, 1],
      rejected_mask=rows.slot_mask[:, 1],
      pair_mask=differ & rows.slot_mask.any(axis=-1).all(axis=-1),
      row=row,
      ref_chosen_log_probs=log_probs[:, 0],
      ref_rejected_log_probs=log_probs[:, 1],
    )

  return jax.jit(label)
