# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Weighted rollouts of the reference: what stays exact, what clipping costs.

By enumeration of a toy policy, as in test_kl_estimators.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from test_kl_estimators import EXACT, POLICY_SEED, REF_SEED

from hypo_jax import losses

STEPS = 4


def weights_of(params, completions, max_weight):
  return losses.importance_weights(
    toy.token_log_probs(params, completions),
    toy.token_log_probs(completions.params(REF_SEED), completions),
    completions.mask,
    max_weight=max_weight,
  )


def expectation(params, surrogate, completions, k, *, max_weight, field):
  """E over k samples of the *reference* of the weighted mean of a field."""
  every = range(len(completions.mask))
  rows = np.array(list(itertools.product(every, repeat=k)))
  ref_params = completions.params(REF_SEED)
  chance = jnp.exp(toy.log_probs(ref_params, completions))[rows].prod(axis=-1)
  flat = rows.reshape(-1)
  term = surrogate(
    toy.token_log_probs(params, completions)[flat],
    toy.token_log_probs(ref_params, completions)[flat],
    toy.token_kl(params, ref_params, completions)[flat],
    completions.mask[flat],
    k,
  )
  weights = weights_of(params, completions, max_weight)[flat]
  each = (weights * getattr(term, field)).reshape(rows.shape)
  return (chance * each.mean(axis=-1)).sum()


def gradient(surrogate, completions, k, max_weight):
  def loss(params):
    return expectation(
      params, surrogate, completions, k, max_weight=max_weight, field="loss"
    )

  return jax.jit(jax.grad(loss))(completions.params(POLICY_SEED))


def exact_gradient(completions):
  def kl(params):
    return toy.exact_kl(params, completions.params(REF_SEED), completions)

  return jax.jit(jax.grad(kl))(completions.params(POLICY_SEED))


@pytest.mark.parametrize("kind", ["bigram", "history"])
@pytest.mark.parametrize("name", EXACT)
def test_unclipped_weights_leave_the_expected_gradient_the_kls(name, kind):
  surrogate, k, steps = EXACT[name]
  completions = toy.enumerate_completions(kind, min(steps, STEPS))
  found = gradient(surrogate, completions, k, math.inf)
  exact = exact_gradient(completions)
  assert float(jnp.abs(found - exact).max()) < 1e-5


def test_without_weights_the_gradient_is_another():
  surrogate, k, _ = EXACT["sequence"]
  completions = toy.enumerate_completions("history", STEPS)
  everything_counts_once = 1e-6  # Cuts all weights to one value.
  found = gradient(surrogate, completions, k, everything_counts_once) * 1e6
  exact = exact_gradient(completions)
  assert float(jnp.abs(found - exact).max()) > 0.05


def test_clipped_weights_understate_the_kl_and_its_gradient():
  surrogate, k, _ = EXACT["sequence"]
  completions = toy.enumerate_completions("history", STEPS)
  params = completions.params(POLICY_SEED)
  ref_params = completions.params(REF_SEED)
  policy, reference = (
    np.asarray(jnp.exp(toy.log_probs(p, completions)), np.float64)
    for p in (params, ref_params)
  )
  most = 2.0
  assert (policy / reference > most).any()
  # By hand: each completion counts reference * min(ratio, most), no more.
  counted = reference * np.minimum(policy / reference, most)
  scores = jax.jacrev(lambda p: toy.log_probs(p, completions))(params)
  by_hand = np.tensordot(
    counted * np.log(policy / reference), np.asarray(scores), axes=1
  )
  found = gradient(surrogate, completions, k, most)
  np.testing.assert_allclose(found, by_hand, atol=1e-5)
  exact = exact_gradient(completions)
  assert float(jnp.abs(found - exact).max()) > 0.02
  kls = {
    m: float(
      expectation(params, surrogate, completions, k, max_weight=m, field="kl")
    )
    for m in (most, math.inf)
  }
  exact_kl = float(toy.exact_kl(params, ref_params, completions))
  assert kls[math.inf] == pytest.approx(exact_kl, rel=1e-5)
  assert kls[most] < 0.8 * exact_kl


def test_weights_are_ratios_of_whole_completions_without_gradient():
  completions = toy.enumerate_completions("history", STEPS)
  params = completions.params(POLICY_SEED)
  ref_params = completions.params(REF_SEED)
  ratio = jnp.exp(
    toy.log_probs(params, completions) - toy.log_probs(ref_params, completions)
  )
  found = weights_of(params, completions, math.inf)
  np.testing.assert_allclose(found, ratio, rtol=1e-5)
  cut = weights_of(params, completions, 1.5)
  np.testing.assert_allclose(cut, jnp.minimum(ratio, 1.5), rtol=1e-5)
  total = jax.grad(lambda p: weights_of(p, completions, math.inf).sum())
  np.testing.assert_array_equal(total(params), 0.0)


def test_masked_content_does_not_count_and_nothing_overflows():
  mask = jnp.array([[True, False], [True, True], [False, False]])
  log_probs = jnp.array([[0.0, jnp.nan], [0.0, 0.0], [jnp.inf, jnp.nan]])
  ref_log_probs = jnp.array([[-1.0, -jnp.inf], [-90.0, -90.0], [0.0, 0.0]])
  found = losses.importance_weights(
    log_probs, ref_log_probs, mask, max_weight=10.0
  )
  np.testing.assert_allclose(found, [math.e, 10.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("most", [0.0, -1.0, math.nan])
def test_a_largest_weight_that_is_none_is_named(most):
  ones = jnp.ones((1, 1))
  with pytest.raises(ValueError, match="max_weight: expected a number > 0"):
    losses.importance_weights(ones, ones, ones > 0, max_weight=most)
