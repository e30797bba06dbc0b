# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tunes, then runs out of memory, then takes the advice; prints both.

python -m tests.memory_trial FOLDER
"""

import dataclasses
import pathlib
import resource
import sys

import jax
import numpy as np

from configs import hypo
from hypo_jax import loop, train
from hypo_jax.job import batches, out_of_memory, setup, training

ROWS, SPARE = 256, 3 << 30


def main(folder: pathlib.Path) -> None:
  config = hypo.get_config()
  config.update_from_flattened_dict(
    {
      "model.architecture.num_hidden_layers": 1,
      "model.architecture.hidden_size": 8,
      "model.architecture.num_attention_heads": 1,
      "model.architecture.num_key_value_heads": 1,
      "model.architecture.intermediate_size": 16384,
      "data.num_demonstrations": 8,
      "sft.num_steps": 2,
      "sft.batch_size": 4,
      "preference.batch_size": ROWS,
      "preference.micro_batch_size": ROWS,
    }
  )
  job = setup.set_up(config, folder)
  training.fine_tune(job)
  virtual = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
  limit = virtual * resource.getpagesize() + SPARE
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  try:
    with out_of_memory.explained(config, folder) as watch:
      update_once(dataclasses.replace(job, watch=watch), ROWS)
  except out_of_memory.OutOfMemory as error:
    print(error)
  print("AFTER")
  state = update_once(job, 8)
  print(f"micro_batch_size 8: step {int(state.step)}")


def update_once(job: setup.Job, micro_batch_size: int) -> train.TrainState:
  settings = job.methods["dpo"] | {"micro_batch_size": micro_batch_size}
  optimizer = training.make_optimizer(settings)
  update = training.make_update(
    job,
    settings,
    training.make_train_step(job, settings, optimizer),
    job.params,
    batches.of_pairs(job, settings, random_pairs(job)),
  )
  state = train.init_state(job.params, optimizer, job.mesh)
  return jax.block_until_ready(update(state, 0, loop.StepTimer()))[0]


def random_pairs(job: setup.Job) -> dict[str, np.ndarray]:
  """Pairs of full length, as `PreferenceBatch` names their arrays."""
  tokens = job.tokens
  pairs = {"pair_mask": np.ones(ROWS, bool)}
  for name, length in (
    ("prompt", tokens.prompt_length),
    ("chosen", tokens.completion_length),
    ("rejected", tokens.completion_length),
  ):
    pairs[f"{name}_tokens"] = np.full((ROWS, length), 3, np.int32)
    pairs[f"{name}_mask"] = np.ones((ROWS, length), bool)
  for name in ("chosen", "rejected"):
    pairs[f"ref_{name}_log_probs"] = np.zeros(ROWS, np.float32)
  return pairs


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
