# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a program takes of a device's memory, and what shrinks it.

The figures are the compiler's own. Where it gives up for want of memory, they
are read from its message.
"""

import dataclasses
import math
import re
from typing import Any

import jax

from hypo_jax.aot import flops
from hypo_jax.aot.compiled import Buffer

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one device.

  Attributes:
    arguments: what the program is given.
    temporaries: what it needs besides while it runs.
    rest: results that don't take an argument's place, and the program itself.
    fits: False where the compiler gave up for want of memory.
    message: what it said then.
  """

  arguments: int
  temporaries: int
  rest: int = 0
  fits: bool = True
  message: str = ""

  @property
  def beside_arguments(self) -> int:
    return self.temporaries + self.rest


def of_compiled(compiled: jax.stages.Compiled) -> Memory:
  """Returns the compiler's account of a program."""
  stats = compiled.memory_analysis()
  results = stats.output_size_in_bytes - stats.alias_size_in_bytes
  return Memory(
    arguments=stats.argument_size_in_bytes,
    temporaries=stats.temp_size_in_bytes,
    rest=max(results, 0) + stats.generated_code_size_in_bytes,
  )


def is_of_memory(error: BaseException) -> bool:
  """Whether a compiler or an allocator gave up for want of memory."""
  text = str(error)
  return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def of_error(error: BaseException, arguments: int) -> Memory | None:
  """Reads what a compiler says that gives up for want of memory.

  Args:
    error: that compiling raised.
    arguments: bytes on one device that the program is given, which the message
      does not name.

  Returns:
    The figures, or None if the error is about something else.
  """
  if not is_of_memory(error):
    return None
  text = str(error)
  size = r"([\d.]+)([KMGT]?)i?B?\b"
  found = re.search(rf"temporaries \({size}\)", text)
  if found:
    return Memory(
      arguments, _bytes(found), fits=False, message=text.splitlines()[0]
    )
  # Older compilers: "Used 20.1G of 15.7G hbm", arguments included.
  found = re.search(rf"Used {size} of", text)
  total = _bytes(found) if found else arguments
  return Memory(
    arguments,
    max(total - arguments, 0),
    fits=False,
    message=text.splitlines()[0],
  )


def _bytes(found: re.Match[str]) -> int:
  return round(float(found[1]) * _UNITS[found[2]])


def largest_arguments(tree: Any, count: int = 8) -> tuple[Buffer, ...]:
  """Returns the arrays of a tree that take most on one device, by path.

  Args:
    tree: of arrays or shapes with shardings.
    count: how many.
  """
  found = []
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    shape = x.sharding.shard_shape(x.shape)
    size = x.dtype.itemsize
    for n in shape:
      size *= n
    text = f"{x.dtype}[{','.join(map(str, shape))}]"
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    found.append(Buffer(size, text, name))
  return tuple(sorted(found, key=lambda b: -b.bytes)[:count])


def largest_made(
  jaxpr: Any, arguments: Any, num_devices: int, count: int = 8
) -> tuple[Buffer, ...]:
  """Returns the largest arrays that a traced program makes.

  For programs that don't compile: an array of an argument's shape (a gradient,
  a moment) is taken as cut as that one is, any other as cut evenly; inside a
  `shard_map`, over the devices that its axes leave.

  Args:
    jaxpr: as traced, over all devices.
    arguments: tree of arrays, or of shapes with shardings; others are left out.
    num_devices: that the arrays are cut over.
    count: how many.
  """
  shares = {
    x.shape: x.sharding.shard_shape(x.shape)
    for x in jax.tree.leaves(arguments)
    if hasattr(x, "sharding")
  }
  found: dict[tuple[str, str], Buffer] = {}

  def look(jaxpr: Any, ways: int) -> None:
    for equation in jaxpr.eqns:
      # What a kernel makes inside never lies in main memory.
      kernel = equation.primitive.name == "pallas_call"
      inner = [
        getattr(v, "jaxpr", v)
        for v in ([] if kernel else equation.params.values())
        if hasattr(getattr(v, "jaxpr", v), "eqns")
      ]
      for each in inner:
        look(each, ways // flops.devices_inside(equation))
      # What a call or a loop returns, something inside it has made.
      for out in equation.outvars if not inner else ():
        shape = getattr(out.aval, "shape", ())
        dtype = getattr(out.aval, "dtype", None)
        if dtype is None or not hasattr(dtype, "itemsize"):
          continue
        known = shape in shares and ways == num_devices
        share = shares[shape] if known else shape
        text = f"{dtype}[{','.join(map(str, share))}]"
        size = float(dtype.itemsize) * math.prod(share)
        if not known and ways > 1:
          text, size = f"{text} / {ways}", size / ways
        source = f"{equation.source_info.name_stack}/{equation.primitive.name}"
        found[text, source] = Buffer(size, text, source)

  look(getattr(jaxpr, "jaxpr", jaxpr), num_devices)
  # One array a shape: the same array passes through many equations.
  by_shape = {b.shape: b for b in found.values()}
  return tuple(sorted(by_shape.values(), key=lambda b: -b.bytes)[:count])


def advice(config: Any, num_devices: int) -> tuple[str, ...]:
  """Returns the settings that shrink what a step takes, dearest first.

  Args:
    config: a job's configuration.
    num_devices: of the mesh.
  """
  found = []
  preference, mesh = config.preference, config.mesh
  rows = preference.micro_batch_size / num_devices
  if not config.model.remat:
    found.append("model.remat=True: keep one activation a layer")
  if preference.micro_batch_size > 1 and rows > 1:
    found.append(
      f"preference.micro_batch_size: {preference.micro_batch_size} is "
      f"{rows:g} rows a device; halve it"
    )
  if mesh.fsdp == 1 and num_devices > 1:
    found.append("mesh.data=1, mesh.fsdp=-1: cut the weights over all devices")
  elif mesh.tensor == 1 and num_devices > 1:
    found.append("mesh.tensor=2: cut heads, feed-forward and vocabulary")
  if not config.lora.rank:
    found.append("lora.rank=16: train an adapter, with no state for the rest")
  if config.lora.rank and config.model.param_dtype != "int8":
    found.append("model.param_dtype=int8: a byte a weight for the base")
  if config.model.compute_dtype == "float32":
    found.append("model.compute_dtype=bfloat16: half the activations")
  if config.rollout.samples_per_prompt > 1:
    found.append(
      f"rollout.samples_per_prompt: {config.rollout.samples_per_prompt}; "
      "fewer keep smaller caches"
    )
  found.append("data.prompt_length, data.completion_length: shorter rows")
  return tuple(found)
