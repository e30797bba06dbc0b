# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Which cells a subset of the study runs, and in which table each stands."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hypo_jax.study import methods
from hypo_jax.study.methods import METHODS, Settings

MAIN_TABLE = "Methods that learn from 512 labelled pairs"
JUDGE_TABLE = "Online methods with the exact judge"
AREA_TABLE = "Methods that learn from 512 labelled pairs, tuned by the area"
SMOKE_TABLE = "Smoke: untuned, two seeds"
OPTIMUM_TABLE = "Against the optimum, exact judge, beta 0.1"
EPOCHS_TABLE = "DPO to 50 epochs"
# Of OPTIMUM_TABLE, reward a nat.
OPTIMUM_BETA = 0.1

SUBSETS = ("smoke", "tuning", "main", "controls", "all")
SMOKE = ("hypo", "dpo", "rloo")
_SMOKE_CELL = "smoke-"
# Numbers of pairs, and steps of 64 of them in 50 epochs.
_PAIRS, _EPOCHS = (512, 2048, 8192), 50
# Controls change one thing of these two, as tuned, and are not tuned anew.
_HYPO, _DPO = "hypo", "dpo"

# What tuning chooses by; see `tuning`.
RULES = ("reward", "area")
# Settings by rule and by method.
Chosen = Mapping[str, Mapping[str, Settings]]


class Row(NamedTuple):
  """A line of a table: a cell on several seeds.

  Attributes:
    table: title of the table that it stands in.
    label: of the line.
    cell: the cell's name, that of its folder on every seed. Two rows may have
      the same cell.
    settings: the cell's, beyond what all cells have.
    seeds: of its jobs.
  """

  table: str
  label: str
  cell: str
  settings: Settings
  seeds: tuple[int, ...]


def make_rows(
  subset: str,
  *,
  seeds: Sequence[int],
  control_seeds: Sequence[int],
  tuning_seeds: Sequence[int],
  chosen: Chosen | None = None,
) -> list[Row]:
  """Returns the rows of a subset.

  Args:
    subset: of SUBSETS; "all" is tuning, main and controls.
    seeds: of the main tables.
    control_seeds: of the controls, among `seeds`.
    tuning_seeds: of tuning and smoke, none among `seeds`.
    chosen: as tuning left them; needed by main and controls.

  Raises:
    ValueError: naming the argument.
  """
  if subset not in SUBSETS:
    raise ValueError(
      f"study.subset: expected one of {', '.join(SUBSETS)}, got {subset!r}"
    )
  shared = sorted(set(seeds) & set(tuning_seeds))
  if shared:
    raise ValueError(
      f"study.seeds: expected none of study.tuning_seeds, got {shared}"
    )
  strange = sorted(set(control_seeds) - set(seeds))
  if strange:
    raise ValueError(
      f"study.control_seeds: expected some of study.seeds, got {strange}"
    )
  tuning_seeds = tuple(tuning_seeds)
  if subset == "smoke":
    return [
      Row(
        SMOKE_TABLE,
        METHODS[m].title,
        f"{_SMOKE_CELL}{m}",
        methods.base(m),
        tuning_seeds,
      )
      for m in SMOKE
    ]
  rows = []
  if subset in ("tuning", "all"):
    rows += [
      Row(_tuning(m), name, name, settings, tuning_seeds)
      for m in METHODS
      for name, settings in methods.grid(m).items()
    ]
  if subset == "tuning":
    return rows
  _check_chosen(chosen)
  if subset in ("main", "all"):
    rows += _main(chosen, tuple(seeds))
  if subset in ("controls", "all"):
    rows += _controls(chosen, tuple(control_seeds))
  return rows


def tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
  """Returns the rows of each table, in order."""
  found: dict[str, list[Row]] = {}
  for row in rows:
    found.setdefault(row.table, []).append(row)
  return found


