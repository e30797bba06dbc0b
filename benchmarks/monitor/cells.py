# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that the coverage monitor is calibrated and judged on.

A seed's kinds start from the same reference. A cell is a file that holds what
the monitor may see of a run and, apart from it, what became of the run; a
stopped benchmark goes on where it was.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import trial
from hypo_jax.checkpoint import json_values, write_json
from hypo_jax.coverage import monitor

FOLDER = trial.ROOT / "runs" / "monitor"
CALIBRATION = ("0", "1", "2", "3", "4")
JUDGED = tuple(str(seed) for seed in range(21, 31))

_DPO = {"method": "dpo", "learning_rate": 3e-4, "beta": 0.5, "kl_coef": 0.0}
_IPO = {"method": "ipo", "learning_rate": 3e-4, "beta": 0.15, "kl_coef": 0.0}
_MANY = "DPO, 8,192 pairs, one epoch"
_SLOW, _LOOSE = "DPO, learning rate / 30", "HyPO, kl_coef 1e-5"
KINDS: dict[str, dict[str, Any]] = {
  "DPO": _DPO,
  "IPO": _IPO,
  "HyPO": {},
  _LOOSE: {"kl_coef": 1e-5},
  _MANY: _DPO | {"num_steps": 8192 // 64},
  _SLOW: _DPO | {"learning_rate": 1e-5},
}
# Where the monitor must be silent on every run that doesn't collapse, and where
# it must warn of every run.
SILENT, WARNED = (_MANY, _SLOW), (_LOOSE,)
# The default's, and every ten steps up to 100, where most runs turn.
_CHANGES = {"evaluate.also_at_steps": (5, 10, 15, 30, 50, 70, 90)}
# What the monitor sees: no reward, no judge.
INPUTS = (
  "step",
  "kl",
  "kl_stderr",
  "kl_rao_blackwell",
  "kl_rao_blackwell_stderr",
  "outside_support",
  "effective_sample_share",
  "ref_log_prob",
  "ref_log_prob_per_token",
  "ref_log_prob_per_token_stderr",
  "ref_unlikely_tokens",
  "ref_unlikely_rollouts",
  "chosen_log_ratio",
  "rejected_log_ratio",
  "pair_loss",
  "pair_accuracy",
  "eos_rate",
  "length_mean",
  "distinct_ngrams",
)
OUTCOME = ("step", "reward_mean", "invalid_rate")
# A run ends early once its reward has been this far below its highest for so
# many evaluations.
_GONE, _GONE_FOR = 0.2, 3


def run_seed(seed: str, folder: pathlib.Path) -> None:
  """Makes the cells of a seed that don't exist yet."""
  missing = [kind for kind in KINDS if not cell_path(folder, kind).exists()]
  if not missing:
    return
  world = trial.World(int(seed), folder, _CHANGES)
  for kind in missing:
    where = world
    if kind == _MANY:
      changes = _CHANGES | {"data.num_pairs": 8192}
      where = trial.World(
        int(seed), folder / "8192 pairs", changes, world.reference
      )
    run_cell(where, kind, cell_path(folder, kind))


def run_cell(world: trial.World, kind: str, path: pathlib.Path) -> None:
  """Trains one kind, to its end or some evaluations past its collapse."""
  seen: list[dict[str, Any]] = []
  outcome: list[dict[str, Any]] = []
  for entry in world.measurements(KINDS[kind]):
    seen.append({name: entry[name] for name in INPUTS})
    outcome.append({name: entry[name] for name in OUTCOME})
    if is_gone([entry["reward_mean"] for entry in outcome]):
      break
  path.parent.mkdir(exist_ok=True)
  write_json(path, json_values({"inputs": seen, "outcome": outcome}))
  print(
    f"seed {world.job.config.seed}, {kind}: collapse at "
    f"{collapse_step(outcome)}, KL {seen[-1]['kl_rao_blackwell']:.2f} at step "
    f"{seen[-1]['step']}",
    flush=True,
  )


def cell_path(folder: pathlib.Path, kind: str) -> pathlib.Path:
  name = kind.replace(", ", "_").replace(" ", "_").replace("/", "over")
  return folder / "cells" / f"{name}.json"


def is_gone(rewards: list[float]) -> bool:
  """Whether a run with these validation rewards has no way back."""
  fallen = np.maximum.accumulate(rewards) - rewards
  return len(rewards) > _GONE_FOR and bool((fallen[-_GONE_FOR:] > _GONE).all())


def collapse_step(outcome: list[dict[str, Any]]) -> int | None:
  """Returns the step at which a run collapsed, by its outcome."""
  steps, rewards, invalid = (
    [entry[name] for entry in outcome] for name in OUTCOME
  )
  return monitor.collapse(steps, rewards, invalid)


class Run(NamedTuple):
  """A finished run.

  Attributes:
    kind: of KINDS.
    seed: its world's.
    history: what the monitor may see, one entry an evaluation.
    rewards: validation rewards of the same evaluations.
    collapse: the step at which it collapsed, or None.
    lasting: whether it is still collapsed at its end.
  """

  kind: str
  seed: str
  history: list[dict[str, Any]]
  rewards: list[float]
  collapse: int | None
  lasting: bool


def as_run(
  kind: str,
  seed: str,
  inputs: list[dict[str, Any]],
  outcome: list[dict[str, Any]],
) -> Run:
  """Returns the run that a cell holds."""
  rewards = [entry["reward_mean"] for entry in outcome]
  # Its last evaluation alone, after one with the highest reward.
  ends = ([max(rewards), rewards[-1]], [0.0, outcome[-1]["invalid_rate"]])
  lasting = monitor.collapse([0, 1], *ends) is not None
  return Run(kind, seed, inputs, rewards, collapse_step(outcome), lasting)


def read_runs(seeds: Sequence[str]) -> list[Run]:
  """Returns the runs that exist of these seeds, by kind and seed."""
  found = []
  for kind in KINDS:
    for seed in seeds:
      path = cell_path(FOLDER / seed, kind)
      if path.exists():
        cell = json.loads(path.read_text())
        found.append(as_run(kind, seed, cell["inputs"], cell["outcome"]))
  return found
