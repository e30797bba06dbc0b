# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Offline pairs as arrays, and what the reference policy says of them, once."""

import os
from typing import Any

import numpy as np

from hypo_jax import evaluate
from hypo_jax.data import reviews, tasks
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
  """Two of four completions a prompt, sampled from the reference, labelled."""
  wanted = job.config.data.num_pairs if split == "train" else _NUM_HELD_OUT
  # A tenth to spare: prompts whose completions all agree, or do not end.
  name = "pairs" if split == "train" else f"{split}_pairs"
  prompts = reviews.prompts(name, wanted + wanted // 10, seed=job.config.seed)
  sampler = _make_sampler(job, samples_per_prompt=4, factor=1)
  rows = job.tokens.prompts(prompts)
  key = job.key("pairs", split)
  samples = sampler(
    reference, reference, rows["prompt_tokens"], rows["prompt_mask"], key
  )
  tokenizer = job.tokens.tokenizer
  ended = (np.isin(samples.tokens, job.eos_token_ids) & samples.mask).any(-1)
  texts = [
    [t for t, e in zip(row, end, strict=True) if e and tokenizer.spells(t)]
    for row, end in zip(evaluate.decode(tokenizer, samples), ended, strict=True)
  ]
  return tasks.label_pairs(
    prompts, texts, num_pairs=wanted, seed=job.config.seed, split=split
  )


def _make_sampler(job: Job, *, samples_per_prompt: int, factor: int):
  return evaluate.make_sampler(
    job.model,
    samples_per_prompt=samples_per_prompt,
    max_new_tokens=factor * job.tokens.completion_length,
    eos_token_id=job.eos_token_ids,
    pad_token_id=job.tokens.tokenizer.pad_token_id,
    batch_size=job.config.preference.batch_size,
    mesh=job.mesh,
  )


def score_reference(
  job: Job, reference: Any, pairs: dict[str, tasks.Records]
) -> dict[str, dict[str, np.ndarray]]:
  """Returns each split's pairs as arrays, with the reference's log-probs."""
  tables = {}
  for split, records in pairs.items():
    tables[split], counts = job.tokens.pairs(records)
    job.say(f"{split} pairs: {counts}")
  path = job.workdir / "data" / "reference_log_probs.npz"
  missing = not path.exists()
  job.barrier("look-reference")
  if missing:
    scorer = _make_pair_scorer(job)
    scored = {s: scorer(reference, table) for s, table in tables.items()}
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


def _make_pair_scorer(job: Job):
  return evaluate.make_pair_scorer(
    job.model, batch_size=job.config.preference.batch_size, mesh=job.mesh
  )
