# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Policy gradients of E[reward] - kl_coef KL(policy || reference).

    RLOO  a completion's penalised reward minus the mean over the prompt's other
          samples; its expected gradient is the objective's, exactly
    GRPO  minus the mean over all of the prompt's samples, its own among them,
          which scales that gradient by (k - 1) / k; then divided by the group's
          standard deviation and by the completion's length, after which it is
          the gradient of no stated objective

The penalised reward is R = reward - kl_coef * log(policy / reference) of the
whole completion, without gradient. (GRPO's paper has a per-token KL estimate in
the loss instead, whose gradient is not the KL's.) What is returned are losses:
their gradient is minus the objective's. PPO is in `ppo`.

Shapes: N rollouts, rows of a prompt adjacent; C completion tokens, k samples
per prompt. Log-probs in nats; rewards in whatever unit kl_coef is per nat of.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hypo_jax.losses import checks, masked
from hypo_jax.losses.checks import Scalar

# Added to a group's standard deviation: rewards that all agree give 0 / this.
_EPSILON = 1e-4


class PolicyTerm(NamedTuple):
  """A policy-gradient loss and what went into it, one entry a rollout.

  Attributes:
    loss: float32 [N]; only its gradient means something.
    advantage: float32 [N], without gradient.
    kl: float32 [N], the log-ratio to the reference, without gradient.
  """

  loss: jax.Array
  advantage: jax.Array
  kl: jax.Array


def leave_one_out_advantages(
  rewards: jax.Array, *, samples_per_prompt: int
) -> jax.Array:
  """Subtracts the mean reward of the prompt's other samples.

  Args:
    rewards: float [N].
    samples_per_prompt: k, at least 2; N is a multiple.

  Returns:
    float32 [N], without gradient.

  Raises:
    ValueError: a shape, dtype or count is wrong, or a reward is not finite.

  Source: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!";
    for language models Ahmadian et al. 2024 (arXiv 2402.14740).
  """
  rewards = check_rewards(rewards)
  checks.check_samples(len(rewards), samples_per_prompt, 2)
  return rewards - masked.mean_of_others(rewards, samples_per_prompt)


def group_advantages(
  rewards: jax.Array, *, samples_per_prompt: int, scale_by_std: bool = True
) -> jax.Array:
  """Subtracts the mean reward of all of the prompt's samples, and scales.

      (R_i - mean(R)) / (std(R) + 1e-4)

  Args:
    rewards: float [N].
    samples_per_prompt: k, at least 2; N is a multiple.
    scale_by_std: whether to divide, by the population's standard deviation.

  Returns:
    float32 [N], without gradient; 0 where a prompt's rewards are all equal.

  Raises:
    ValueError: as `leave_one_out_advantages`.

  Source: Shao et al. 2024 (arXiv 2402.03300); without the division Liu et al.
    2025 (arXiv 2503.20783).
  """
  rewards = check_rewards(rewards)
  checks.check_samples(len(rewards), samples_per_prompt, 2)
  groups = rewards.reshape(-1, samples_per_prompt)
  # Equal rewards are exactly 0 from here on, whose mean is exact; std would
  # scale the rounding of any other mean up to 1.
  groups -= groups[:, :1]
  centred = groups - groups.mean(axis=1, keepdims=True)
  if scale_by_std:
    std = jnp.sqrt((centred**2).mean(axis=1, keepdims=True))
    centred = centred / (std + _EPSILON)
  return centred.reshape(-1)


def rloo_loss(
  token_log_probs: jax.Array,
  ref_token_log_probs: jax.Array,
  rewards: jax.Array,
  completion_mask: jax.Array,
  *,
  kl_coef: Scalar,
  samples_per_prompt: int,
) -> PolicyTerm:
  """Computes RLOO: -(R_i - mean of the others' R) log policy(completion i).

  Args:
    token_log_probs: float [N, C], log pi of the rollouts' tokens, drawn from
      the policy that is differentiated. Masked positions may hold anything.
    ref_token_log_probs: float [N, C], under the reference; gets no gradient.
    rewards: float [N], finite; get no gradient.
    completion_mask: bool [N, C], True on scored tokens.
    kl_coef: scalar >= 0, reward per nat of log-ratio; may be traced.
    samples_per_prompt: k, at least 2; N is a multiple.

  Returns:
    PolicyTerm, not reduced.

  Raises:
    ValueError: a shape, dtype, range or count is wrong, or a reward is not
      finite (where it is known: not under jit).

  Source: as `leave_one_out_advantages`.
  """
  log_probs, kl, penalised = _penalised(
    token_log_probs, ref_token_log_probs, rewards, completion_mask, kl_coef
  )
  advantage = leave_one_out_advantages(
    penalised, samples_per_prompt=samples_per_prompt
  )
  return PolicyTerm(-advantage * log_probs.sum(axis=-1), advantage, kl)


def grpo_loss(
  token_log_probs: jax.Array,
  ref_token_log_probs: jax.Array,
  rewards: jax.Array,
  completion_mask: jax.Array,
  *,
  kl_coef: Scalar,
  samples_per_prompt: int,
  scale_by_std: bool = True,
  scale_by_length: bool = True,
) -> PolicyTerm:
  """Computes GRPO on its own rollouts, one update a draw.

      -(1 / length_i) sum_t log policy(token t) * advantage_i

  Several updates a draw clip the ratio to the policy that drew: that is
  `ppo.clipped_policy_loss` on `group_advantages`.

  Args:
    token_log_probs: float [N, C]; this and the next three as in `rloo_loss`.
    ref_token_log_probs: float [N, C].
    rewards: float [N].
    completion_mask: bool [N, C].
    kl_coef: scalar >= 0; may be traced.
    samples_per_prompt: k, at least 2; N is a multiple.
    scale_by_std: whether to divide by the group's standard deviation.
    scale_by_length: whether to divide by each completion's scored tokens.

  Returns:
    PolicyTerm, not reduced.

  Raises:
    ValueError: as `rloo_loss`.

  Source: as `group_advantages`; the KL in the reward is our choice. With
    scale_by_std, a prompt whose rewards are all equal is therefore left with
    its KLs alone, scaled to 1, however small kl_coef is.
  """
  log_probs, kl, penalised = _penalised(
    token_log_probs, ref_token_log_probs, rewards, completion_mask, kl_coef
  )
  advantage = group_advantages(
    penalised, samples_per_prompt=samples_per_prompt, scale_by_std=scale_by_std
  )
  loss = -advantage * log_probs.sum(axis=-1)
  if scale_by_length:
    loss = loss / jnp.maximum(jnp.sum(completion_mask, axis=-1), 1)
  return PolicyTerm(loss, advantage, kl)


def check_rewards(rewards: jax.Array, name: str = "rewards") -> jax.Array:
  """Returns float32 [N] without gradient; values are checked where known.

  Raises:
    ValueError: for another shape or dtype, or a reward that is nan or infinite,
      naming the first such row. Under jit values are not known.
  """
  shape = jnp.shape(rewards)
  if len(shape) != 1:
    checks.refuse(name, "shape [N]", f"shape {shape}")
  if not jnp.issubdtype(jnp.result_type(rewards), jnp.floating):
    checks.refuse(name, "a float dtype", jnp.result_type(rewards))
  if not isinstance(rewards, jax.core.Tracer):
    bad = np.flatnonzero(~np.isfinite(np.asarray(rewards, np.float64)))
    if len(bad):
      value = np.asarray(rewards)[bad[0]]
      checks.refuse(name, "finite numbers", f"{value} in row {bad[0]}")
  dtype = jnp.promote_types(jnp.result_type(rewards), jnp.float32)
  return lax.stop_gradient(jnp.asarray(rewards, dtype))


def _penalised(log_probs, ref_log_probs, rewards, mask, kl_coef):
  """Returns token log-probs [N, C], log-ratios [N] and R [N]."""
  checks.check_scalar("kl_coef", kl_coef, ">= 0 and finite", 0.0, math.inf)
  rows = checks.check_mask(mask)[0]
  rewards = check_rewards(rewards)
  if len(rewards) != rows:
    expected = f"shape ({rows},), one a rollout"
    checks.refuse("rewards", expected, f"shape {rewards.shape}")
  log_probs = masked.scored("token_log_probs", log_probs, mask)
  ref = masked.scored("ref_token_log_probs", ref_log_probs, mask)
  kl = lax.stop_gradient((log_probs - ref).sum(axis=-1))
  return log_probs, kl, rewards - kl_coef * kl
