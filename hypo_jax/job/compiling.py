# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One configuration's programs, compiled for a TPU slice and read.

Where the compiler refuses a program for want of memory, or can't show what it
made of it, what is known of the traced program takes its place, and the notes
say so.
"""

import dataclasses
import importlib.util
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from hypo_jax import sharding
from hypo_jax.aot import chips, compiled, flops, memory
from hypo_jax.aot.chips import Estimate, Slice
from hypo_jax.aot.compiled import Buffer, Program, Work
from hypo_jax.job import lowering, work
from hypo_jax.job.methods import reads_reference


@dataclasses.dataclass(frozen=True)
class Compiled:
  """One program, compiled for a slice or refused for want of memory.

  Attributes:
    memory: on one device.
    program: what one device does.
    estimate: how long it takes.
    arguments: the largest, by path.
    made: the largest arrays that it makes, by the operation that makes them.
    seconds: that compiling took.
    notes: what the figures leave out.
    text: whether the program's text could be read, where it was compiled.
  """

  memory: memory.Memory
  program: Program
  estimate: Estimate
  arguments: tuple[Buffer, ...]
  made: tuple[Buffer, ...]
  seconds: float
  notes: tuple[str, ...]
  text: bool = True


# By the stand-in's name, "" for the slice itself, and the lowered text.
Known = dict[tuple[str, str], Compiled]


def slice_devices(topology: str) -> tuple[Slice, Sequence[Any]]:
  """Returns a slice and its devices, which can be compiled for and no more.

  Raises:
    ValueError: if libtpu is missing or does not know the slice.
  """
  chip, sides = chips.parse_topology(topology)
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError(
      "--mode=aot: expected the package libtpu, which compiles for TPUs on any "
      "Linux machine, found none; pip install libtpu"
    )
  # Nothing is run: other processes may hold the library, no server is asked,
  # and which machine this is doesn't matter, but the library warns unless told.
  for name, value in {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
  }.items():
    os.environ.setdefault(name, value)
  from jax.experimental import topologies

  try:
    devices = topologies.get_topology_desc(topology, "tpu").devices
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(
      f"--topology: expected a slice that libtpu knows, got {topology!r}: "
      f"{str(error).splitlines()[0]}"
    ) from None
  per_chip = max(len(devices) // math.prod(sides), 1)
  return Slice(chip, sides, per_chip), devices


def lower(config: Any, devices: Sequence[Any]) -> lowering.Lowered:
  """Lowers a configuration's steps for devices, on the mesh that it asks."""
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  return lowering.lower(config, mesh)


def uses_frozen(lowered: lowering.Lowered) -> bool:
  """Whether the train step reads the reference's weights."""
  job = lowered.job
  settings = job.methods[job.config.preference.method]
  return reads_reference(settings) or job.adapters


def compile_steps(
  config: Any, lowered: lowering.Lowered, place: Slice, known: Known
) -> tuple[Compiled, Compiled | None]:
  """Compiles the train step and, where there is one, the rollout.

  Args:
    config: a job's configuration.
    lowered: its steps, for the slice's devices.
    place: the slice.
    known: what was compiled for the slice before, which is not compiled again;
      added to.
  """
  train = _once(known, "", lowered.train_step, _compile_train, lowered, place)
  rollout = None
  if lowered.rollout_step is not None:
    rollout = _once(
      known, "", lowered.rollout_step, _compile_rollout, lowered, place
    )
  topology = chips.stand_in(place)
  if topology is None or (train.text and (not rollout or rollout.text)):
    return train, rollout
  _, devices = slice_devices(topology)
  other = lower(config, devices)
  if not train.text:
    read = _once(
      known, topology, other.train_step, _compile_train, other, place
    )
    train = _read_from(train, read, topology)
  if rollout and not rollout.text:
    read = _once(
      known, topology, other.rollout_step, _compile_rollout, other, place
    )
    rollout = _read_from(rollout, read, topology)
  return train, rollout


