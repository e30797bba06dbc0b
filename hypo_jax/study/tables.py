# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a study's page, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hypo_jax import optimum as optimum_lib
from hypo_jax.report.formatting import number, percent, whole
from hypo_jax.study import inference, methods, tuning
from hypo_jax.study.curves import histories
from hypo_jax.study.inference import Estimate
from hypo_jax.study.plan import RULES, Row
from hypo_jax.study.scores import LEVELS, OUTCOMES, Line, Results, compare

_HEADS = {
  "area": "area, KL 0 to 4",
  **{f"kl_{level:g}": f"KL {level:g}" for level in LEVELS},
}
# What verdicts go by.
VERDICT = "selected_area"
_CHECKPOINTS = {
  "best": "best by validation reward",
  "best_pair_loss": "best by held-out pair loss",
  "last": "last",
}
# By rule of tuning.
_MARKS = {"reward": "chosen", "area": "largest area"}
_COSTS = {
  "updates": "gradient steps",
  "tokens_trained": "tokens trained",
  "tokens_sampled": "tokens sampled",
  "labels": "labels",
}
# Of the way to the optimum, expected of each online method.
_SHARE = 0.7
_EPOCHS, _BATCH = (1, 5, 10, 25, 50), 64


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a table; columns but the first are aligned to the right."""
  lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def interval(found: Estimate | None, *, signed: bool = False) -> str:
  """Returns "0.712 [0.690, 0.734]"."""
  if found is None or found.mean is None:
    return ""
  text = number(found.mean, 3, signed=signed)
  if found.low is None:
    return text
  low, high = (number(x, 3, signed=signed) for x in (found.low, found.high))
  return f"{text} [{low}, {high}]"


def seeds_of(line: Line) -> str:
  """Returns how many seeds a line has, of how many."""
  total = len(line.row.seeds)
  have = total - len(line.missing)
  return f"{have}" if have == total else f"**{have} of {total}**"


def win_rates(lines: Sequence[Line], prefix: str = "") -> str:
  """Returns the win rates at each KL and their area, mean and interval."""
  rows = [
    [
      line.row.label,
      seeds_of(line),
      *(interval(line.values.get(f"{prefix}{o}")) for o in OUTCOMES),
      _spread(line.values.get("largest_kl"), 1),
      " / ".join(
        _spread(line.values.get(f"evaluations_{level:g}"), 1)
        for level in (LEVELS[0], LEVELS[-1])
      ),
    ]
    for line in lines
  ]
  heads = ["method", "seeds", *_HEADS.values(), "largest KL"]
  evaluated = f"evaluations to KL {LEVELS[0]:g} / {LEVELS[-1]:g}"
  return markdown([*heads, evaluated], rows)


def differences(lines: Sequence[Line], prefix: str = "") -> str:
  """Returns the differences to HyPO, with p and Holm's p for each outcome."""

  def cell(line: Line, outcome: str) -> str:
    name = f"{prefix}{outcome}"
    found = line.differences.get(name)
    if not (text := interval(found, signed=True)):
      return ""
    adjusted = line.adjusted.get(name)
    if adjusted is None:
      return f"{text}, p not given"
    return f"{text}, p {_p(found.p)}, Holm {_p(adjusted)}"

  rows = [
    [line.row.label, seeds_of(line), *(cell(line, o) for o in OUTCOMES)]
    for line in lines
    if line.differences is not None
  ]
  return markdown(["method − HyPO", "seeds", *_HEADS.values()], rows)


def _p(value: float) -> str:
  return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _spread(found: Estimate | None, decimals: int) -> str:
  if found is None or found.mean is None:
    return ""
  return number(found.mean, decimals)


