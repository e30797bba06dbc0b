# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a study's page: tables in Markdown, plots, and all scores as JSON.

What stands between two marks near the page's head is written by hand, and kept
when the page is written again.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from hypo_jax.checkpoint import write_json
from hypo_jax.report.canvas import Plot
from hypo_jax.study import plan, plots, scores, tables
from hypo_jax.study.plan import Row
from hypo_jax.study.scores import Results

_METHODS = (
  plan.MAIN_TABLE,
  plan.JUDGE_TABLE,
  plan.AREA_TABLE,
  plan.SMOKE_TABLE,
)
_BEGIN, _END = "<!-- by hand: begin -->", "<!-- by hand: end -->"
# Of evaluations on validation prompts.
_CURVES = ("step", "kl_rao_blackwell", "win_rate", "reward_mean")
_CURVES += ("invalid_rate", "length_mean", "proxy_reward_mean")
_FRONTIER = (
  "Mean over seeds with the 95% t interval, on validation prompts. The "
  "frontier at a KL is the win rate of the best evaluation up to it, chosen on "
  "half of the prompts and read off the other half (its KL is that of all); "
  "`area` is its mean over KL 0 to 4 nats. A run that diverged is read as far "
  "as it went."
)
_DIFFERENCES = (
  "Paired by seed: mean, 95% t interval, p, and Holm's p over the rows, each "
  "column apart. The verdict goes by the area of this frontier, at 0.05 of "
  "Holm's; by the area at first crossing (the plan's first choice, see there) "
  "in the table after the next."
)
_CROSSING = (
  "Read where the training curve first reaches a KL instead, linear between "
  "evaluations; a curve that never does is read at its largest KL."
)
_TESTED = (
  "Means over seeds, empty where one diverged; the pair loss is DPO's, at the "
  "row's beta."
)
_COSTS = (
  "Tokens trained count padding and epochs; labels are pairs labelled, or "
  "completions judged; seconds are those of the steps on a worker's share of "
  "the cores, evaluations left out, beside other workers and whatever else "
  "ran: hours differ."
)
_TUNING = (
  "Highest reward of a validation evaluation with a KL of at most 4 nats, by "
  "seed, and where it was: the highest mean is chosen. `area` is the "
  "frontier's of the win rate: the largest chooses for the table that is tuned "
  "by it, and nothing else."
)
_CONTROLS = (
  "`area` is the frontier's: the best evaluation up to "
  "each KL, mean over KL 0 to 4 nats, chosen and read on different prompts. "
  "Differences to HyPO are paired by seed, with the uncorrected 95% t "
  "interval; checkpoints are measured on test prompts: win rate at its KL. The "
  "best by held-out pair loss, DPO's at the row's beta, is what early stopping "
  "by it leaves. All rows of a KL's weight, 0 and offline states included, "
  "have HyPO's rate and beta as chosen by reward, other rows of DPO have "
  "DPO's; `weight x n` is n times HyPO's kl_coef."
)


def stem(subset: str) -> str:
  """Returns the page's name without its ending."""
  return "study" if subset == "all" else f"study_{subset}"


def write(
  folder: pathlib.Path,
  subset: str,
  rows: Sequence[Row],
  results: Results,
  optima: Mapping[int, Any],
  failed: Mapping[tuple[int, str], str],
) -> pathlib.Path:
  """Writes <stem>.md, .json, _curves.csv and <stem>/*.png; returns the first.

  A page without results, or of tuning alone, has its text alone.

  Args:
    folder: made if missing.
    subset: of `plan.SUBSETS`.
    rows: of the subset.
    results: of its cells that are done.
    optima: by seed, a value of `job.optimum.describe` at OPTIMUM_BETA, and its
      "frontier".
    failed: by cell, its folder and error in a line.
  """
  name = stem(subset)
  folder.mkdir(parents=True, exist_ok=True)
  drawn = plots.make_plots(rows, results, optima) if results else []
  for plot in drawn:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / f"{plot.name}.png").write_bytes(plot.png)
  compared = _compared(rows, results)
  path = folder / f"{name}.md"
  by_hand = _by_hand(path.read_text()) if path.exists() else ""
  text = _text(subset, rows, results, optima, failed, compared, drawn, by_hand)
  path.write_text(text)
  if compared:
    write_json(folder / f"{name}.json", _figures(compared))
    (folder / f"{name}_curves.csv").write_text(_curves(rows, results))
  return path


def _compared(
  rows: Sequence[Row], results: Results
) -> dict[str, list[scores.Line]]:
  """Returns the lines of every table but tuning's."""
  found = plan.tables([row for row in rows if not plan.is_tuning(row)])
  if not found:
    return {}
  return {
    # Of the judge's table, too: HyPO, with pairs alone, on the same seeds.
    title: scores.compare(
      group,
      results,
      plan.main_row(rows, title).cell,
      correct=title in _METHODS,
    )
    for title, group in found.items()
  }


def _figures(compared: Mapping[str, list[scores.Line]]) -> dict[str, Any]:
  """Returns every score of every cell, by table, row and seed, and tests."""
  return {
    title: {
      line.row.label: {
        "cell": line.row.cell,
        "settings": dict(line.row.settings),
        "scores": {str(seed): found for seed, found in line.scores.items()},
        "missing": list(line.missing),
        "differences": {
          outcome: _difference(line, outcome)
          for outcome in line.differences or {}
        },
      }
      for line in lines
    }
    for title, lines in compared.items()
  }


