# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""int8 weights for a frozen base under adapters, by the qwix library.

    weight[l, in, out] ~ int8[l, in, out] * scale[l, 1, out]

One float32 scale a layer and output channel; products are taken in the compute
dtype, each layer's weights being widened inside the layer, so that no whole
second copy exists. Embeddings, norms and biases stay as they are.
"""

from functools import partial

import jax
import jax.numpy as jnp
import qwix

QArray = qwix.QArray

# The layers' matrices, with the number of axes that each sums over.
MATRICES = {
  "query": 1,
  "key": 1,
  "value": 1,
  "output": 2,
  "gate": 1,
  "up": 1,
  "down": 1,
}


@partial(jax.jit, static_argnums=1)
def quantize_matrix(matrix: jax.Array, name: str) -> QArray:
  """Quantises the stacked matrix [L, in, out] called `name`."""
  outputs = range(1 + MATRICES[name], matrix.ndim)
  return qwix.quantize(
    matrix.astype(jnp.float32), jnp.int8, channelwise_axes=(0, *outputs)
  )


def dequantize(matrix: jax.Array | QArray, dtype: jnp.dtype) -> jax.Array:
  """Returns the matrix in `dtype`; one that isn't quantised as it is."""
  if isinstance(matrix, QArray):
    return qwix.dequantize(matrix).astype(dtype)
  return matrix
