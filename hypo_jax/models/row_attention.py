# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The attention of a prefix-shared row, by the platform's own kernel.

    TPU    splash attention (Pallas): scores never leave the chip
    GPU    cuDNN's fused attention: likewise; a mask [B, T, T] goes in as a bias
    else   none: `attention.attend` and `attention.attend_slots`, the plain form

A kernel works on one device, so it runs under `shard_map`: rows cut as the
model's hidden states are held, heads over `tensor` where it divides them. So
only a model that knows where its rows lie (`Model(config, rows=...)`) has one;
their mesh also tells the platform, which need not be this machine's.

Real tokens get what the plain form gives; padding gets something else, which is
finite and which nothing reads.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hypo_jax.models.config import TransformerConfig
from hypo_jax.models.row_layout import RowLayout, padded

Kernel = Callable[..., jax.Array]

# Compute capability from which cuDNN has fused attention (Ampere).
_FUSED_SINCE = 8.0


def kernel(
  rows: NamedSharding | None,
  config: TransformerConfig,
  layout: RowLayout,
  *,
  scale: float,
  softcap: float | None,
) -> Kernel | None:
  """Returns attend(queries, keys, values, real, window), or None.

  Its arguments are [B, Q, H, E] of the row's last Q <= T tokens, twice
  [B, T, K, E], bool [B, T] (False on padding) and the layer's window, an int32
  scalar; B is a multiple of the devices that cut the rows. It returns
  [B, Q, H, E].

  Args:
    rows: sharding of the leading axis, or None where it isn't known.
    config: the architecture.
    layout: of the row.
    scale: factor of the products.
    softcap: as in `attention.attend`.
  """
  if rows is None:
    return None
  attend = _on(rows.mesh.devices.flat[0], config)
  if attend is None:
    return None
  attend = partial(
    attend,
    layout=layout,
    windows=layout.windows(config.windows or (None,)),
    scale=scale,
    softcap=softcap,
  )
  cut = rows.spec[0] if rows.spec else None
  heads = _heads_axis(rows.mesh, config.num_kv_heads)
  by_head = PartitionSpec(cut, None, heads, None)
  return jax.shard_map(
    attend,
    mesh=rows.mesh,
    in_specs=(by_head,) * 3 + (PartitionSpec(cut), PartitionSpec()),
    out_specs=by_head,
    check_vma=False,  # a kernel can't say over which axes its results vary
  )


def attend_row_cudnn(
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
  implementation: str = "cudnn",
) -> jax.Array:
  """Attends in every row by `jax.nn.dot_product_attention`; see `kernel`.

  Args:
    queries: [B, Q, H, E] of the row's last Q tokens; float16 or bfloat16 for
      cuDNN.
    keys: [B, T, K, E].
    values: [B, T, K, E].
    real: bool [B, T].
    window: int32 scalar.
    layout: of the row.
    windows: as in `row_splash.attend_row`.
    scale: factor of the products.
    softcap: None, as cuDNN has none.
    implementation: "cudnn", or "xla" for the same without a GPU.
  """
  if softcap is not None:
    raise ValueError(f"softcap: expected None for cuDNN, got {softcap}")
  count, length = queries.shape[1], keys.shape[1]
  # With a bias, cuDNN's backward pass takes even lengths.
  more_queries, more_keys = count % 2, length % 2
  first = length - count
  of_queries = np.minimum(
    first + np.arange(count + more_queries), length - 1
  )  # what is added sees what the last does
  of_keys = np.arange(length + more_keys)
  visible = jnp.asarray(layout.visible(of_queries, of_keys))
  if windows != (None,):
    offsets = layout.offsets(of_queries)[:, None] - layout.offsets(of_keys)
    visible &= jnp.asarray(offsets) < window
  # Padding sees padding, and so itself: no softmax is empty.
  query_real = padded(real[:, first:], more_queries, mode="edge")
  key_real = padded(real, more_keys)
  visible = visible & (query_real[:, :, None] == key_real[:, None, :])
  queries = padded(queries, more_queries)
  keys, values = padded(keys, more_keys), padded(values, more_keys)
  out = jax.nn.dot_product_attention(
    queries,
    keys,
    values,
    mask=visible[:, None],
    scale=scale,
    implementation=implementation,
  )
  return out[:, :count]


def _heads_axis(mesh: Mesh, num_kv_heads: int) -> str | None:
  """The mesh axis that cuts heads, where it cuts key-value heads evenly."""
  ways = mesh.shape.get("tensor", 1)
  return "tensor" if ways > 1 and num_kv_heads % ways == 0 else None


def _on(device: jax.Device, config: TransformerConfig) -> Kernel | None:
  """Returns what a kind of device attends with, where it takes the model."""
  if device.platform == "tpu":
    # Pallas takes a quarter of a second to import.
    from hypo_jax.models import row_splash

    return row_splash.attend_row
  if device.platform in ("gpu", "cuda") and _cudnn_takes(config, device):
    return attend_row_cudnn
  return None


def _cudnn_takes(config: TransformerConfig, device: jax.Device) -> bool:
  narrow = jnp.dtype(config.compute_dtype).itemsize == 2
  fitting = config.head_dim % 8 == 0 and config.head_dim <= 128
  able = float(device.compute_capability) >= _FUSED_SINCE
  return narrow and fitting and able and config.attention_softcap is None
