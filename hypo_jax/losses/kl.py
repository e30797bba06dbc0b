# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Surrogates whose expected gradient is that of KL(policy || reference).

Differentiating a mean log-ratio over samples drops the sampling distribution's
own gradient, and what is left has expectation zero. What is returned here is
therefore a surrogate: its expected *gradient* is the KL's, its value means
nothing. Rollouts must be drawn from the policy that is differentiated, at
temperature 1, untruncated.

Shapes: N rollouts, C completion tokens, k samples per prompt.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hypo_jax.losses import checks, masked
from hypo_jax.losses.checks import Scalar

ESTIMATORS = ("sequence", "leave_one_out", "to_go")


class KLTerm(NamedTuple):
  """A KL surrogate and the KL estimate that belongs to it, one per rollout.

  Attributes:
    loss: float32 [N], a surrogate: only its gradient means something.
    kl: float32 [N], nats per sequence, without gradient.
  """

  loss: jax.Array
  kl: jax.Array


def reverse_kl_loss(
  token_log_probs: jax.Array,
  ref_token_log_probs: jax.Array,
  completion_mask: jax.Array,
  *,
  estimator: str = "sequence",
  samples_per_prompt: int = 1,
) -> KLTerm:
  """Computes a surrogate whose expected gradient is KL(policy || ref)'s.

  With d_t the token log-ratio without gradient, and sums over scored tokens:

      "sequence"       (sum_t log pi_t) (sum_t d_t), HyPO's loss as written
      "leave_one_out"  the same, d minus its mean over the prompt's other
                       samples, which lowers the variance
      "to_go"          sum_t log pi_t sum_{s >= t} d_s: the log-ratio of tokens
                       already drawn has no part in a token's score

  Args:
    token_log_probs: float [N, C], log pi of the rollouts' tokens, nats. Masked
      positions may hold anything, nan and -inf included.
    ref_token_log_probs: float [N, C], under the reference; gets no gradient.
    completion_mask: bool [N, C], True on scored tokens.
    estimator: "sequence", "leave_one_out" or "to_go".
    samples_per_prompt: k; N is a multiple, rows of a prompt adjacent; at least
      2 for "leave_one_out".

  Returns:
    KLTerm; kl is the sequence log-ratio and may be negative. A row without
    scored tokens has loss, kl and gradient 0.

  Raises:
    ValueError: a shape, dtype, name or count is wrong.

  Source: HyPO (arXiv 2406.01462); leave-one-out from Kool et al. 2019, "Buy 4
    REINFORCE samples, get a baseline for free!".
  """
  if estimator not in ESTIMATORS:
    checks.refuse("estimator", f"one of {ESTIMATORS}", repr(estimator))
  shape = checks.check_mask(completion_mask)
  least = 2 if estimator == "leave_one_out" else 1
  checks.check_samples(shape[0], samples_per_prompt, least)
  log_probs = masked.scored("token_log_probs", token_log_probs, completion_mask)
  ref_log_probs = masked.scored(
    "ref_token_log_probs", ref_token_log_probs, completion_mask
  )
  token_log_ratio = lax.stop_gradient(log_probs - ref_log_probs)
  log_ratio = token_log_ratio.sum(axis=-1)
  if estimator == "to_go":
    to_go = lax.cumsum(token_log_ratio, axis=1, reverse=True)
    return KLTerm((log_probs * to_go).sum(axis=-1), log_ratio)
  weight = log_ratio
  if estimator == "leave_one_out":
    weight = log_ratio - masked.mean_of_others(log_ratio, samples_per_prompt)
  return KLTerm(log_probs.sum(axis=-1) * weight, log_ratio)


