# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Every random key is a pure function of names and numbers.

No random state is stored anywhere: a key is folded from (seed, stage, purpose,
step, global row, sample, token position), so a restart needs only the step, and
what is drawn for a row depends on no micro-batch, host or mesh.
"""

import zlib

import jax


def named_key(seed: int, *names: str | int) -> jax.Array:
  """Folds names (by their CRC) and numbers into the key of `seed`."""
  return folded(jax.random.key(seed), *names)


def folded(key: jax.Array, *names: str | int) -> jax.Array:
  """Folds names (by their CRC) and numbers into a key.

  Where the key is also folded with rows, begin with a name: a small number
  would be some row's.
  """
  for name in names:
    number = zlib.crc32(name.encode()) if isinstance(name, str) else name
    key = jax.random.fold_in(key, number)
  return key


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
  """Returns one key for each global row number: keys [B] for int32 [B]."""
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
