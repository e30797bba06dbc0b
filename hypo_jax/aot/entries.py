# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What aot.json holds of a plan (`job.aot.Plan`)."""

from functools import partial
from typing import Any

from hypo_jax.aot.chips import Estimate


def entries(plan: Any) -> dict[str, Any]:
  """Returns what aot.json holds: "train_step", and "rollout" or null."""
  programs = plan.programs
  state = plan.train.memory.arguments
  whole = sum(
    (p.estimate for p in plan.step_programs), Estimate(0.0, 0.0, 0.0, 0.0)
  )
  moved: dict[str, float] = {}
  for each in plan.step_programs:
    for kind, size in each.program.collective_bytes.items():
      moved[kind] = moved.get(kind, 0.0) + size
  temporaries = max(p.memory.temporaries for p in programs.values())
  entry = partial(_entry, plan)
  found = {
    "train_step": entry(
      fits=plan.fits,
      memory=(state, temporaries, plan.peak),
      model_flops=plan.train_flops + plan.rollout_flops,
      estimate=whole,
      moved=moved,
      seconds=sum(p.seconds for p in programs.values()),
    ),
    "rollout": None,
  }
  if plan.rollout:
    own = plan.rollout
    peak = own.memory.arguments + own.memory.beside_arguments
    found["rollout"] = entry(
      fits=own.memory.fits and peak <= plan.place.usable_hbm,
      memory=(own.memory.arguments, own.memory.temporaries, peak),
      model_flops=plan.rollout_flops,
      estimate=own.estimate,
      moved=own.program.collective_bytes,
      seconds=own.seconds,
    )
  return found


def _entry(
  plan: Any,
  *,
  fits: bool,
  memory: tuple[int, int, int],
  model_flops: float,
  estimate: Estimate,
  moved: dict[str, float],
  seconds: float,
) -> dict[str, Any]:
  names = ("arguments", "temporaries", "peak")
  return {
    "topology": plan.topology,
    "fits": fits,
    "bytes_per_device": dict(zip(names, map(int, memory), strict=True))
    | {"hbm": int(plan.place.hbm)},
    "model_flops_per_device": model_flops,
    "roofline_seconds": {
      "compute": estimate.compute,
      "hbm": estimate.hbm,
      "interconnect": estimate.interconnect,
    },
    "predicted": {
      "step_seconds": estimate.step,
      "mfu": plan.mfu(model_flops, estimate.step),
      "bound_by": estimate.bound_by,
    },
    "collective_bytes": {kind: int(size) for kind, size in moved.items()},
    "compile_seconds": round(seconds, 1),
  }