def tested(lines: Sequence[Line]) -> str:
  """Returns the figures of last and best checkpoints on the test prompts."""
  rows = []
  for line in lines:
    for which, name in _CHECKPOINTS.items():
      found = line.values.get(f"{which}_win_rate")
      if found is not None:
        invalid = line.values.get(f"{which}_invalid_rate")
        kl = _spread(line.values.get(f"{which}_kl"), 2)
        row = [line.row.label, name, interval(found), kl]
        rows.append([*row, percent(invalid.mean) if invalid else ""])
  return markdown(["method", "checkpoint", "win rate", "KL", "invalid"], rows)


def costs(lines: Sequence[Line], results: Results) -> str:
  """Returns what a cell of each row took: means over seeds, median seconds."""
  rows = []
  for line in lines:
    seconds = [
      results[seed, line.row.cell]["costs"]["seconds"] for seed in line.scores
    ]
    text = ""
    if seconds:
      low, high = whole(min(seconds)), whole(max(seconds))
      text = f"{whole(np.median(seconds))} ({low} to {high})"
    rows.append([line.row.label, *_spent(line, results), text])
  heads = ["method", *_COSTS.values(), "seconds, median (lowest to highest)"]
  return markdown(heads, rows)


def _spent(line: Line, results: Results) -> list[str]:
  """Returns what doesn't depend on the clock, mean over seeds."""
  found = [results[seed, line.row.cell]["costs"] for seed in line.scores]
  return [
    whole(np.mean([f[name] for f in found])) if found else "" for name in _COSTS
  ]


def controls(lines: Sequence[Line], results: Results) -> str:
  """Returns a control's rows: area, difference, checkpoints, what it took."""
  rows = []
  for line in lines:
    values = line.values
    cells = [line.row.label, seeds_of(line), interval(values.get(VERDICT))]
    difference = (line.differences or {}).get(VERDICT)
    cells.append(interval(difference, signed=True))
    for which in _CHECKPOINTS:
      cells.append(
        f"{_spread(values.get(f'{which}_win_rate'), 3)} at "
        f"{_spread(values.get(f'{which}_kl'), 2)}"
        if f"{which}_win_rate" in values
        else ""
      )
    invalid = values.get("last_invalid_rate")
    cells.append(percent(invalid.mean) if invalid else "")
    rows.append(cells + _spent(line, results))
  heads = ["row", "seeds", "area", "area − HyPO's"]
  heads += [f"{name}: win rate at KL" for name in _CHECKPOINTS.values()]
  return markdown([*heads, "invalid at the end", *_COSTS.values()], rows)


def epochs(rows: Sequence[Row], results: Results) -> str:
  """Returns win rate and KL after so many epochs, means over seeds.

  Each is of the last evaluation up to there, on validation prompts.
  """
  table = []
  for row in rows:
    count = row.settings.get("data.num_pairs", 512)
    cells = [row.label]
    for passes in _EPOCHS:
      until = passes * count / _BATCH
      found = [
        max((e for e in history if e["step"] <= until), key=_step)
        for history in histories(row, results)
      ]
      cells.append(
        " / ".join(
          _spread(_known([e[field] for e in found]), decimals)
          for field, decimals in (
            ("win_rate", 3),
            ("kl_rao_blackwell", 1),
            ("invalid_rate", 2),
          )
        )
        if found
        else ""
      )
    table.append(cells)
  return markdown(["row", *(f"epoch {n}" for n in _EPOCHS)], table)


def _step(entry: Mapping[str, Any]) -> int:
  return entry["step"]


def _known(values: Sequence[float | None]) -> Estimate | None:
  """Returns the mean over seeds; None where one of them diverged."""
  return None if None in values else inference.estimate(values)


