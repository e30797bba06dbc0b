# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The KL surrogates against the exact KL, by enumeration of a toy policy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from hypo_jax import losses

POLICY_SEED, REF_SEED = 0, 1


def reverse_kl(estimator):
  def term(log_probs, ref_log_probs, token_kl, mask, k):
    return losses.reverse_kl_loss(
      log_probs, ref_log_probs, mask, estimator=estimator, samples_per_prompt=k
    )

  return term


def rao_blackwell(log_probs, ref_log_probs, token_kl, mask, k):
  return losses.rao_blackwell_kl_loss(
    log_probs, token_kl, mask, samples_per_prompt=k
  )


# (surrogate, samples per prompt, steps); k samples of a prompt are enumerated
# jointly: 31 completions of 4 steps are 961 pairs and 29,791 triples.
EXACT = {
  "sequence": (reverse_kl("sequence"), 1, 4),
  "sequence of 6 tokens": (reverse_kl("sequence"), 1, 6),
  "to_go": (reverse_kl("to_go"), 1, 4),
  "to_go, 2 samples": (reverse_kl("to_go"), 2, 4),
  "leave_one_out, 2 samples": (reverse_kl("leave_one_out"), 2, 4),
  "leave_one_out, 3 samples": (reverse_kl("leave_one_out"), 3, 4),
  "rao_blackwell": (rao_blackwell, 1, 4),
  "rao_blackwell, baseline of 2": (rao_blackwell, 2, 4),
  "rao_blackwell, baseline of 3": (rao_blackwell, 3, 4),
}


def wrong(surrogate):
  """Wraps a per-token rule as a KLTerm of masked sums."""

  def term(log_probs, ref_log_probs, token_kl, mask, k):
    del k
    safe = [jnp.where(mask, x, 0) for x in (log_probs, ref_log_probs, token_kl)]
    return losses.KLTerm(surrogate(*safe).sum(axis=-1), None)

  return term


# What other implementations differentiate in place of the KL.
WRONG = {
  "k1 as a loss": wrong(lambda p, q, kl: p - q),
  "k3 as a loss": wrong(lambda p, q, kl: jnp.exp(q - p) - 1 + p - q),
  "own token only": wrong(lambda p, q, kl: p * jax.lax.stop_gradient(p - q)),
  "states drawn are fixed": wrong(lambda p, q, kl: kl),
}


def expectation(params, surrogate, completions, k, *, field):
  """E over k samples of a prompt of the mean of a KLTerm's field."""
  rows = np.array(
    list(itertools.product(range(len(completions.mask)), repeat=k))
  )
  probs = jax.lax.stop_gradient(jnp.exp(toy.log_probs(params, completions)))
  weight = probs[rows].prod(axis=-1)
  ref_params = completions.params(REF_SEED)
  flat = rows.reshape(-1)
  term = surrogate(
    toy.token_log_probs(params, completions)[flat],
    toy.token_log_probs(ref_params, completions)[flat],
    toy.token_kl(params, ref_params, completions)[flat],
    completions.mask[flat],
    k,
  )
  return (weight * getattr(term, field).reshape(rows.shape).mean(-1)).sum()


def gradient_error(surrogate, *, kind, k, steps):
  """Largest entry of E[gradient of the surrogate] - gradient of the KL."""
  completions = toy.enumerate_completions(kind, steps)
  params = completions.params(POLICY_SEED)
  ref_params = completions.params(REF_SEED)

  def surrogate_mean(params):
    return expectation(params, surrogate, completions, k, field="loss")

  def kl(params):
    return toy.exact_kl(params, ref_params, completions)

  estimate = jax.jit(jax.grad(surrogate_mean))(params)
  exact = jax.jit(jax.grad(kl))(params)
  return float(jnp.abs(estimate - exact).max())


@pytest.mark.parametrize("kind", ["bigram", "history"])
@pytest.mark.parametrize("name", EXACT)
def test_demand_01_kl_gradient_is_exact(name, kind):
  surrogate, k, steps = EXACT[name]
  assert gradient_error(surrogate, kind=kind, k=k, steps=steps) < 1e-5


@pytest.mark.parametrize("kind", ["bigram", "history"])
@pytest.mark.parametrize("name", WRONG)
def test_demand_01_wrong_kl_losses_fail_the_same_check(name, kind):
  assert gradient_error(WRONG[name], kind=kind, k=1, steps=4) > 1e-2


@pytest.mark.parametrize("name", EXACT)
def test_expected_kl_is_the_exact_kl(name):
  surrogate, k, steps = EXACT[name]
  completions = toy.enumerate_completions("history", steps)
  params = completions.params(POLICY_SEED)

  @jax.jit
  def mean_kl(params):
    return expectation(params, surrogate, completions, k, field="kl")

  estimate = mean_kl(params)
  exact = toy.exact_kl(params, completions.params(REF_SEED), completions)
  np.testing.assert_allclose(estimate, exact, rtol=1e-5)


def test_the_toy_is_a_distribution_with_and_without_eos():
  completions = toy.enumerate_completions("history", 4)
  params = completions.params(POLICY_SEED)
  # 1 + 2 + 4 completions end before the fourth token, 8 * 3 reach it.
  assert len(completions.tokens) == 31
  assert len(np.unique(completions.tokens, axis=0)) == 31
  total = jnp.exp(toy.log_probs(params, completions)).sum()
  np.testing.assert_allclose(total, 1.0, rtol=1e-6)
  ended = (completions.tokens == toy.EOS).any(axis=-1)
  assert {int(m.sum()) for m in completions.mask[ended]} == {1, 2, 3, 4}
  assert (~ended).sum() == 16


def test_to_go_and_rao_blackwell_lower_the_variance():
  completions = toy.enumerate_completions("bigram", 4)
  params, ref_params = (completions.params(s) for s in (POLICY_SEED, REF_SEED))
  probs = jnp.exp(toy.log_probs(params, completions))

  def variance(surrogate):
    def rows(params):
      return surrogate(
        toy.token_log_probs(params, completions),
        toy.token_log_probs(ref_params, completions),
        toy.token_kl(params, ref_params, completions),
        completions.mask,
        1,
      ).loss

    gradients = jax.jit(jax.jacrev(rows))(params).reshape(len(probs), -1)
    centred = gradients - probs @ gradients
    return float(probs @ (centred**2).sum(axis=-1))

  sequence = variance(reverse_kl("sequence"))
  to_go = variance(reverse_kl("to_go"))
  assert variance(rao_blackwell) < to_go < sequence


def test_a_rao_blackwell_kl_is_never_negative_where_the_log_ratio_is():
  completions = toy.enumerate_completions("history", 4)
  params, ref_params = (completions.params(s) for s in (POLICY_SEED, REF_SEED))
  log_probs = toy.token_log_probs(params, completions)
  sampled = losses.reverse_kl_loss(
    log_probs, toy.token_log_probs(ref_params, completions), completions.mask
  )
  exact_at_states = losses.rao_blackwell_kl_loss(
    log_probs, toy.token_kl(params, ref_params, completions), completions.mask
  )
  assert sampled.kl.min() < -0.1
  assert exact_at_states.kl.min() >= 0
