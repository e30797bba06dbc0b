# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A row's attention by kernels equals the plain form, value and gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypo_jax.models import row_attention, row_splash
from hypo_jax.models.attention import attend
from hypo_jax.models.row_layout import RowLayout

KERNELS = {
  "splash": partial(row_splash.attend_row, interpret=True),
  "cudnn": partial(row_attention.attend_row_cudnn, implementation="xla"),
}


@pytest.fixture(autouse=True)
def _highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


def random_real(rng, batch, layout, slots):
  """bool [B, T]: prompts of 1..P tokens on the right, slots of 0..C."""
  prompt = rng.integers(1, layout.prompt + 1, batch)[:, None]
  slot = rng.integers(0, layout.slot + 1, (batch, slots))[..., None]
  slot_real = np.arange(layout.slot) < slot
  return np.concatenate(
    [
      np.arange(layout.prompt) >= layout.prompt - prompt,
      slot_real.reshape(batch, -1),
    ],
    axis=1,
  )


def visible_by_position(real, layout, window):
  """bool [B, T, T], from each real token's position and owner."""
  prompt = real[:, : layout.prompt]
  index = np.arange(real.shape[1])
  owner = np.where(
    index < layout.prompt, 0, 1 + (index - layout.prompt) // layout.slot
  )
  in_slot = (index - layout.prompt) % layout.slot
  position = np.where(
    owner == 0,
    index - (layout.prompt - prompt.sum(1, keepdims=True)),
    prompt.sum(1, keepdims=True) + in_slot,
  )
  distance = position[:, :, None] - position[:, None, :]
  shared = (owner == 0) | (owner == owner[:, None])
  seen = shared & (distance >= 0) & (distance < (window or len(index)))
  return seen & real[:, :, None] & real[:, None, :]


def plain(queries, keys, values, visible, *, scale, softcap):
  keys, values = keys.swapaxes(1, 2), values.swapaxes(1, 2)
  return attend(queries, keys, values, visible, scale=scale, softcap=softcap)


@partial(jax.jit, static_argnums=0)
def value_and_gradient(attention, real, weight, q, k, v, *rest):
  """Of what real queries get: nothing may depend on the others."""

  def loss(q, k, v):
    out = attention(q, k, v, *rest)
    finite = jnp.isfinite(out).all()
    out = jnp.where(real[..., None, None], out, 0.0)
    return jnp.sum(out * weight), (out, finite)

  gradient, aux = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)
  return *aux, *gradient


# Prompt, slot, slots; query and key-value heads, width; windows; softcap.
CASES = {
  "one block": (7, 5, 3, 4, 2, 16, (None,), None),
  "several blocks": (600, 90, 3, 3, 1, 6, (None, 70, 300), 2.0),
  "one token": (1, 1, 1, 1, 1, 8, (1,), None),
  "short windows": (9, 4, 2, 2, 2, 6, (3, None, 5), 2.0),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_equals_the_plain_form(name, case):
  prompt, slot, slots, heads, kv_heads, width, windows, softcap = CASES[case]
  layout = RowLayout(prompt, slot)
  batch, length = 2, prompt + slots * slot
  how = {
    "scale": 2 * width**-0.5,
    "softcap": None if name == "cudnn" else softcap,
  }
  reference = partial(plain, **how)
  kernel = partial(
    KERNELS[name], layout=layout, windows=layout.windows(windows), **how
  )

  @given(seed=st.integers(0, 2**31), window=st.sampled_from(windows))
  @settings(max_examples=5 if length > 100 else 50)
  def check(seed, window):
    rng = np.random.default_rng(seed)
    real = random_real(rng, batch, layout, slots)
    q, k, v, weight = (
      rng.normal(size=(batch, length, n, width)).astype(np.float32)
      for n in (heads, kv_heads, kv_heads, heads)
    )
    visible = visible_by_position(real, layout, window)
    wide = np.int32(1 << 30 if window is None else window)
    given = (real, weight, q, k, v)
    expected = value_and_gradient(reference, *given, visible)
    found = value_and_gradient(kernel, *given, real, wide)
    assert found[1], "padding holds inf or nan"
    for one, other in zip(found, expected, strict=True):
      np.testing.assert_allclose(one, other, atol=2e-5)

  check()
