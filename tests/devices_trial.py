# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Five HyPO steps on one device and on three meshes of eight; prints JSON.

Run by test_devices.py with eight virtual devices; or, with a coordinator's
address and a process number, as one of two processes of four devices each.
"""

import json
import re
import sys

import jax
import numpy as np
import optax

from hypo_jax import keys, objective, rollout, sharding, train
from hypo_jax.batch import PreferenceBatch
from hypo_jax.models import Model, TransformerConfig, lora

B, P, C = 8, 6, 6
MODEL = Model(
  TransformerConfig(
    vocab_size=24,
    num_layers=2,
    width=16,
    num_heads=8,
    num_kv_heads=8,
    head_dim=4,
    mlp_width=32,
    max_positions=32,
  )
)
BUCKETS = ((P - 2, C),)
MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "mixed": (2, 2, 2)}


def batch(seed: int) -> dict:
  rng = np.random.default_rng(seed)
  arrays = {
    "prompt_tokens": rng.integers(2, 24, (B, P)).astype(np.int32),
    # Every second batch is cut to BUCKETS, on every device.
    "prompt_mask": np.arange(P) >= rng.integers(seed % 2 * 2, P, B)[:, None],
    "pair_mask": np.ones(B, bool),
    "row": np.arange(B, dtype=np.int32) + seed * B,
    "ref_chosen_log_probs": np.full(B, -9.0, np.float32),
    "ref_rejected_log_probs": np.full(B, -9.0, np.float32),
  }
  for side in ("chosen", "rejected"):
    length = rng.integers(1, C + 1, B)[:, None]
    arrays[f"{side}_tokens"] = rng.integers(2, 24, (B, C)).astype(np.int32)
    arrays[f"{side}_mask"] = np.arange(C) < length
  return arrays


def trial(mesh, *, rank: int = 0) -> dict:
  """Five steps of all weights, or of an adapter of a rank."""
  with jax.default_matmul_precision("highest"):
    start = jax.device_get(MODEL.init(jax.random.key(0)))
    laid = sharding.tree_shardings(mesh, start)
    reference = jax.device_put(start, laid)
    # An adapter starts at 0. At 0.1 it ends at a KL of 0.03 nats, a difference
    # of log-probs near 17 whose spacing is 2e-6.
    optimizer = optax.sgd(1.0 if rank else 0.1)
    trained = reference
    if rank:
      trained = lora.init(reference, jax.random.key(1), rank=rank, targets=".*")
    state = train.init_state(trained, optimizer, mesh)
    loss = objective.PreferenceLoss(
      MODEL.with_rows(sharding.row_sharding(mesh)),
      beta=0.3,
      kl_coef=0.2,
      estimator="rao_blackwell",
    )
    train_step = train.make_train_step(
      loss,
      optimizer,
      buckets=BUCKETS,
      adapters=rank > 0,
    )
    rollout_step = rollout.make_rollout_step(
      MODEL,
      samples_per_prompt=1,
      max_new_tokens=C,
      eos_token_id=1,
      pad_token_id=0,
      mesh=mesh,
    )
    tokens = []
    for step in range(5):
      share = B // jax.process_count()
      mine = slice(jax.process_index() * share, None)
      arrays = {k: v[mine][:share] for k, v in batch(step).items()}
      rows = sharding.global_rows(mesh, PreferenceBatch(**arrays))
      row_keys = keys.row_keys(keys.named_key(3, "rollout", step), rows.row)
      params = train.policy_params(state.trainable, reference, rank > 0)
      args = (params, rows.prompt_tokens, rows.prompt_mask, row_keys)
      rollouts = rollout_step(*args)
      tokens.append(sharding.gather(rollouts.rows.slot_tokens).tolist())
      state, metrics = train_step(state, reference, rows, rollouts)
    params = train.policy_params(state.trainable, reference, rank > 0)
    args = (params, *args[1:])
    text = rollout_step.lower(*args).compile().as_text()
  whole = jax.device_put(state.trainable, sharding.replicated(mesh))
  flat = [np.asarray(x).ravel() for x in jax.tree.leaves(whole)]
  return {
    "tokens": tokens,
    "metrics": {k: float(v) for k, v in metrics.items()},
    "params": np.concatenate(flat).tolist(),
    "largest_gather_in_loop": largest_gather_in_loop(text),
  }


def largest_gather_in_loop(text: str) -> int:
  """Elements of the largest all-gather in any computation a loop runs."""
  bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
  largest, inside = 0, False
  for line in text.splitlines():
    header = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line)
    if header:
      inside = header.group(1) in bodies
    gather = re.search(r"= \w+\[([\d,]*)\]\S* all-gather", line)
    if inside and gather and gather.group(1):
      size = int(np.prod([int(n) for n in gather.group(1).split(",")]))
      largest = max(largest, size)
  return largest


def main() -> None:
  if len(sys.argv) > 1:
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
    result = trial(sharding.make_mesh())
    if jax.process_index() == 0:
      print(json.dumps(result))
    return
  devices = jax.devices()
  one = sharding.make_mesh(devices=devices[:1])
  results = {"one": trial(one), "one adapter": trial(one, rank=2)}
  for name, (data, fsdp, tensor) in MESHES.items():
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, tensor=tensor)
    results[name] = trial(mesh)
    results[f"{name} adapter"] = trial(mesh, rank=2)
  # One layer's query projection, the smallest product's weights.
  results["weight_size"] = 16 * 8 * 4
  print(json.dumps(results))


if __name__ == "__main__":
  main()
