# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a study's page, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hypo_jax.report.formatting import number, percent, whole
from hypo_jax.study import inference, methods, tuning
from hypo_jax.study.inference import Estimate
from hypo_jax.study.plan import Row
from hypo_jax.study.scores import LEVELS, OUTCOMES, Line, Results

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
_COSTS = (
  "updates",
  "tokens_trained",
  "tokens_sampled",
  "labels",
  "seconds",
)


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
    ]
    for line in lines
  ]
  heads = ["method", "seeds", *_HEADS.values(), "largest KL"]
  return markdown(heads, rows)


def differences(lines: Sequence[Line], prefix: str = "") -> str:
  """Returns the differences to HyPO, with Holm's p for each outcome."""

  def cell(line: Line, outcome: str) -> str:
    name = f"{prefix}{outcome}"
    text = interval(line.differences.get(name), signed=True)
    return f"{text}, {_p(line.adjusted.get(name))}" if text else ""

  rows = [
    [line.row.label, seeds_of(line), *(cell(line, o) for o in OUTCOMES)]
    for line in lines
    if line.differences is not None
  ]
  return markdown(["method − HyPO", "seeds", *_HEADS.values()], rows)


def _p(value: float | None) -> str:
  if value is None:
    return "p not given"
  return "p < 0.001" if value < 0.001 else f"p {value:.3f}"


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
        invalid = line.values[f"{which}_invalid_rate"].mean
        kl = _spread(line.values[f"{which}_kl"], 2)
        row = [line.row.label, name, interval(found), kl, percent(invalid)]
        rows.append(row)
  return markdown(["method", "checkpoint", "win rate", "KL", "invalid"], rows)


def costs(lines: Sequence[Line], results: Results) -> str:
  """Returns what a cell of each row took, mean over seeds."""
  rows = []
  for line in lines:
    found = [results[seed, line.row.cell]["costs"] for seed in line.scores]
    means = {
      n: np.mean([f[n] for f in found]) if found else None for n in _COSTS
    }
    rows.append([line.row.label, *(whole(means[n]) for n in _COSTS)])
  heads = ["method", "gradient steps", "tokens trained", "tokens sampled"]
  return markdown([*heads, "labels", "seconds"], rows)


def controls(lines: Sequence[Line]) -> str:
  """Returns a control's rows: frontier's area, difference, checkpoints."""
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
    rows.append(cells)
  heads = ["row", "seeds", "area", "area − HyPO's"]
  heads += [f"{name}: win rate at KL" for name in _CHECKPOINTS.values()]
  return markdown([*heads, "invalid at the end"], rows)


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
    shares, values = [], []
    for seed in row.seeds:
      if (seed, row.cell) in results and seed in optima:
        last, best = results[seed, row.cell]["test"]["last"], optima[seed]
        value = last["reward_mean"] - best["beta"] * last["kl_rao_blackwell"]
        values.append(value)
        gain = best["value"] - best["reference"]
        shares.append((value - best["reference"]) / gain)
    share = inference.estimate(shares)
    table.append(
      [
        row.label,
        f"{len(shares)} of {len(row.seeds)}",
        interval(inference.estimate(values)),
        interval(share),
        number(min(shares, default=None), 3),
      ]
    )
  heads = ["method", "seeds", "J", "share of J* − J(reference)", "lowest seed"]
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
  """Returns a method's nine settings, what each is worth, and the choice.

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
  whole = all(len(found[row.cell]) == len(row.seeds) for row in rows)
  choice = tuning.choose(found) if whole else None
  (coefficient,) = {
    method.coefficient
    for name, method in methods.METHODS.items()
    if rows[0].cell in methods.grid(name)
  }
  keys = (methods.RATE, coefficient)
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
        _choice(row, rows, keys) if row.cell == choice else "",
      ]
    )
  heads = ["learning rate", "coefficient", "reward by seed", "mean"]
  return markdown([*heads, "KL there", "step", ""], table)


def _choice(chosen: Row, rows: Sequence[Row], keys: Sequence[str]) -> str:
  edges = []
  for key in keys:
    values = [row.settings[key] for row in rows]
    if chosen.settings[key] in (min(values), max(values)):
      edges.append(key.split(".")[-1])
  return f"chosen, at the edge of {' and '.join(edges)}" if edges else "chosen"
