# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Models of other code plug in: sampling, scoring and HyPO need only arrays."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hypo_jax import losses, sampling, scoring

V, D, EOS, PAD, C, K = 13, 16, 1, 0, 6, 2
PROMPTS = jnp.array([[0, 5, 6], [7, 8, 9]])
PROMPT_MASK = jnp.array([[0, 1, 1], [1, 1, 1]], bool)
CHOSEN = jnp.array([[3, 4, 3, EOS, 0, 0], [3, 3, EOS, 0, 0, 0]])
REJECTED = jnp.array([[5, EOS, 0, 0, 0, 0], [6, 5, 6, 5, 6, 5]])
CHOSEN_MASK = jnp.arange(C) < jnp.array([[4], [3]])
REJECTED_MASK = jnp.arange(C) < jnp.array([[2], [6]])


class LinenModel(nn.Module):
  """One attention layer, as someone else might have written it."""

  @nn.compact
  def __call__(self, tokens, positions, mask):
    x = nn.Embed(V, D)(tokens) + nn.Embed(16, D)(positions)
    attend = nn.MultiHeadDotProductAttention(num_heads=2)
    x = x + attend(x, mask=mask[:, None])
    return nn.Dense(V)(nn.LayerNorm()(x))


class NnxModel(nnx.Module):
  """The same in the other dialect."""

  def __init__(self, rngs: nnx.Rngs):
    self.embed = nnx.Embed(V, D, rngs=rngs)
    self.positions = nnx.Embed(16, D, rngs=rngs)
    self.attend = nnx.MultiHeadAttention(2, D, decode=False, rngs=rngs)
    self.norm = nnx.LayerNorm(D, rngs=rngs)
    self.head = nnx.Linear(D, V, rngs=rngs)

  def __call__(self, tokens, positions, mask):
    x = self.embed(tokens) + self.positions(positions)
    x = x + self.attend(x, mask=mask[:, None])
    return self.head(self.norm(x))


def linen_policy():
  model = LinenModel()
  tokens, mask = jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2, 2), bool)
  params = jax.jit(model.init)(jax.random.key(0), tokens, tokens, mask)

  def apply_fn(params, tokens, *, positions, attention_mask, cache=None):
    return model.apply(params, tokens, positions, attention_mask), None

  return apply_fn, params


def nnx_policy():
  graphdef, state = nnx.split(NnxModel(nnx.Rngs(0)), nnx.Param)

  def apply_fn(params, tokens, *, positions, attention_mask, cache=None):
    model = nnx.merge(graphdef, params)
    return model(tokens, positions, attention_mask), None

  return apply_fn, nnx.to_pure_dict(state)


def completion_token_log_probs(apply_fn, params, prompts, mask, tokens):
  """Scores completions [N, C] of prompts [N, P]."""
  start = prompts.shape[1]
  tokens = jnp.concatenate([prompts, tokens], axis=1)
  real = jnp.pad(mask, ((0, 0), (0, C)), constant_values=True)
  length = tokens.shape[1]
  causal = jnp.tril(jnp.ones((length, length), bool))
  logits, _ = apply_fn(
    params,
    tokens,
    positions=jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0),
    attention_mask=causal & (real[:, None] | jnp.eye(length, dtype=bool)),
  )
  return scoring.token_log_probs(logits[:, start - 1 : -1], tokens[:, start:])


def draw(apply_fn, params, key):
  return jax.jit(
    lambda params, key: sampling.sample(
      apply_fn,
      params,
      PROMPTS,
      PROMPT_MASK,
      key,
      max_new_tokens=C,
      eos_token_id=EOS,
      pad_token_id=PAD,
      samples_per_prompt=K,
    )
  )(params, key)


def repeated_prompts():
  return jnp.repeat(PROMPTS, K, axis=0), jnp.repeat(PROMPT_MASK, K, axis=0)


def hypo(apply_fn, params, ref_params, rollouts):
  def pair_log_probs(params, tokens, mask):
    scored = completion_token_log_probs(
      apply_fn, params, PROMPTS, PROMPT_MASK, tokens
    )
    return scoring.sequence_log_probs(scored, mask)

  def rollout_log_probs(params):
    return completion_token_log_probs(
      apply_fn, params, *repeated_prompts(), rollouts.tokens
    )

  return losses.hypo_loss(
    pair_log_probs(params, CHOSEN, CHOSEN_MASK),
    pair_log_probs(params, REJECTED, REJECTED_MASK),
    pair_log_probs(ref_params, CHOSEN, CHOSEN_MASK),
    pair_log_probs(ref_params, REJECTED, REJECTED_MASK),
    rollout_log_probs(params),
    rollout_log_probs(ref_params),
    rollouts.mask,
    beta=0.1,
    kl_coef=0.05,
    estimator="leave_one_out",
    samples_per_prompt=K,
  )


@pytest.mark.parametrize("policy", [linen_policy, nnx_policy])
def test_flax_model_samples_and_scores_alike(policy):
  apply_fn, params = policy()
  rollouts = draw(apply_fn, params, jax.random.key(1))
  scored = jax.jit(completion_token_log_probs, static_argnums=0)(
    apply_fn, params, *repeated_prompts(), rollouts.tokens
  )
  assert rollouts.mask.sum() > C
  np.testing.assert_allclose(
    rollouts.token_log_probs, jnp.where(rollouts.mask, scored, 0), atol=1e-5
  )


@pytest.mark.parametrize("policy", [linen_policy, nnx_policy])
def test_one_gradient_step_of_hypo_lowers_the_loss_of_a_flax_model(policy):
  apply_fn, ref_params = policy()
  rollouts = draw(apply_fn, ref_params, jax.random.key(1))

  @jax.jit
  def loss_and_gradient(params):
    return jax.value_and_grad(
      lambda p: hypo(apply_fn, p, ref_params, rollouts), has_aux=True
    )(params)

  (before, metrics), gradient = loss_and_gradient(ref_params)
  # Policy and reference are equal before the step.
  np.testing.assert_allclose(metrics["preference_loss"], np.log(2), rtol=1e-5)
  np.testing.assert_allclose(metrics["kl"], 0.0, atol=1e-5)
  params = jax.tree.map(lambda p, g: p - 0.1 * g, ref_params, gradient)
  (after, metrics), _ = loss_and_gradient(params)
  assert after < before
  assert metrics["reward_margin"] > 0
