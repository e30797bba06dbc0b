# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The real steps of a configuration, compiled for a TPU slice that isn't here.

Writes aot.json and aot.html beside it: bytes on a device, whether they fit,
how long a step takes at best and what bounds it. Needs the package libtpu, and
neither data, weights nor a TPU.

    python run.py --config=configs/hypo.py --mode=aot --topology=v5e:8x8

`train_step` is everything between two updates: the rollout's figures are in
it, but for its memory. The two programs run one after the other while the
state stays, so a step's peak is the larger of the two above the state. Where a
job draws rollouts inside the train step (`steps.fuses`), that one program is
the step, and the rollout's own, which a job then runs to time it, stands beside
it.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from hypo_jax.aot import entries, memory, page, summary
from hypo_jax.aot.chips import Slice
from hypo_jax.batch import Rows, pair_rows
from hypo_jax.checkpoint import write_json
from hypo_jax.job import lowering, work
from hypo_jax.job.compiling import (
  Compiled,
  Known,
  compile_steps,
  lower,
  slice_devices,
  uses_frozen,
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A configuration on a slice.

  Attributes:
    topology: the slice's name.
    place: the slice.
    train: the train step alone; where `fused`, the whole step.
    rollout: sampling alone; None where the method draws none.
    train_flops: model operations of scoring and learning, on one device: three
      times the policy's forward, and the reference's.
    rollout_flops: those of sampling.
    idle: bytes of one device that stay although the step doesn't use them: the
      reference's weights, where its log-probs of the pairs are all it takes.
    tokens: of pairs and rollouts in a step.
    num_steps: of the main method.
    advice: settings that shrink the memory.
    fused: whether rollouts are drawn inside `train`.
  """

  topology: str
  place: Slice
  train: Compiled
  rollout: Compiled | None
  train_flops: float
  rollout_flops: float
  idle: int
  tokens: int
  num_steps: int
  advice: tuple[str, ...]
  fused: bool = False

  @property
  def programs(self) -> dict[str, Compiled]:
    both = {"train": self.train, "rollout": self.rollout}
    return {name: each for name, each in both.items() if each}

  @property
  def step_programs(self) -> tuple[Compiled, ...]:
    """Those that one step runs, one after the other."""
    return (self.train,) if self.fused else tuple(self.programs.values())

  @property
  def step_seconds(self) -> float:
    return sum(p.estimate.step for p in self.step_programs)

  @property
  def peak(self) -> int:
    above = max(p.memory.beside_arguments for p in self.programs.values())
    return self.train.memory.arguments + self.idle + above

  @property
  def fits(self) -> bool:
    compiled_all = all(p.memory.fits for p in self.programs.values())
    return compiled_all and self.peak <= self.place.usable_hbm

  @property
  def chip_hours(self) -> float:
    """Of the main method's updates, without evaluation and loading."""
    seconds = self.step_seconds * self.num_steps
    return seconds / 3600 * self.place.num_chips

  def mfu(self, model_flops: float, seconds: float) -> float:
    return model_flops / (self.place.flops * seconds)


def run_aot(
  config: Any, workdir: pathlib.Path, topology: str, *, search: bool = False
) -> str:
  """Compiles, writes aot.json and aot.html, returns the summary.

  Args:
    config: a job's configuration.
    workdir: where the two files are written.
    topology: a slice, as v5e:8x8 or v5p:4x4x4.
    search: compile a handful of changed configurations too, and say which
      change helps most; each takes as long as the first, but for a program
      that stays as it was.

  Raises:
    ValueError: for a slice that is none, a missing libtpu, or whatever the job
      itself would refuse.
  """
  place, devices = slice_devices(topology)
  known: Known = {}
  plan = make_plan(config, topology, place, devices, known)
  tried = _search(config, topology, place, devices, known) if search else ()
  workdir.mkdir(parents=True, exist_ok=True)
  write_json(workdir / "aot.json", entries.entries(plan))
  aside = workdir / "aot.html.aside"
  aside.write_text(page.make_page(plan, tried))
  aside.replace(workdir / "aot.html")
  return summary.summary(plan, tried)


def make_plan(
  config: Any,
  topology: str,
  place: Slice,
  devices: Sequence[Any],
  known: Known,
) -> Plan:
  """Lowers, compiles and measures a configuration's steps."""
  lowered = lower(config, devices)
  train, rollout = compile_steps(config, lowered, place, known)
  used = uses_frozen(lowered)
  train_flops, rollout_flops = model_flops(lowered)
  rows, tokens = config.preference.batch_size, lowered.job.tokens
  samples = config.rollout.samples_per_prompt if rollout else 0
  length = tokens.prompt_length + 2 * tokens.completion_length
  length += samples * lowered.job.max_new_tokens
  return Plan(
    topology=topology,
    place=place,
    train=train,
    rollout=rollout,
    train_flops=train_flops / place.num_devices,
    rollout_flops=rollout_flops / place.num_devices,
    idle=0 if used else lowering.bytes_per_device(lowered.frozen),
    tokens=rows * length,
    num_steps=config.preference.num_steps,
    advice=memory.advice(config, place.num_devices),
    fused=lowered.fused,
  )


def model_flops(lowered: lowering.Lowered) -> tuple[float, float]:
  """Returns the operations of learning and of sampling; see `work`."""
  drawn = lowered.rollouts and lowered.rollouts.rows
  return work.model_flops(
    lowered.job,
    pair_rows_of(lowered),
    drawn,
    scores_pairs=lowered.job.config.preference.offline_kl_coef > 0,
  )


def pair_rows_of(lowered: lowering.Lowered) -> Rows:
  """Returns shapes of the pairs' rows."""
  return jax.eval_shape(pair_rows, lowered.batch)


@dataclasses.dataclass(frozen=True)
class Trial:
  """A changed configuration: what was changed, and its plan or refusal."""

  change: str
  plan: Plan | None
  refusal: str = ""


def _search(
  config: Any,
  topology: str,
  place: Slice,
  devices: Sequence[Any],
  known: Known,
) -> tuple[Trial, ...]:
  trials = []
  for values in changes(config, place.num_devices):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(values)
    text = ", ".join(f"{key}={value}" for key, value in values.items())
    try:
      plan = make_plan(changed, topology, place, devices, known)
      trials.append(Trial(text, plan))
    except ValueError as error:
      trials.append(Trial(text, None, str(error)))
  return tuple(trials)


def changes(config: Any, num_devices: int) -> list[dict[str, Any]]:
  """Returns a handful of settings to try, each one change.

  Args:
    config: a job's configuration.
    num_devices: of the mesh.
  """
  batch = config.preference.batch_size
  micro = config.preference.micro_batch_size
  size, small = "preference.batch_size", "preference.micro_batch_size"
  found: list[dict[str, Any]] = []
  if micro < batch:
    found.append({small: min(2 * micro, batch)})
  found.append({size: 2 * batch, small: 2 * micro})
  if micro % (2 * num_devices) == 0:
    found.append({small: micro // 2})
  found.append({"model.remat": not config.model.remat})
  if config.mesh.tensor == 1 and num_devices % 2 == 0:
    found.append({"mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 2})
  return found
