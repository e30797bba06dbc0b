# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Offline pairs as arrays, and what the reference policy says of them, once."""

import itertools
import pathlib
from typing import Any

import numpy as np

from hypo_jax import evaluate
from hypo_jax.checkpoint import fingerprint
from hypo_jax.data import labels, review_pairs, tasks
from hypo_jax.job import batches
from hypo_jax.job.reference_cache import ReferenceCache, digest, fill
from hypo_jax.job.setup import Job


def get_pairs(job: Job, reference: Any) -> dict[str, tasks.Records]:
  """Returns the pairs by split, sampled and labelled where a task has none."""
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
  """Two different completions a prompt, from the reference, labelled.

  Prompts of training are asked again, turn by turn, where they are too few. A
  larger number only adds pairs.
  """
  data, prompts = job.config.data, job.task.pair_prompts[split]
  wanted = tasks.num_wanted_pairs(data.num_pairs, split)
  records = _sample_turn(job, reference, split, prompts, wanted, 0)
  if split != "train":
    return records
  for turn in itertools.count(1):
    left = wanted - len(records)
    if left <= 0:
      break
    asked = prompts[: left + max(left // 4, 16)]
    records += _sample_turn(job, reference, split, asked, left, turn)
  return review_pairs.with_even_share(
    records,
    share=data.uniform_share,
    max_words=job.tokens.completion_length - 1,
    seed=job.config.seed,
  )


def _sample_turn(
  job: Job,
  reference: Any,
  split: str,
  prompts: list[str],
  wanted: int,
  turn: int,
) -> tasks.Records:
  """Returns the pairs of one turn, at most `wanted`."""
  rows = job.tokens.prompts(prompts)
  key = job.key("pairs", split, *(["turn", turn] if turn else []))
  samples = job.completers["pairs"](
    reference, rows["prompt_tokens"], rows["prompt_mask"], key
  )
  tokenizer = job.tokens.tokenizer
  ended = (np.isin(samples.tokens, job.eos_token_ids) & samples.mask).any(-1)
  texts = [
    [t for t, e in zip(row, end, strict=True) if e and tokenizer.spells(t)]
    for row, end in zip(evaluate.decode(tokenizer, samples), ended, strict=True)
  ]
  return labels.label_pairs(
    prompts,
    texts,
    judge=job.task.judge,
    num_pairs=wanted,
    # Of held-out pairs, a file's prompts may give fewer.
    least=min(wanted, len(prompts) * 4 // 5) if split == "train" else 1,
    seed=job.config.seed,
    split=split,
    turn=turn,
  )


def score_reference(
  job: Job, reference: Any, pairs: dict[str, tasks.Records]
) -> dict[str, dict[str, np.ndarray]]:
  """Returns each split's pairs as arrays, with the reference's log-probs.

  They are kept on disk, for other runs too (`reference_cache`). Training pairs
  that no step will come to, and a reward model's, are not scored; theirs are
  nan.
  """
  tables = {}
  for split, records in pairs.items():
    tables[split], counts = job.tokens.pairs(records)
    job.say(f"{split} pairs: {counts}")
  num_pairs = {s: len(table["pair_mask"]) for s, table in tables.items()}
  needed = {split: np.arange(count) for split, count in num_pairs.items()}
  needed["train"] = _visited_rows(job, num_pairs["train"])
  if "reward_model" in needed:
    needed["reward_model"] = np.arange(0)
  cache = ReferenceCache(
    _cache_folder(job), _parts(job, reference, pairs, tables)
  )
  if reason := cache.why_not():
    job.say(f"reference log-probs are computed again, for this is {reason}")

  def score(split: str, rows: np.ndarray) -> np.ndarray:
    job.say(f"reference log-probs of {len(rows)} {split} pairs")
    part = {name: array[rows] for name, array in tables[split].items()}
    return job.pair_scorer(reference, part)

  # Every process reads before the leader writes, and so scores the same rows.
  found, gained = fill(cache, needed, num_pairs, score)
  job.barrier("look-reference")
  if gained and job.leader:
    cache.write(gained)
  job.barrier("reference")
  for split, table in tables.items():
    table["ref_chosen_log_probs"] = found[split][:, 0]
    table["ref_rejected_log_probs"] = found[split][:, 1]
  return tables


def _cache_folder(job: Job) -> pathlib.Path:
  shared = job.config.data.reference_cache
  if shared:
    return pathlib.Path(shared)
  return job.workdir / "data" / "reference_log_probs"


def _parts(
  job: Job,
  reference: Any,
  pairs: dict[str, tasks.Records],
  tables: dict[str, dict[str, np.ndarray]],
) -> dict[str, str]:
  """Returns a digest of each thing that the log-probs depend on."""
  tokens = job.tokens
  texts = {
    split: [[r["prompt"], r["chosen"], r["rejected"]] for r in records]
    for split, records in pairs.items()
  }
  return {
    "model": digest([fingerprint(reference), str(job.model.config)]),
    "tokenizer": digest(tokens.tokenizer.fingerprint()),
    "data": digest(texts),
    "lengths": digest([tokens.prompt_length, tokens.completion_length]),
    "tokens": digest([digest(tables[split]) for split in pairs]),
  }


def _visited_rows(job: Job, num_rows: int) -> np.ndarray:
  """Returns the numbers of the training pairs that some step comes to."""
  of_methods = [
    batches.visited_rows(job, "preference", num_rows, settings)
    for settings in job.methods.values()
  ]
  return np.unique(np.concatenate(of_methods))
