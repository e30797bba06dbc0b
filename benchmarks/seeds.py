# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the default job on several seeds and says what they have in common.

    python -m benchmarks.seeds --seeds=1,2,3,4,5,6,7,8,9,10

Each seed is a job of its own under runs/seeds, resumed where it was stopped;
the table goes to standard output and to docs/results/default_seeds.md. Nothing
is left out: a seed is a row as soon as its report exists.
"""

import json
import pathlib
import statistics
import subprocess
import sys

from absl import app, flags

_SEEDS = flags.DEFINE_list("seeds", "1,2,3,4,5,6,7,8,9,10", "Which seeds.")

ROOT = pathlib.Path(__file__).parents[1]
RESULT = ROOT / "docs" / "results" / "default_seeds.md"
# What the default is expected to keep on any seed: the mean less (or plus) two
# standard deviations lies inside.
BOUNDS = {
  "HyPO win rate": (">=", 0.78),
  "HyPO - DPO best": (">=", 0.04),
  "HyPO - DPO at KL 2": (">=", 0.0),
  "HyPO - DPO at KL 3": (">=", 0.0),
  "HyPO - DPO at KL 4": (">=", 0.0),
  "HyPO KL": ("<=", 5.0),
  "HyPO invalid": ("<=", 0.1),
  "DPO KL / HyPO KL": (">=", 2.0),
}


def main(argv: list[str]) -> None:
  del argv
  for seed in _SEEDS.value:
    command = [sys.executable, "run.py", "--config=configs/hypo.py"]
    command += [f"--config.seed={seed}", f"--workdir=runs/seeds/{seed}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    text = summary(_SEEDS.value)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(text)
    print(text, flush=True)


def figures(report: dict) -> dict[str, float | None]:
  """What is compared, of one seed."""
  hypo, dpo = report["policies"]["hypo"], report["policies"]["dpo"]
  best, held_out = dpo["best"], dpo["best_pair_loss"]
  matched = {
    f"HyPO - DPO at KL {row['kl']:g}": row["difference"]
    for row in report["matched_kl"]
  }
  return {
    "HyPO win rate": hypo["win_rate"],
    "DPO best win rate": best["win_rate"],
    "HyPO - DPO best": hypo["win_rate"] - best["win_rate"],
    "DPO best pair loss win rate": held_out["win_rate"],
    "DPO final win rate": dpo["win_rate"],
    **matched,
    "HyPO KL": hypo["kl_rao_blackwell"],
    "DPO best KL": best["kl_rao_blackwell"],
    "DPO final KL": dpo["kl_rao_blackwell"],
    "DPO KL / HyPO KL": dpo["kl_rao_blackwell"] / hypo["kl_rao_blackwell"],
    "HyPO invalid": hypo["invalid_rate"],
    "DPO best invalid": best["invalid_rate"],
    "DPO final invalid": dpo["invalid_rate"],
  }


def summary(seeds: list[str]) -> str:
  """Returns a Markdown table over the seeds whose report exists."""
  paths = {s: ROOT / "runs" / "seeds" / s / "report.json" for s in seeds}
  reports = {
    s: json.loads(p.read_text()) for s, p in paths.items() if p.exists()
  }
  rows = [figures(report) for report in reports.values()]
  versions = next(iter(reports.values()))["versions"]
  lines = [
    "# The default job on several seeds",
    "",
    "`python -m benchmarks.seeds`; seeds "
    + ", ".join(reports)
    + "; "
    + ", ".join(f"{k} {v}" for k, v in versions.items())
    + ".",
    "n counts the seeds that have the figure: none at a KL that a method "
    "never reached. A bound is held where the mean, two standard deviations to "
    "the worse side, lies inside.",
    "",
    "| figure | n | mean | standard deviation | lowest | highest | bound | "
    "held |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for name in rows[0]:
    values = [row[name] for row in rows if row[name] is not None]
    cells = [name, str(len(values)), *_cells(name, values)]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def _cells(name: str, values: list[float]) -> list[str]:
  if len(values) < 2:
    return [f"{values[0]:.3f}" if values else "", *[""] * 5]
  mean, spread = statistics.mean(values), statistics.stdev(values)
  cells = [f"{v:.3f}" for v in (mean, spread, min(values), max(values))]
  if name not in BOUNDS:
    return [*cells, "", ""]
  sign, bound = BOUNDS[name]
  if sign == ">=":
    worse, held = mean - 2 * spread, mean - 2 * spread >= bound
  else:
    worse, held = mean + 2 * spread, mean + 2 * spread <= bound
  verdict = f"{'yes' if held else 'no'} ({worse:.3f})"
  return [*cells, f"{sign} {bound:g}", verdict]


if __name__ == "__main__":
  app.run(main)