def recovered(
  rows: Sequence[Row], results: Results, optima: Mapping[int, Any]
) -> str:
  """Returns J of each row against the optimum's, by seed and over seeds.

  Args:
    rows: whose objective is reward - beta KL with the exact judge.
    results: of all cells that are done.
    optima: by seed; see `page.write`.
  """
  table = []
  for row in rows:
    shares, values, errors = [], [], []
    for seed in row.seeds:
      if (seed, row.cell) not in results or seed not in optima:
        continue
      last, best = results[seed, row.cell]["test"]["last"], optima[seed]
      reward, kl = last["reward_mean"], last["kl_rao_blackwell"]
      if None in (reward, kl):  # It diverged.
        continue
      value = reward - best["beta"] * kl
      start, goal = best["reference"], best["value"]
      share = optimum_lib.recovered(value, start, optimum=goal)
      if share is None:  # Nothing is to be gained.
        continue
      values.append(value)
      shares.append(share)
      errors.append(abs(share) * best["value_stderr"] / (goal - start))
    share = inference.estimate(shares)
    reached = ""
    if len(shares) == len(row.seeds):
      reached = "yes" if share.mean >= _SHARE else "**no**"
    table.append(
      [
        row.label,
        f"{len(shares)} of {len(row.seeds)}",
        interval(inference.estimate(values)),
        interval(share),
        number(float(np.mean(errors)), 3) if errors else "",
        number(min(shares, default=None), 3),
        reached,
      ]
    )
  heads = ["method", "seeds", "J", "share of J* − J(reference)"]
  heads += ["a seed's error by J*'s", "lowest seed", f"at least {_SHARE:g}"]
  return markdown(heads, table)


def optimum(optima: Mapping[int, Any]) -> str:
  """Returns J* and J of the reference by seed."""
  rows = [
    [
      f"{seed}",
      f"{found['value']:.4f} ± {found['value_stderr']:.4f}",
      number(found["excess"], 4),
      number(found["reference"], 4),
      whole(found["effective_samples"]),
    ]
    for seed, found in sorted(optima.items())
  ]
  heads = ["seed", "J* ± standard error", "too high by about", "J(reference)"]
  return markdown([*heads, "effective samples"], rows)


def tuned(rows: Sequence[Row], results: Results) -> str:
  """Returns a method's nine settings, what each is worth, and the choices.

  A choice at the edge of a value's three is marked: a better one may lie
  beyond.
  """
  found = {
    row.cell: [
      results[seed, row.cell]["history"]
      for seed in row.seeds
      if (seed, row.cell) in results
    ]
    for row in rows
  }
  marks: dict[str, list[str]] = {row.cell: [] for row in rows}
  if all(len(found[row.cell]) == len(row.seeds) for row in rows):
    for rule in RULES:
      marks[tuning.choose(found, rule)].append(_MARKS[rule])
  (coefficient,) = {
    method.coefficient
    for name, method in methods.METHODS.items()
    if rows[0].cell in methods.grid(name)
  }
  keys = (methods.RATE, coefficient)
  areas = {
    line.row.cell: line.values.get(VERDICT)
    for line in compare(rows, results, None)
  }
  table = []
  for row in rows:
    best = [tuning.best_within(history) for history in found[row.cell]]
    rewards = [entry["reward_mean"] for entry in best]
    table.append(
      [
        f"{row.settings[methods.RATE]:.1e}",
        f"{coefficient.split('.')[-1]} {row.settings[coefficient]:g}",
        ", ".join(number(reward, 3) for reward in rewards),
        number(np.mean(rewards), 3) if rewards else "",
        ", ".join(f"{e['kl_rao_blackwell']:.2f}" for e in best),
        ", ".join(str(e["step"]) for e in best),
        _spread(areas[row.cell], 3),
        _choice(marks[row.cell], row, rows, keys),
      ]
    )
  heads = ["learning rate", "coefficient", "reward by seed", "mean"]
  return markdown([*heads, "KL there", "step", "area", ""], table)


def _choice(
  marks: Sequence[str], chosen: Row, rows: Sequence[Row], keys: Sequence[str]
) -> str:
  if not marks:
    return ""
  edges = []
  for key in keys:
    values = [row.settings[key] for row in rows]
    if chosen.settings[key] in (min(values), max(values)):
      edges.append(key.split(".")[-1])
  at = [f"at the edge of {' and '.join(edges)}"] if edges else []
  return ", ".join([*marks, *at])