def main_row(rows: Sequence[Row], table: str | None = None) -> Row:
  """Returns the row that others are held against, labelled as the method.

  Args:
    rows: of a subset.
    table: whose rows are held against its own, where it has one.
  """
  title = METHODS[methods.MAIN].title
  for row in rows:
    if row.table == table and row.label == title:
      return row
  cells_of_main = (methods.MAIN, f"{_SMOKE_CELL}{methods.MAIN}")
  row = next(r for r in rows if r.cell in cells_of_main and not is_tuning(r))
  return row._replace(label=title)


def is_tuning(row: Row) -> bool:
  """Whether a row is a setting that is tried, on seeds without results."""
  return row.table.startswith(_tuning(""))


def _tuning(method: str) -> str:
  return f"Tuning {method}"


def _check_chosen(chosen: Chosen | None) -> None:
  for rule in RULES:
    missing = sorted(set(METHODS) - set((chosen or {}).get(rule, {})))
    if missing:
      raise ValueError(
        f"study.chosen: expected a setting of every method by {rule}, missing "
        f"{', '.join(missing)}; run --config.study.subset=tuning first"
      )


def _main(chosen: Chosen, seeds: tuple[int, ...]) -> list[Row]:
  """The main table, that with the exact judge, and the one tuned by area."""
  by_reward, by_area = chosen["reward"], chosen["area"]
  tables = {
    MAIN_TABLE: methods.FROM_PAIRS,
    JUDGE_TABLE: methods.JUDGED,
  }
  rows = [
    Row(table, METHODS[name].title, name, by_reward[name], seeds)
    for table, names in tables.items()
    for name in names
  ]
  again = [
    (AREA_TABLE, METHODS[name].title, f"{name}-area", by_area[name])
    for name in methods.FROM_PAIRS
  ]
  return rows + _shared(again, by_reward, seeds)


def _controls(both: Chosen, seeds: tuple[int, ...]) -> list[Row]:
  chosen = both["reward"]
  hypo, dpo = dict(chosen[_HYPO]), dict(chosen[_DPO])
  weight = hypo["preference.kl_coef"]
  # DPO's loss with HyPO's learning rate and beta: what the KL is added to.
  bare = hypo | {"preference.method": "dpo", "preference.kl_coef": 0.0}
  found: list[tuple[str, str, str, Settings]] = []

  def add(table: str, label: str, cell: str, settings: Settings) -> None:
    found.append((table, label, cell, settings))

  table = "DPO + KL at offline states, nothing sampled"
  for factor in (1, 3, 10, 30):
    value = {"preference.offline_kl_coef": weight * factor}
    cell = f"offline_kl-{factor}"
    add(table, f"weight x {factor}", cell, bare | value)
  table = "Rollouts drawn once, from the reference"
  once = {"rollout.source": "reference", "rollout.max_importance_weight": 10.0}
  for factor in (1, 3, 10):
    value = {"preference.kl_coef": weight * factor}
    cell = f"reference_rollouts-{factor}"
    add(table, f"weight x {factor}", cell, hypo | once | value)
  table = "Rollouts refreshed every n steps"
  for every in (1, 4, 16, 64):
    value = {} if every == 1 else {"rollout.every_steps": every}
    add(table, f"every {every}", f"refresh-{every}", hypo | value)
  table = "DPO held back otherwise"
  add(table, "DPO", _DPO, dpo)
  for decay in (0.01, 0.1, 1.0):
    value = {"preference.weight_decay": decay}
    add(table, f"weight decay {decay:g}", f"decay-{decay:g}", dpo | value)
  add(table, "cosine", "cosine", dpo | {"preference.schedule": "cosine"})
  for row in (*_pairs(dpo, hypo), *_sweeps(hypo, bare, weight)):
    add(*row)
  beta = {"preference.kl_coef": OPTIMUM_BETA}
  for rule, suffix in (("reward", ""), ("area", "-area")):
    for method in ("rloo", "ppo", "grpo"):
      name = f"{method}_judge"
      value = dict(both[rule][name]) | beta
      label = f"{method.upper()}, tuned by {rule}"
      add(OPTIMUM_TABLE, label, f"{name}-optimum{suffix}", value)
  # Divided by its deviation, a reward has another beta beside it.
  value = dict(both["area"]["grpo_judge"]) | beta
  value |= {"online.scale_by_std": False, "online.scale_by_length": False}
  label = "GRPO, tuned by area, unscaled"
  add(OPTIMUM_TABLE, label, "grpo_judge-optimum-unscaled", value)
  return _shared(found, chosen, seeds)


