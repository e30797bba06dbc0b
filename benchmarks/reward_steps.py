# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How long a reward model should be fitted to the study's 512 pairs.

    python -m benchmarks.reward_steps --seeds=2000,2001

Fits it for several numbers of steps from the study's starts of the tuning
seeds, and measures it on held-out pairs. The table goes to standard output and,
with several seeds, to docs/results/reward_steps.md.
"""

import dataclasses
import json
import statistics

from absl import app, flags, logging

from benchmarks import trial
from configs import study
from hypo_jax.job import cells, rewards

_SEEDS = flags.DEFINE_list("seeds", "2000,2001", "Seeds, of tuning.")

STEPS = (8, 16, 24, 32, 48, 64, 128, 200)
_FIELDS = ("log_loss", "accuracy", "calibration_error")


def measured(seed: int) -> dict[int, dict[str, float]]:
  """Returns held-out figures by number of steps; validation and test pairs."""
  folder = trial.ROOT / "runs" / "study" / str(seed) / "start"
  config = cells.cell_config(study.get_config(), seed, {})
  start, found = None, {}
  for steps in STEPS:
    workdir = trial.ROOT / "runs" / "reward_steps" / str(seed) / str(steps)
    path = workdir / "evaluations" / "reward_model.json"
    if not path.exists():
      start = start or cells.begin(config, {}, folder, folder)
      own = config.copy_and_resolve_references()
      own.reward, own.reward_model.num_steps = "model", steps
      workdir.mkdir(parents=True, exist_ok=True)
      job = dataclasses.replace(start.job, config=own, workdir=workdir)
      rewards.train_reward_model(job, start.reference, start.tables)
    splits = [json.loads(path.read_text())[s] for s in ("validation", "test")]
    found[steps] = {f: statistics.mean(s[f] for s in splits) for f in _FIELDS}
  return found


def summary(seeds: list[str], found: list[dict[int, dict[str, float]]]) -> str:
  """Returns the Markdown page."""
  config = study.get_config()
  size, pairs = config.reward_model.batch_size, config.data.num_pairs
  lines = [
    "# Steps of the reward model",
    "",
    f"`python -m benchmarks.reward_steps --seeds={','.join(seeds)}`: held-out "
    "pairs, the mean of 256 validation and 256 test pairs, a value a seed; "
    f"{pairs} pairs, {size} a step, learning "
    f"rate {config.reward_model.learning_rate:g}.",
    "",
    "| steps | epochs | log loss, nats | accuracy | calibration error | mean "
    "log loss |",
    "|---|---|---|---|---|---|",
  ]
  for steps in STEPS:
    cells_of = [str(steps), f"{steps * size / pairs:g}"]
    for field in _FIELDS:
      cells_of.append(", ".join(f"{f[steps][field]:.3f}" for f in found))
    mean = statistics.mean(f[steps]["log_loss"] for f in found)
    lines.append("| " + " | ".join([*cells_of, f"{mean:.3f}"]) + " |")
  return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)
  found = [measured(int(seed)) for seed in _SEEDS.value]
  trial.publish("reward_steps", _SEEDS.value, summary(_SEEDS.value, found))


if __name__ == "__main__":
  app.run(main)
