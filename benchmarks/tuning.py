# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Tunes every method on the same two seeds, which no claim is measured on.

    python -m benchmarks.tuning --seeds=1000,1001

Each method gets nine settings at least: three learning rates (a third, one and
three times its default) by three values of its main coefficient. A baseline is
chosen by the highest validation win rate of any measurement, mean of the seeds:
its best checkpoint is what HyPO is held against. HyPO is chosen by its final
measurement, the worse of the seeds, of the settings that end within 5 nats and
10% invalid: its final checkpoint on any seed is what is claimed. All settings
go to docs/results/tuning.md.

One process a core is fastest: pass one seed to each, then both to the last.
"""

import statistics

from absl import app, flags

from benchmarks import trial

_SEEDS = flags.DEFINE_list("seeds", "1000,1001", "Tuning seeds.")
_METHODS = flags.DEFINE_list("methods", "dpo,ipo,hinge,hypo", "Which methods.")

# Default learning rate, main coefficient and its three values, and the rest.
GRID = {
  "dpo": (3e-4, "beta", (0.15, 0.5, 1.5), {"kl_coef": 0.0}),
  # A fourth value, since the best of three lay at the edge.
  "ipo": (3e-4, "beta", (0.05, 0.15, 0.5, 1.5), {"kl_coef": 0.0}),
  "hinge": (3e-4, "beta", (0.15, 0.5, 1.5), {"kl_coef": 0.0}),
  "hypo": (1e-3, "kl_coef", (0.015, 0.03, 0.06), {"beta": 0.1}),
}
_HISTORY = (
  "One rule for all, by the best win rate, stood before the trials. HyPO's was "
  "changed after its trials here were seen, and before it ran on any other "
  "seed; by the old rule its setting would be learning rate 3e-3, kl_coef "
  "0.015. The chosen kl_coef lies at the edge of its three values and was left "
  "there. Before the grid, HyPO alone was tried on seed 1000 with linear "
  "decay, 500 steps, two rollouts and a longer fine-tuning; the last was kept, "
  "for all methods alike."
)


def cells(method: str) -> dict[str, dict]:
  """Returns the settings of a method by name."""
  rate, name, values, rest = GRID[method]
  return {
    f"{method}, learning rate {rate * factor:.1e}, {name} {value:g}": {
      "method": method,
      "learning_rate": rate * factor,
      name: value,
    }
    | rest
    for factor in (1 / 3, 1, 3)
    for value in values
  }


def main(argv: list[str]) -> None:
  del argv
  settings = {
    k: v for method in _METHODS.value for k, v in cells(method).items()
  }
  trials = {name: {"overrides": values} for name, values in settings.items()}
  histories = trial.run("tuning", _SEEDS.value, 1, trials)
  trial.publish("tuning", _SEEDS.value, summary(histories))


def chosen(method: str, histories: dict[str, list[list[dict]]]) -> str:
  """Returns the name of the method's best setting, as the docstring says."""
  if method != "hypo":
    return max(cells(method), key=lambda name: _mean_best(histories[name]))

  def worse_end(name: str) -> float:
    ends = [run[-1] for run in histories[name]]
    if any(e["kl_rao_blackwell"] > 5 or e["invalid_rate"] > 0.1 for e in ends):
      return 0.0
    return min(end["win_rate"] for end in ends)

  return max(cells(method), key=worse_end)


def _mean_best(runs: list[list[dict]]) -> float:
  return statistics.mean(trial.best(run)["win_rate"] for run in runs)


def summary(histories: dict[str, list[list[dict]]]) -> str:
  """Returns the Markdown page."""
  lines = [
    "# Tuning",
    "",
    f"`python -m benchmarks.tuning --seeds={','.join(_SEEDS.value)}`, on 128 "
    "validation prompts with 4 completions each. Win rates are against the "
    "reference's samples. A baseline's choice has the highest best win rate, "
    "mean of the seeds; HyPO's the highest final win rate on the worse seed, "
    "ending within 5 nats and 10% invalid. A trial ends early once its win "
    "rate has fallen 0.15 below its best, so its last figures are not final.",
    "",
    _HISTORY,
  ]
  for method in _METHODS.value:
    choice = chosen(method, histories)
    lines += [
      "",
      f"## {method}",
      "",
      "| setting | best win rate by seed | mean | at step | KL there | last "
      "step | win rate | KL | invalid |",
      "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in cells(method):
      runs = histories[name]
      tops, ends = [trial.best(run) for run in runs], [run[-1] for run in runs]
      mean = f"{_mean_best(runs):.3f}"
      row = [
        name.split(", ", 1)[1] + (" (chosen)" if name == choice else ""),
        trial.values(tops, "win_rate", ".3f"),
        f"**{mean}**" if name == choice else mean,
        trial.values(tops, "step", "d"),
        trial.values(tops, "kl_rao_blackwell", ".2f"),
        trial.values(ends, "step", "d"),
        trial.values(ends, "win_rate", ".3f"),
        trial.values(ends, "kl_rao_blackwell", ".2f"),
        trial.values(ends, "invalid_rate", ".1%"),
      ]
      lines.append("| " + " | ".join(row) + " |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  app.run(main)
