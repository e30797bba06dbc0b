# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The profile's reading: whose time it is, and of what kind an operation is."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import operations, profile, trace
from benchmarks.trace import BETWEEN, WAITING, Event, Operation

# One operation of every kind.
PROGRAM = """
HloModule jit_step

%product (a: f32[64,16], b: f32[16,48]) -> f32[64,48] {
  %a = f32[64,16]{1,0} parameter(0)
  %b = f32[16,48]{1,0} parameter(1)
  ROOT %dot.1 = f32[64,48]{1,0} dot(%a, %b), \
lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%softmax (c: f32[64,48]) -> f32[64] {
  %c = f32[64,48]{1,0} parameter(0)
  %exp = f32[64,48]{1,0} exponential(%c)
  %zero = f32[] constant(0)
  ROOT %sum = f32[64]{0} reduce(%exp, %zero), dimensions={1}, to_apply=%add
}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%x, %y)
}

%turned (d: f32[64,48]) -> f32[48,64] {
  %d = f32[64,48]{1,0} parameter(0)
  ROOT %transpose.1 = f32[48,64]{1,0} transpose(%d), dimensions={1,0}
}

%scaled (e: f32[48,64]) -> f32[48,64] {
  %e = f32[48,64]{1,0} parameter(0)
  %transposed = f32[48,64]{1,0} copy(%e)
  ROOT %twice = f32[48,64]{1,0} add(%transposed, %transposed)
}

%parallel (f: f32[48,64]) -> f32[48,64] {
  %f = f32[48,64]{1,0} parameter(0)
  ROOT %scaled_fusion = f32[48,64]{1,0} fusion(%f), kind=kLoop, calls=%scaled
}

ENTRY %main (p: f32[64,16], q: f32[16,48], r: f32[4,64,16], \
s: f32[4,16,48], t: f32[8,16]) -> f32[48,64] {
  %p = f32[64,16]{1,0} parameter(0)
  %q = f32[16,48]{1,0} parameter(1)
  %r = f32[4,64,16]{2,1,0} parameter(2)
  %s = f32[4,16,48]{2,1,0} parameter(3)
  %t = f32[8,16]{1,0} parameter(4)
  %ynn_fusion.1 = f32[64,48]{1,0} fusion(%p, %q), kind=kCustom, calls=%product
  %dot.2 = f32[8,48]{1,0} dot(%t, %q), \
lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %dot.3 = f32[4,64,48]{2,1,0} dot(%r, %s), \
lhs_batch_dims={0}, lhs_contracting_dims={2}, \
rhs_batch_dims={0}, rhs_contracting_dims={1}
  %exp_fusion = f32[64]{0} fusion(%ynn_fusion.1), kind=kLoop, calls=%softmax
  %zero.1 = f32[] constant(0)
  %total = f32[] reduce(%exp_fusion, %zero.1), dimensions={0}, to_apply=%add
  %copy_fusion = f32[48,64]{1,0} fusion(%ynn_fusion.1), \
kind=kLoop, calls=%turned
  %call.1 = f32[48,64]{1,0} call(%copy_fusion), to_apply=%parallel
  ROOT %while.1 = f32[48,64]{1,0} while(%call.1), condition=%add, body=%turned
}
"""


def test_operations_go_by_what_is_in_them_not_by_their_names():
  found = operations.read(PROGRAM)
  kinds = {
    "ynn_fusion.1": "products",
    "dot.2": "thin products",
    "dot.3": "batched products",
    "exp_fusion": "exponentials",
    "total": "reductions",
    "copy_fusion": "copies",
    "call.1": "arithmetic",
    "while.1": "loops",
  }
  assert {name: found[name].kind for name in kinds} == kinds
  assert set(kinds.values()) | {"other"} == set(operations.KINDS)
  assert found["ynn_fusion.1"].flops == 2 * 64 * 16 * 48
  assert found["dot.2"].flops == 2 * 8 * 16 * 48
  assert found["dot.3"].flops == 2 * 4 * 64 * 16 * 48
  assert found["exp_fusion"].flops == 0


def test_a_compiled_program_has_its_products_operations():
  def f(x, w):
    return jnp.tanh(x @ w).sum()

  shapes = jnp.ones((64, 40)), jnp.ones((40, 48))
  compiled = jax.jit(f).lower(*shapes).compile().as_text()
  found = operations.read(compiled)
  # A fusion and the product inside it both have the operations.
  flops = {op.flops for op in found.values() if op.kind == "products"}
  assert flops == {2.0 * 64 * 40 * 48}


