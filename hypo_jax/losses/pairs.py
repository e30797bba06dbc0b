# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Losses on offline pairs, one function each, not reduced.

Shapes: B pairs. Log-probs are of whole completions, in nats.
"""

import math

import jax
import jax.numpy as jnp

from hypo_jax.losses import checks
from hypo_jax.losses.checks import Scalar

# exp(20) is 5e8: a density ratio that no useful policy has, yet squares of it
# stay far below float32's limit.
_MAX_LOG_RATIO = 20.0


def dpo_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  ref_chosen_log_probs: jax.Array,
  ref_rejected_log_probs: jax.Array,
  *,
  beta: Scalar,
  label_smoothing: Scalar = 0.0,
) -> jax.Array:
  """Computes DPO's negative log-likelihood of each preference.

      -(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h)

  with h = (chosen - ref_chosen) - (rejected - ref_rejected). For s > 0 this is
  conservative DPO; it is not divided by 1 - 2s.

  Args:
    chosen_log_probs: float32 [B], log policy(chosen | prompt), nats.
    rejected_log_probs: float32 [B].
    ref_chosen_log_probs: float32 [B], the same under the reference.
    ref_rejected_log_probs: float32 [B].
    beta: scalar > 0, inverse temperature; may be traced.
    label_smoothing: s, scalar in [0, 0.5), the assumed probability that a
      preference is flipped; may be traced.

  Returns:
    float32 [B], not reduced; log 2 where the policy equals the reference. 0
    where the policy rules the rejected completion out (h = inf) and
    label_smoothing is the number 0.

  Raises:
    ValueError: a shape, dtype or range is wrong. bfloat16 and float16 are
      refused: near -80 bfloat16 values are half a nat apart.

  Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; label smoothing
    from Mitchell 2023, "A note on DPO with noisy preferences".
  """
  h = _preference_logit(
    chosen_log_probs,
    rejected_log_probs,
    ref_chosen_log_probs,
    ref_rejected_log_probs,
  )
  checks.check_positive("beta", beta)
  checks.check_scalar(
    "label_smoothing", label_smoothing, "in [0, 0.5)", 0.0, 0.5
  )
  loss = -(1 - label_smoothing) * jax.nn.log_sigmoid(beta * h)
  if checks.is_zero(label_smoothing):  # 0 * -inf where h is inf.
    return loss
  return loss - label_smoothing * jax.nn.log_sigmoid(-beta * h)


def ipo_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  ref_chosen_log_probs: jax.Array,
  ref_rejected_log_probs: jax.Array,
  *,
  beta: Scalar,
) -> jax.Array:
  """Computes IPO's squared distance of h from 1 / (2 beta).

  h is a difference of whole-sequence log-ratios, as in `dpo_loss`, not of
  per-token means; IPO's tau is `beta`.

  Args:
    chosen_log_probs: float32 [B], nats; the other three as in `dpo_loss`.
    beta: scalar > 0; may be traced.

  Returns:
    float32 [B], nats squared, not reduced.

  Raises:
    ValueError: as `dpo_loss`.

  Source: Azar et al. 2023 (arXiv 2310.12036), equation 17.
  """
  h = _preference_logit(
    chosen_log_probs,
    rejected_log_probs,
    ref_chosen_log_probs,
    ref_rejected_log_probs,
  )
  checks.check_positive("beta", beta)
  return (h - 1 / (2 * beta)) ** 2


def hinge_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  ref_chosen_log_probs: jax.Array,
  ref_rejected_log_probs: jax.Array,
  *,
  beta: Scalar,
) -> jax.Array:
  """Computes the hinge loss max(0, 1 - beta h) on log-ratios.

  Args:
    chosen_log_probs: float32 [B], nats; the other three as in `dpo_loss`.
    beta: scalar > 0; may be traced.

  Returns:
    float32 [B], not reduced.

  Raises:
    ValueError: as `dpo_loss`.

  Source: SLiC-HF (Zhao et al. 2023, arXiv 2305.10425) as normalised by the
    reference in Liu et al. 2023 (RSO, arXiv 2309.06657).
  """
  h = _preference_logit(
    chosen_log_probs,
    rejected_log_probs,
    ref_chosen_log_probs,
    ref_rejected_log_probs,
  )
  checks.check_positive("beta", beta)
  return jax.nn.relu(1 - beta * h)


def chi_po_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  ref_chosen_log_probs: jax.Array,
  ref_rejected_log_probs: jax.Array,
  *,
  beta: Scalar,
  max_margin: Scalar,
) -> jax.Array:
  """Computes chi-PO's loss, which prices the density ratio and not its log.

      -log sigmoid(clip(beta (phi(z_chosen) - phi(z_rejected)), +-max_margin))

  with phi(z) = z + log z and z = policy / reference of a whole completion. It
  is DPO with another link: z alone is the chi-squared divergence's, which
  grows with the ratio where the pairs cover little.

  Args:
    chosen_log_probs: float32 [B], nats; the other three as in `dpo_loss`.
    beta: scalar > 0, weight of phi; may be traced.
    max_margin: scalar > 0; may be traced. A pair clipped on either side has
      gradient 0, as in the source, which clips at 2 R_max for rewards in
      [0, R_max], so at twice the largest difference of two rewards.

  Returns:
    float32 [B], not reduced; log 2 where the policy equals the reference.
    z is taken as exp(20) at most, so that no infinities are subtracted.

  Raises:
    ValueError: as `dpo_loss`.

  Source: Huang et al. 2024 (arXiv 2407.13399); the bound of 20 is our choice.
  """
  checks.check_log_probs(
    chosen_log_probs=chosen_log_probs,
    rejected_log_probs=rejected_log_probs,
    ref_chosen_log_probs=ref_chosen_log_probs,
    ref_rejected_log_probs=ref_rejected_log_probs,
  )
  checks.check_positive("beta", beta)
  checks.check_positive("max_margin", max_margin)

  def phi(log_probs, ref_log_probs):
    log_ratio = jnp.asarray(log_probs) - ref_log_probs
    return jnp.exp(jnp.minimum(log_ratio, _MAX_LOG_RATIO)) + log_ratio

  margin = beta * (
    phi(chosen_log_probs, ref_chosen_log_probs)
    - phi(rejected_log_probs, ref_rejected_log_probs)
  )
  return -jax.nn.log_sigmoid(jnp.clip(margin, -max_margin, max_margin))


def simpo_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  chosen_lengths: jax.Array,
  rejected_lengths: jax.Array,
  *,
  beta: Scalar,
  target_margin: Scalar,
) -> jax.Array:
  """Computes SimPO's loss on mean log-probs a token; it has no reference.

      -log sigmoid(beta (chosen / |chosen| - rejected / |rejected|) - gamma)

  Args:
    chosen_log_probs: float32 [B], log policy(chosen | prompt), sums in nats.
    rejected_log_probs: float32 [B].
    chosen_lengths: integer [B], scored tokens; 0 counts as 1.
    rejected_lengths: integer [B].
    beta: scalar > 0; may be traced. The mean over tokens makes useful values
      larger than DPO's.
    target_margin: gamma, scalar >= 0, by how much the rewards should differ;
      may be traced.

  Returns:
    float32 [B], not reduced.

  Raises:
    ValueError: as `dpo_loss`.

  Source: Meng et al. 2024 (arXiv 2405.14734).
  """
  checks.check_log_probs(
    chosen_log_probs=chosen_log_probs, rejected_log_probs=rejected_log_probs
  )
  checks.check_positive("beta", beta)
  checks.check_scalar(
    "target_margin", target_margin, ">= 0 and finite", 0.0, math.inf
  )

  def mean(name, log_probs, lengths):
    lengths, shape = jnp.asarray(lengths), jnp.shape(log_probs)
    if lengths.shape != shape:
      checks.refuse(name, f"shape {shape}", f"shape {lengths.shape}")
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
      checks.refuse(name, "an integer dtype", lengths.dtype)
    return jnp.asarray(log_probs) / jnp.maximum(lengths, 1)

  difference = mean("chosen_lengths", chosen_log_probs, chosen_lengths) - mean(
    "rejected_lengths", rejected_log_probs, rejected_lengths
  )
  return -jax.nn.log_sigmoid(beta * difference - target_margin)


def robust_dpo_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  ref_chosen_log_probs: jax.Array,
  ref_rejected_log_probs: jax.Array,
  *,
  beta: Scalar,
  label_smoothing: Scalar,
) -> jax.Array:
  """Computes DPO's loss, unbiased where labels are flipped at a known rate.

      (-(1 - s) log sigmoid(beta h) + s log sigmoid(-beta h)) / (1 - 2 s)

  Its mean over labels flipped with probability s is `dpo_loss` on the true
  ones, which that of conservative DPO (`dpo_loss` with s) is not. It has no
  lower bound for s > 0.

  Args:
    chosen_log_probs: float32 [B], nats; the other three as in `dpo_loss`.
    beta: scalar > 0; may be traced.
    label_smoothing: s, scalar in [0, 0.5), the probability that a preference
      is flipped; may be traced.

  Returns:
    float32 [B], not reduced; may be negative.

  Raises:
    ValueError: as `dpo_loss`.

  Source: Chowdhury et al. 2024 (arXiv 2403.00409).
  """
  h = _preference_logit(
    chosen_log_probs,
    rejected_log_probs,
    ref_chosen_log_probs,
    ref_rejected_log_probs,
  )
  checks.check_positive("beta", beta)
  checks.check_scalar(
    "label_smoothing", label_smoothing, "in [0, 0.5)", 0.0, 0.5
  )
  loss = -(1 - label_smoothing) * jax.nn.log_sigmoid(beta * h)
  if checks.is_zero(label_smoothing):  # As in `dpo_loss`.
    return loss
  loss += label_smoothing * jax.nn.log_sigmoid(-beta * h)
  return loss / (1 - 2 * label_smoothing)


def bradley_terry_loss(
  chosen_rewards: jax.Array,
  rejected_rewards: jax.Array,
  *,
  margin: Scalar = 0.0,
) -> jax.Array:
  """Computes a reward model's negative log-likelihood of each preference.

      -log sigmoid(chosen - rejected - margin)

  Args:
    chosen_rewards: float32 [B], in nats of preference.
    rejected_rewards: float32 [B].
    margin: scalar >= 0, by how much rewards should differ; may be traced.

  Returns:
    float32 [B], not reduced; log 2 for equal rewards without a margin.

  Raises:
    ValueError: a shape, dtype or range is wrong.

  Source: Bradley and Terry 1952; the margin from Touvron et al. 2023 (arXiv
    2307.09288), whose size depends on the pair.
  """
  checks.check_log_probs(
    chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards
  )
  checks.check_scalar("margin", margin, ">= 0 and finite", 0.0, math.inf)
  return -jax.nn.log_sigmoid(
    jnp.asarray(chosen_rewards) - rejected_rewards - margin
  )


def _preference_logit(
  chosen_log_probs,
  rejected_log_probs,
  ref_chosen_log_probs,
  ref_rejected_log_probs,
) -> jax.Array:
  """Returns h [B], the chosen log-ratio minus the rejected one."""
  checks.check_log_probs(
    chosen_log_probs=chosen_log_probs,
    rejected_log_probs=rejected_log_probs,
    ref_chosen_log_probs=ref_chosen_log_probs,
    ref_rejected_log_probs=ref_rejected_log_probs,
  )
  # Policy minus reference first: both are near -100 and close to each other.
  return (jnp.asarray(chosen_log_probs) - ref_chosen_log_probs) - (
    jnp.asarray(rejected_log_probs) - ref_rejected_log_probs
  )
