# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Serves token rows as batches that depend on the step alone.

The batch of step s is a pure function of (seed, stage, s): no iterator has a
state to save, a restart needs only the step number, and every process takes its
share of the same global batch. An epoch is rows // batch_size batches, shuffled
anew each time. The rows left over are dropped for that epoch (others in the
next), because a batch that spans two epochs could hold a row twice, and rows
are what sampling keys are folded from: both copies would draw the same rollout.

All rows are tokenised beforehand and lie in memory (1 KB a pair for P = 128 and
C = 64); grain orders them, numpy gathers them. Nothing is prefetched: a batch
of 64 takes some 4 ms, while the device still runs the step before.
"""

import hashlib
from collections.abc import Callable

import grain
import numpy as np

from hypo_jax.data import buckets


def make_order(
  num_rows: int, *, batch_size: int, seed: int, stage: str
) -> Callable[[int], np.ndarray]:
  """Makes the function from a step to the rows of its global batch.

  Args:
    num_rows: R.
    batch_size: B, in [1, R].
    seed: any integer.
    stage: the training stage's name; each has an order of its own.

  Returns:
    rows_at(step), step >= 0: int32 [B], distinct numbers below R.

  Raises:
    ValueError: if B is not in [1, R].
  """
  if not 1 <= batch_size <= num_rows:
    raise ValueError(
      f"batch_size: expected 1 to {num_rows} (the rows there are), got "
      f"{batch_size}"
    )
  order = (
    grain.MapDataset.range(num_rows)
    .seed(_order_seed(seed, stage))
    .shuffle()
    .batch(batch_size, drop_remainder=True)
    .repeat()
  )

  def rows_at(step: int) -> np.ndarray:
    if step < 0:
      raise ValueError(f"step: expected at least 0, got {step}")
    return np.asarray(order[int(step)], np.int32)

  return rows_at


def make_batches(
  rows: dict[str, np.ndarray],
  *,
  batch_size: int,
  seed: int,
  stage: str,
  process_index: int = 0,
  process_count: int = 1,
  tokens: np.ndarray | None = None,
  micro_batch_size: int = 1,
) -> Callable[[int], dict[str, np.ndarray]]:
  """Makes the function from a step to its batch.

  Args:
    rows: arrays [R, ...] by name, the same on every process.
    batch_size: B, rows of the global batch, a multiple of process_count.
    seed: any integer.
    stage: the training stage's name; each has an order of its own.
    process_index: which share to return, from 0.
    process_count: number of equal shares.
    tokens: [R], of each row, to deal a batch's rows to its micro-batches by
      length (`buckets.deal`); None leaves them in random order.
    micro_batch_size: rows of a micro-batch of the global batch.

  Returns:
    batch_at(step), step >= 0: the same names, [B / process_count, ...], and
    `row`, int32, the rows' numbers in `rows`. The shares of all processes, in
    order, make up the global batch, whose rows are distinct.

  Raises:
    ValueError: if arrays differ in R, one is called "row", B is not in [1, R]
      or not a multiple of process_count, or process_index is out of range.
  """
  num_rows = _check_rows(rows)
  rows_at = make_order(num_rows, batch_size=batch_size, seed=seed, stage=stage)
  if process_count < 1 or batch_size % process_count:
    raise ValueError(
      f"process_count: expected a divisor of batch_size {batch_size}, got "
      f"{process_count}"
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      f"process_index: expected 0 to {process_count - 1}, got {process_index}"
    )
  share = batch_size // process_count
  mine = slice(process_index * share, (process_index + 1) * share)

  def batch_at(step: int) -> dict[str, np.ndarray]:
    row = rows_at(step)
    if tokens is not None:
      row = row[buckets.deal(tokens[row], micro_batch_size)]
    row = row[mine]
    return {name: array[row] for name, array in rows.items()} | {"row": row}

  return batch_at


def _check_rows(rows: dict[str, np.ndarray]) -> int:
  """Returns R."""
  if "row" in rows:
    raise ValueError('rows: "row" is the name of the rows\' numbers; rename it')
  lengths = {name: len(array) for name, array in rows.items()}
  if len(set(lengths.values())) != 1:
    raise ValueError(
      f"rows: expected arrays with one number of rows, got {lengths}"
    )
  return next(iter(lengths.values()))


def _order_seed(seed: int, stage: str) -> int:
  """Returns 32 bits: what grain takes, and the same on every process."""
  digest = hashlib.sha256(f"{seed}/{stage}".encode()).digest()
  return int.from_bytes(digest[:4], "little")
