# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A row's attention on TPU: JAX's splash attention, which keeps scores on chip.

What a query may see splits in two. The row's layout is static, so splash skips
the blocks of it that nobody sees; who is padding differs from row to row, and
goes in as segment ids: real tokens see real ones, padding sees padding. Every
query sees at least itself, so no softmax is empty.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from hypo_jax.models.row_layout import RowLayout, padded

# A block's keys lie along the lanes of a register.
_LANES = 128
# Most queries, and most keys, of a block; a block's float32 scores, several
# times in the backward pass, must fit 16 MB of near memory.
_LONGEST_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class _LayoutMask(splash.Mask):
  """What a layout lets queries see, made block by block.

  Attributes:
    layout: of the row.
    window: as in `RowLayout.visible`.
    queries: index of the first, index of the last, and how many there are with
      padding, which sees what the last does.
    keys: how many there are with padding.
  """

  layout: RowLayout
  window: int | None
  queries: tuple[int, int, int]
  keys: int

  @property
  def shape(self) -> tuple[int, int]:
    return self.queries[-1], self.keys

  def __getitem__(self, at: tuple[slice, slice]) -> np.ndarray:
    first, last, count = self.queries
    queries = np.minimum(first + np.arange(count), last)[at[0]]
    keys = np.arange(self.keys)[at[1]]
    return self.layout.visible(queries, keys, self.window)


def attend_row(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  real: jax.Array,
  window: jax.Array,
  *,
  layout: RowLayout,
  windows: tuple[int | None, ...],
  scale: float,
  softcap: float | None,
  interpret: bool = False,
) -> jax.Array:
  """Attends in every row; see `row_attention.kernel`.

  Args:
    queries: [B, Q, H, E], of the row's last Q tokens.
    keys: [B, T, K, E].
    values: [B, T, K, E].
    real: bool [B, T], False on padding.
    window: int32 scalar, this layer's.
    layout: of the row.
    windows: of `layout.windows`; each has a kernel of its own.
    scale: factor of the products.
    softcap: as in `attention.attend`.
    interpret: run as plain operations, on any device.

  Returns:
    [B, Q, H, E]; finite, but without meaning, on padding.
  """
  count, num_heads = queries.shape[1:3]
  length = keys.shape[1]
  q, k = block_size(count), block_size(length)
  blocks = splash.BlockSizes(q, k, k, q, k, k, q, k)
  more_queries, more_keys = -count % q, -length % k
  first = length - count

  def attend(window, *arrays):
    mask = _LayoutMask(
      layout,
      window,
      (first, length - 1, count + more_queries),
      length + more_keys,
    )
    kernel = splash.make_splash_mha_single_device(
      splash.MultiHeadMask([mask] * num_heads),
      block_sizes=blocks,
      attn_logits_soft_cap=softcap,
      interpret=interpret,
    )

    def one_row(queries, keys, values, query_ids, key_ids):
      ids = splash.SegmentIds(query_ids, key_ids)
      return kernel(queries, keys, values, ids)

    return jax.vmap(one_row)(*arrays)

  scaled = (queries.astype(jnp.float32) * scale).astype(queries.dtype)
  ids = real.astype(jnp.int32)
  arrays = (
    padded(scaled, more_queries).swapaxes(1, 2),
    padded(keys, more_keys).swapaxes(1, 2),
    padded(values, more_keys).swapaxes(1, 2),
    padded(ids[:, first:], more_queries, mode="edge"),
    padded(ids, more_keys),
  )
  branches = [partial(attend, w) for w in windows]
  # One branch is called, not switched to.
  number = layout.window_number(window, windows)
  out = jax.lax.switch(number, branches, *arrays)
  return out.swapaxes(1, 2)[:, :count]


def block_size(length: int) -> int:
  """Returns how many tokens a block has: the fewest blocks, then the least."""
  count = -(-length // _LONGEST_BLOCK)
  return -(-length // (count * _LANES)) * _LANES
