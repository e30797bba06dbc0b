# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Preference losses on pairs, and the reverse KL on the policy's own samples.

HyPO minimises, over a policy pi with a frozen reference,

    mean over offline pairs of -log sigmoid(beta h)
      + kl_coef * KL(policy || reference),

where h is the chosen completion's log-ratio minus the rejected one's. The first
term is DPO. The second needs completions drawn from the policy itself: offline
pairs cannot tell where else the policy has put its mass.

Differentiating a mean log-ratio over samples drops the sampling distribution's
own gradient, and what is left has expectation zero. `reverse_kl_loss` and
`rao_blackwell_kl_loss` therefore return surrogates, whose expected *gradient*
is that of KL(policy || reference) and whose value means nothing.

Everything here is a function of arrays. What no code can check: rollouts must
be drawn from the policy being differentiated, at temperature 1, untruncated.
Nothing here runs a model or reduces over devices.

Shapes: B pairs, N rollouts, C completion tokens, k samples per prompt. All
log-probs are in nats; sums are float32 (float64 for float64 input under x64).
"""

import math
import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Scalar = float | jax.Array

_ESTIMATORS = ("sequence", "leave_one_out", "to_go")


class KLTerm(NamedTuple):
  """A KL surrogate and the KL estimate that belongs to it, one per rollout.

  Attributes:
    loss: float32 [N], a surrogate: only its gradient means something.
    kl: float32 [N], nats per sequence, without gradient.
  """

  loss: jax.Array
  kl: jax.Array


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
    float32 [B], not reduced; log 2 where the policy equals the reference.

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
  _check_positive("beta", beta)
  _check_scalar("label_smoothing", label_smoothing, "in [0, 0.5)", 0.0, 0.5)
  return -(1 - label_smoothing) * jax.nn.log_sigmoid(beta * h) - (
    label_smoothing * jax.nn.log_sigmoid(-beta * h)
  )


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
  _check_positive("beta", beta)
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
  _check_positive("beta", beta)
  return jax.nn.relu(1 - beta * h)


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
  if estimator not in _ESTIMATORS:
    _refuse("estimator", f"one of {_ESTIMATORS}", repr(estimator))
  shape = _check_mask(completion_mask)
  least = 2 if estimator == "leave_one_out" else 1
  _check_samples(shape[0], samples_per_prompt, least)
  log_probs = _scored("token_log_probs", token_log_probs, completion_mask)
  ref_log_probs = _scored(
    "ref_token_log_probs", ref_token_log_probs, completion_mask
  )
  token_log_ratio = lax.stop_gradient(log_probs - ref_log_probs)
  log_ratio = token_log_ratio.sum(axis=-1)
  if estimator == "to_go":
    to_go = lax.cumsum(token_log_ratio, axis=1, reverse=True)
    return KLTerm((log_probs * to_go).sum(axis=-1), log_ratio)
  weight = log_ratio
  if estimator == "leave_one_out":
    weight = log_ratio - _mean_of_others(log_ratio, samples_per_prompt)
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
  shape = _check_mask(completion_mask)
  _check_samples(shape[0], samples_per_prompt, 1)
  log_probs = _scored("token_log_probs", token_log_probs, completion_mask)
  token_kl = _scored("token_kl", token_kl, completion_mask)
  to_go = lax.cumsum(lax.stop_gradient(token_kl), axis=1, reverse=True)
  # to_go[t + 1], not to_go[t] - token_kl[t], which would leave rounding noise
  # at the last token, where the true weight is 0.
  future = jnp.pad(to_go[:, 1:], ((0, 0), (0, min(1, shape[1]))))
  if samples_per_prompt > 1:
    future = future - _mean_of_others(future, samples_per_prompt)
  kl = token_kl.sum(axis=-1)
  loss = kl + (log_probs * future).sum(axis=-1)
  return KLTerm(loss, lax.stop_gradient(kl))


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
  _check_scalar("kl_coef", kl_coef, ">= 0 and finite", 0.0, math.inf)
  pairs = {
    "chosen_log_probs": chosen_log_probs,
    "rejected_log_probs": rejected_log_probs,
    "ref_chosen_log_probs": ref_chosen_log_probs,
    "ref_rejected_log_probs": ref_rejected_log_probs,
  }
  _check_log_probs(**pairs)  # before the mask below would broadcast them
  if pair_mask is not None:
    _check_mask(pair_mask, "pair_mask", jnp.shape(chosen_log_probs))
    pairs = {k: jnp.where(pair_mask, v, 0.0) for k, v in pairs.items()}
  preference_loss = _mean(
    dpo_loss(**pairs, beta=beta, label_smoothing=label_smoothing), pair_mask
  )
  rows = _check_mask(rollout_mask, "rollout_mask")[:1]
  if rollout_row_mask is not None:
    _check_mask(rollout_row_mask, "rollout_row_mask", rows)
    rollout_mask = rollout_mask & rollout_row_mask[:, None]
  term = _kl_term(
    rollout_token_log_probs,
    ref_rollout_token_log_probs,
    rollout_token_kl,
    rollout_mask,
    estimator=estimator,
    samples_per_prompt=samples_per_prompt,
  )
  kl_loss = _mean(term.loss, rollout_row_mask)
  loss = preference_loss
  if not (isinstance(kl_coef, numbers.Real) and kl_coef == 0):
    loss = loss + kl_coef * kl_loss
  metrics = _pair_metrics(**pairs, beta=beta, pair_mask=pair_mask) | {
    "loss": loss,
    "preference_loss": preference_loss,
    "kl_loss": kl_loss,
    "kl": _mean(term.kl, rollout_row_mask),
  }
  return loss, lax.stop_gradient(metrics)


def _kl_term(
  log_probs, ref_log_probs, token_kl, mask, *, estimator, samples_per_prompt
) -> KLTerm:
  """Returns the named estimator's term; token_kl goes with one of them."""
  if estimator == "rao_blackwell":
    if token_kl is None:
      _refuse("rollout_token_kl", "float [N, C] for 'rao_blackwell'", "None")
    return rao_blackwell_kl_loss(
      log_probs, token_kl, mask, samples_per_prompt=samples_per_prompt
    )
  if estimator not in _ESTIMATORS:
    names = (*_ESTIMATORS, "rao_blackwell")
    _refuse("estimator", f"one of {names}", repr(estimator))
  if token_kl is not None:
    _refuse("rollout_token_kl", f"None for {estimator!r}", "an array")
  return reverse_kl_loss(
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
  return {name: _mean(value, pair_mask) for name, value in values.items()}


def _preference_logit(
  chosen_log_probs,
  rejected_log_probs,
  ref_chosen_log_probs,
  ref_rejected_log_probs,
) -> jax.Array:
  """Returns h [B], the chosen log-ratio minus the rejected one."""
  _check_log_probs(
    chosen_log_probs=chosen_log_probs,
    rejected_log_probs=rejected_log_probs,
    ref_chosen_log_probs=ref_chosen_log_probs,
    ref_rejected_log_probs=ref_rejected_log_probs,
  )
  # Policy minus reference first: both are near -100 and close to each other.
  return (jnp.asarray(chosen_log_probs) - ref_chosen_log_probs) - (
    jnp.asarray(rejected_log_probs) - ref_rejected_log_probs
  )


def _mean_of_others(values: jax.Array, samples_per_prompt: int) -> jax.Array:
  """Returns [N, ...]: the mean over the other rows of each row's prompt."""
  groups = values.reshape(-1, samples_per_prompt, *values.shape[1:])
  others = groups.sum(axis=1, keepdims=True) - groups
  return (others / (samples_per_prompt - 1)).reshape(values.shape)


def _mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Returns the mean over rows where mask is True, 0 if there are none."""
  if mask is None:
    return values.mean() if values.size else values.sum()
  return jnp.where(mask, values, 0.0).sum() / jnp.maximum(jnp.sum(mask), 1)


def _scored(name: str, values: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns values in float32, 0 where masked.

  The zeros go in before any arithmetic, so that masked nan and inf reach
  neither the value nor, as 0 * nan, the gradient.
  """
  values = jnp.asarray(values)
  if values.shape != jnp.shape(mask):
    _refuse(name, f"the mask's shape {jnp.shape(mask)}", values.shape)
  if not jnp.issubdtype(values.dtype, jnp.floating):
    _refuse(name, "a float dtype", values.dtype)
  dtype = jnp.promote_types(values.dtype, jnp.float32)
  return jnp.where(mask, values, 0.0).astype(dtype)


def _check_log_probs(**log_probs: jax.Array) -> None:
  """Refuses anything but float32 (or float64) arrays of one shape [B]."""
  shape = None
  for name, values in log_probs.items():
    values = jnp.asarray(values)
    shape = values.shape if shape is None else shape
    if values.ndim != 1 or values.shape != shape:
      expected = "shape [B]" if len(shape) != 1 else f"shape {shape}"
      _refuse(name, expected, f"shape {values.shape}")
    if values.dtype not in (jnp.float32, jnp.float64):
      _refuse(name, "float32 (sum token log-probs in it)", values.dtype)


def _check_mask(
  mask: jax.Array, name: str = "completion_mask", shape: tuple | None = None
) -> tuple[int, ...]:
  """Returns the mask's shape, which is [N, C] unless given."""
  mask = jnp.asarray(mask)
  if mask.dtype != jnp.bool_:
    _refuse(name, "dtype bool", mask.dtype)
  if mask.shape != shape and (shape is not None or mask.ndim != 2):
    _refuse(name, f"shape {shape or '[N, C]'}", f"shape {mask.shape}")
  return mask.shape


def _check_samples(rows: int, samples_per_prompt: int, least: int) -> None:
  is_count = isinstance(samples_per_prompt, numbers.Integral)
  if not is_count or samples_per_prompt < least:
    _refuse("samples_per_prompt", f"an int >= {least}", samples_per_prompt)
  if rows % samples_per_prompt:
    expected = f"a divisor of the {rows} rows"
    _refuse("samples_per_prompt", expected, samples_per_prompt)


def _check_positive(name: str, value: Scalar) -> None:
  _check_scalar(name, value, "> 0 and finite", math.ulp(0.0), math.inf)


def _check_scalar(
  name: str, value: Scalar, expected: str, least: float, below: float
) -> None:
  """Checks the shape always, the range where the value is known at trace."""
  if jnp.ndim(value):
    _refuse(name, "a scalar", f"shape {jnp.shape(value)}")
  if isinstance(value, numbers.Real) and not least <= value < below:
    _refuse(name, expected, value)


def _refuse(name: str, expected: str, actual: object) -> None:
  raise ValueError(f"{name}: expected {expected}, got {actual}")