def _difference(line: scores.Line, outcome: str) -> dict[str, Any]:
  """Returns an estimate, with Holm's p; neither p where a seed is missing.

  A row's own, or HyPO's, where p is corrected.
  """
  found = line.differences[outcome]._asdict()
  unknown = outcome in line.adjusted and line.adjusted[outcome] is None
  if line.missing or unknown:
    found["p"] = None
  return found | {"holm": line.adjusted.get(outcome)}


def _curves(rows: Sequence[Row], results: Results) -> str:
  """Returns every evaluation of every cell but tuning's, as CSV."""
  lines = [",".join(("cell", "seed", *_CURVES))]
  cells = dict.fromkeys(
    (row.cell, seed)
    for row in rows
    if not plan.is_tuning(row)
    for seed in row.seeds
  )
  for cell, seed in cells:
    for entry in results.get((seed, cell), {}).get("history", ()):
      values = (entry.get(name) for name in _CURVES)
      texts = ("" if value is None else f"{value:.5g}" for value in values)
      lines.append(",".join((cell, str(seed), *texts)))
  return "\n".join(lines) + "\n"


def _text(
  subset: str,
  rows: Sequence[Row],
  results: Results,
  optima: Mapping[int, Any],
  failed: Mapping[tuple[int, str], str],
  compared: Mapping[str, list[scores.Line]],
  drawn: Sequence[Plot],
  by_hand: str,
) -> str:
  parts = [_head(subset, rows, results), _missing(rows, results, failed)]
  parts.append(f"{_BEGIN}\n{by_hand}\n{_END}\n")
  for plot in drawn:
    image = f"![{plot.alt}]({stem(subset)}/{plot.name}.png)"
    parts.append(f"{image}\n\n**{plot.alt}.** {plot.reading}\n")
  told: set[str] = set()
  # Results first, though tuning runs first.
  for title, group in plan.tables(sorted(rows, key=plan.is_tuning)).items():
    parts.append(f"## {title}\n")
    if plan.is_tuning(group[0]):
      parts += [*_once(_TUNING, told), tables.tuned(group, results)]
    elif title in _METHODS:
      parts += _of_methods(compared[title], results, told)
    else:
      parts += _once(_CONTROLS, told)
      parts.append(tables.controls(compared[title], results))
    if title == plan.EPOCHS_TABLE:
      parts += [
        "Win rate / KL / share invalid of the last evaluation up to an epoch, "
        "validation prompts, means over seeds.\n",
        tables.epochs(group, results),
      ]
    if title == plan.OPTIMUM_TABLE:
      parts += [
        f"J = reward − {plan.OPTIMUM_BETA} KL of the last checkpoint, test "
        "prompts; J* from the reference's completions of the same prompts. At "
        "least 0.7 of the way was expected of RLOO, PPO and GRPO; no verdict "
        "where a seed is missing or diverged.\n",
        tables.recovered(group, results, optima),
        tables.optimum({s: optima[s] for s in group[0].seeds if s in optima}),
      ]
  return "\n".join(parts)


def _by_hand(text: str) -> str:
  """Returns what stands between the marks of a page."""
  return text.partition(_BEGIN)[2].partition(_END)[0].strip("\n")


def _once(text: str, told: set[str]) -> list[str]:
  """Returns what explains a kind of table, before the first of it alone."""
  if text in told:
    return []
  told.add(text)
  return [text + "\n"]


def _of_methods(
  lines: list[scores.Line], results: Results, told: set[str]
) -> list[str]:
  return [
    *_once(_FRONTIER, told),
    tables.win_rates(lines, "selected_"),
    *_once(_DIFFERENCES, told),
    tables.differences(lines, "selected_"),
    _CROSSING + "\n",
    tables.win_rates(lines),
    tables.differences(lines),
    "On test prompts, by checkpoint:\n",
    *_once(_TESTED, told),
    tables.tested(lines),
    "What a cell took, a learned reward's fitting included:\n",
    *_once(_COSTS, told),
    tables.costs(lines, results),
    "Settings:\n",
    "\n".join(
      f"- {line.row.label}: `{json.dumps(dict(line.row.settings))}`"
      for line in lines
    )
    + "\n",
  ]


def _head(subset: str, rows: Sequence[Row], results: Results) -> str:
  versions = sorted(
    {
      ", ".join(f"{k} {v}" for k, v in result["versions"].items())
      for result in results.values()
    }
  )
  command = (
    f"python run.py --config=configs/study.py --config.study.subset={subset}"
  )
  seeds = sorted({seed for row in rows for seed in row.seeds})
  return (
    f"# Study: {subset}\n\n`{command}`; seeds {', '.join(map(str, seeds))}; "
    f"{'; '.join(versions) or 'nothing is done'}. What is run and tested was "
    "fixed beforehand: [the plan](study_plan.md).\n"
  )


def _missing(
  rows: Sequence[Row],
  results: Results,
  failed: Mapping[tuple[int, str], str],
) -> str:
  """Says which cells are not there; nothing is left out in silence."""
  wanted = plan.cells(rows)
  missing = [key for key in wanted if key not in results]
  if not missing:
    return f"All {len(wanted)} cells are done.\n"
  lines = [f"**{len(missing)} of {len(wanted)} cells are missing:**\n"]
  lines += [
    f"- {failed.get((seed, name), f'{name}, seed {seed}: not run')}"
    for seed, name in missing
  ]
  return "\n".join(lines) + "\n"
