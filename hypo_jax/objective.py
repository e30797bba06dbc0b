# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The preference objective of one micro-batch of prefix-shared rows.

    sum over pairs of preference_loss / pairs of the batch
      + kl_coef * sum over rollouts of kl_loss / rollouts of the batch
      + sft_coef * sum over chosen tokens of -log policy / those of the batch

or, in place of the second, with nothing sampled,

      + offline_kl_coef * sum over the pairs' completions and their tokens of
        the next token's KL(policy || reference) / completions of the batch

Losses and metrics are shares of the whole batch's means: added over
micro-batches they give what one large batch gives, whatever the masks.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hypo_jax import losses, scoring, sharding, terms
from hypo_jax.batch import (
  Completions,
  PreferenceBatch,
  Rollouts,
  Rows,
  join_slots,
  pair_rows,
  predicting,
  rollout_rows,
)

Params = Any
Metrics = dict[str, jax.Array]

METHODS = ("dpo", "ipo", "hinge", "chi_po", "simpo", "robust_dpo", "hypo")
ESTIMATORS = ("sequence", "leave_one_out", "to_go", "rao_blackwell")
# Logits that exist at once while scoring, on one device: in float32, 128 MiB.
# Larger chunks read the head's weights less often; at this size a chunk has
# enough tokens to be bound by its products, whatever the vocabulary.
LOGITS_AT_ONCE = 2**25


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counts:
  """Denominators, of the whole batch: float32 scalars, at least 1."""

  pairs: jax.Array
  chosen_tokens: jax.Array
  rollouts: jax.Array
  rollout_tokens: jax.Array


def count(batch: PreferenceBatch, rollouts: Rollouts | None) -> Counts:
  """Counts what the batch's means are taken over."""
  slots = jnp.zeros((1, 1, 1)) if rollouts is None else rollouts.rows.slot_mask
  chosen = batch.chosen_mask & batch.pair_mask[:, None]
  counts = (
    jnp.sum(batch.pair_mask),
    jnp.sum(chosen),
    slots.shape[0] * slots.shape[1],
    jnp.sum(slots),
  )
  return Counts(*(jnp.maximum(jnp.float32(n), 1.0) for n in counts))


def score_rows(model, params: Params, rows: Rows) -> jax.Array:
  """Returns token_log_probs [B, S, C] of every slot, nats, temperature 1."""
  hidden = model.row_hidden(params, rows)
  return score_hidden(model, params, hidden, rows.slot_tokens)


def score_hidden(
  model,
  params: Params,
  hidden: jax.Array,
  tokens: jax.Array,
  *,
  temperature: float = 1.0,
) -> jax.Array:
  """Returns token_log_probs [B, S, C] of tokens from what predicts them, nats.

  Args:
    model: see `train`.
    params: what gave the hidden states.
    hidden: [B, S, C, D], of `model.row_hidden`.
    tokens: int32 [B, S, C].
    temperature: > 0, divides the logits; a number, not traced.
  """
  heads = (model.output_embedding(params),)
  score = partial(_log_probs, model, temperature=temperature)
  return _by_rows(model, score, heads, hidden, tokens)


