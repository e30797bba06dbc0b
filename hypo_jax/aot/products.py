# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Operations of the products in a compiled program's text.

dot            2 * elements of the result * elements summed over
convolution    the same, where batch axes of the product are window axes
custom call    of splash attention: see `_SPLASH`; of anything else 0
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from hypo_jax.aot.text import Instruction

# Products of queries by keys, or as large, that a kernel of splash attention
# does: scores and average; scores again, and the gradients of weights and
# queries; scores, and the gradients of weights, values and keys.
_SPLASH = {"fwd": 2, "dq": 3, "dkv": 4}


def product_flops(i: Instruction, body: Mapping[str, Instruction]) -> float:
  """Returns an instruction's operations if it is a product, else 0.

  Args:
    i: the instruction.
    body: of its computation, by name.
  """
  if i.opcode == "dot":
    return _dot_flops(i, body)
  if i.opcode == "convolution":
    return _convolution_flops(i, body)
  if i.opcode == "custom-call":
    return _splash_flops(i, body)
  return 0.0


def _splash_flops(i: Instruction, body) -> float:
  """Operations of splash attention, if no program of its grid is skipped.

  The grid is as wide as the query block that sees most key blocks.
  """
  kind = re.search(r"/splash_m[hq]a_(\w+?)_\w+/pallas_call", i.source)
  if kind is None:
    return 0.0
  # Operands: what each program of a head works on [1, blocks, blocks], two more
  # such arrays, queries [..., H, T, E], ..., masks of blocks [n, block, block].
  shapes = [body[o].results[0].shape for o in i.operands]
  *heads, _, width = shapes[3]
  programs, block = math.prod(shapes[0]), math.prod(shapes[-1][-2:])
  return _SPLASH[kind[1]] * 2.0 * math.prod(heads) * width * programs * block


def _dot_flops(i: Instruction, body) -> float:
  contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest)
  shape = body[i.operands[0]].results[0].shape
  axes = [int(n) for n in contracted[1].split(",") if n] if contracted else []
  inner = math.prod(shape[n] for n in axes)
  return 2.0 * math.prod(i.results[0].shape) * inner


def _convolution_flops(i: Instruction, body) -> float:
  """Operations of a convolution: on TPU every product is written as one.

  Batch axes of a product are window axes there, padded or dilated so that each
  output meets one input: only terms that meet an input are counted.
  """
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.rest)
  left, kernel = (body[o].results[0].shape for o in i.operands[:2])
  out = i.results[0].shape
  inputs, weights, outputs = labels.groups()
  total = 2.0 * out[outputs.index("b")] * out[outputs.index("f")]
  total *= kernel[weights.index("i")]
  window = _window(i.rest, sum(c.isdigit() for c in inputs))
  for axis, settings in enumerate(window):
    size = left[inputs.index(str(axis))]
    total *= meetings(size, out[outputs.index(str(axis))], **settings)
  return total


def _window(rest: str, axes: int) -> list[dict[str, int]]:
  found = re.search(r"window=\{([^}]*)\}", rest)
  given = dict(part.split("=") for part in found[1].split()) if found else {}

  def column(name: str, default: str) -> list[str]:
    return given[name].split("x") if name in given else [default] * axes

  columns = zip(
    column("size", "1"),
    column("stride", "1"),
    column("pad", "0_0"),
    column("lhs_dilate", "1"),
    column("rhs_dilate", "1"),
    strict=True,
  )
  return [
    {
      "size": int(size),
      "stride": int(stride),
      "before": int(pad.split("_")[0]),
      "dilation": int(dilation),
      "kernel_dilation": int(kernel_dilation),
    }
    for size, stride, pad, dilation, kernel_dilation in columns
  ]


def meetings(
  inputs: int,
  outputs: int,
  *,
  size: int,
  stride: int,
  before: int,
  dilation: int,
  kernel_dilation: int,
) -> int:
  """Pairs of output and window place that meet an input along one axis.

  Output o at window place k looks at (o * stride - before) + k * d, d being
  kernel_dilation, where an input lies if that is a multiple of `dilation` from
  0 to the last: of an arithmetic progression of k, the terms in a range. A
  product's batch axis can be long, so the pairs themselves are never listed.
  """
  offset = np.arange(outputs) * stride - before
  first = np.maximum(-(offset // kernel_dilation), 0)
  last = ((inputs - 1) * dilation - offset) // kernel_dilation
  last = np.minimum(last, size - 1)
  common = math.gcd(kernel_dilation, dilation)
  period = dilation // common
  start = -(offset // common) * pow(kernel_dilation // common, -1, period)
  start %= period
  count = (last - start) // period - (first - 1 - start) // period
  possible = (offset % common == 0) & (last >= first)
  return int(np.where(possible, count, 0).sum())
