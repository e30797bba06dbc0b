# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a plan says, in words and for a terminal.

A plan is `job.aot.Plan`; a trial is `job.aot.Trial`.
"""

import re
from collections.abc import Sequence
from typing import Any

FUSED = (
  "rollouts are drawn inside the train step, as the job does here; the rollout "
  "alone is a second program"
)


def size(num_bytes: float) -> str:
  """Returns bytes as text, in binary units."""
  for unit in ("B", "KiB", "MiB"):
    if abs(num_bytes) < 1024:
      return f"{num_bytes:.4g} {unit}"
    num_bytes /= 1024
  return f"{num_bytes:,.2f} GiB"


def seconds(value: float) -> str:
  """Returns a time as text, in seconds or milliseconds."""
  return f"{1000 * value:.3g} ms" if value < 0.1 else f"{value:.3g} s"


def operation(source: str) -> str:
  """Returns what an array comes from, without the wrappers that say nothing.

  "jit(step)/transpose(jvp())/while/body/.../dot_general" is
  "backward/dot_general".
  """
  text = re.sub(r"^jit\(\w+\)/", "", source)
  text = re.sub(r"transpose\(jvp\([^()]*\)\)", "backward", text)
  text = re.sub(r"jvp\(([^()]*)\)", r"\1", text)
  dropped = ("", "while", "body", "closed_call", "checkpoint")
  parts = [part for part in text.split("/") if part not in dropped]
  return "/".join(parts) or "not named by the compiler"


def labels(plan: Any) -> dict[str, str]:
  """Returns what a plan's programs are called, by their names in it."""
  if plan.fused:
    return {"train": "fused step", "rollout": "rollout alone"}
  return {"train": "train step", "rollout": "rollout"}


def whole_estimate(plan: Any) -> Any:
  """Returns the estimate of all that a step runs, one after the other."""
  first, *others = (p.estimate for p in plan.step_programs)
  for other in others:
    first = first + other
  return first


def verdict(plan: Any) -> str:
  """Returns the main result as a sentence."""
  hbm = size(plan.place.hbm)
  if not plan.fits:
    return f"It does not fit: {size(plan.peak)} on devices of {hbm}"
  bound = whole_estimate(plan).bound_by
  return (
    f"It fits in {size(plan.peak)} of {hbm} a device; a step takes "
    f"{seconds(plan.step_seconds)} at best, bound by {bound}"
  )


def utilisation(plan: Any) -> list[tuple[str, float, float]]:
  """Returns name, seconds and MFU of the step, and of it without rollouts."""
  alone = plan.train.estimate.step
  train = ("without the rollout", alone, plan.mfu(plan.train_flops, alone))
  if not plan.rollout:
    return [("the step", *train[1:])]
  flops = plan.train_flops + plan.rollout_flops
  whole = ("the step", plan.step_seconds, plan.mfu(flops, plan.step_seconds))
  own = plan.rollout.estimate.step
  rollout = ("the rollout alone", own, plan.mfu(plan.rollout_flops, own))
  return [whole, rollout] if plan.fused else [whole, train, rollout]


def pace(plan: Any) -> float:
  """Returns tokens of pairs and rollouts a second, over the whole slice."""
  return plan.tokens / plan.step_seconds


def best(plan: Any, trials: Sequence[Any]) -> Any | None:
  """Returns the trial that fits and helps most, or None.

  Faster counts by tokens a second; where the plan does not fit, the trial of
  the smallest peak that does.
  """
  fitting = [t for t in trials if t.plan and t.plan.fits]
  if not plan.fits:
    return min(fitting, key=lambda t: t.plan.peak, default=None)
  fastest = max(fitting, key=lambda t: pace(t.plan), default=None)
  return fastest if fastest and pace(fastest.plan) > pace(plan) else None


def recommendation(plan: Any, trials: Sequence[Any]) -> str:
  """Returns what to change, as a sentence; "" where nothing was tried."""
  if not trials:
    return ""
  found = best(plan, trials)
  if found is None:
    return f"None of the {len(trials)} changes tried helps."
  other = found.plan
  if not plan.fits:
    return f"{found.change}: fits, in {size(other.peak)} a device."
  return (
    f"{found.change}: {pace(other) / pace(plan):.2f} times the tokens a second "
    f"({seconds(other.step_seconds)} a step, {size(other.peak)} a device)."
  )


def summary(plan: Any, trials: Sequence[Any] = ()) -> str:
  """Returns the result for a terminal."""
  lines = [f"{plan.topology}: {verdict(plan)}"]
  names = labels(plan)
  for name, each in plan.programs.items():
    took, memory = each.estimate, each.memory
    lines.append(
      f"  {names[name]:<13} {seconds(took.step):>8}  "
      f"(compute {seconds(took.compute)}, memory {seconds(took.hbm)}, "
      f"interconnect {seconds(took.interconnect)}); arguments "
      f"{size(memory.arguments)}, temporaries {size(memory.temporaries)}"
    )
  if plan.fits:
    shares = [f"{name} {mfu:.2f}" for name, _, mfu in utilisation(plan)]
    lines.append(
      f"  MFU: {', '.join(shares)}; {pace(plan):,.0f} tokens/s; "
      f"{plan.chip_hours:,.0f} chip hours for {plan.num_steps} updates"
    )
  else:
    for label, buffers in largest(plan).items():
      lines.append(f"  largest that is {label}, on a device:")
      lines += [
        f"    {size(b.bytes):>10}  {operation(b.source)} {b.shape}"
        for b in buffers
      ]
    lines.append("  what shrinks it:")
    lines += [f"    {text}" for text in plan.advice]
  if plan.fused:
    lines.append(f"  {FUSED}")
  for name, each in plan.programs.items():
    lines += [f"  {names[name]}: {note}" for note in each.notes]
    if each.memory.message:
      lines.append(f"  {names[name]}: {each.memory.message}")
  if trials:
    lines.append(f"  best change: {recommendation(plan, trials)}")
  return "\n".join(lines)


def largest(plan: Any, count: int = 4) -> dict[str, list[Any]]:
  """Returns the largest arrays that programs are given, and that they make."""
  programs = plan.programs.values()
  found = {
    "given": [b for p in programs for b in p.arguments],
    "made": [b for p in programs for b in p.made],
  }
  for label, buffers in found.items():
    buffers.sort(key=lambda b: b.bytes)
    named = {(b.source, b.shape): b for b in buffers}
    found[label] = sorted(named.values(), key=lambda b: -b.bytes)[:count]
  return found
