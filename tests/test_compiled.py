# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One device's work and collectives, read from compiled programs."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from hypo_jax.aot import compiled, products, text
from tests.aot_trial import LAYERS, ROWS, WIDTH

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def texts():
  """Programs that tests/aot_trial.py compiles for eight virtual devices."""
  flag = "--xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, "-m", "tests.aot_trial"],
    cwd=ROOT,
    env=os.environ
    | {
      "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}",
      "JAX_PLATFORMS": "cpu",
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


def test_a_gather_in_a_scan_counts_once_a_layer(texts):
  found = compiled.read(texts["gathered"])
  assert found.collective_bytes == {
    "all-gather": LAYERS * WIDTH * WIDTH * 4 * 7 / 8
  }
  (gather,) = found.collectives
  assert (gather.devices, gather.trips) == (8, LAYERS)


def test_products_count_a_devices_share_once_a_layer(texts):
  found = compiled.read(texts["gathered"])
  assert found.flops == LAYERS * 2 * (ROWS / 8) * WIDTH * WIDTH


def test_a_product_that_every_device_repeats_counts_whole(texts):
  found = compiled.read(texts["repeated"])
  assert found.flops == 2 * ROWS * WIDTH * WIDTH
  assert found.collective_bytes == {}


def test_each_kind_counts_what_one_device_sends(texts):
  found = compiled.read(texts["reduced"]).collective_bytes
  mine = ROWS / 8 * WIDTH * 4  # bytes of x on one device
  assert found["collective-permute"] == mine
  assert found["all-to-all"] == mine * 7 / 8
  assert found["reduce-scatter"] == WIDTH / 8 * WIDTH * 4 * 7 / 8
  # Of x, and of the scalars' sums the compiler may add.
  assert found["all-reduce"] == pytest.approx(2 * mine * 7 / 8, rel=0.05)


def test_a_loop_that_may_end_early_counts_at_its_bound_and_says_so(texts):
  found = compiled.read(texts["early"], while_trips=8)
  assert found.flops == 8 * 2 * 2 * ROWS * WIDTH * WIDTH
  assert "may end early; counted at its bound of 8" in found.notes[0]
  with pytest.raises(ValueError, match="while_trips: expected a bound"):
    compiled.read(texts["early"])


def test_groups_for_rollouts_are_as_small_as_heads_allow(texts):
  """Key-value heads 8, 2, 3 and unknown, on fsdp = 8."""
  ways = [(g["group"], g["fsdp"]) for g in texts["relaid"]["groups"]]
  assert ways == [(1, 8), (4, 2), (8, 1), (1, 8)]


def test_weights_relaid_for_rollouts_are_the_same_and_lie_whole_nowhere(texts):
  found = texts["relaid"]
  assert found["same"]
  assert found["share"]["query"] == [2, 16, 2, 3]
  assert found["share"]["key"] == [2, 16, 1, 3]
  assert found["share"]["down"] == [2, 3, 16]
  program = compiled.read(found["text"])
  # A group of two holds the weights once: each device half, of which it had a
  # quarter after the all-to-all in its group.
  half = sum(found["bytes"].values()) / 2
  assert program.collective_bytes["all-gather"] == pytest.approx(half * 3 / 4)
  kinds = {c.kind: c.devices for c in program.collectives}
  assert kinds == {"all-to-all": 2, "all-gather": 4}


def test_training_under_fsdp_moves_weights_not_activations(texts):
  """Forward, backward and reference gather once; a gradient is summed once."""
  found = compiled.read(texts["trained"]["text"]).collective_bytes
  weights = texts["trained"]["bytes"] * 7 / 8
  assert found["all-gather"] + found.get("reduce-scatter", 0) < 4 * weights
  # It sends all twice; of the tied embedding, three gradients are summed apart.
  assert found["all-reduce"] < 3 * weights


def test_a_heads_gradient_is_added_up_once_not_once_a_chunk(texts):
  found = compiled.read(texts["trained"]["text"])
  chunks = texts["trained"]["chunks"]
  assert chunks == 7
  # The loops are there.
  assert chunks in {w.trips for w in found.work}
  repeated = [c for c in found.collectives if c.trips == chunks]
  assert repeated == []


def test_scores_by_rows_are_those_of_all_rows(texts):
  """Log-probs, KL and every gradient, on a mesh of data, fsdp and tensor."""
  whole, by_rows = texts["scored"]
  assert max(map(abs, whole)) > 1
  np.testing.assert_allclose(by_rows, whole, rtol=1e-5, atol=5e-5)


def test_prompts_of_rollouts_move_weights_not_activations(texts):
  """Before decoding, weights are gathered; no row's activations are summed."""
  drawn = texts["drawn"]
  found = compiled.read(drawn["text"], while_trips=drawn["looks"])
  before = [c for c in found.collectives if "while" not in c.source]
  assert max(c.bytes for c in before if c.kind == "all-gather") > 0
  summed = [c.bytes for c in before if c.kind == "all-reduce"]
  assert max(summed, default=0) < drawn["row_bytes"]


# As a TPU compiler writes it: a product is a convolution, and a loop's length
# stands only in its condition; S(1) is near memory.
TPU = """\
HloModule jit_step, is_scheduled=true, num_partitions=64

%fused_product (param_0: bf16[3,4,16], param_1: bf16[6,16,5]) -> f32[3,4,5] {
  %param_0 = bf16[3,4,16]{2,1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = bf16[6,16,5]{2,1,0:T(8,128)(2,1)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %slice = bf16[1,16,5]{2,1,0:T(8,128)(2,1)} dynamic-slice(%param_1, %zero, \
%zero, %zero), dynamic_slice_sizes={1,16,5}
  %flat = bf16[16,5]{1,0:T(8,128)(2,1)} bitcast(%slice)
  ROOT %convolution.1 = f32[3,4,5]{2,1,0:T(8,128)} convolution(%param_0, \
%flat), window={size=1}, dim_labels=0bf_io0->0bf
}

%async_collective_fusion (param_0: f32[8], param_1: f32[512]) -> (f32[8]) {
  %param_0 = f32[8]{0} parameter(0)
  %param_1 = f32[512]{0} parameter(1)
  %all-gather.7 = f32[512]{0} all-gather(%param_0), channel_id=9, \
replica_groups=[1,64]<=[64], dimensions={0}
  ROOT %tuple.7 = (f32[8]{0}) tuple(%param_0)
}

%body (state: (s32[], bf16[3,4,16])) -> (s32[], bf16[3,4,16]) {
  %state = (s32[]{:T(128)}, bf16[3,4,16]{2,1,0}) parameter(0)
  %x = bf16[3,4,16]{2,1,0:T(8,128)(2,1)S(1)} get-tuple-element(%state), index=1
  %w = bf16[6,16,5]{2,1,0:T(8,128)(2,1)} constant({...})
  %fusion.1 = f32[3,4,5]{2,1,0:T(8,128)} fusion(%x, %w), kind=kOutput, \
calls=%fused_product, metadata={op_name="jit(step)/while/body/dot_general"}
  %all-reduce.1 = bf16[3,4,5]{2,1,0:T(8,128)} all-reduce(%fusion.1), \
channel_id=3, replica_groups=mesh['x'=8,'y'=8] {'y'}, to_apply=%add
  %tall = f32[6,4]{1,0} constant({...})
  %slice-start.1 = ((f32[6,4]{1,0}), f32[1,4]{1,0:S(1)}, s32[]) \
slice-start(%tall), slice={[0:1], [0:4]}
  %slice-done.1 = f32[1,4]{1,0:S(1)} slice-done(%slice-start.1)
  %small = f32[8]{0} constant({...})
  %large = f32[512]{0} constant({...})
  %start.1 = (f32[8]{0}) fusion(%small, %large), kind=kCustom, \
calls=%async_collective_fusion
  %done.1 = (f32[8]{0}) fusion(%small, %large), kind=kCustom, \
calls=%async_collective_fusion
  ROOT %out = (s32[]{:T(128)}, bf16[3,4,16]{2,1,0}) tuple(%i, %x)
}

%condition (state.1: (s32[], bf16[3,4,16])) -> pred[] {
  %bound = s32[]{:T(128)} constant(6)
  %state.1 = (s32[]{:T(128)}, bf16[3,4,16]{2,1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

ENTRY %main (x.1: bf16[3,4,16]) -> (s32[], bf16[3,4,16]) {
  %x.1 = bf16[3,4,16]{2,1,0:T(8,128)(2,1)} parameter(0)
  %start = (s32[]{:T(128)}, bf16[3,4,16]{2,1,0}) tuple(%x.1)
  ROOT %while.1 = (s32[]{:T(128)}, bf16[3,4,16]{2,1,0}) while(%start), \
condition=%condition, body=%body
}
"""


def test_a_tpu_programs_text_is_read():
  found = compiled.read(TPU)
  assert found.flops == 6 * 2 * (3 * 4) * 16 * 5
  # Of the stacked weights one layer is read; x lies in near memory, and so
  # does the slice that is fetched meanwhile.
  copies = [w for w in found.work if w.overlaps]
  assert [w.bytes for w in copies] == [4 * 4]
  assert found.bytes == 6 * (2 * 16 * 5 + 4 * 3 * 4 * 5 + 4 * 4)
  reduce, gather = found.collectives
  assert (reduce.kind, reduce.devices, reduce.trips) == ("all-reduce", 8, 6)
  assert reduce.bytes == 2 * (2 * 3 * 4 * 5) * 7 / 8
  assert not reduce.overlaps
  # Two steps of one channel, between products.
  assert gather.overlaps and gather.bytes == 512 * 4 * 63 / 64
  assert found.buffers[0].source == "jit(step)/while/body/dot_general"
  assert found.buffers[0].shape == "f32[3,4,5]"


def test_an_array_is_listed_once_and_by_what_makes_it():
  def made(shape, source):
    return compiled.Buffer(4.0 * shape, f"f32[{shape}]", source)

  copies = [made(2, s) for s in ("", "broadcast.1", "jit(f)/dot", "jit(f)/add")]
  found = compiled._largest([*copies, made(4, "")])
  assert found == (made(4, ""), made(2, "jit(f)/dot"))


@pytest.mark.parametrize(
  ("window", "labels", "left", "kernel", "out", "flops"),
  [
    # Two heads as a window axis of 2, padded: each output meets one input.
    (
      "{size=1x2 pad=0_0x1_1 rhs_reversal=0x1}",
      "0bf1_i1o0->0b1f",
      (7, 3, 16, 1),
      (16, 2, 4, 1),
      (7, 3, 2, 4),
      2 * 7 * 3 * 2 * 4 * 16,
    ),
    # Two batches, dilated: out[b] meets input b alone.
    (
      "{size=2 stride=1 pad=0_0 lhs_dilate=2}",
      "0bf_0io->0bf",
      (2, 5, 16),
      (2, 16, 4),
      (2, 5, 4),
      2 * 2 * 5 * 4 * 16,
    ),
    ("{size=1}", "bf0_io0->bf0", (3, 16, 1), (16, 4, 1), (3, 4, 1), 384),
  ],
)
def test_a_convolution_counts_terms_that_meet_an_input(
  window, labels, left, kernel, out, flops
):
  def array(name, shape, rest):
    return f"  %{name} = f32[{','.join(map(str, shape))}]{{0}} {rest}"

  lines = [
    "HloModule m",
    "ENTRY %main (a: f32[], b: f32[]) -> f32[] {",
    array("a", left, "parameter(0)"),
    array("b", kernel, "parameter(1)"),
    "  ROOT"
    + array("c", out, "convolution(%a, %b), ")[1:]
    + f"window={window}, dim_labels={labels}",
    "}",
  ]
  assert compiled.read("\n".join(lines)).flops == flops


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel_dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("before", [0, 1, 5, -1])
def test_meetings_are_those_that_a_list_of_all_pairs_shows(
  dilation, kernel_dilation, stride, before
):
  inputs, outputs, size = 5, 7, 4
  listed = sum(
    0 <= at <= (inputs - 1) * dilation and at % dilation == 0
    for o in range(outputs)
    for k in range(size)
    for at in [o * stride + k * kernel_dilation - before]
  )
  counted = products.meetings(
    inputs,
    outputs,
    size=size,
    stride=stride,
    before=before,
    dilation=dilation,
    kernel_dilation=kernel_dilation,
  )
  assert counted == listed


def test_a_long_batch_axis_is_not_listed():
  """As 2^17 rows a device are written: each output meets one input."""
  count, one = 2**17, {"stride": 1, "kernel_dilation": 1, "dilation": 1}
  assert (
    products.meetings(count, count, size=count, before=count - 1, **one)
    == count * (count + 1) // 2
  )
  dilated = one | {"stride": count - 1, "dilation": count}
  assert (
    products.meetings(count, count, size=count, before=0, **dilated) == count
  )


def test_text_without_an_entry_is_told():
  with pytest.raises(ValueError, match="text: expected"):
    text.parse("HloModule jit_step")


KERNEL = """HloModule jit_f, num_partitions=4

ENTRY %main (p0: s8[1,2,3], p1: bf16[2,4,1024,128], \
p2: s32[2,512,256]) -> bf16[2,16,1024,128] {
  %p0 = s8[1,2,3]{2,1,0} parameter(0)
  %p1 = bf16[2,4,1024,128]{3,2,1,0} parameter(1)
  %p2 = s32[2,512,256]{2,1,0} parameter(2)
  %q = bf16[2,16,1024,128]{3,2,1,0} broadcast(%p1), dimensions={0,1,2,3}
  %splash_mha_fwd.1 = (f32[2,512,128]{2,1,0:T(8,128)}, \
bf16[2,16,1024,128]{3,2,1,0}) custom-call(%p0, %p0, %p0, %q, %p1, %p1, %p2), \
custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={

"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="jit(f)/splash_mha_fwd_segmented_residuals/pallas_call"}
  ROOT %out = bf16[2,16,1024,128]{3,2,1,0} get-tuple-element(\
%splash_mha_fwd.1), index=1, frontend_attributes={kernel_metadata={

"xprof_metadata":"{\\"block_q\\": 512}"
}}
}
"""


def test_splash_attention_counts_its_products_and_its_operands():
  """Two by three blocks; its notes break lines and close a bracket on one."""
  found = compiled.read(KERNEL)
  assert found.flops == 2 * 2 * (2 * 16) * 128 * (2 * 3) * (512 * 256)
  heads = 2 * 1024 * 128 * 2  # bytes of one head's, both rows
  kernel = found.work[-1]
  assert kernel.flops == found.flops
  own = 3 * 6 + 4 * 2 * 512 * 256 + 4 * 2 * 512 * 128
  assert kernel.bytes == (16 + 4 + 4 + 16) * heads + own
