# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A model's loss and gradient with a kernel and without, over devices.

Run by test_row_attention.py with eight virtual devices; prints the largest
differences, relative to the largest value, as JSON.
"""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hypo_jax import objective, sharding
from hypo_jax.batch import Rows, predicting
from hypo_jax.models import Model, TransformerConfig, row_attention, row_splash

B, P, S, C = 8, 6, 3, 5
CONFIG = TransformerConfig(
  vocab_size=23,
  num_layers=3,
  width=16,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_width=24,
  max_positions=64,
  windows=(None, 3, 5),
  remat=True,
)
KERNELS = {
  "splash": partial(row_splash.attend_row, interpret=True),
  "cudnn": partial(row_attention.attend_row_cudnn, implementation="xla"),
}
# Two key-value heads can be cut in two, not in four.
MESHES = {"two": (2, 2, 2), "four": (1, 2, 4)}


def rows(seed: int) -> Rows:
  """Prompts of 1..P tokens, slots of 0..C; padding holds any tokens."""
  rng = np.random.default_rng(seed)
  prompt_mask = np.arange(P) >= P - rng.integers(1, P + 1, (B, 1))
  slot_mask = np.arange(C) < rng.integers(0, C + 1, (B, S, 1))
  return Rows(
    rng.integers(0, 23, (B, P), np.int32),
    prompt_mask,
    rng.integers(0, 23, (B, S, C), np.int32),
    slot_mask,
  )


class InTwo(Model):
  """Runs prompts, then slots that see their keys, as a fused step does."""

  def row_hidden(self, params, rows):
    last, keys_values = self.prompt_forward(
      params, rows.prompt_tokens, rows.prompt_mask, first=P - 1
    )
    slots = self.slots_forward(
      params, keys_values, rows.prompt_mask, rows.slot_tokens, rows.slot_mask
    )
    return predicting(last, slots)


def loss(model, params, rows):
  scored = objective.score_rows(model, params, rows)
  return jnp.sum(jnp.where(rows.slot_mask, scored, 0.0))


def difference(one, other) -> float:
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return max(
    float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(b).max())
    for a, b in pairs
  )


def main() -> None:
  jax.config.update("jax_default_matmul_precision", "highest")
  batch, results = rows(0), {}
  step = jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0)
  for name, kernel in KERNELS.items():
    softcap = 2.0 if name == "splash" else None
    plain = Model(dataclasses.replace(CONFIG, attention_softcap=softcap))
    params = plain.init(jax.random.key(0))
    expected = jax.device_get(step(plain, params, batch))
    row_attention._on = lambda device, config, kernel=kernel: kernel
    for mesh_name, sizes in MESHES.items():
      mesh = sharding.make_mesh(
        **dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
      )
      laid = jax.device_put(params, sharding.tree_shardings(mesh, params))
      placed = sharding.put_rows(mesh, batch)
      for kind, how in {Model: "in one", InTwo: "in two"}.items():
        model = kind(plain.config).with_rows(sharding.row_sharding(mesh))
        found = step(model, laid, placed)
        key = f"{name} {mesh_name} {how}"
        results[key] = difference(found, expected)
  print(json.dumps(results))


if __name__ == "__main__":
  main()
