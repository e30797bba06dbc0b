# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of a world that has yet to sample its own, to time steps on."""

import numpy as np

from hypo_jax.job import setup


def random_pairs(job: setup.Job) -> dict[str, np.ndarray]:
  """Returns data.num_pairs pairs of full length, in arrays by name."""
  rng, rows = np.random.default_rng(0), job.config.data.num_pairs
  words = job.tokens.tokenizer.vocab_size
  lengths = dict.fromkeys(("chosen", "rejected"), job.tokens.completion_length)
  pairs = {"pair_mask": np.ones(rows, bool)}
  for name, length in ({"prompt": job.tokens.prompt_length} | lengths).items():
    tokens = rng.integers(2, words, (rows, length), np.int32)
    pairs |= {f"{name}_tokens": tokens, f"{name}_mask": tokens > 0}
  for name in lengths:
    pairs[f"ref_{name}_log_probs"] = np.zeros(rows, np.float32)
  return pairs
