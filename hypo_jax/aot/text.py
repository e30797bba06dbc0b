# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A compiled program's text (HLO), parsed as far as its cost asks.

An instruction's line is

    %name = bf16[128,4096]{1,0:T(8,128)S(1)} opcode(%operand, ...), attributes

where S(n) with n > 0 says that the array never lies in the chip's main memory.
"""

import dataclasses
import math
import re

_BITS = {"pred": 8, "token": 0, "opaque": 0} | {
  f"{kind}{bits}": bits
  for kind, widths in {
    "s": (2, 4, 8, 16, 32, 64),
    "u": (2, 4, 8, 16, 32, 64),
    "f": (16, 32, 64),
    "bf": (16,),
    "c": (64, 128),
  }.items()
  for bits in widths
}
_ARRAY = re.compile(r"([a-z]+[0-9]*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
# What a Pallas kernel notes about itself, the only thing that breaks a line.
_NOTES = re.compile(r"kernel_metadata=\{\n.*?\n\}", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Array:
  """One array, and whether it lies in main memory, as no scalar does."""

  dtype: str
  shape: tuple[int, ...]
  in_memory: bool = True

  @property
  def bytes(self) -> float:
    # Eight-bit floats have long names.
    bits = _BITS.get(self.dtype, 8)
    return math.prod(self.shape) * bits / 8

  def __str__(self) -> str:
    return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction.

  Attributes:
    name: unique in its computation.
    opcode: as "fusion" or "all-gather-start".
    results: its arrays; a tuple has several.
    operands: names, in order.
    rest: all that stands after the operands.
  """

  name: str
  opcode: str
  results: tuple[Array, ...]
  operands: tuple[str, ...]
  rest: str
  is_root: bool

  def attribute(self, name: str) -> str | None:
    """Returns the computation that an attribute names."""
    found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
    return found[1] if found else None

  @property
  def source(self) -> str:
    """The operation in the traced program, or an argument's path."""
    found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.rest)
    return found[1].replace("\\", "") if found else ""


@dataclasses.dataclass(frozen=True)
class Module:
  """Computations by name, each its instructions by name, in order."""

  computations: dict[str, dict[str, Instruction]]
  entry: str
  num_partitions: int

  def root(self, computation: str) -> Instruction:
    body = self.computations[computation].values()
    return next(i for i in body if i.is_root)


def parse(text: str) -> Module:
  """Parses what `Compiled.as_text()` returns.

  Raises:
    ValueError: if the text has no entry computation.
  """
  computations: dict[str, dict[str, Instruction]] = {}
  entry, body = "", None
  for line in _NOTES.sub("kernel_metadata={}", text).splitlines():
    if head := _HEAD.match(line):
      body = computations.setdefault(head[2], {})
      entry = head[2] if head[1] else entry
    elif line.startswith("}"):
      body = None
    elif body is not None and (found := _LINE.match(line)):
      instruction = _instruction(found)
      body[instruction.name] = instruction
  if not entry:
    raise ValueError("text: expected a compiled program with an entry, none")
  partitions = re.search(r"num_partitions=(\d+)", text)
  return Module(computations, entry, int(partitions[1]) if partitions else 1)


def _instruction(found: re.Match[str]) -> Instruction:
  rest = found[3]
  # A tuple's type has spaces; an array's has none.
  end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
  results, rest = rest[:end], rest[end:].strip()
  opcode, _, _ = rest.partition("(")
  start = len(opcode)
  end = _closing(rest, start)
  inside = rest[start + 1 : end]
  operands = re.findall(r"%([\w.\-]+)", inside)
  if not operands and opcode not in ("constant", "parameter", "iota"):
    operands = re.findall(r"([\w.\-]+)", inside)
  # Of a constant or parameter, the value or number is all there is.
  rest = inside + rest[end:] if opcode in ("constant", "parameter") else rest
  return Instruction(
    name=found[2],
    opcode=opcode,
    results=tuple(
      Array(dtype, _ints(shape), bool(shape) and not _elsewhere(layout))
      for dtype, shape, layout in _ARRAY.findall(results)
    ),
    operands=tuple(operands),
    rest=rest,
    is_root=bool(found[1]),
  )


def _closing(text: str, start: int) -> int:
  """Where the bracket that opens at `start` closes."""
  depth = 0
  for at in range(start, len(text)):
    depth += (text[at] == "(") - (text[at] == ")")
    if not depth:
      return at
  return len(text)


def _elsewhere(layout: str) -> bool:
  space = _SPACE.search(layout)
  return space is not None and space[1] != "0"


def _ints(text: str) -> tuple[int, ...]:
  return tuple(int(n) for n in text.split(",") if n)


def group_size(instruction: Instruction, num_partitions: int) -> int:
  """Returns how many devices a collective joins.

  Read from any of the ways in which groups are written: {{0,1},{2,3}},
  [2,2]<=[4], or mesh['x'=2,'y'=2] {'y'}.
  """
  rest = instruction.rest
  if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
    return int(found[2])
  if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
    return len(found[1].split(","))
  if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
    return math.prod(int(sizes[n]) for n in re.findall(r"'([^']+)'", found[2]))
  return num_partitions
