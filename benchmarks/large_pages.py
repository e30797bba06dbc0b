# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What large pages save: the default's training steps with and without them.

    python -m benchmarks.large_pages

XLA on CPU maps a step's scratch memory anew each time, and the kernel fills it
page by page. glibc asks for large pages when told so before a process starts,
so each case runs in processes of its own, in turn: A B A B.
"""

import os
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
from absl import app, flags

from configs import hypo
from hypo_jax import keys, models, sharding, train
from hypo_jax.batch import PreferenceBatch
from hypo_jax.data import reviews

_METHOD = flags.DEFINE_string("method", None, "Time one method, in here.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Processes a case.")
_STEPS = 20


def main(argv: list[str]) -> None:
  del argv
  if _METHOD.value:
    print(statistics.median(seconds(_METHOD.value)))
    return
  for method in ("dpo", "hypo"):
    figures: dict[str, list[float]] = {"": [], "glibc.malloc.hugetlb=1": []}
    for _ in range(_REPEATS.value):
      for tunables, found in figures.items():
        found.append(_timed_apart(method, tunables))
    plain, large = (statistics.median(f) for f in figures.values())
    print(
      f"{method}: {1e3 * plain:.0f} ms a step, {1e3 * large:.0f} ms with large "
      f"pages, ratio {large / plain:.2f}"
    )


def _timed_apart(method: str, tunables: str) -> float:
  command = [sys.executable, "-m", "benchmarks.large_pages"]
  found = subprocess.run(
    [*command, f"--method={method}"],
    env=os.environ | {"GLIBC_TUNABLES": tunables},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return float(found.stdout)


def seconds(method: str) -> list[float]:
  """Times steps of the default's shape on random pairs."""
  config = hypo.get_config()
  tokenizer = reviews.WordTokenizer()
  size, prompt = config.preference.batch_size, config.data.prompt_length
  length, heads = config.data.completion_length, config.model.num_heads
  model = models.Model(
    models.TransformerConfig(
      vocab_size=tokenizer.vocab_size,
      num_layers=config.model.num_layers,
      width=config.model.width,
      num_heads=heads,
      num_kv_heads=config.model.num_kv_heads,
      head_dim=config.model.width // heads,
      mlp_width=config.model.mlp_width,
      max_positions=prompt + 2 * length,
    )
  )
  mesh, rng = sharding.make_mesh(), np.random.default_rng(0)
  words = {
    f"{name}_tokens": rng.integers(2, tokenizer.vocab_size, (size, n))
    for name, n in (
      ("prompt", prompt),
      ("chosen", length),
      ("rejected", length),
    )
  }
  batch = PreferenceBatch(
    **{name: tokens.astype(np.int32) for name, tokens in words.items()},
    prompt_mask=np.ones((size, prompt), bool),
    chosen_mask=np.ones((size, length), bool),
    rejected_mask=np.ones((size, length), bool),
    pair_mask=np.ones(size, bool),
    row=np.arange(size, dtype=np.int32),
    ref_chosen_log_probs=np.zeros(size, np.float32),
    ref_rejected_log_probs=np.zeros(size, np.float32),
  )
  reference = model.init(jax.random.key(0))
  rollouts = None
  if method == "hypo":
    rollouts = train.make_rollout_step(
      model,
      samples_per_prompt=1,
      max_new_tokens=length,
      eos_token_id=tokenizer.eos_token_id,
      pad_token_id=tokenizer.pad_token_id,
      mesh=mesh,
    )(
      reference,
      batch.prompt_tokens,
      batch.prompt_mask,
      keys.row_keys(jax.random.key(1), batch.row),
    )
  optimizer = train.make_optimizer(learning_rate=1e-4, num_steps=_STEPS)
  step = train.make_train_step(
    model,
    optimizer,
    method=method,
    beta=0.1,
    kl_coef=0.015 if method == "hypo" else 0.0,
    estimator="rao_blackwell",
  )
  state = train.init_state(reference, optimizer, mesh)
  frozen = reference if method == "hypo" else None
  found = []
  for i in range(_STEPS + 3):
    start = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, frozen, batch, rollouts))
    if i >= 3:
      found.append(time.perf_counter() - start)
  return found


if __name__ == "__main__":
  app.run(main)
