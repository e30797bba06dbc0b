# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles small programs for eight virtual devices; prints their texts.

Run by test_compiled.py in a process of its own.
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

LAYERS, ROWS, WIDTH = 5, 16, 32


def shape(*axes):
  return jax.ShapeDtypeStruct(axes, jnp.float32)


def gathered(x, weights):
  """Each layer's weights are gathered, then used."""

  def body(x, w):
    w = jax.lax.all_gather(w, "d", axis=0, tiled=True)
    return jnp.tanh(x @ w), None

  return jax.lax.scan(body, x, weights)[0]


def reduced(x, weights):
  """One of each other kind, of the same x [ROWS / 8, WIDTH]."""
  total = jax.lax.psum(x, "d")
  own = jax.lax.psum_scatter(weights[0], "d", scatter_dimension=1, tiled=True)
  next_x = jax.lax.ppermute(x, "d", [(i, (i + 1) % 8) for i in range(8)])
  turned = jax.lax.all_to_all(x, "d", 1, 0, tiled=True)
  return total.sum() + own.sum() + next_x.sum() + turned[0, 0]


def early(x, weights):
  """A loop that may end early, eight rounds at most of two products."""

  def body(state):
    step, x = state
    x = jax.lax.scan(lambda x, _: (x @ weights[0], None), x, length=2)[0]
    return step + 2, x

  def going(state):
    return (state[0] < 16) & (state[1].max() < 1e3)

  return jax.lax.while_loop(going, body, (0, x))[1]


def main() -> None:
  mesh = Mesh(np.asarray(jax.devices()), ("d",))
  rows, cut = P("d"), P(None, "d")
  args = shape(ROWS, WIDTH), shape(LAYERS, WIDTH, WIDTH)
  mapped = partial(
    jax.shard_map, mesh=mesh, in_specs=(rows, cut), check_vma=False
  )
  whole = NamedSharding(mesh, P())
  programs = {
    "gathered": jax.jit(mapped(gathered, out_specs=rows)),
    "reduced": jax.jit(mapped(reduced, out_specs=P())),
    "repeated": jax.jit(
      lambda x, w: x @ w[0], in_shardings=whole, out_shardings=whole
    ),
    "early": jax.jit(early),
  }
  texts = {
    name: program.lower(*args).compile().as_text()
    for name, program in programs.items()
  }
  print(json.dumps(texts))


if __name__ == "__main__":
  main()
