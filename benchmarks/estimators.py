# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Trains HyPO with each estimator of the KL gradient, at equal rollouts.

    python -m benchmarks.estimators --seeds=1000,1001

Everything but the estimator is the default configuration with two rollouts a
prompt: the same start, pairs, order, random keys and steps. Rao-Blackwell is
measured with the baseline over a prompt's two rollouts, and without. The table
is a section of docs/results/estimators.md; the other is made by
`benchmarks.variance`, which measures the gradients themselves.
"""

import statistics

from absl import app, flags

from benchmarks import trial

_SEEDS = flags.DEFINE_list("seeds", "1000,1001", "Seeds, of tuning.")

_LATE = 5  # measurements
_FIELDS = ("win_rate", "kl_rao_blackwell", "invalid_rate")
ESTIMATORS = {
  "sequence": ("sequence", True),
  "leave_one_out": ("leave_one_out", True),
  "to_go": ("to_go", True),
  "rao_blackwell without baseline": ("rao_blackwell", False),
  "rao_blackwell": ("rao_blackwell", True),
}


def main(argv: list[str]) -> None:
  del argv
  trials = {
    name: {"overrides": {"estimator": estimator}, "baseline": baseline}
    for name, (estimator, baseline) in ESTIMATORS.items()
  }
  histories = trial.run("estimators", _SEEDS.value, 2, trials)
  trial.publish_section("estimators", summary(histories))


def summary(histories: dict[str, list[list[dict]]]) -> str:
  """Returns the page's section."""
  lines = [
    "## Trained with each",
    "",
    f"`python -m benchmarks.estimators --seeds={','.join(_SEEDS.value)}`: the "
    "default configuration with two rollouts a prompt, on 128 validation "
    "prompts with 4 completions each; a value a seed. Late figures are means "
    "of the last five measurements, which one run's ups and downs move less "
    "than the final one.",
    "",
    "| estimator | late win rate | late KL | late invalid | final win rate | "
    "best win rate | mean late win rate |",
    "|---|---|---|---|---|---|---|",
  ]
  for name, runs in histories.items():
    late = [{f: _late(run, f) for f in _FIELDS} for run in runs]
    tops, ends = [trial.best(run) for run in runs], [run[-1] for run in runs]
    row = [
      name,
      trial.values(late, "win_rate", ".3f"),
      trial.values(late, "kl_rao_blackwell", ".2f"),
      trial.values(late, "invalid_rate", ".1%"),
      trial.values(ends, "win_rate", ".3f"),
      trial.values(tops, "win_rate", ".3f"),
      f"{statistics.mean(e['win_rate'] for e in late):.3f}",
    ]
    lines.append("| " + " | ".join(row) + " |")
  return "\n".join(lines) + "\n"


def _late(history: list[dict], field: str) -> float:
  return statistics.mean(entry[field] for entry in history[-_LATE:])


if __name__ == "__main__":
  app.run(main)
