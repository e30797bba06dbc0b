# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What kind of work each operation of a compiled CPU program is.

Names that the compiler gives (`ynn_fusion.12`) say little and change with its
version: an operation, or a fusion by all that is in it, goes to the first kind
that fits.

    products            matrix products, no batch axis: weights
    thin products       the same with at most 32 rows or columns: decoding
    batched products    products with batch axes: attention
    exponentials        exp, log, tanh and the like, with what is fused to them
    reductions          sums and maxima without these
    copies              only moves, cuts, pads, joins or converts
    arithmetic          the rest of what computes
    loops               a loop's or branch's own steering
    other               what the program's text does not have
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from hypo_jax.aot import text
from hypo_jax.aot.products import product_flops

KINDS = (
  "products",
  "thin products",
  "batched products",
  "exponentials",
  "reductions",
  "copies",
  "arithmetic",
  "loops",
  "other",
)
_THIN = 32
_EXPONENTIALS = {
  *("exponential", "exponential-minus-one", "log", "log-plus-one", "logistic"),
  *("tanh", "power", "cosine", "sine", "erf"),
}
_REDUCTIONS = {"reduce", "reduce-window", "sort", "topk"}
_STEERING = {"while", "conditional"}
_MOVES = {
  *("copy", "transpose", "reshape", "bitcast", "broadcast", "slice", "pad"),
  *("dynamic-slice", "dynamic-update-slice", "concatenate", "gather", "iota"),
  *("convert", "reverse", "constant", "parameter", "tuple", "bitcast-convert"),
  *("get-tuple-element", "copy-start", "copy-done"),
}


@dataclasses.dataclass(frozen=True)
class Operation:
  """An operation that a trace names.

  Attributes:
    kind: of KINDS.
    flops: of its products, each time it runs.
  """

  kind: str
  flops: float = 0.0


def read(compiled: str) -> dict[str, Operation]:
  """Returns all operations of a program's text by name.

  Args:
    compiled: the text after optimization.

  Raises:
    ValueError: if it is not a program's.
  """
  module = text.parse(compiled)
  return {
    instruction.name: _operation(instruction, module)
    for body in module.computations.values()
    for instruction in body.values()
  }


def _operation(instruction: text.Instruction, module: text.Module) -> Operation:
  if instruction.opcode in _STEERING:
    return Operation("loops")
  inside = list(_inside(instruction, module))
  products = [(i, body) for i, body in inside if i.opcode == "dot"]
  if products:
    # The largest says what the fusion is.
    flops = [product_flops(i, body) for i, body in products]
    largest = products[flops.index(max(flops))]
    return Operation(_product_kind(*largest), sum(flops))
  opcodes = {i.opcode for i, _ in inside}
  if opcodes & _EXPONENTIALS:
    return Operation("exponentials")
  if opcodes & _REDUCTIONS:
    return Operation("reductions")
  return Operation("copies" if opcodes <= _MOVES else "arithmetic")


def _inside(instruction: text.Instruction, module: text.Module) -> Iterator:
  """Yields what an instruction consists of, with the body that it is in."""
  for name in ("calls", "to_apply"):
    called = instruction.attribute(name)
    # A reduction's own function is not what it consists of.
    if called and instruction.opcode in ("fusion", "call"):
      body = module.computations[called]
      for inner in body.values():
        yield from _inside_of(inner, module, body)
      return
  body = next(
    b for b in module.computations.values() if b.get(instruction.name)
  )
  yield instruction, body


def _inside_of(inner: text.Instruction, module: text.Module, body) -> Iterator:
  if inner.opcode in ("fusion", "call"):
    yield from _inside(inner, module)
  else:
    yield inner, body


def _product_kind(i: text.Instruction, body) -> str:
  left, right = (body[name].results[0].shape for name in i.operands[:2])
  if _axes(i, "lhs_batch_dims"):
    return "batched products"
  rows = math.prod(left) / math.prod(
    left[n] for n in _axes(i, "lhs_contracting_dims")
  )
  columns = math.prod(right) / math.prod(
    right[n] for n in _axes(i, "rhs_contracting_dims")
  )
  return "thin products" if min(rows, columns) <= _THIN else "products"


def _axes(i: text.Instruction, name: str) -> list[int]:
  found = re.search(rf"{name}=\{{([\d,]*)\}}", i.rest)
  return [int(n) for n in found[1].split(",") if n] if found else []
