# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs without padding."""

import numpy as np

from hypo_jax.batch import PreferenceBatch


def pairs(
  prompt: np.ndarray, chosen: np.ndarray, rejected: np.ndarray
) -> PreferenceBatch:
  """Returns full rows; to the reference both sides of each are as likely.

  Args:
    prompt: int32 [B, P].
    chosen: int32 [B, C].
    rejected: int32 [B, C].
  """
  rows = len(prompt)
  return PreferenceBatch(
    prompt_tokens=prompt,
    prompt_mask=np.ones(prompt.shape, bool),
    chosen_tokens=chosen,
    chosen_mask=np.ones(chosen.shape, bool),
    rejected_tokens=rejected,
    rejected_mask=np.ones(rejected.shape, bool),
    pair_mask=np.ones(rows, bool),
    row=np.arange(rows, dtype=np.int32),
    ref_chosen_log_probs=np.zeros(rows, np.float32),
    ref_rejected_log_probs=np.zeros(rows, np.float32),
  )
