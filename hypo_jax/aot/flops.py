# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations and bytes of products, counted from a jaxpr.

    product of [batch, rows, inner] and [batch, inner, columns]:
      2 * batch * rows * inner * columns operations

A scanned body counts as often as it runs, which XLA's own count does not do.
A while loop has no length of its own: it counts at the bound that the caller
gives, so a loop that may end early is counted as if it didn't. Of a conditional
the dearest branch counts. What one device of a `shard_map` does counts once a
device. Everything that isn't a product counts as free: on a
matrix unit it nearly is, and a compiler fuses it with the products around it.
Nor does a product count that no result depends on, as a prompt's logits in a
prefill.

These are the operations of the whole program, over all devices, as written:
what the compiler repeats on each device is in `compiled.read`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Literal


@dataclasses.dataclass(frozen=True)
class Count:
  """Work of a program.

  Attributes:
    flops: operations of its products.
    bytes: what these products read and write, each operand and result once a
      product.
  """

  flops: float = 0.0
  bytes: float = 0.0

  def __add__(self, other: "Count") -> "Count":
    return Count(self.flops + other.flops, self.bytes + other.bytes)

  def times(self, n: float) -> "Count":
    return Count(self.flops * n, self.bytes * n)


def count(jaxpr: Any, *, while_trips: Sequence[int] = ()) -> Count:
  """Counts a jaxpr, nested ones included.

  Args:
    jaxpr: a Jaxpr or ClosedJaxpr, as `jax.jit(f).trace(...).jaxpr`.
    while_trips: how often the body of each while loop runs at most, in the
      order in which the loops stand, outer ones before those inside them.

  Raises:
    ValueError: if there are more or fewer while loops than bounds.
  """
  bounds = list(while_trips)
  total = _count(getattr(jaxpr, "jaxpr", jaxpr), bounds)
  if bounds:
    raise ValueError(
      f"while_trips: expected a bound for each while loop, got {len(bounds)} "
      "more than there are loops"
    )
  return total


def count_function(
  function: Callable[..., Any], *args: Any, while_trips: Sequence[int] = ()
) -> Count:
  """Counts a function of arrays or shapes; see `count`."""
  jaxpr = jax.make_jaxpr(function)(*args)
  return count(jaxpr, while_trips=while_trips)


def _count(jaxpr: Any, bounds: list[int]) -> Count:
  return sum((_equation(e, bounds) for e in _live(jaxpr)), Count())


def _live(jaxpr: Any) -> list[Any]:
  """The equations that a result depends on: the compiler drops the rest."""
  needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
  found = []
  for equation in reversed(jaxpr.eqns):
    if equation.effects or needed.intersection(equation.outvars):
      found.append(equation)
      needed.update(v for v in equation.invars if not isinstance(v, Literal))
  return found[::-1]


def _equation(equation: Any, bounds: list[int]) -> Count:
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    return _product(equation)
  if name == "conv_general_dilated":
    raise ValueError("jaxpr: expected no convolution, which isn't counted")
  if name == "while":
    if not bounds:
      raise ValueError(
        "while_trips: expected a bound for each while loop, got fewer"
      )
    trips = bounds.pop(0)
    inside = _count(params["cond_jaxpr"].jaxpr, bounds)
    return (inside + _count(params["body_jaxpr"].jaxpr, bounds)).times(trips)
  if name == "cond":
    branches = [_count(b.jaxpr, bounds) for b in params["branches"]]
    return max(branches, key=lambda branch: branch.flops)
  if name == "pallas_call":
    return _kernel(equation, bounds)
  trips = params["length"] if name == "scan" else devices_inside(equation)
  inner = sum((_count(j, bounds) for j in _jaxprs(params)), Count())
  return inner.times(trips)


def devices_inside(equation: Any) -> int:
  """Returns over how many devices an equation splits what it calls; 1 if none.

  Shapes inside a `shard_map` are one device's, along the axes that it names.
  """
  if equation.primitive.name != "shard_map":
    return 1
  axes = equation.params["newly_manual_axes"]
  return math.prod(equation.params["mesh"].shape[name] for name in axes)


def _kernel(equation: Any, bounds: list[int]) -> Count:
  """A Pallas kernel: every program of its grid, none skipped.

  Its products read what is on the chip already; bytes are the kernel's own
  operands and results.
  """
  inside = _count(equation.params["jaxpr"], bounds)
  programs = math.prod(equation.params["grid_mapping"].grid)
  arrays = (v.aval for v in (*equation.invars, *equation.outvars))
  return Count(inside.flops * programs, sum(_bytes(x) for x in arrays))


def _product(equation: Any) -> Count:
  left, right = (v.aval for v in equation.invars)
  out = equation.outvars[0].aval
  (contracted, _), _ = equation.params["dimension_numbers"]
  inner = math.prod(left.shape[i] for i in contracted)
  moved = sum(_bytes(x) for x in (left, right, out))
  return Count(2.0 * math.prod(out.shape) * inner, moved)


def _bytes(x: Any) -> int:
  return math.prod(x.shape) * x.dtype.itemsize


def _jaxprs(params: dict[str, Any]) -> list[Any]:
  """The jaxprs that an equation calls: jit, scan, remat, custom derivatives."""
  found = []
  for value in params.values():
    inner = getattr(value, "jaxpr", value)
    if hasattr(inner, "eqns"):
      found.append(inner)
  return found