def score_rows_and_kl(
  model,
  params: Params,
  reference: Params,
  rows: Rows,
  *,
  kl_gradient: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Scores rows, and their KL to the reference at every visited state.

  Args:
    model: see `train`.
    params: the policy's.
    reference: the reference policy's; carries no gradient.
    rows: S slots.
    kl_gradient: whether the token KL carries a gradient.

  Returns:
    token_log_probs, ref_token_log_probs and token_kl, each [B, S, C].
  """
  hidden = model.row_hidden(params, rows)
  heads, ref_hidden = _reference(model, params, reference, rows)
  score = partial(_log_probs_and_kl, model, kl_gradient)
  return _by_rows(model, score, heads, hidden, rows.slot_tokens, ref_hidden)


def _reference(model, params, reference, rows):
  """Returns both models' heads, and the reference's hidden states of rows."""
  reference = jax.lax.stop_gradient(reference)
  ref_hidden = model.row_hidden(reference, rows)
  # Cast before it is gathered. The policy's is not: its gradient is float32.
  ref_head = model.output_embedding(reference).astype(ref_hidden.dtype)
  return (model.output_embedding(params), ref_head), ref_hidden


def _log_probs(model, heads, hidden, tokens, *, temperature) -> jax.Array:
  """Returns token_log_probs [B, S, C] from hidden states [B, S, C, D]."""
  return scoring.token_log_probs_from_hidden(
    hidden,
    heads[0],
    tokens,
    temperature=temperature,
    **_chunking(model, heads[0], tokens),
  )


def _log_probs_and_kl(model, kl_gradient, heads, hidden, tokens, ref_hidden):
  """As `score_rows_and_kl`, from both models' hidden states [B, S, C, D]."""
  return scoring.token_scores_from_hidden(
    hidden,
    heads[0],
    ref_hidden,
    heads[1],
    tokens,
    kl_gradient=kl_gradient,
    **_chunking(model, heads[0], tokens),
  )


def _by_rows(model, score, heads, *arrays):
  """Returns score(heads, *arrays), each device scoring the rows it holds.

  A head's gradient is a sum over rows. The compiler, left to itself, adds the
  devices' shares of it up after each chunk of tokens: that of Llama-3-8B is 2.1
  GB, which each device sends twice. So they are added up once.
  """
  rows = getattr(model, "rows", None)
  return sharding.by_rows(rows, score, heads, *arrays)


def _chunking(model, head, tokens) -> dict[str, Any]:
  return {
    "chunk_size": chunk_size(tokens.shape, head.shape[-1]),
    "softcap": model.config.final_softcap,
  }


def chunk_size(shape: tuple[int, ...], vocab_size: int) -> int:
  """Returns how many tokens of each slot have logits at once.

  Args:
    shape: of the tokens that one device scores, [..., C].
    vocab_size: V.
  """
  *slots, length = shape
  fitting = LOGITS_AT_ONCE // (math.prod(slots) * vocab_size)
  return max(1, min(fitting, length))


@dataclasses.dataclass(frozen=True)
class PreferenceLoss:
  """The objective: a loss of pairs, a KL of rollouts, and their weights.

  Two schedules of the same numbers. `split` takes rollouts that were drawn
  before, from the same parameters. `fused` draws them: the prompts run once,
  under differentiation, and the rollouts go on from their keys and values, as
  the scoring of the slots does.

  Attributes:
    model: `models.Model`, or what has its methods.
    method: "dpo", "ipo", "hinge", "chi_po", "simpo", "robust_dpo", or "hypo",
      which is dpo with kl_coef > 0.
    beta: inverse temperature of the pair loss.
    kl_coef: weight of KL(policy || reference) on rollouts, for any method.
    sft_coef: weight of the chosen completions' mean negative log-prob a token.
    label_smoothing: of dpo, robust_dpo and hypo.
    estimator: "sequence", "leave_one_out", "to_go" or "rao_blackwell".
    samples_per_prompt: rollouts a prompt.
    shared_prompts: whether rollouts answer the pairs' own prompts, so that
      both share one row.
    max_margin: of chi_po and no other; see `losses.chi_po_loss`.
    target_margin: of simpo and no other; see `losses.simpo_loss`.
    offline_kl_coef: weight of KL(policy || reference) at the states that the
      pairs' completions visit; in place of kl_coef, which is then 0.
    max_importance_weight: None where the policy draws the rollouts. Else the
      reference does, and each counts min(policy / reference, this) times; see
      `losses.importance_weights` for what is lost.

  Raises:
    ValueError: for an unknown method or estimator, hypo without kl_coef, or a
      coefficient that the method doesn't take.
  """

  model: Any
  _: dataclasses.KW_ONLY
  method: str = "hypo"
  beta: float
  kl_coef: float
  sft_coef: float = 0.0
  label_smoothing: float = 0.0
  estimator: str = "sequence"
  samples_per_prompt: int = 1
  shared_prompts: bool = True
  max_margin: float | None = None
  target_margin: float | None = None
  offline_kl_coef: float = 0.0
  max_importance_weight: float | None = None

  def __post_init__(self):
    _check(self.method, self.kl_coef, self.label_smoothing, self.estimator)
    _check_margins(self.method, self.max_margin, self.target_margin)
    _check_controls(
      self.kl_coef, self.offline_kl_coef, self.max_importance_weight
    )

  def split(
    self,
    params: Params,
    frozen: Params,
    batch: PreferenceBatch,
    rollouts: Rollouts | None,
    counts: Counts,
    kl_weight: jax.Array | float | None = None,
  ) -> tuple[jax.Array, Metrics]:
    """Returns a micro-batch's share of the loss, and of the metrics.

    kl_weight, where it is given, stands in for kl_coef, which then says only
    whether there is a KL.
    """
    kl_weight = self.kl_coef if kl_weight is None else kl_weight
    pairs, model = pair_rows(batch), self.model
    if self.offline_kl_coef:
      scored, _, token_kl = score_rows_and_kl(model, params, frozen, pairs)
      loss, metrics = self._terms(scored, None, batch, None, counts, kl_weight)
      kl = terms.offline_kl(token_kl, batch, counts)
      loss += self.offline_kl_coef * kl
      return loss, metrics | {"loss": loss, "offline_kl": kl}
    if not self.kl_coef:
      return self._terms(
        score_rows(model, params, pairs), None, batch, None, counts, kl_weight
      )
    if self.shared_prompts:
      rows = join_slots(pairs, rollouts.rows)
      hidden = model.row_hidden(params, rows)
      return self._shared(
        params, frozen, hidden, rows, batch, rollouts, counts, kl_weight
      )
    scored = score_rows(model, params, pairs)
    sampled = score_rows_and_kl(
      model, params, frozen, rollouts.rows, kl_gradient=self._kl_gradient
    )
    return self._terms(scored, sampled, batch, rollouts, counts, kl_weight)

  def fused(
    self,
    params: Params,
    frozen: Params,
    batch: PreferenceBatch,
    complete: Callable[..., Completions],
    kl_weight: jax.Array | float | None = None,
  ) -> tuple[jax.Array, tuple[Metrics, Rollouts]]:
    """Returns the loss of a whole batch, its metrics, and the rollouts drawn.

    Args:
      params: the policy's.
      frozen: the reference policy's.
      batch: whose prompts the rollouts answer.
      complete: (params, last hidden [B, 1, D], keys and values, prompt_mask)
        -> Completions, drawn from params.
      kl_weight: as in `split`.
    """
    kl_weight = self.kl_coef if kl_weight is None else kl_weight
    model, mask = self.model, batch.prompt_mask
    last, keys_values = model.prompt_forward(
      params, batch.prompt_tokens, mask, first=mask.shape[1] - 1
    )
    drawn = complete(*jax.lax.stop_gradient((params, last, keys_values)), mask)
    rollouts = rollout_rows(batch.prompt_tokens, mask, drawn)
    rows = join_slots(pair_rows(batch), rollouts.rows)
    slots = model.slots_forward(
      params, keys_values, mask, rows.slot_tokens, rows.slot_mask
    )
    hidden = predicting(last, slots)
    counts = count(batch, rollouts)
    loss, metrics = self._shared(
      params, frozen, hidden, rows, batch, rollouts, counts, kl_weight
    )
    return loss, (metrics, rollouts)

  @property
  def _kl_gradient(self) -> bool:
    return self.estimator == "rao_blackwell"

  def _shared(
    self, params, frozen, hidden, rows, batch, rollouts, counts, kl_weight
  ):
    """The terms, from hidden states [B, 2 + k, C, D] of pairs and rollouts."""
    model, tokens = self.model, rows.slot_tokens
    drawn = dataclasses.replace(
      rows, slot_tokens=tokens[:, 2:], slot_mask=rows.slot_mask[:, 2:]
    )

    def score(heads, hidden, tokens, ref_hidden):
      pairs = _log_probs(
        model, heads, hidden[:, :2], tokens[:, :2], temperature=1.0
      )
      return pairs, _log_probs_and_kl(
        model,
        self._kl_gradient,
        heads,
        hidden[:, 2:],
        tokens[:, 2:],
        ref_hidden,
      )

    heads, ref_hidden = _reference(model, params, frozen, drawn)
    scored, sampled = _by_rows(model, score, heads, hidden, tokens, ref_hidden)
    return self._terms(scored, sampled, batch, rollouts, counts, kl_weight)

  def _terms(self, scored, sampled, batch, rollouts, counts, kl_weight):
    """The loss from what was scored, [B, 2, C] and three of [B, k, C]."""
    scored = scored[..., : batch.chosen_mask.shape[-1]]
    loss, metrics = terms.pair_terms(
      scored, batch, counts, self._pair_loss(), self.beta
    )
    if self.sft_coef:
      loss += self.sft_coef * metrics["sft_loss"]
    if self.kl_coef:
      length = rollouts.rows.slot_mask.shape[-1]
      sampled = tuple(x[..., :length] for x in sampled)
      kl_loss, kl_metrics = terms.kl_terms(
        *sampled,
        rollouts,
        counts,
        estimator=self.estimator,
        samples_per_prompt=self.samples_per_prompt,
        max_importance_weight=self.max_importance_weight,
      )
      loss += kl_weight * kl_loss
      metrics |= kl_metrics
    return loss, metrics | {"loss": loss}

  def _pair_loss(self) -> Callable[..., jax.Array]:
    """Returns loss(chosen, rejected, batch) -> [B], of log-probs [B]."""
    beta = {"beta": self.beta}
    if self.method == "simpo":

      def without_reference(chosen, rejected, batch: PreferenceBatch):
        return losses.simpo_loss(
          chosen,
          rejected,
          jnp.sum(batch.chosen_mask, axis=-1),
          jnp.sum(batch.rejected_mask, axis=-1),
          target_margin=self.target_margin,
          **beta,
        )

      return without_reference
    smoothed = beta | {"label_smoothing": self.label_smoothing}
    function, kwargs = {
      "ipo": (losses.ipo_loss, beta),
      "hinge": (losses.hinge_loss, beta),
      "chi_po": (losses.chi_po_loss, beta | {"max_margin": self.max_margin}),
      "robust_dpo": (losses.robust_dpo_loss, smoothed),
    }.get(self.method, (losses.dpo_loss, smoothed))

    def against_reference(chosen, rejected, batch: PreferenceBatch):
      reference = (batch.ref_chosen_log_probs, batch.ref_rejected_log_probs)
      return function(chosen, rejected, *reference, **kwargs)

    return against_reference


def _check(method, kl_coef, label_smoothing, estimator) -> None:
  if method not in METHODS:
    raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
  if estimator not in ESTIMATORS:
    raise ValueError(
      f"estimator: expected one of {ESTIMATORS}, got {estimator!r}"
    )
  if kl_coef < 0 or (method == "hypo" and not kl_coef):
    raise ValueError(
      f"kl_coef: expected a number > 0 for hypo and >= 0 otherwise, got "
      f"{kl_coef} with method {method!r}"
    )
  if label_smoothing and method not in ("dpo", "robust_dpo", "hypo"):
    raise ValueError(
      f"label_smoothing: expected 0 for {method!r}, got {label_smoothing}"
    )


def _check_margins(method, max_margin, target_margin) -> None:
  taken = {"chi_po": "max_margin", "simpo": "target_margin"}.get(method)
  given = {"max_margin": max_margin, "target_margin": target_margin}
  for name, value in given.items():
    if (value is not None) != (taken == name):
      expected = "None" if value is not None else "a number"
      raise ValueError(
        f"{name}: expected {expected} for {method!r}, got {value}"
      )


def _check_controls(kl_coef, offline_kl_coef, max_importance_weight) -> None:
  if offline_kl_coef < 0 or (offline_kl_coef and kl_coef):
    raise ValueError(
      "offline_kl_coef: expected a number >= 0, and 0 beside a kl_coef, whose "
      f"place it takes, got {offline_kl_coef} with kl_coef {kl_coef}"
    )
  if max_importance_weight is not None and not (
    max_importance_weight > 0 and kl_coef
  ):
    raise ValueError(
      "max_importance_weight: expected a number > 0, and a kl_coef > 0 for "
      f"the rollouts that it weights, got {max_importance_weight} with "
      f"kl_coef {kl_coef}"
    )
