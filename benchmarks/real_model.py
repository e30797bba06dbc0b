# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What finished jobs of one configuration, one a seed, have to say.

    python -m benchmarks.real_model --name=sentiment_smollm2 runs/s0 runs/s1

Keeps what is needed of each job's report.json and evaluations/ in
docs/results/<name>/seed_<n>.json, to six digits; then writes tables of all
seeds kept there to docs/results/<name>.md, in place of what stands between two
marks, and the training curves to docs/results/<name>.png. So seeds can be run
on different machines, or deleted; without folders, page and plot are written
again. Every seed is a row and a line; nothing is averaged away. Intervals are
of one run: its test prompts, or its held-out pairs, drawn anew 2,000 times, the
middle 95%. They say nothing of how seeds differ.
"""

import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import app, flags

_NAME = flags.DEFINE_string("name", None, "Of the page.")

RESULTS = pathlib.Path(__file__).parents[1] / "docs" / "results"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_DRAWS = 2000
_COLOURS = {"dpo": "C0", "hypo": "C1", "rloo": "C2"}

_EARLY = " best pair loss"
_EARLY_MEANS = (
  '"best pair loss" is the checkpoint with the lowest loss on validation '
  "pairs, early stopping that needs no judge; where it is the final or the "
  "best one, it has no row."
)
_REPORTED = ("seed", "versions", "wall_seconds")

Entry = dict[str, Any]
Run = dict[str, Any]


def main(argv: list[str]) -> None:
  if _NAME.value is None:
    raise app.UsageError("expected --name")
  write(_NAME.value, [pathlib.Path(folder) for folder in argv[1:]])


def write(
  name: str, folders: Sequence[pathlib.Path], results: pathlib.Path = RESULTS
) -> None:
  """Keeps what jobs found, and writes page and plot of all that is kept.

  Args:
    name: of the page.
    folders: of finished jobs; one of a seed that is kept replaces it.
    results: where the page lies.

  Raises:
    FileNotFoundError: for a job that isn't finished, or if nothing is kept.
  """
  kept = results / name
  # All are read before one is written.
  for run in [read(folder) for folder in folders]:
    kept.mkdir(parents=True, exist_ok=True)
    path = kept / f"seed_{run['report']['seed']}.json"
    path.write_text(json.dumps(_rounded(run)) + "\n")
  runs = [json.loads(path.read_text()) for path in kept.glob("seed_*.json")]
  if not runs:
    raise FileNotFoundError(f"expected seed_<n>.json in {kept}, got none")
  runs.sort(key=lambda run: run["report"]["seed"])
  page = results / f"{name}.md"
  text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
  page.write_text(replaced(text, figures(runs)))
  plot(runs, page.with_suffix(".png"))
  print(page)


def read(folder: pathlib.Path) -> Run:
  """Returns a job's "report", and "measured": its evaluations by name.

  Of both, the numbers that pages and plots come from, and no texts.

  Raises:
    FileNotFoundError: for a job that isn't finished.
  """
  report = json.loads((folder / "report.json").read_text())
  policies = {
    name: {"history": [_numbers(entry) for entry in policy["history"]]}
    for name, policy in report["policies"].items()
  }
  measured = {
    path.stem: json.loads(path.read_text())
    for path in sorted((folder / "evaluations").glob("*.json"))
  }
  drawn_from = ("wins", "by_prompt", "by_pair")
  whole = ("reward_model", "optimum")
  return {
    "report": {name: report[name] for name in _REPORTED}
    | {"policies": policies},
    "measured": {
      name: entry
      if name in whole
      else _numbers(entry) | {key: entry[key] for key in drawn_from}
      for name, entry in measured.items()
    },
  }


def _numbers(entry: Entry) -> Entry:
  """Returns an entry without its lists and texts."""
  return {
    name: value
    for name, value in entry.items()
    if not isinstance(value, (list, dict, str))
  }


def _rounded(value: Any) -> Any:
  """Returns what JSON holds with floats of six digits."""
  if isinstance(value, dict):
    return {name: _rounded(inner) for name, inner in value.items()}
  if isinstance(value, list):
    return [_rounded(inner) for inner in value]
  return float(f"{value:.6g}") if isinstance(value, float) else value


def replaced(text: str, figures: str) -> str:
  """Returns a page with other figures between its marks.

  Raises:
    ValueError: for a page without them.
  """
  if text.count(BEGIN) != 1 or text.count(END) != 1:
    raise ValueError(f"page: expected {BEGIN} and {END} once each")
  before, _, rest = text.partition(BEGIN)
  return f"{before}{BEGIN}\n\n{figures}\n\n{END}{rest.partition(END)[2]}"


def interval(
  values: Sequence[float], weights: Sequence[float] | None = None
) -> tuple[float, float, float]:
  """Returns a mean over prompts, and 95% of it over prompts drawn anew.

  Args:
    values: [n], summed.
    weights: [n], whose sum the values' is divided by; None: ones.
  """
  values = np.asarray(values, np.float64)
  weights = np.ones_like(values) if weights is None else np.asarray(weights)
  count = len(values)
  drawn = np.random.default_rng(0).integers(0, count, (_DRAWS, count))
  # Few prompts may have no weight among them: such draws say nothing.
  with np.errstate(invalid="ignore"):
    means = values[drawn].sum(1) / weights[drawn].sum(1)
  low, high = np.nanquantile(means, (0.025, 0.975))
  return float(values.sum() / weights.sum()), float(low), float(high)


def figures(runs: list[Run]) -> str:
  """Returns versions and tables as Markdown."""
  reports = [run["report"] for run in runs]
  seeds = ", ".join(str(report["seed"]) for report in reports)
  versions = {
    ", ".join(f"{k} {v}" for k, v in report["versions"].items()): None
    for report in reports
  }
  label = "Seeds" if len(runs) > 1 else "Seed"
  table = _table(runs)
  parts = [f"{label} {seeds}; {'; '.join(versions)}.", "", *table, ""]
  if any(_EARLY in line for line in table):
    parts += [_EARLY_MEANS, ""]
  for run in runs:
    if learned := run["measured"].get("reward_model"):
      parts.append(_reward_model(run["report"]["seed"], learned))
  return "\n".join([*parts, "", *_seconds(reports)])


def _drawn(
  name: str, form: str, weights: str | None = None, by: str = "by_prompt"
):
  """Returns a cell of numbers by prompt or pair, with its interval."""

  def cell(entry: Entry) -> str:
    numbers = entry[by]
    if name not in numbers:
      return ""
    found = interval(numbers[name], weights and numbers[weights])
    mean, low, high = (f"{x:{form}}" for x in found)
    return f"{mean} ({low} to {high})"

  return cell


def _matched(entry: Entry) -> str:
  """How many comparisons the win rate at equal length rests on."""
  matched = entry["by_prompt"].get("matched")
  return "" if matched is None else f"{sum(matched):,.0f}"


def _wins(entry: Entry) -> str:
  if entry["wins"] is None:
    return ""
  mean, low, high = interval(entry["wins"])
  return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _plain(name: str, form: str) -> Callable[[Entry], str]:
  def cell(entry: Entry) -> str:
    return "" if entry.get(name) is None else f"{entry[name]:{form}}"

  return cell


_COLUMNS: dict[str, Callable[[Entry], str]] = {
  "step": _plain("step", "d"),
  "win rate": _wins,
  "win rate, equal length": _drawn("matched_won", ".3f", "matched"),
  "comparisons of equal length": _matched,
  "reward": _drawn("reward", ".3f"),
  "learned reward": _drawn("learned_reward", ".2f"),
  "KL, nats": _drawn("kl_rao_blackwell", ".2f"),
  "KL, log-ratio": _drawn("kl", ".2f"),
  "length, tokens": _drawn("length", ".1f"),
  "ended": _drawn("ended", ".1%"),
  "held-out pairs right": _drawn("right", ".3f", by="by_pair"),
  "chosen, nats": _drawn("chosen_log_ratio", "+.2f", by="by_pair"),
  "rejected, nats": _drawn("rejected_log_ratio", "+.2f", by="by_pair"),
}


def _table(runs: list[Run]) -> list[str]:
  """A row for each policy, checkpoint and seed; empty columns are left out."""
  rows = []
  for name in dict.fromkeys(n for r in runs for n in r["report"]["policies"]):
    for checkpoint in ("", " best", _EARLY):
      for run in runs:
        # A checkpoint that is another one too has a file under one name.
        entry = run["measured"].get(f"{name}{checkpoint}".replace(" ", "_"))
        if entry is not None:
          cells = [cell(entry) for cell in _COLUMNS.values()]
          seed = str(run["report"]["seed"])
          rows.append([name + checkpoint, seed, *cells])
  headings = ["policy", "seed", *_COLUMNS]
  kept = [i for i in range(len(headings)) if any(row[i] for row in rows)]
  lines = [headings, ["---"] * len(headings), *rows]
  return ["| " + " | ".join(row[i] for i in kept) + " |" for row in lines]


def _reward_model(seed: int, learned: dict[str, Any]) -> str:
  test = learned["test"]
  return (
    f"Seed {seed}: the reward model is right on {test['accuracy']:.3f} ± "
    f"{test['accuracy_stderr']:.3f} of held-out test pairs (calibration error "
    f"{test['calibration_error']:.3f}); its rewards of the pairs it was "
    f"trained on have a standard deviation of {learned['std']:.2f}."
  )


def _seconds(reports: list[dict[str, Any]]) -> list[str]:
  """Seconds by stage, restarts included, compilation too."""
  stages = dict.fromkeys(s for r in reports for s in r["wall_seconds"])
  lines = [["seconds", *stages], ["---"] * (len(stages) + 1)]
  for report in reports:
    seconds = [report["wall_seconds"].get(stage, 0.0) for stage in stages]
    lines.append([f"seed {report['seed']}", *(f"{s:.0f}" for s in seconds)])
  return ["| " + " | ".join(line) + " |" for line in lines]


def plot(runs: list[Run], path: pathlib.Path) -> None:
  """Draws what each method reaches over KL, and its form over steps."""
  import matplotlib

  matplotlib.use("agg")
  from matplotlib import pyplot

  policies = runs[0]["report"]["policies"]
  methods = [name for name in policies if name != "reference"]
  history = policies[methods[0]]["history"][-1]
  judged = history["win_rate"] is not None
  learned = "learned_reward_mean" in history
  reached = "win_rate" if judged else "pair_accuracy"
  panels = [("kl_rao_blackwell", reached)]
  if judged or learned:
    reward = "reward_mean" if judged else "learned_reward_mean"
    panels.append(("kl_rao_blackwell", reward))
  panels += [("step", "kl_rao_blackwell"), ("step", "length_mean")]
  panels.append(("step", "eos_rate"))
  if not judged:
    panels += [("step", "chosen_log_ratio"), ("step", "rejected_log_ratio")]
  columns = math.ceil(len(panels) / 2)
  figure, axes = pyplot.subplots(
    2, columns, figsize=(3.2 * columns, 5.6), layout="constrained"
  )
  axes = axes.ravel()
  for unused in axes[len(panels) :]:
    unused.remove()
  for axis, (x, y) in zip(axes, panels, strict=False):
    for name in methods:
      for i, run in enumerate(runs):
        curve = run["report"]["policies"][name]["history"]
        axis.plot(
          [entry[x] for entry in curve],
          [entry[y] for entry in curve],
          color=_COLOURS.get(name, "C3"),
          marker=".",
          linewidth=1,
          label=None if i else name,
        )
    field = {"win_rate": "win_rate", "reward_mean": "reward"}.get(y)
    for i, run in enumerate(runs):
      optimum = run["measured"].get("optimum")
      if optimum is not None and field and x == "kl_rao_blackwell":
        points = optimum["frontier"]
        axis.plot(
          [point["kl"] for point in points],
          [point[field] for point in points],
          color="0.6",
          linestyle="--",
          linewidth=1,
          label=None if i else "optimum",
        )
    axis.set_xlabel(_LABELS[x])
    if x == "kl_rao_blackwell":
      # A policy that leaves would press all others against the edge.
      axis.set_xscale("symlog", linthresh=1, subs=range(2, 10))
      axis.xaxis.set_major_formatter("{x:g}")
      axis.set_xlim(left=0)
    axis.set_title(_LABELS[y], fontsize="medium")
  # Below the panels: in one it would lie on curves.
  handles, labels = axes[0].get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=len(labels),
    frameon=False,
  )
  figure.savefig(path, dpi=120)
  pyplot.close(figure)


_LABELS = {
  "step": "step",
  "kl_rao_blackwell": "KL to the reference, nats",
  "win_rate": "win rate against the reference",
  "pair_accuracy": "held-out pairs right",
  "reward_mean": "reward",
  "learned_reward_mean": "learned reward",
  "length_mean": "length, tokens",
  "eos_rate": "share ended",
  "chosen_log_ratio": "chosen: change, nats",
  "rejected_log_ratio": "rejected: change, nats",
}


if __name__ == "__main__":
  app.run(main)
