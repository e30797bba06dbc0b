# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles small programs for eight virtual devices; prints what came of it.

Run by test_compiled.py in a process of its own.
"""

import json
import runpy
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hypo_jax import objective, sampling, sharding
from hypo_jax.batch import PreferenceBatch, pair_rows
from hypo_jax.job import lowering
from tests.devices_trial import MODEL, batch

LAYERS, ROWS, WIDTH = 5, 16, 32
# Tokens that are scored at once: the default's completions are seven chunks.
CHUNK = 4


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


def relaid() -> dict[str, object]:
  """Weights of two key-value heads, re-laid on eight devices for decoding."""
  mesh = sharding.make_mesh(data=1, fsdp=8)
  decoding = sharding.rollout_mesh(mesh, 2)
  arrays = {
    "query": np.arange(2 * 16 * 4 * 3.0).reshape(2, 16, 4, 3),
    "key": np.arange(2 * 16 * 2 * 3.0).reshape(2, 16, 2, 3),
    "down": np.arange(2 * 6 * 16.0).reshape(2, 6, 16),
  }
  laid = sharding.tree_shardings(mesh, arrays)
  params = jax.device_put(arrays, laid)
  move = jax.jit(partial(sharding.lay_for_rollouts, decoding))
  moved = move(params)
  return {
    "groups": [
      dict(sharding.rollout_mesh(mesh, heads).shape)
      for heads in (8, 2, 3, None)
    ],
    "text": move.lower(params).compile().as_text(),
    "same": all(np.array_equal(moved[n], x) for n, x in arrays.items()),
    "share": {n: x.sharding.shard_shape(x.shape) for n, x in moved.items()},
    "bytes": {n: x.nbytes for n, x in params.items()},
  }


def trained() -> dict[str, object]:
  """The default's train step, its weights and rows cut over eight devices."""
  config = runpy.run_path("configs/hypo.py")["get_config"]()
  config.mesh.data, config.mesh.fsdp = 1, 8
  lowered = lowering.lower(config, sharding.make_mesh(**config.mesh))
  weights = jax.tree.leaves(lowered.state.trainable)
  return {
    "text": lowered.train_step.compile().as_text(),
    "bytes": sum(4 * x.size for x in weights),
    "chunks": config.data.completion_length // CHUNK,
  }


def drawn() -> dict[str, object]:
  """The default's rollout, likewise, and bytes of a prompt's activations."""
  config = runpy.run_path("configs/hypo.py")["get_config"]()
  config.mesh.data, config.mesh.fsdp = 1, 8
  lowered = lowering.lower(config, sharding.make_mesh(**config.mesh))
  width = lowered.job.model.config.width
  return {
    "text": lowered.rollout_step.compile().as_text(),
    "looks": sampling.num_looks(lowered.job.max_new_tokens - 1),
    "row_bytes": 4 * config.data.prompt_length * width,
  }


def scored() -> list[list[float]]:
  """Scores and a gradient, whole and by rows, on a mesh with every axis.

  Returns:
    Of either way: all values of log-probs, KL and gradient.
  """
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  laid = sharding.tree_shardings(mesh, MODEL.abstract_params)
  params, reference = (
    jax.device_put(jax.device_get(MODEL.init(jax.random.key(seed))), laid)
    for seed in (0, 1)
  )
  rows = pair_rows(sharding.put_rows(mesh, PreferenceBatch(**batch(0))))

  def total(params, model):
    found = objective.score_rows_and_kl(model, params, reference, rows)
    found = (objective.score_rows(model, params, rows), *found)
    weighed = [
      jnp.sum(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)) for x in found
    ]
    return sum(weighed), found

  flat = []
  for model in (MODEL, MODEL.with_rows(sharding.row_sharding(mesh))):
    with jax.default_matmul_precision("highest"):
      run = jax.jit(jax.grad(partial(total, model=model), has_aux=True))
      out = jax.device_get(run(params))
    leaves = [np.ravel(x) for x in jax.tree.leaves(out)]
    flat.append(np.concatenate(leaves).tolist())
  return flat


def main() -> None:
  objective.chunk_size = lambda shape, vocab_size: CHUNK
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
  found = {"relaid": relaid(), "trained": trained(), "scored": scored()}
  found["drawn"] = drawn()
  print(json.dumps(texts | found))


if __name__ == "__main__":
  main()
