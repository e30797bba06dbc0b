# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Saving and restoring a stage: parameters, optimizer, step and history.

A checkpoint is written under a temporary name and renamed when whole (orbax),
so a half-written one is never taken for a whole one. Nothing random is stored:
batches and keys are functions of the step.
"""

import dataclasses
import json
import math
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

_ARGS = ocp.args


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON aside and renames it: a reader sees all of it or none."""
  aside = path.with_name(path.name + ".aside")
  aside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
  os.replace(aside, path)


def json_values(value: Any) -> Any:
  """Returns the same with None for what a diverged run left not finite."""
  if isinstance(value, dict):
    return {name: json_values(v) for name, v in value.items()}
  if isinstance(value, list | tuple):
    return [json_values(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def fingerprint(params: Any) -> str:
  """Returns eight hex digits that differ when any weight differs.

  Exact integer sums of the weights' bits, so that it depends on no sharding.
  """

  def leaf_sum(x):
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    place = jnp.arange(bits.size, dtype=jnp.uint32).reshape(bits.shape)
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)

  sums = jax.jit(lambda tree: jax.tree.map(leaf_sum, tree))(params)
  paths_and_sums = jax.tree_util.tree_leaves_with_path(jax.device_get(sums))
  text = "".join(
    f"{jax.tree_util.keystr(path)}={int(value)};"
    for path, value in paths_and_sums
  )
  return f"{zlib.crc32(text.encode()):08x}"


@dataclasses.dataclass
class _Keep:
  """Keeps the latest resumable checkpoints, the newest and the best.

  `best` is set before each save, from the history: what orbax itself remembers
  of a checkpoint's metrics does not outlive the process.
  """

  latest: int
  resume_every: int
  best: frozenset[int] = frozenset()

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    del context
    resumable = [c.step for c in checkpoints if not c.step % self.resume_every]
    kept = {*resumable[-self.latest :], checkpoints[-1].step, *self.best}
    return [c.step in kept for c in checkpoints]


class Checkpoints:
  """The checkpoints of one stage in `directory`.

  Args:
    directory: created if missing, but for reading.
    keep: how many of the latest are kept, beside the best.
    best_by: names in a history entry, higher is better; for each, the
      checkpoint with the highest value (the later of equals) is kept.
    frozen: what `fingerprint` gave for the frozen parameters.
    resume_every: only checkpoints of steps that it divides are resumed from,
      and the last: rollouts that serve several steps are drawn there, and not
      stored.
    read_only: look at what is there, and nothing else: what a killed save left
      is not cleaned up, since it may be a running one's.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    keep: int,
    frozen: str,
    best_by: Sequence[str] = (),
    resume_every: int = 1,
    read_only: bool = False,
  ):
    self._frozen = frozen
    self._resume_every = resume_every
    self.directory = directory
    self._best_by = best_by
    self._keep = _Keep(keep, resume_every)
    self._manager = checkpoint_managers.CheckpointManager(
      directory.resolve(),
      options=checkpoint_managers.CheckpointManagerOptions(
        preservation_policy=self._keep,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=not read_only,
        create=not read_only,
      ),
    )

  def steps(self) -> list[int]:
    """Returns the steps of whole checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def resume_step(self, last: int | None = None) -> int | None:
    """Returns the latest step that training can go on from.

    Args:
      last: step at which training ends, where nothing is left to be drawn.
    """
    steps = [
      s for s in self.steps() if s == last or s % self._resume_every == 0
    ]
    return max(steps, default=None)

  def save(self, state: Any, history: list[dict[str, Any]]) -> None:
    """Saves `state` (with its step) and the evaluations up to it."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self._keep.best = frozenset(
      best_step(history, name) for name in self._best_by if history
    )
    self._manager.save(
      step,
      args=_ARGS.Composite(
        state=_ARGS.StandardSave(state),
        history=_ARGS.JsonSave({"entries": history, "frozen": self._frozen}),
      ),
      force=True,
    )

  def restore(self, abstract_state: Any, step: int) -> tuple[Any, list[dict]]:
    """Returns the state laid out as `abstract_state`, and its history.

    Raises:
      ValueError: if it was trained against other frozen parameters.
    """
    saved = self._manager.restore(
      step,
      args=_ARGS.Composite(
        state=_ARGS.StandardRestore(abstract_state),
        history=_ARGS.JsonRestore(),
      ),
    )
    if saved["history"]["frozen"] != self._frozen:
      raise ValueError(
        f"checkpoint {self.directory / str(step)}: expected the frozen "
        f"parameters {self._frozen}, it was trained with "
        f"{saved['history']['frozen']}; use another --workdir"
      )
    return saved["state"], saved["history"]["entries"]

  def close(self) -> None:
    self._manager.close()


def best_step(history: list[dict[str, Any]], name: str) -> int:
  """Returns the step with the highest value of `name`, the later of equals."""
  return max((e[name], e["step"]) for e in history if e[name] is not None)[1]


def abstract(tree: Any) -> Any:
  """Returns shapes, dtypes and shardings of a tree of arrays."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      np.shape(x), x.dtype, sharding=getattr(x, "sharding", None)
    ),
    tree,
  )
