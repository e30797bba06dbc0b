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

from benchmarks.random_pairs import random_pairs
from configs import hypo
from hypo_jax import timing, train
from hypo_jax.job import batches, out_of_memory, setup, steps, training

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
      "data.num_pairs": ROWS,
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
  optimizer = steps.make_optimizer(settings)
  update = steps.make_update(
    job,
    settings,
    steps.make_train_step(job, settings, optimizer),
    job.params,
    batches.of_pairs(job, settings, random_pairs(job)),
  )
  state = train.init_state(job.params, optimizer, job.mesh)
  return jax.block_until_ready(update(state, 0, timing.StepTimer()))[0]


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
