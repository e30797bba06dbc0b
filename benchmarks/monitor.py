# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Calibrates the coverage monitor, and judges it on seeds that it never saw.

    python -m benchmarks.monitor --seeds=0,1,2,3,4
    python -m benchmarks.monitor --seeds=21,22,23,24,25,26,27,28,29,30

Runs of several kinds on each seed, each a file under runs/monitor/<seed>/cells
that holds what the monitor sees of a run and, apart from it, what became of the
run; a stopped benchmark goes on where it was. Thresholds are fitted to the
first seeds, and frozen in hypo_jax/coverage/monitor.py; the page
docs/results/monitor.md judges those on the others.
"""

import json
import pathlib
from typing import Any

from absl import app, flags, logging

from benchmarks import trial
from hypo_jax import compilations
from hypo_jax.checkpoint import write_json
from hypo_jax.coverage import monitor

_SEEDS = flags.DEFINE_list("seeds", "0,1,2,3,4", "Which seeds are run.")

FOLDER = trial.ROOT / "runs" / "monitor"
CALIBRATION = ("0", "1", "2", "3", "4")
JUDGED = tuple(str(seed) for seed in range(21, 31))

_DPO = {"method": "dpo", "learning_rate": 3e-4, "beta": 0.5, "kl_coef": 0.0}
_IPO = {"method": "ipo", "learning_rate": 3e-4, "beta": 0.15, "kl_coef": 0.0}
_MANY = "DPO, 8,192 pairs, one epoch"
KINDS: dict[str, dict[str, Any]] = {
  "DPO": _DPO,
  "IPO": _IPO,
  "HyPO": {},
  "HyPO, kl_coef 1e-5": {"kl_coef": 1e-5},
  _MANY: _DPO | {"num_steps": 8192 // 64},
  "DPO, learning rate / 30": _DPO | {"learning_rate": 1e-5},
}
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
# Evaluations that a run still gets after it collapsed.
_AFTER = 3


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # Orbax tells every save.
  compilations.keep_programs()
  for seed in _SEEDS.value:
    run_seed(seed, FOLDER / seed)


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
    if collapse_step(outcome[:-_AFTER]) is not None:
      break
  path.parent.mkdir(exist_ok=True)
  write_json(path, {"inputs": seen, "outcome": outcome})
  print(
    f"seed {world.job.config.seed}, {kind}: collapse at "
    f"{collapse_step(outcome)}, KL {seen[-1]['kl_rao_blackwell']:.2f} at step "
    f"{seen[-1]['step']}",
    flush=True,
  )


def cell_path(folder: pathlib.Path, kind: str) -> pathlib.Path:
  name = kind.replace(", ", "_").replace(" ", "_").replace("/", "over")
  return folder / "cells" / f"{name}.json"


def collapse_step(outcome: list[dict[str, Any]]) -> int | None:
  """Returns the step at which a run collapsed, by its outcome."""
  steps, rewards, invalid = (
    [entry[name] for entry in outcome] for name in OUTCOME
  )
  return monitor.collapse(steps, rewards, invalid)


def read_cell(path: pathlib.Path) -> dict[str, Any]:
  return json.loads(path.read_text())


if __name__ == "__main__":
  app.run(main)
