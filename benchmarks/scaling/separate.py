# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""HyPO's update without prefix sharing: what shared rows are compared with.

Chosen, rejected and rollouts are sequences of their own, each with its prompt,
scored by the same layers and the same losses.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import cases
from hypo_jax import losses, models, objective, scoring, train
from hypo_jax.batch import PreferenceBatch, Rollouts

ESTIMATOR = "rao_blackwell"


def loss(
  model: models.Model,
  params: Any,
  reference: Any,
  batch: PreferenceBatch,
  rollouts: Rollouts,
) -> tuple[jax.Array, train.Metrics]:
  """The same loss from sequences of their own, prompts repeated.

  Args:
    model: ours.
    params: the policy's.
    reference: the reference policy's; carries no gradient.
    batch: B pairs.
    rollouts: B * k.

  Returns:
    The loss, and metrics of which "kl" is the Rao-Blackwell estimate.
  """
  rows, k, length = rollouts.rows.slot_tokens.shape
  drawn, drawn_mask = (
    x.reshape(rows * k, length)
    for x in (rollouts.rows.slot_tokens, rollouts.rows.slot_mask)
  )
  prompts = batch.prompt_tokens, batch.prompt_mask
  drawn_prompts = tuple(jnp.repeat(x, k, axis=0) for x in prompts)
  tokens = jnp.concatenate([batch.chosen_tokens, batch.rejected_tokens, drawn])
  mask = jnp.concatenate([batch.chosen_mask, batch.rejected_mask])
  hidden = _hidden(
    model,
    params,
    tuple(
      jnp.concatenate([x, x, y])
      for x, y in zip(prompts, drawn_prompts, strict=True)
    ),
    tokens,
    jnp.concatenate([mask, drawn_mask]),
  )
  head = model.output_embedding(params)
  settings = {
    "chunk_size": objective.chunk_size((3 * rows, length), head.shape[-1]),
    "softcap": model.config.final_softcap,
  }
  scored = scoring.token_log_probs_from_hidden(
    hidden[: 2 * rows], head, tokens[: 2 * rows], **settings
  )
  pairs = scoring.sequence_log_probs(scored, mask)
  reference = jax.lax.stop_gradient(reference)
  drawn_scored, ref_scored, token_kl = scoring.token_scores_from_hidden(
    hidden[2 * rows :],
    head,
    _hidden(model, reference, drawn_prompts, drawn, drawn_mask),
    model.output_embedding(reference),
    drawn,
    **settings,
  )
  return losses.hypo_loss(
    pairs[:rows],
    pairs[rows:],
    batch.ref_chosen_log_probs,
    batch.ref_rejected_log_probs,
    drawn_scored,
    ref_scored,
    drawn_mask,
    beta=cases.BETA,
    kl_coef=cases.KL_COEF,
    estimator=ESTIMATOR,
    samples_per_prompt=k,
    rollout_token_kl=token_kl,
  )


def _hidden(model, params, prompts, tokens, mask):
  """Returns [N, C, D], which predict the tokens [N, C] of whole sequences."""
  prompt_tokens, prompt_mask = prompts
  hidden, _ = model.prompt_forward(
    params,
    jnp.concatenate([prompt_tokens, tokens], axis=1),
    jnp.concatenate([prompt_mask, mask], axis=1),
    first=prompt_tokens.shape[1] - 1,
  )
  return hidden[:, :-1]


def make_step(model, optimizer, *, samples_per_prompt: int):
  """Returns an update by `loss`, as `train.make_train_step`'s."""

  def step(state: train.TrainState, reference, batch, rollouts):
    def loss_fn(params):
      return loss(model, params, reference, batch, rollouts)

    gradient, metrics = jax.grad(loss_fn, has_aux=True)(state.trainable)
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.trainable
    )
    trainable = optax.apply_updates(state.trainable, updates)
    metrics |= {"grad_norm": optax.tree.norm(gradient)}
    metrics["kl_rao_blackwell"] = metrics["kl"]
    return train.TrainState(state.step + 1, trainable, opt_state), metrics

  return jax.jit(step, donate_argnums=0)
