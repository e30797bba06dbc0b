# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""HyPO's loss: DPO on offline pairs and the KL on the policy's own samples."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from hypo_jax.losses import checks, kl, masked, pairs
from hypo_jax.losses.checks import Scalar


def hypo_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  ref_chosen_log_probs: jax.Array,
  ref_rejected_log_probs: jax.Array,
  rollout_token_log_probs: jax.Array,
  ref_rollout_token_log_probs: jax.Array,
  rollout_mask: jax.Array,
  *,
  beta: Scalar,
  kl_coef: Scalar,
  label_smoothing: Scalar = 0.0,
  estimator: str = "sequence",
  samples_per_prompt: int = 1,
  rollout_token_kl: jax.Array | None = None,
  pair_mask: jax.Array | None = None,
  rollout_row_mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes HyPO: mean DPO loss + kl_coef * mean reverse-KL surrogate.

  Args:
    chosen_log_probs: float32 [B], nats; the other three as in `dpo_loss`.
    rollout_token_log_probs: float [N, C], log pi of the policy's own samples.
    ref_rollout_token_log_probs: float [N, C], the same under the reference.
    rollout_mask: bool [N, C], True on scored tokens.
    beta: scalar > 0.
    kl_coef: scalar >= 0, the weight of KL(policy || reference).
    label_smoothing: scalar in [0, 0.5).
    estimator: one of `reverse_kl_loss`, or "rao_blackwell".
    samples_per_prompt: k, as in `reverse_kl_loss`.
    rollout_token_kl: float [N, C], as in `rao_blackwell_kl_loss`; given for
      "rao_blackwell" and for no other estimator.
    pair_mask: bool [B], False for pairs to leave out; they may hold nan.
    rollout_row_mask: bool [N], False for rollouts to leave out; they may hold
      nan, and count as 0 in the baselines of their prompt's other samples.

  Returns:
    The loss, a float32 scalar, and its metrics, float32 scalars without
    gradient: means over real pairs and real rollouts, 0 where there are none.
    `kl_loss` is the surrogate before kl_coef; `kl` estimates KL(policy ||
    reference) in nats per sequence; rewards are beta * log-ratio;
    `reward_accuracy` is the share of pairs with margin > 0. With kl_coef the
    number 0 the loss is dpo_loss(...).mean(), bit for bit.

  Raises:
    ValueError: a shape, dtype, range, name or count is wrong.

  Source: HyPO (arXiv 2406.01462).
  """
  checks.check_scalar("kl_coef", kl_coef, ">= 0 and finite", 0.0, math.inf)
  four = {
    "chosen_log_probs": chosen_log_probs,
    "rejected_log_probs": rejected_log_probs,
    "ref_chosen_log_probs": ref_chosen_log_probs,
    "ref_rejected_log_probs": ref_rejected_log_probs,
  }
  checks.check_log_probs(**four)  # before the mask below would broadcast them
  if pair_mask is not None:
    checks.check_mask(pair_mask, "pair_mask", jnp.shape(chosen_log_probs))
    four = {k: jnp.where(pair_mask, v, 0.0) for k, v in four.items()}
  preference_loss = masked.mean(
    pairs.dpo_loss(**four, beta=beta, label_smoothing=label_smoothing),
    pair_mask,
  )
  rows = checks.check_mask(rollout_mask, "rollout_mask")[:1]
  if rollout_row_mask is not None:
    checks.check_mask(rollout_row_mask, "rollout_row_mask", rows)
    rollout_mask = rollout_mask & rollout_row_mask[:, None]
  term = _kl_term(
    rollout_token_log_probs,
    ref_rollout_token_log_probs,
    rollout_token_kl,
    rollout_mask,
    estimator=estimator,
    samples_per_prompt=samples_per_prompt,
  )
  kl_loss = masked.mean(term.loss, rollout_row_mask)
  loss = preference_loss
  if not checks.is_zero(kl_coef):
    loss = loss + kl_coef * kl_loss
  metrics = _pair_metrics(**four, beta=beta, pair_mask=pair_mask) | {
    "loss": loss,
    "preference_loss": preference_loss,
    "kl_loss": kl_loss,
    "kl": masked.mean(term.kl, rollout_row_mask),
  }
  return loss, lax.stop_gradient(metrics)


def _kl_term(
  log_probs, ref_log_probs, token_kl, mask, *, estimator, samples_per_prompt
) -> kl.KLTerm:
  """Returns the named estimator's term; token_kl goes with one of them."""
  if estimator == "rao_blackwell":
    if token_kl is None:
      checks.refuse(
        "rollout_token_kl", "float [N, C] for 'rao_blackwell'", "None"
      )
    return kl.rao_blackwell_kl_loss(
      log_probs, token_kl, mask, samples_per_prompt=samples_per_prompt
    )
  if estimator not in kl.ESTIMATORS:
    names = (*kl.ESTIMATORS, "rao_blackwell")
    checks.refuse("estimator", f"one of {names}", repr(estimator))
  if token_kl is not None:
    checks.refuse("rollout_token_kl", f"None for {estimator!r}", "an array")
  return kl.reverse_kl_loss(
    log_probs,
    ref_log_probs,
    mask,
    estimator=estimator,
    samples_per_prompt=samples_per_prompt,
  )


def _pair_metrics(
  chosen_log_probs,
  rejected_log_probs,
  ref_chosen_log_probs,
  ref_rejected_log_probs,
  *,
  beta,
  pair_mask,
) -> dict[str, jax.Array]:
  """Returns means over real pairs."""
  chosen_log_ratio = chosen_log_probs - ref_chosen_log_probs
  rejected_log_ratio = rejected_log_probs - ref_rejected_log_probs
  margin = beta * (chosen_log_ratio - rejected_log_ratio)
  values = {
    "chosen_rewards": beta * chosen_log_ratio,
    "rejected_rewards": beta * rejected_log_ratio,
    "reward_margin": margin,
    "reward_accuracy": (margin > 0).astype(margin.dtype),
    "chosen_log_probs": chosen_log_probs,
    "rejected_log_probs": rejected_log_probs,
    "chosen_log_ratio": chosen_log_ratio,
    "rejected_log_ratio": rejected_log_ratio,
  }
  return {name: masked.mean(value, pair_mask) for name, value in values.items()}
