# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A row's attention by kernels equals the plain form, value and gradient."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo

from hypo_jax import sharding
from hypo_jax.models import (
  Model,
  TransformerConfig,
  row_attention,
  row_splash,
)
from hypo_jax.models.attention import attend
from hypo_jax.models.row_layout import RowLayout

ROOT = pathlib.Path(__file__).parents[1]
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


# First query; prompt, slot, slots; query and key-value heads, width; windows;
# softcap.
CASES = {
  "one block": (0, 7, 5, 3, 4, 2, 16, (None,), None),
  "several blocks": (0, 600, 90, 3, 3, 1, 6, (None, 70, 300), 2.0),
  "one token": (0, 1, 1, 1, 1, 1, 8, (1,), None),
  "short windows": (0, 9, 4, 2, 2, 2, 6, (3, None, 5), 2.0),
  "last of the prompt": (8, 9, 4, 3, 2, 1, 8, (None, 5), None),
  "all seats taken": (191, 192, 32, 2, 2, 1, 8, (None,), None),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_equals_the_plain_form(name, case):
  first, prompt, slot, slots, heads, kv_heads, width, windows, softcap = CASES[
    case
  ]
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
    q, weight = q[:, first:], weight[:, first:]
    visible = visible_by_position(real, layout, window)[:, first:]
    wide = np.int32(1 << 30 if window is None else window)
    given = (real[:, first:], weight, q, k, v)
    expected = value_and_gradient(reference, *given, visible)
    found = value_and_gradient(kernel, *given, real, wide)
    assert found[1], "padding holds inf or nan"
    for one, other in zip(found, expected, strict=True):
      np.testing.assert_allclose(one, other, atol=2e-5)

  check()


def test_a_row_s_layout_drawn():
  """Two of prompt, two slots of two; padding of the row goes on as slots."""
  index = np.arange(7)
  assert RowLayout(2, 2).visible(index, index).astype(int).tolist() == [
    [1, 0, 0, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 0, 0],
    [1, 1, 1, 0, 0, 0, 0],
    [1, 1, 1, 1, 0, 0, 0],
    [1, 1, 0, 0, 1, 0, 0],
    [1, 1, 0, 0, 1, 1, 0],
    [1, 1, 0, 0, 0, 0, 1],
  ]
  near = RowLayout(2, 2).visible(index[4:6], index, window=2)
  assert near.astype(int).tolist() == [
    [0, 1, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 1, 1, 0],
  ]


def test_windows_wider_than_a_sequence_are_none():
  layout = RowLayout(6, 4)
  assert layout.windows((None, 10, 4096)) == (None,)
  windows = layout.windows((4096, 9, None, 9, 3))
  assert windows == (None, 9, 3)
  numbers = [int(layout.window_number(w, windows)) for w in (1 << 30, 9, 3)]
  assert numbers == [0, 1, 2]


def test_blocks_cover_a_row_with_little_to_spare():
  for length in range(1, 3000, 7):
    block = row_splash.block_size(length)
    assert block % 128 == 0 and block <= 512
    assert -length % block < 128 * -(-length // 512)


CONFIG = TransformerConfig(
  vocab_size=8,
  num_layers=2,
  width=16,
  num_heads=4,
  num_kv_heads=2,
  head_dim=16,
  mlp_width=16,
  max_positions=64,
  compute_dtype="bfloat16",
)


@dataclasses.dataclass(frozen=True)
class Device:
  platform: str
  compute_capability: str = ""


@pytest.mark.parametrize(
  ("device", "changes", "expected"),
  [
    (Device("cpu"), {}, None),
    (Device("tpu"), {}, row_splash.attend_row),
    (Device("tpu"), {"head_dim": 6}, row_splash.attend_row),
    (Device("gpu", "9.0"), {}, row_attention.attend_row_cudnn),
    (Device("gpu", "7.5"), {}, None),
    (Device("gpu", "9.0"), {"compute_dtype": "float32"}, None),
    (Device("gpu", "9.0"), {"attention_softcap": 50.0}, None),
    (Device("gpu", "9.0"), {"head_dim": 20}, None),
    (Device("gpu", "9.0"), {"head_dim": 256}, None),
  ],
)
def test_a_device_attends_with_what_takes_the_model(device, changes, expected):
  config = dataclasses.replace(CONFIG, **changes)
  assert row_attention._on(device, config) is expected


def test_a_cpu_and_unplaced_rows_have_the_plain_form():
  rows = sharding.row_sharding(sharding.make_mesh())
  for where in (None, rows):
    how = {"scale": 1.0, "softcap": None}
    assert row_attention.kernel(where, CONFIG, RowLayout(6, 5), **how) is None


@pytest.mark.parametrize(
  ("kernel", "platform", "calls"),
  [
    (
      row_splash.attend_row,
      "tpu",
      ["splash_mha_fwd", "splash_mha_dkv", "splash_mha_dq"],
    ),
    (
      row_attention.attend_row_cudnn,
      "cuda",
      ["__cudnn$fmhaScaleBiasSoftmax", "__cudnn$fmhaScaleBiasSoftmaxBackward"],
    ),
  ],
  ids=["tpu", "cuda"],
)
def test_a_kernel_lowers_for_its_platform(kernel, platform, calls, monkeypatch):
  """Forward and backward are kernels' calls, and no scores are left."""
  # This machine has no cuDNN to ask.
  monkeypatch.setattr(
    fused_attention_stablehlo, "check_cudnn_version", lambda: 91000
  )
  layout = RowLayout(prompt=200, slot=50)  # T = 350, or 384 in blocks
  attend = partial(
    kernel, layout=layout, windows=(None, 3), scale=0.25, softcap=None
  )

  def shape(*axes, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(axes, dtype)

  def loss(*arrays):
    return attend(*arrays).astype(jnp.float32).sum()

  traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(
    shape(2, 350, 4, 16),
    shape(2, 350, 2, 16),
    shape(2, 350, 2, 16),
    shape(2, 350, dtype=bool),
    shape(dtype=jnp.int32),
  )
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  found = re.findall(r"custom_call @([\w$.]+)", text)
  if platform == "tpu":
    assert set(found) == {"tpu_custom_call"}
    found = re.findall(r'kernel_name = "([a-z_]+?)_(?:no_|segm)', text)
  assert found == calls
  assert not re.search(r"x(350x350|384x384)xf32", text)


@pytest.fixture(scope="module")
def trial():
  """What tests/row_attention_trial.py prints."""
  flags = "--xla_force_host_platform_device_count=8"
  process = subprocess.run(
    [sys.executable, str(ROOT / "tests" / "row_attention_trial.py")],
    env=os.environ
    | {
      "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
      "PYTHONPATH": str(ROOT),
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert process.returncode == 0, process.stderr[-3000:]
  return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("passes", ["in one", "in two"])
@pytest.mark.parametrize("mesh", ["two", "four"])
@pytest.mark.parametrize("name", KERNELS)
def test_a_model_over_devices_scores_as_with_the_plain_form(
  trial, name, mesh, passes
):
  """Loss and gradient; heads are cut by two devices, and not by four.

  Prompts and slots run as one row, or prompts first.
  """
  assert trial[f"{name} {mesh} {passes}"] < 2e-5


@pytest.mark.parametrize("name", KERNELS)
def test_prompts_and_slots_apart_attend_as_in_the_plain_form(name, monkeypatch):
  """Hidden states, keys, values and gradients; called once a layer and pass."""
  config = dataclasses.replace(
    CONFIG, compute_dtype="float32", windows=(None, 3), max_positions=16
  )
  layout, slots, batch = RowLayout(6, 5), 3, 2
  real = random_real(np.random.default_rng(4), batch, layout, slots)
  mask = jnp.asarray(real[:, 6:]).reshape(batch, slots, 5)
  prompt_mask = jnp.asarray(real[:, :6])
  tokens = jax.random.randint(jax.random.key(1), real.shape, 0, 8)
  slot_tokens = tokens[:, 6:].reshape(mask.shape)
  params = Model(config).init(jax.random.key(2))
  calls = []

  def counted(queries, *rest, **how):
    calls.append(queries.shape[1])
    return KERNELS[name](queries, *rest, **how)

  def loss(params, model):
    last, keys_values = model.prompt_forward(
      params, tokens[:, :6], prompt_mask, first=5
    )
    slot = model.slots_forward(
      params, keys_values, prompt_mask, slot_tokens, mask
    )
    seen = prompt_mask[None, :, None, :, None]
    arrays = (
      last,
      jnp.where(mask[..., None], slot, 0.0),
      *(jnp.where(seen, x, 0.0) for x in keys_values),
    )
    weighed = (
      jnp.sum(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)) for x in arrays
    )
    return sum(weighed), arrays

  run = partial(jax.value_and_grad, has_aux=True)
  expected = jax.jit(run(partial(loss, model=Model(config))))(params)
  assert not calls
  monkeypatch.setattr(row_attention, "_on", lambda device, config: counted)
  rows = sharding.row_sharding(sharding.make_mesh(devices=jax.devices()[:1]))
  placed = Model(config).with_rows(rows)
  found = jax.jit(run(partial(loss, model=placed)))(params)
  # Of the last layer's prompts there is one query, which needs no kernel.
  assert calls == [6, 15, 15]
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=2e-5 * jnp.abs(other).max())