def _once(
  known: Known,
  topology: str,
  step: jax.stages.Lowered,
  make: Callable[[lowering.Lowered, Slice], Compiled],
  lowered: lowering.Lowered,
  place: Slice,
) -> Compiled:
  key = topology, step.as_text()
  if key in known:
    return dataclasses.replace(known[key], seconds=0.0)
  known[key] = make(lowered, place)
  return known[key]


def _compile_train(lowered: lowering.Lowered, place: Slice) -> Compiled:
  given = {
    "state": lowered.state,
    "reference": lowered.frozen if uses_frozen(lowered) else None,
    "batch": lowered.batch,
  }
  if not lowered.fused:
    given["rollouts"] = lowered.rollouts
  trips = work.decode_trips(lowered.job) if lowered.fused else ()
  return compile_program(
    lowered.train_step, lowered.train_jaxpr, given, place, trips
  )


def _compile_rollout(lowered: lowering.Lowered, place: Slice) -> Compiled:
  given = {"policy": lowered.state.trainable}
  if lowered.job.adapters:
    given["base"] = lowered.frozen
  given["prompts"] = (lowered.batch.prompt_tokens, lowered.batch.prompt_mask)
  return compile_program(
    lowered.rollout_step,
    lowered.rollout_jaxpr,
    given,
    place,
    work.decode_trips(lowered.job),
  )


def _read_from(own: Compiled, other: Compiled, topology: str) -> Compiled:
  """Takes what can't be read from the same program on as many v5e chips.

  Programs are cut over devices before anything of a chip is considered, so
  operations and collectives agree; what is fused, and so the bytes, nearly.
  """
  if not (other.text and other.memory.fits):
    return own
  note = (
    f"operations, bytes and collectives are the same program's on {topology}"
  )
  return dataclasses.replace(
    own,
    program=other.program,
    estimate=other.estimate,
    made=other.made,
    seconds=own.seconds + other.seconds,
    notes=(own.notes[0], note, *other.notes),
  )


def compile_program(
  lowered: jax.stages.Lowered,
  jaxpr: Any,
  arguments: Any,
  place: Slice,
  while_trips: Sequence[int],
) -> Compiled:
  """Compiles a program and reads what it costs on one device.

  Args:
    lowered: the program.
    jaxpr: as it was traced.
    arguments: what it is given, shapes with shardings.
    place: the slice.
    while_trips: bounds of its loops that may end early, at most one.
  """
  start = time.monotonic()
  program, notes, made = None, (), ()
  try:
    done = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    own = memory.of_error(error, lowering.bytes_per_device(arguments))
    if own is None:
      raise
    notes = ("it does not fit, so it was not compiled to the end",)
  else:
    own = memory.of_compiled(done)
    try:
      text = done.as_text()
      bound = while_trips[0] if while_trips else None
      program = compiled.read(text, while_trips=bound)
    except jax.errors.JaxRuntimeError as error:
      first = str(error).splitlines()[0]
      notes = (f"the compiled text could not be printed ({first})",)
  readable = program is not None
  if program is None:
    notes += (
      "operations and bytes are the traced program's products, cut evenly over "
      "all devices; collectives are missing",
    )
    program = _traced(jaxpr, place, while_trips)
    made = memory.largest_made(jaxpr, arguments, place.num_devices)
  return Compiled(
    memory=own,
    program=program,
    estimate=chips.estimate(program, place),
    arguments=memory.largest_arguments(arguments),
    made=made or program.buffers,
    seconds=time.monotonic() - start,
    notes=notes + program.notes,
    text=readable or not own.fits,
  )


def _traced(jaxpr: Any, place: Slice, while_trips: Sequence[int]) -> Program:
  """A program's cost where its compiled text can't be had."""
  count = flops.count(jaxpr, while_trips=while_trips)
  devices = place.num_devices
  work = Work(count.flops / devices, count.bytes / devices, 1)
  return Program((work,), (), (), ())