def operation(name: str, program: int = 7) -> dict:
  return {"hlo_op": name, "hlo_module": "jit_step", "program_id": program}


def event(name: str, start: float, end: float, **stats) -> Event:
  return Event(name, start * 1e9, end * 1e9, stats)


def mark(kind: str, at: float, number: int | None = None) -> Event:
  key = {"Record": "_p", "StartRegion": "_c"}.get(kind)
  stats = {key: number} if key else {}
  return Event(f"ThreadpoolListener::{kind}", at * 1e9, at * 1e9, stats)


def seconds(found) -> dict:
  return {
    getattr(what, "name", what): pytest.approx(total.seconds)
    for what, total in found.items()
  }


def test_time_goes_to_the_innermost_operation():
  thread = [
    event("ThunkExecutor::Execute", 0, 10),
    event("while.1", 1, 9, **operation("while.1")),
    event("dot.1", 2, 5, **operation("dot.1")),
    event("dot.1", 5, 8, **operation("dot.1")),
    event("SlinkyThreadPool::Await", 6, 7),
    event("end: dot.1", 8, 8.5),
    # Nobody's: the thread that called waits for the others.
    mark("StartRegion", 10, 3),
    event("ThunkExecutor::Execute (wait for completion)", 11, 20),
    mark("StopRegion", 20),
  ]
  found = trace.totals([thread[::-1]])
  assert seconds(found) == {
    BETWEEN: 2.0 + 1.0,
    "while.1": 2.0,
    "dot.1": 5.0,
    WAITING: 1.0,
  }
  assert found[Operation(7, "jit_step", "dot.1")].calls == 2


def test_work_that_was_handed_over_counts_for_who_handed_it_over():
  first = [
    event("dot.1", 0, 10, **operation("dot.1")),
    mark("Record", 1, 5),
    mark("Record", 9, 6),
  ]
  second = [
    # Handed on once more from inside the region.
    mark("StartRegion", 2, 5),
    mark("Record", 3, 8),
    mark("StopRegion", 6),
    # A region with an operation of its own is the scheduler's.
    mark("StartRegion", 20, 6),
    event("copy.1", 21, 24, **operation("copy.1")),
    mark("StopRegion", 25),
  ]
  third = [
    mark("StartRegion", 4, 8),
    mark("StopRegion", 7),
    # Nobody is known to have handed it over.
    mark("StartRegion", 8, 99),
    mark("StopRegion", 9),
  ]
  found = trace.totals([first, second, third])
  assert seconds(found) == {
    "dot.1": 10.0 + 4.0 + 3.0,
    "copy.1": 3.0,
    BETWEEN: 2.0 + 1.0,
  }
  assert found[Operation(7, "jit_step", "dot.1")].calls == 1


def test_a_folder_without_a_profile_is_refused(tmp_path):
  with pytest.raises(ValueError, match="expected one .*xplane.pb, got 0"):
    trace.read(tmp_path)


def test_kinds_add_up_by_program_a_step(tmp_path):
  (tmp_path / "module_0007.jit_step.cpu_after_optimizations.txt").write_text(
    PROGRAM
  )
  (tmp_path / "module_0007.jit_step.before_optimizations.txt").write_text("")
  known = profile.read_texts(tmp_path)
  assert set(known) == {7}
  found = {
    Operation(7, "jit_step", "ynn_fusion.1"): trace.Total(4.0, 2),
    Operation(7, "jit_step", "dot.3"): trace.Total(2.0, 4),
    Operation(8, "jit_other", "dot.3"): trace.Total(1.0, 2),
    WAITING: trace.Total(1.0, 0),
  }
  kinds = profile.by_kind(found, known, steps=2)
  assert kinds["jit_step"]["products"] == {
    "seconds": 2.0,
    "calls": 1.0,
    "flops": 2.0 * 64 * 16 * 48,
  }
  # Program 8 is another one, whose text is not there.
  assert kinds["jit_other"]["other"]["seconds"] == 0.5
  assert kinds[""][WAITING]["seconds"] == 0.5
  line = {
    "case": "dpo-tiny-64",
    "kinds": kinds,
    "seconds": 3.0,
    "cpu_seconds": 4.0,
    "threads": 2,
    # A thread's share is what the product reaches: 2 * 64 * 16 * 48 in 2 s.
    "product_flops_per_second": 2 * 64 * 16 * 48,
  }
  text = profile.table(line)
  assert "| jit_step | products | 2.0000 | 50% | 1 | 0.0 | 0 | 100% |" in text
  assert "something else ran" not in text
  assert "something else ran" in profile.table(line | {"cpu_seconds": 3.0})
