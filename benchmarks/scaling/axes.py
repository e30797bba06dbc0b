# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Which points the sweep consists of, and which of them are there."""

import dataclasses
from collections.abc import Iterable, Sequence

# Of an update: see `point`.
FORMS = ("shared", "separate")


@dataclasses.dataclass(frozen=True)
class Point:
  """Sizes of one step.

  Attributes:
    prompt: P, tokens.
    completion: C, tokens, of pairs and rollouts.
    rollouts: k, a prompt.
    vocabulary: V.
    batch: B, pairs.
    devices: that cut rows and weights (fsdp), virtual ones on a CPU.
  """

  prompt: int = 256
  completion: int = 32
  rollouts: int = 1
  vocabulary: int = 4096
  batch: int = 4
  devices: int = 1


# Values along each axis; all else stays at the base.
AXES: dict[str, tuple[int, ...]] = {
  "prompt": (64, 128, 256, 512, 1024),
  "completion": (16, 32, 64, 128, 256),
  "rollouts": (1, 2, 4, 8),
  "vocabulary": (4096, 16384, 65536, 262144),
  "batch": (1, 2, 4, 8, 16),
  "devices": (1, 2, 4, 8),
}
# Along these, prompts are shared or repeated.
BOTH_FORMS = ("prompt", "completion", "rollouts")
# Each device has at least one row.
_BASES = {"devices": Point(batch=8)}

Key = tuple[Point, str]


def base(axis: str) -> Point:
  """Returns what an axis' points have but for their value along it."""
  return _BASES.get(axis, Point())


def points(axis: str) -> dict[int, Point]:
  """Returns an axis' points by their value along it."""
  return {
    value: dataclasses.replace(base(axis), **{axis: value})
    for value in AXES[axis]
  }


def keys(axes: Sequence[str]) -> list[Key]:
  """Returns every point and form that the axes need, once."""
  forms: dict[Point, int] = {}
  for axis in axes:
    for point in points(axis).values():
      number = len(FORMS) if axis in BOTH_FORMS else 1
      forms[point] = max(forms.get(point, 0), number)
  return [(p, form) for p, number in forms.items() for form in FORMS[:number]]


def missing(
  lines: Iterable[dict], axes: Sequence[str], *, timed: bool
) -> list[Key]:
  """Returns what is still to be run, or, unless `timed`, to be compiled."""
  found = by_key(line for line in lines if is_timed(line) or not timed)
  return [key for key in keys(axes) if key not in found]


def by_key(lines: Iterable[dict]) -> dict[Key, dict]:
  """Returns the last line of each point and form; a timed one, if any is."""
  found: dict[Key, dict] = {}
  for line in lines:
    key = Point(**line["point"]), line["form"]
    if is_timed(line) or not is_timed(found.get(key, {})):
      found[key] = line
  return found


def is_timed(line: dict) -> bool:
  """Whether the point was run, not only compiled."""
  return "update" in line


def named(point: Point) -> str:
  """Returns what differs from the base."""
  different = {
    field.name: getattr(point, field.name)
    for field in dataclasses.fields(Point)
    if getattr(point, field.name) != field.default
  }
  return ", ".join(f"{k} {v}" for k, v in different.items()) or "base"
