# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Offline pairs as arrays, and what the reference policy says of them, once."""

import os
from typing import Any

import numpy as np

from hypo_jax import evaluate
from hypo_jax.data import pipeline, reviews, tasks
from hypo_jax.job.setup import Job

# Held-out pairs that the embedded world samples for validation and for test.
_NUM_HELD_OUT = 256


def get_pairs(job: Job, reference: Any) -> dict[str, tasks.Records]:
  """Returns the pairs by split, sampled and labelled where a world has none."""
  if job.task.pairs is not None:
    return job.task.pairs
  folder = job.workdir / "data"
  paths = {split: folder / f"{split}.jsonl" for split in tasks.SPLITS}
  if job.leader:
    folder.mkdir(parents=True, exist_ok=True)
  for split, path in paths.items():
    # Whether it exists must look the same to all, before the leader writes it.
    missing = not path.exists()
    job.barrier(f"look-{split}")
    if missing:
      records = _sample_pairs(job, reference, split)
      if job.leader:
        tasks.write_records(path, records)
      job.barrier(f"pairs-{split}")
  return {s: tasks.read_records(path).records for s, path in paths.items()}


def _sample_pairs(job: Job, reference: Any, split: str) -> tasks.Records:
  """Two different completions a prompt, from the reference, labelled."""
  wanted = job.config.data.num_pairs if split == "train" else _NUM_HELD_OUT
  # A quarter to spare: prompts whose completions all agree, or do not end.
  name = "pairs" if split == "train" else f"{split}_pairs"
  prompts = reviews.prompts(name, wanted + wanted // 4, seed=job.config.seed)
  sampler = job.samplers["validation"]
  rows = job.tokens.prompts(prompts)
  key = job.key("pairs", split)
  samples = sampler(
    reference, reference, rows["prompt_tokens"], rows["prompt_mask"], key
  ).cut(job.tokens.completion_length)
  tokenizer = job.tokens.tokenizer
  ended = (np.isin(samples.tokens, job.eos_token_ids) & samples.mask).any(-1)
  texts = [
    [t for t, e in zip(row, end, strict=True) if e and tokenizer.spells(t)]
    for row, end in zip(evaluate.decode(tokenizer, samples), ended, strict=True)
  ]
  return tasks.label_pairs(
    prompts, texts, num_pairs=wanted, seed=job.config.seed, split=split
  )


def score_reference(
  job: Job, reference: Any, pairs: dict[str, tasks.Records]
) -> dict[str, dict[str, np.ndarray]]:
  """Returns each split's pairs as arrays, with the reference's log-probs.

  Training pairs that no step will come to are not scored; theirs are nan.
  """
  tables = {}
  for split, records in pairs.items():
    tables[split], counts = job.tokens.pairs(records)
    job.say(f"{split} pairs: {counts}")
  path = job.workdir / "data" / "reference_log_probs.npz"
  missing = not path.exists()
  job.barrier("look-reference")
  if missing:
    scored = {}
    for split, table in tables.items():
      rows = np.arange(len(table["pair_mask"]))
      if split == "train":
        rows = _visited_rows(job, len(rows))
      scored[split] = np.full((len(table["pair_mask"]), 2), np.nan, np.float32)
      part = {name: array[rows] for name, array in table.items()}
      scored[split][rows] = job.pair_scorer(reference, part)
    if job.leader:
      path.parent.mkdir(parents=True, exist_ok=True)
      aside = path.with_name("aside.npz")
      np.savez(aside, **scored)
      os.replace(aside, path)
    job.barrier("reference")
  with np.load(path) as scored:
    for split, table in tables.items():
      table["ref_chosen_log_probs"] = scored[split][:, 0]
      table["ref_rejected_log_probs"] = scored[split][:, 1]
  return tables


def _visited_rows(job: Job, num_rows: int) -> np.ndarray:
  """Returns the numbers of the training pairs that some step comes to."""
  visited: set[int] = set()
  for settings in job.methods.values():
    size, num_steps = settings["batch_size"], settings["num_steps"]
    if size * num_steps >= num_rows:
      return np.arange(num_rows)
    batch_at = pipeline.make_batches(
      {"pair": np.arange(num_rows)},
      batch_size=size,
      seed=job.config.seed,
      stage="preference",
    )
    for step in range(num_steps):
      visited.update(batch_at(step)["pair"].tolist())
  return np.array(sorted(visited))
