# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The objective's terms, from what was scored; see `objective`.

Each is a share of the whole batch's means, whose denominators are given as
`objective.Counts`, and comes with its metrics. Shapes: B pairs, k rollouts of
each prompt, C completion tokens.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hypo_jax import losses, scoring
from hypo_jax.batch import PreferenceBatch, Rollouts, pair_rows

Metrics = dict[str, jax.Array]


def pair_terms(
  scored: jax.Array,
  batch: PreferenceBatch,
  counts: Any,
  pair_loss: Callable[..., jax.Array],
  beta: float,
) -> tuple[jax.Array, Metrics]:
  """Returns the pairs' loss, and metrics.

  Args:
    scored: float32 [B, 2, C], token log-probs of chosen and rejected.
    batch: the pairs.
    counts: denominators.
    pair_loss: (chosen, rejected log-probs [B], batch) -> [B].
    beta: of the margins in the metrics.
  """
  chosen = scoring.sequence_log_probs(scored[:, 0], batch.chosen_mask)
  rejected = scoring.sequence_log_probs(scored[:, 1], batch.rejected_mask)
  # Zeros before the loss: a pair that is left out may hold nan, and 0 * nan
  # would poison the gradient behind it.
  chosen, rejected, ref_chosen, ref_rejected = (
    jnp.where(batch.pair_mask, x, 0.0)
    for x in (
      chosen,
      rejected,
      batch.ref_chosen_log_probs,
      batch.ref_rejected_log_probs,
    )
  )
  batch = dataclasses.replace(
    batch,
    ref_chosen_log_probs=ref_chosen,
    ref_rejected_log_probs=ref_rejected,
  )
  each = pair_loss(chosen, rejected, batch)

  def mean(x):
    return jnp.sum(jnp.where(batch.pair_mask, x, 0.0)) / counts.pairs

  loss = mean(each)
  chosen_ratio = chosen - ref_chosen
  rejected_ratio = rejected - ref_rejected
  margin = beta * (chosen_ratio - rejected_ratio)
  weight = batch.chosen_mask & batch.pair_mask[:, None]
  chosen_tokens = jnp.where(weight, scored[:, 0], 0.0)
  metrics = {
    "preference_loss": loss,
    "sft_loss": -jnp.sum(chosen_tokens) / counts.chosen_tokens,
    "reward_margin": mean(margin),
    "reward_accuracy": mean(margin > 0),
    "chosen_log_probs": mean(chosen),
    "rejected_log_probs": mean(rejected),
    # Since training starts at the reference, these are the changes since then.
    "chosen_log_ratio": mean(chosen_ratio),
    "rejected_log_ratio": mean(rejected_ratio),
  }
  return loss, metrics


def offline_kl(
  token_kl: jax.Array, batch: PreferenceBatch, counts: Any
) -> jax.Array:
  """Returns the pairs' mean, a completion, of the KL at the states they visit.

  The states are the data's, so its gradient is exact, and it says nothing of
  states that only the policy visits.

  Args:
    token_kl: float32 [B, 2, C], next-token KL(policy || reference), nats.
    batch: the pairs.
    counts: denominators.
  """
  rows = pair_rows(batch)
  mask = rows.slot_mask & batch.pair_mask[:, None, None]
  return jnp.sum(jnp.where(mask, token_kl, 0.0)) / (2 * counts.pairs)


def kl_terms(
  scored: jax.Array,
  ref_scored: jax.Array,
  token_kl: jax.Array,
  rollouts: Rollouts,
  counts: Any,
  *,
  estimator: str,
  samples_per_prompt: int,
  max_importance_weight: float | None,
) -> tuple[jax.Array, Metrics]:
  """Returns the rollouts' KL surrogate, and metrics.

  Args:
    scored: float32 [B, k, C], token log-probs under the policy.
    ref_scored: float32 [B, k, C], under the reference.
    token_kl: float32 [B, k, C], next-token KL(policy || reference), nats.
    rollouts: drawn from the policy; from the reference where weights are given.
    counts: denominators.
    estimator: one of `objective.ESTIMATORS`.
    samples_per_prompt: rollouts that serve as each other's baseline.
    max_importance_weight: see `losses.importance_weights`; None for rollouts of
      the policy.
  """
  mask = rollouts.rows.slot_mask
  scored, ref_scored, token_kl, flat_mask = (
    x.reshape(-1, x.shape[-1]) for x in (scored, ref_scored, token_kl, mask)
  )
  if estimator == "rao_blackwell":
    term = losses.rao_blackwell_kl_loss(
      scored, token_kl, flat_mask, samples_per_prompt=samples_per_prompt
    )
  else:
    term = losses.reverse_kl_loss(
      scored,
      ref_scored,
      flat_mask,
      estimator=estimator,
      samples_per_prompt=samples_per_prompt,
    )
  weight, sampler, metrics = 1.0, scored, {}
  if max_importance_weight is not None:
    ratio = losses.importance_weights(
      scored, ref_scored, flat_mask, max_weight=math.inf
    )
    weight = jnp.minimum(ratio, max_importance_weight)
    sampler = ref_scored
    metrics = {
      "importance_weight": jnp.sum(weight) / counts.rollouts,
      "importance_clipped": jnp.sum(ratio > max_importance_weight)
      / counts.rollouts,
    }

  def total(x, weight=1.0):
    rows = jnp.where(flat_mask, jax.lax.stop_gradient(x), 0.0).sum(axis=-1)
    return jnp.sum(weight * rows)

  drawn = rollouts.token_log_probs.reshape(scored.shape)
  metrics |= {
    "kl": total(scored - ref_scored, weight) / counts.rollouts,
    "kl_rao_blackwell": total(token_kl, weight) / counts.rollouts,
    "rollout_length": jnp.sum(mask) / counts.rollouts,
    # What was sampled is what is scored: zero up to rounding, always.
    "sampler_gap": total(jnp.abs(sampler - drawn)) / counts.rollout_tokens,
  }
  return jnp.sum(weight * term.loss) / counts.rollouts, metrics
