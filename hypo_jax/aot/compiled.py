# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What one device does in a compiled program: products, memory, collectives.

Read from the program's text, whose shapes are one device's share: so what the
partitioning repeats on every device, and what rematerialisation repeats, is in
the figures. Every loop counts as often as it runs: `known_trip_count` where
the compiler wrote it, else the constant that a plain counter is compared with,
else (a loop that may end early) the bound that the caller gives.

Bytes are main memory's, once an instruction that isn't fused into another: its
operands and results, of a sliced operand the slice, of an updated one the
update; what lies in the chip's near memory counts as free. Bytes of a
collective are those that one device sends: of n devices and a whole array of x
bytes, all-gather, reduce-scatter and all-to-all x (n-1)/n, all-reduce twice
that, collective-permute x.
"""

import dataclasses
import re

from hypo_jax.aot import text as hlo
from hypo_jax.aot.products import product_flops
from hypo_jax.aot.text import Instruction, Module

COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# Names of things, not work.
_FREE = (
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "after-all",
  "partition-id",
  "replica-id",
  "opt-barrier",
  "domain",
)
_PASSED_ON = ("bitcast", "copy", "convert", "reshape", "transpose")


@dataclasses.dataclass(frozen=True)
class Work:
  """An instruction's work on one device, each time it runs.

  Attributes:
    flops: operations of its products.
    bytes: of main memory that it reads and writes.
    trips: how often it runs.
    overlaps: whether it only copies, while others work.
  """

  flops: float
  bytes: float
  trips: float
  overlaps: bool = False


@dataclasses.dataclass(frozen=True)
class Collective:
  """A collective, or all that one channel of an overlapped one does.

  Attributes:
    kind: one of COLLECTIVES.
    bytes: that one device sends, each time.
    devices: in a group.
    trips: how often it runs.
    overlaps: whether work runs meanwhile: it is split in start and done, or
      fused with products.
    source: the operation in the traced program that it comes from.
  """

  kind: str
  bytes: float
  devices: int
  trips: float
  overlaps: bool
  source: str


@dataclasses.dataclass(frozen=True)
class Buffer:
  """An array in main memory that a program makes."""

  bytes: float
  shape: str
  source: str


@dataclasses.dataclass(frozen=True)
class Program:
  """What `read` finds."""

  work: tuple[Work, ...]
  collectives: tuple[Collective, ...]
  buffers: tuple[Buffer, ...]
  notes: tuple[str, ...]

  @property
  def flops(self) -> float:
    return sum(w.flops * w.trips for w in self.work)

  @property
  def bytes(self) -> float:
    return sum(w.bytes * w.trips for w in self.work)

  @property
  def collective_bytes(self) -> dict[str, float]:
    total: dict[str, float] = {}
    for c in self.collectives:
      total[c.kind] = total.get(c.kind, 0.0) + c.bytes * c.trips
    return total


def read(text: str, *, while_trips: int | None = None) -> Program:
  """Reads a compiled program's text.

  Args:
    text: as `jax.stages.Compiled.as_text()` returns it.
    while_trips: how often the body of a loop that may end early runs at most.

  Raises:
    ValueError: if there is such a loop and while_trips is None, or the text is
      not a program's.
  """
  reader = _Reader(hlo.parse(text), while_trips)
  reader.walk(reader.module.entry, 1.0)
  return Program(
    tuple(reader.work),
    tuple(reader.collectives),
    _largest(reader.buffers),
    tuple(dict.fromkeys(reader.notes)),
  )


def _largest(buffers: list[Buffer], count: int = 8) -> tuple[Buffer, ...]:
  """One array a shape: the same passes through many instructions.

  The first that comes from an operation of the traced program names it.
  """
  by_shape: dict[str, Buffer] = {}
  for b in buffers:
    known = by_shape.setdefault(b.shape, b)
    if "/" in b.source and "/" not in known.source:
      by_shape[b.shape] = b
  return tuple(sorted(by_shape.values(), key=lambda b: -b.bytes)[:count])


class _Reader:
  """Collects what a walk through a module's computations finds."""

  def __init__(self, module: Module, while_trips: int | None):
    self.module = module
    self.while_trips = while_trips
    self.work: list[Work] = []
    self.collectives: list[Collective] = []
    self.buffers: list[Buffer] = []
    self.notes: list[str] = []
    self.channels: set[str] = set()

  def walk(self, name: str, trips: float) -> None:
    body = self.module.computations[name]
    for instruction in body.values():
      self._visit(instruction, body, trips)

  def _visit(self, i: Instruction, body, trips: float) -> None:
    kind = i.opcode.removesuffix("-start")
    if i.opcode in _FREE or i.opcode.endswith(("-done", "-update")):
      return
    if i.opcode == "while":
      inside = trips * self._trips(i)
      self.walk(i.attribute("body"), inside)
      self.walk(i.attribute("condition"), inside)
    elif i.opcode == "conditional":
      # The dearest branch; which it is, only the data knows.
      branches = re.search(r"branch_computations=\{([^}]*)\}", i.rest)
      names = re.findall(r"%?([\w.\-]+)", branches[1]) if branches else []
      names = names or [
        i.attribute(f"{side}_computation") for side in ("true", "false")
      ]
      self.walk(max(names, key=self._flops), trips)
    elif i.opcode in ("call", "async-start"):
      called = i.attribute("to_apply") or i.attribute("calls")
      self.walk(called, trips)
    elif kind in COLLECTIVES:
      overlaps = i.opcode.endswith("-start")
      self._collective(i, kind, body, trips, overlaps)
      self._note_buffers(i)
    else:
      if i.opcode == "fusion":
        self._fused_collectives(i.attribute("calls"), trips)
      flops = (
        self._flops(i.attribute("calls"))
        if i.opcode == "fusion"
        else product_flops(i, body)
      )
      moved = self._moved(i, body)
      if flops or moved:
        copies = i.opcode.endswith("-start")
        self.work.append(Work(flops, moved, trips, copies))
      self._note_buffers(i)

  def _fused_collectives(self, computation: str, trips: float) -> None:
    """Collectives inside fusions: each step of one carries the same channel."""
    body = self.module.computations[computation]
    for i in body.values():
      if i.opcode == "fusion":
        self._fused_collectives(i.attribute("calls"), trips)
      elif i.opcode in COLLECTIVES:
        channel = re.search(r"channel_id=(\d+)", i.rest)
        channel = channel[1] if channel else i.name
        if channel not in self.channels:
          self.channels.add(channel)
          self._collective(i, i.opcode, body, trips, True)

  def _collective(
    self, i: Instruction, kind: str, body, trips: float, overlaps: bool
  ) -> None:
    devices = hlo.group_size(i, self.module.num_partitions)
    share = (devices - 1) / devices
    given = sum(r.bytes for o in i.operands for r in body[o].results)
    if kind == "all-gather":
      # What starts one returns its operand beside its result.
      results = [r.bytes for r in i.results]
      full = max(results) if i.opcode.endswith("-start") else sum(results)
      sent = full * share
    elif kind == "all-reduce":
      # The compiler may convert on the way: what travels is the narrower.
      sent = 2 * min(given, sum(r.bytes for r in i.results)) * share
    elif kind == "collective-permute":
      sent = given
    else:
      sent = given * share
    self.collectives.append(
      Collective(kind, sent, devices, trips, overlaps, i.source)
    )

  def _note_buffers(self, i: Instruction) -> None:
    for array in i.results:
      if array.in_memory and array.bytes:
        self.buffers.append(Buffer(array.bytes, str(array), i.source))

  def _trips(self, i: Instruction) -> int:
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', i.rest):
      return int(known[1])
    condition = i.attribute("condition")
    bound = self._counted(condition)
    if bound is not None:
      return bound
    if self.while_trips is None:
      raise ValueError(
        f"while_trips: expected a bound for the loop {i.name} ({i.source}), "
        "which may end early"
      )
    self.notes.append(
      f"the loop {i.source or i.name} may end early; counted at its bound of "
      f"{self.while_trips} rounds"
    )
    return self.while_trips

  def _counted(self, condition: str) -> int | None:
    """The constant that a counter, and nothing else, is compared with."""
    body = self.module.computations[condition]
    root = self.module.root(condition)
    operands = [body[o] for o in root.operands]
    if root.opcode == "fusion":
      root = self.module.root(root.attribute("calls"))
    if root.opcode != "compare" or "direction=LT" not in root.rest:
      return None
    constants = [o for o in operands if o.opcode == "constant"]
    if len(constants) != 1:
      return None
    return int(constants[0].rest.split(")")[0])

  def _flops(self, computation: str) -> float:
    """Operations of a fused computation's products."""
    body = self.module.computations[computation]
    return sum(
      self._flops(i.attribute("calls"))
      if i.opcode == "fusion"
      else product_flops(i, body)
      for i in body.values()
    )

  def _moved(self, i: Instruction, body) -> float:
    """Bytes of main memory that an instruction reads and writes."""
    if i.opcode in ("copy-start", "slice-start"):
      # Results: copy, source, flag; but source, slice, flag.
      made = i.results[i.opcode == "slice-start"]
      inner = [body[o].results[0].in_memory for o in i.operands]
      return made.bytes * (made.in_memory + any(inner))
    if i.opcode == "fusion":
      called = i.attribute("calls")
      read = sum(
        self._read(called, at)
        for at, o in enumerate(i.operands)
        if body[o].results and body[o].results[0].in_memory
      )
      return read + self._written(i, called)
    if i.opcode in ("dynamic-slice", "gather", "slice"):
      return 2 * sum(r.bytes for r in i.results if r.in_memory)
    if i.opcode == "dynamic-update-slice":
      return 2 * sum(r.bytes for r in body[i.operands[1]].results)
    if i.opcode == "custom-call" and "ConcatBitcast" in i.rest:
      return 0.0
    arrays = [r for o in i.operands if o in body for r in body[o].results]
    return sum(a.bytes for a in (*arrays, *i.results) if a.in_memory)

  def _read(self, computation: str, number: int) -> float:
    """Bytes that a fused computation reads of a parameter."""
    body = self.module.computations[computation]
    parameter = next(
      i
      for i in body.values()
      if i.opcode == "parameter" and i.rest.split(")")[0] == str(number)
    )
    whole = sum(r.bytes for r in parameter.results)
    return min(whole, self._used(body, parameter.name, whole))

  def _used(self, body, name: str, whole: float) -> float:
    total = 0.0
    for user in body.values():
      if name not in user.operands:
        continue
      if user.opcode in ("dynamic-slice", "slice", "gather"):
        first = user.operands[0] == name
        total += sum(r.bytes for r in user.results) if first else 0.0
      elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
        continue  # in place: what is not updated is not read
      elif user.opcode in (*COLLECTIVES, "tuple"):
        continue  # the network's, or passed on as it is
      elif user.opcode == "bitcast":
        total += self._used(body, user.name, whole)
      elif user.opcode == "fusion":
        at = user.operands.index(name)
        total += self._read(user.attribute("calls"), at)
      else:
        return whole
    return total

  def _written(self, i: Instruction, computation: str) -> float:
    """Bytes that a fusion writes: of an update in place, the update."""
    body = self.module.computations[computation]
    root = self.module.root(computation)
    roots = [root]
    if root.opcode == "tuple":
      roots = [body[o] for o in root.operands]
    total = 0.0
    for result, made in zip(i.results, roots, strict=False):
      if not result.in_memory:
        continue
      inner = body
      while made.opcode in _PASSED_ON and made.operands[0] in inner:
        made = inner[made.operands[0]]
      if made.opcode == "dynamic-update-slice":
        total += sum(r.bytes for r in inner[made.operands[1]].results)
      elif made.opcode not in (*COLLECTIVES, "parameter", "custom-call"):
        total += result.bytes
    return total
