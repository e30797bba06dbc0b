# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Who sees whom in a prefix-shared row, by index alone.

    index   0 .. P-1 | P .. P+C-1 | P+C .. P+2C-1 | ...
            prompt   | slot 0     | slot 1        | ...
    offset  0 .. P-1 | P .. P+C-1 | P   .. P+C-1  | ...

A query sees the prompt and its own slot where they are not ahead of it. Prompts
are padded on the left and slots on the right, so that two real tokens of which
one sees the other are as far apart in offset as they are in position: a window
needs no positions either, and a row's layout is known before any data is.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class RowLayout:
  """A prompt and slots behind it; as many slots as the row is long.

  Attributes:
    prompt: P, padding included.
    slot: C, padding included.
  """

  prompt: int
  slot: int

  def slots(self, index: np.ndarray) -> np.ndarray:
    """Returns the number of each index's slot, -1 in the prompt."""
    return np.maximum((index - self.prompt) // self.slot, -1)

  def offsets(self, index: np.ndarray) -> np.ndarray:
    """Returns what each index's position is counted by; see the module."""
    in_slot = self.prompt + (index - self.prompt) % self.slot
    return np.where(index < self.prompt, index, in_slot)

  def visible(
    self, queries: np.ndarray, keys: np.ndarray, window: int | None = None
  ) -> np.ndarray:
    """Returns bool [queries, keys], True where the query sees the key.

    Args:
      queries: int [queries], indices.
      keys: int [keys].
      window: tokens that a query sees at most, itself included; None: all.
    """
    queries, keys = queries[:, None], keys[None, :]
    slot = self.slots(keys)
    ahead = self.offsets(queries) - self.offsets(keys)
    seen = (slot < 0) | (slot == self.slots(queries))
    seen = seen & (ahead >= 0)
    return seen if window is None else seen & (ahead < window)

  def windows(self, by_layer: Sequence[int | None]) -> tuple[int | None, ...]:
    """Returns the different windows of all layers, in order.

    Those that hide nothing are None: so a model with short and long windows has
    one attention here while the row fits the short one.
    """
    longest = self.prompt + self.slot
    kept = (w if w and w < longest else None for w in by_layer)
    return tuple(dict.fromkeys(kept))

  def window_number(
    self, window: jax.Array, windows: tuple[int | None, ...]
  ) -> jax.Array:
    """Returns the place in `windows` of a layer's window, an int32 scalar."""
    longest = self.prompt + self.slot
    listed = jnp.array([longest if w is None else w for w in windows])
    return jnp.argmax(listed == jnp.minimum(window, longest))


def padded(x: jax.Array, more: int, mode: str = "constant") -> jax.Array:
  """Adds to axis 1, as `jnp.pad` does in this mode."""
  return jnp.pad(x, [(0, more if a == 1 else 0) for a in range(x.ndim)], mode)