def rao_blackwell_kl_loss(
  token_log_probs: jax.Array,
  token_kl: jax.Array,
  completion_mask: jax.Array,
  *,
  samples_per_prompt: int = 1,
) -> KLTerm:
  """Computes the KL surrogate with each visited state's KL done exactly.

      sum_t KL_t + log pi_t * stop_gradient(sum_{s > t} KL_s - baseline_t)

  The current token is integrated out over the vocabulary; only the effect of a
  token on the states after it is left to sampling. For k >= 2 baseline_t is the
  mean of that future sum over the prompt's other samples, 0 past their EOS.

  Args:
    token_log_probs: float [N, C], log pi of the rollouts' tokens, nats. Masked
      positions may hold anything, nan and -inf included.
    token_kl: float [N, C], sum over the vocabulary of pi (log pi - log ref) at
      the state before each token, nats, *with* gradient.
    completion_mask: bool [N, C], True on scored tokens.
    samples_per_prompt: k; N is a multiple, rows of a prompt adjacent.

  Returns:
    KLTerm; kl is sum_t KL_t, never negative. A row without scored tokens has
    loss, kl and gradient 0.

  Raises:
    ValueError: a shape, dtype or count is wrong.

  Source: Amini et al. 2025 (arXiv 2504.10637); the baseline is our choice.
  """
  shape = checks.check_mask(completion_mask)
  checks.check_samples(shape[0], samples_per_prompt, 1)
  log_probs = masked.scored("token_log_probs", token_log_probs, completion_mask)
  token_kl = masked.scored("token_kl", token_kl, completion_mask)
  to_go = lax.cumsum(lax.stop_gradient(token_kl), axis=1, reverse=True)
  # to_go[t + 1], not to_go[t] - token_kl[t], which would leave rounding noise
  # at the last token, where the true weight is 0.
  future = jnp.pad(to_go[:, 1:], ((0, 0), (0, min(1, shape[1]))))
  if samples_per_prompt > 1:
    future = future - masked.mean_of_others(future, samples_per_prompt)
  kl = token_kl.sum(axis=-1)
  loss = kl + (log_probs * future).sum(axis=-1)
  return KLTerm(loss, lax.stop_gradient(kl))


def importance_weights(
  token_log_probs: jax.Array,
  ref_token_log_probs: jax.Array,
  completion_mask: jax.Array,
  *,
  max_weight: float,
) -> jax.Array:
  """Computes what completions drawn from the reference stand for.

      min(policy(completion) / reference(completion), max_weight)

  For any g, E_reference[policy / reference * g] = E_policy[g]. So a surrogate
  of this module, times these weights, keeps its expected gradient when its
  samples come from the reference in place of the policy, its baselines too, as
  long as no weight is cut. A cut one understates what the policy says far more
  often than the reference does: the KL's gradient is then biased towards 0, and
  most where the policy has gone furthest. Uncut, the variance grows as the
  exponential of the KL.

  Args:
    token_log_probs: float [N, C], log pi of tokens that the reference drew,
      nats. Masked positions may hold anything, nan and -inf included.
    ref_token_log_probs: float [N, C], under the reference.
    completion_mask: bool [N, C], True on scored tokens.
    max_weight: > 0; inf for weights as they are.

  Returns:
    float32 [N], without gradient; 1 for a row without scored tokens, where
    max_weight allows it.

  Raises:
    ValueError: a shape, dtype or range is wrong.

  Source: truncated importance sampling, Ionides 2008.
  """
  if not max_weight > 0:
    checks.refuse("max_weight", "a number > 0", max_weight)
  checks.check_mask(completion_mask)
  log_probs = masked.scored("token_log_probs", token_log_probs, completion_mask)
  ref_log_probs = masked.scored(
    "ref_token_log_probs", ref_token_log_probs, completion_mask
  )
  log_ratio = (log_probs - ref_log_probs).sum(axis=-1)
  return lax.stop_gradient(jnp.minimum(jnp.exp(log_ratio), max_weight))


def adapted_kl_coef(
  kl_coef: Scalar, kl: Scalar, *, target: float, gain: float = 0.1
) -> jax.Array:
  """Moves a KL's weight so that the KL goes towards a target.

      kl_coef (1 + gain * clip((kl - target) / target, -0.2, 0.2))

  but never below float32's smallest normal number, 1.2e-38: from 0 no KL, be it
  ever so large, would bring it back.

  Args:
    kl_coef: scalar > 0, the weight that the last update used.
    kl: scalar, KL(policy || reference) measured there, nats a completion; nan,
      of which nothing can be learned, leaves the weight as it is.
    target: > 0, nats a completion.
    gain: in (0, 5), how fast: at 0.1 at most 2% an update.

  Returns:
    float32 scalar > 0, the next update's weight.

  Raises:
    ValueError: a shape or range is wrong.

  Source: Ziegler et al. 2019 (arXiv 1909.08593).
  """
  checks.check_positive("kl_coef", kl_coef)
  checks.check_positive("target", target)
  checks.check_scalar("gain", gain, "in (0, 5)", math.ulp(0.0), 5.0)
  kl_coef, kl = jnp.float32(kl_coef), jnp.float32(kl)
  error = jnp.clip((kl - target) / target, -0.2, 0.2)
  moved = jnp.maximum(kl_coef * (1 + gain * error), jnp.finfo(jnp.float32).tiny)
  return lax.stop_gradient(jnp.where(jnp.isnan(kl), kl_coef, moved))
