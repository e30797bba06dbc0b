# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A layer's product with its matrix, and that product's own derivative.

The gradient of the matrix is a product of inputs and outputs' gradient over all
rows. XLA on CPU copies the first factor of such a product with its axes
turned, and computes whatever made that factor anew inside the copy. Autodiff
puts the outputs' gradient first, which in the MLP is the wide one and comes out
of the activation; here the narrower factor stands first. One gradient of a
small transformer takes 0.6 of the time so; on other platforms the two forms
are the same product. In bfloat16 the plain form stays: XLA on CPU has no such
product whose result is turned (see `scoring`).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(num_inputs: int, x: jax.Array, matrix: jax.Array) -> jax.Array:
  """Returns sum over inputs of x[..., inputs] * matrix[inputs, outputs].

  Args:
    num_inputs: how many axes are summed over.
    x: [..., *inputs].
    matrix: [*inputs, *outputs], in the dtype of x.

  Returns:
    float32 [..., *outputs].
  """
  rows = x.ndim - num_inputs
  summed = tuple(range(rows, x.ndim)), tuple(range(num_inputs))
  return _dot(x, matrix, *summed)


def _forward(num_inputs, x, matrix):
  return product(num_inputs, x, matrix), (x, matrix)


def _backward(num_inputs, saved, out_bar):
  x, matrix = saved
  rows = x.ndim - num_inputs
  out_bar = out_bar.astype(x.dtype)
  outputs = tuple(range(rows, out_bar.ndim))
  x_bar = _dot(out_bar, matrix, outputs, range(num_inputs, matrix.ndim))
  over_rows = (range(rows),) * 2
  narrow_first = math.prod(x.shape[rows:]) <= math.prod(out_bar.shape[rows:])
  if narrow_first or x.dtype == jnp.bfloat16:
    matrix_bar = _dot(x, out_bar, *over_rows)
  else:
    turned = _dot(out_bar, x, *over_rows)
    order = (*range(len(outputs), matrix.ndim), *range(len(outputs)))
    matrix_bar = turned.transpose(order)
  return x_bar.astype(x.dtype), matrix_bar.astype(matrix.dtype)


product.defvjp(_forward, _backward)


def _dot(a, b, a_axes, b_axes) -> jax.Array:
  return jax.lax.dot_general(
    a,
    b,
    ((tuple(a_axes), tuple(b_axes)), ((), ())),
    preferred_element_type=jnp.float32,
  )