def _pairs(dpo: dict, hypo: dict) -> list[tuple[str, str, str, Settings]]:
  """More pairs, more epochs, and a share of pairs that cover everything."""
  rows = []
  for count in _PAIRS:
    more = {"data.num_pairs": count} if count != _PAIRS[0] else {}
    steps = _EPOCHS * count // 64
    long = more | {
      "preference.num_steps": steps,
      "evaluate.every_steps": steps // 20,
    }
    cell = f"epochs-{count}"
    rows.append((EPOCHS_TABLE, f"{count} pairs", cell, dpo | long))
  for count in _PAIRS:
    more = {"data.num_pairs": count} if count != _PAIRS[0] else {}
    table = f"{count} pairs, some drawn evenly"
    for share in (0.0, 0.1, 0.3):
      value = more | ({"data.uniform_share": share} if share else {})
      label = f"DPO, {share:.0%} drawn evenly" if share else "DPO"
      cell = f"pairs-{count}-even-{share:g}"
      rows.append((table, label, cell, dpo | value))
    rows.append((table, "HyPO", f"hypo-pairs-{count}", hypo | more))
  return rows


def _sweeps(
  hypo: dict, bare: dict, weight: float
) -> list[tuple[str, str, str, Settings]]:
  rows = [("The KL's weight", "0", "weight-0", bare)]
  for factor in (0.01, 0.1, 0.3, 1, 3, 10):
    value = {"preference.kl_coef": weight * factor}
    cell = f"weight-{factor:g}"
    rows.append(("The KL's weight", f"x {factor:g}", cell, hypo | value))
  for count in (1, 2, 4, 8):
    value = {"rollout.samples_per_prompt": count}
    cell = f"samples-{count}"
    rows.append(("Rollouts a prompt", str(count), cell, hypo | value))
  return rows


def _shared(
  found: list[tuple[str, str, str, Settings]],
  chosen: Mapping[str, Settings],
  seeds: tuple[int, ...],
) -> list[Row]:
  """Returns rows in which equal settings have one cell, the first of them."""
  cells = {_frozen(settings): name for name, settings in chosen.items()}
  rows = []
  for table, label, cell, settings in found:
    cell = cells.setdefault(_frozen(settings), cell)
    rows.append(Row(table, label, cell, settings, seeds))
  return rows


def _frozen(settings: Settings) -> frozenset:
  return frozenset(settings.items())


def cells(rows: Sequence[Row]) -> dict[tuple[int, str], Settings]:
  """Returns every cell once: its settings by seed and name.

  Raises:
    ValueError: if one name stands for different settings.
  """
  found: dict[tuple[int, str], Settings] = {}
  for row in rows:
    for seed in row.seeds:
      there = found.setdefault((seed, row.cell), row.settings)
      if dict(there) != dict(row.settings):
        raise ValueError(
          f"cell {row.cell}: expected one set of settings, got {dict(there)} "
          f"and {dict(row.settings)}"
        )
  return found


def start_of(settings: Settings) -> str:
  """Returns the name of the pairs that a cell is trained on."""
  data = {k: v for k, v in settings.items() if k.startswith("data.")}
  parts = [f"{k.split('.')[-1]}-{v:g}" for k, v in sorted(data.items())]
  return "-".join(["start", *parts])
