# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The product of a layer, and its own derivative against autodiff's."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hypo_jax.models import layers
from hypo_jax.models.linear import product

AXES = st.lists(st.integers(1, 4), min_size=1, max_size=2)


@hypothesis.given(AXES, AXES, AXES)
@hypothesis.settings(max_examples=25)
def test_product_and_its_gradients_equal_autodiff(rows, inputs, outputs):
  """Wide and narrow sides, one axis or two on each."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(*rows, *inputs)), jnp.float32)
  matrix = jnp.asarray(rng.normal(size=(*inputs, *outputs)), jnp.float32)
  weights = jnp.asarray(rng.normal(size=(*rows, *outputs)), jnp.float32)

  def plain(x, matrix):
    return jnp.tensordot(x, matrix, len(inputs))

  def ours(x, matrix):
    return product(len(inputs), x, matrix)

  for function in (plain, ours):
    assert function(x, matrix).shape == weights.shape
  np.testing.assert_allclose(ours(x, matrix), plain(x, matrix), rtol=1e-5)
  got, expected = (
    jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), (0, 1))(x, matrix)
    for f in (ours, plain)
  )
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_narrow_operands_are_summed_in_float32():
  """4,096 ones in bfloat16 would stop at 256."""
  x = jnp.ones((2, 4096), jnp.bfloat16)
  matrix = jnp.ones((4096, 1), jnp.bfloat16)
  out = product(1, x, matrix)
  assert out.dtype == jnp.float32
  np.testing.assert_array_equal(out, 4096.0)
  tall = jnp.ones((4096, 3), jnp.bfloat16)
  matrix_bar = jax.grad(lambda m: product(1, tall, m).sum())(
    jnp.ones((3, 2), jnp.bfloat16)
  )
  assert matrix_bar.dtype == jnp.bfloat16
  np.testing.assert_array_equal(matrix_bar, 4096.0)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
def test_the_gated_product_has_autodiffs_gradient(activation):
  gate, up, bar = jax.random.normal(jax.random.key(0), (3, 5, 7))
  act = layers._ACTIVATIONS[activation]

  def plain(gate, up):
    return act(gate) * up

  kept, pull_back = jax.vjp(
    lambda g, u: layers._gated(activation, g, u), gate, up
  )
  expected, expected_pull_back = jax.vjp(plain, gate, up)
  np.testing.assert_array_equal(kept, expected)
  for a, b in zip(pull_back(bar), expected_pull_back(bar), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)
