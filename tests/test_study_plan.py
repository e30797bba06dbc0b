# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Which cells a study has, how settings are chosen, what the page says."""

import json
import pathlib
import runpy

import numpy as np
import pytest

from hypo_jax.checkpoint import json_values
from hypo_jax.job import cells as job_cells
from hypo_jax.job import study as job_study
from hypo_jax.job import workers
from hypo_jax.job.methods import check_job, resolved
from hypo_jax.study import (
  curves,
  methods,
  page,
  plan,
  scores,
  tables,
  tuning,
)

ROOT = pathlib.Path(__file__).parents[1]
CHOSEN = {name: dict(methods.base(name)) for name in methods.METHODS}
# By area another setting, but for two methods.
BY_AREA = {
  name: CHOSEN[name]
  if name in ("ipo", "rloo")
  else dict(list(methods.grid(name).values())[0])
  for name in methods.METHODS
}
HOW = {
  "seeds": range(11, 21),
  "control_seeds": range(11, 16),
  "tuning_seeds": (2000, 2001),
  "chosen": {"reward": CHOSEN, "area": BY_AREA},
}


def rows_of(subset, **more):
  return plan.make_rows(subset, **(HOW | more))


@pytest.fixture(scope="module")
def config():
  return runpy.run_path(str(ROOT / "configs" / "study.py"))["get_config"]()


def test_every_method_has_the_same_budget():
  for name, method in methods.METHODS.items():
    grid = methods.grid(name)
    assert len(grid) == 9
    rates = {round(s[methods.RATE] / method.rate, 9) for s in grid.values()}
    assert rates == {round(1 / 3, 9), 1.0, 3.0}
    assert {s[method.coefficient] for s in grid.values()} == set(method.values)
    own = {methods.RATE, method.coefficient}
    for settings in grid.values():
      assert {k: v for k, v in settings.items() if k not in own} == {
        k: v for k, v in method.rest.items() if k not in own
      }
  names = [n for m in methods.METHODS for n in methods.grid(m)]
  assert len(set(names)) == len(names)


def test_the_tables_hold_the_methods_and_never_mix():
  by_table = plan.tables(rows_of("main"))
  assert [len(rows) for rows in by_table.values()] == [11, 4, 11]
  for row in by_table[plan.MAIN_TABLE] + by_table[plan.AREA_TABLE]:
    assert row.settings.get("reward", "model") == "model"
  for row in by_table[plan.JUDGE_TABLE]:
    assert row.settings["reward"] == "judge"
  assert all(row.seeds == tuple(range(11, 21)) for row in rows_of("main"))


def test_tuning_has_no_seed_of_the_results():
  tuned = {s for row in rows_of("tuning") for s in row.seeds}
  shown = {s for row in rows_of("main") for s in row.seeds}
  assert tuned == {2000, 2001} and not tuned & shown
  with pytest.raises(
    ValueError, match=r"study.seeds: expected none .* \[11, 12\]"
  ):
    rows_of("main", tuning_seeds=(11, 12))
  with pytest.raises(ValueError, match=r"control_seeds: expected .* \[9\]"):
    rows_of("controls", control_seeds=(9, 11))
  with pytest.raises(ValueError, match="subset: expected one of .* 'mian'"):
    rows_of("mian")


def test_the_table_tuned_by_area_is_held_against_its_own_hypo():
  rows = rows_of("main")
  table = plan.tables(rows)[plan.AREA_TABLE]
  assert [row.cell for row in table[:4]] == [
    "hypo-area",
    "hypo_sequence-area",
    "dpo-area",
    "ipo",
  ]
  for row in table:
    assert row.settings == BY_AREA[row.cell.removesuffix("-area")]
  assert plan.main_row(rows, plan.AREA_TABLE).cell == "hypo-area"
  assert plan.main_row(rows, plan.MAIN_TABLE).cell == "hypo"
  assert plan.main_row(rows, plan.JUDGE_TABLE).cell == "hypo"


def test_main_needs_what_tuning_chose():
  left = {k: v for k, v in CHOSEN.items() if k != "rloo"}
  with pytest.raises(ValueError, match="by reward, missing rloo; run"):
    rows_of("main", chosen={"reward": left, "area": CHOSEN})
  with pytest.raises(ValueError, match="by area, missing rloo; run"):
    rows_of("main", chosen={"reward": CHOSEN, "area": left})
  with pytest.raises(ValueError, match="missing chi_po, dpo"):
    rows_of("controls", chosen=None)


def test_equal_settings_are_one_cell():
  controls = plan.tables(rows_of("controls"))
  refresh = controls["Rollouts refreshed every n steps"]
  assert [row.cell for row in refresh] == [
    "hypo",
    "refresh-4",
    "refresh-16",
    "refresh-64",
  ]
  assert "hypo" in [row.cell for row in controls["The KL's weight"]]
  assert "hypo" in [row.cell for row in controls["Rollouts a prompt"]]
  cells = plan.cells(rows_of("controls"))
  frozen = {(s, frozenset(v.items())) for (s, _), v in cells.items()}
  assert len(frozen) == len(cells)
  broken = [*rows_of("main"), rows_of("main")[1]._replace(cell="hypo")]
  with pytest.raises(ValueError, match="cell hypo: expected one set"):
    plan.cells(broken)


def test_a_control_changes_what_its_label_says_and_no_more():
  hypo, dpo = CHOSEN["hypo"], CHOSEN["dpo"]
  for row in rows_of("controls"):
    if row.table == plan.OPTIMUM_TABLE:
      continue
    changed = min(
      len({k for k, v in row.settings.items() if start.get(k) != v})
      for start in (hypo, dpo)
    )
    # The loss, the KL's weight and another one instead are three keys.
    assert changed <= 3, row


@pytest.mark.parametrize("subset", ["smoke", "tuning", "main", "controls"])
def test_every_cell_is_a_job_that_can_be_set_up(config, subset):
  for (seed, _), settings in plan.cells(rows_of(subset)).items():
    own = job_cells.cell_config(config, seed, settings)
    assert own.seed == seed and "study" not in own
    for key, value in settings.items():
      section = own
      for part in key.split("."):
        section = section[part]
      assert section == value
    preference = own.preference.to_dict() | own.online.to_dict()
    found = resolved(preference)
    check_job(own, {found["method"]: found})


def test_cells_of_one_start_run_together_in_chunks():
  wanted = plan.cells(rows_of("controls"))
  chunks = workers.chunks(wanted)
  # Workers begin starts side by side.
  first = workers.chunks(plan.cells(rows_of("main")))[:3]
  assert [chunk.seed for chunk in first] == [11, 12, 11]
  assert sum(len(chunk.names) for chunk in chunks) == len(wanted)
  for chunk in chunks:
    assert 1 <= len(chunk.names) <= 8
    starts = {plan.start_of(wanted[chunk.seed, n]) for n in chunk.names}
    assert starts == {chunk.start}
  assert {"start", "start-num_pairs-2048"} < {c.start for c in chunks}
  assert plan.start_of({"data.num_pairs": 512, "data.uniform_share": 0.1}) == (
    "start-num_pairs-512-uniform_share-0.1"
  )


def test_workers_share_the_cores():
  everything = workers.core_shares(1)
  assert len(everything) == 1
  alone = workers.core_shares(0)
  assert sorted(alone) == [(core,) for core in everything[0]]
  with pytest.raises(ValueError, match="study.workers: expected 0 to"):
    workers.core_shares(len(everything[0]) + 1)


def entry(step, kl, win, reward, *, wins=None, pair_loss=0.7):
  return {
    "step": step,
    "kl_rao_blackwell": kl,
    "win_rate": win,
    "wins": [win, win] if wins is None else wins,
    "reward_mean": reward,
    "invalid_rate": 0.05,
    "pair_loss": pair_loss,
    "length_mean": 20.0,
  }


def result(*entries):
  costs = dict.fromkeys(
    ("updates", "tokens_trained", "tokens_sampled", "labels", "seconds"), 1.0
  )
  last = entries[-1]
  return {
    "history": list(entries),
    "test": {name: last for name in ("last", "best", "best_pair_loss")},
    "costs": costs,
    "versions": {"jax": "0"},
  }


def test_a_setting_is_worth_its_best_reward_within_four_nats():
  far = [entry(0, 0, 0.5, 0.0), entry(5, 3.0, 0.6, 0.1), entry(9, 5, 0.9, 0.9)]
  near = [entry(0, 0, 0.5, 0.0), entry(5, 3.9, 0.6, 0.2), entry(9, 1, 0.4, 0.1)]
  assert tuning.best_within(far)["step"] == 5
  settings = {"a": [far, far], "b": [near, far]}
  assert tuning.choose(settings, "reward") == "b"
  # From 0.5 to 0.6 at 3 nats, not at 3.9.
  assert tuning.choose(settings, "area") == "a"
  for rule in plan.RULES:
    assert tuning.choose({"a": [far, near], "b": [near, far]}, rule) == "a"
  with pytest.raises(ValueError, match="on each of 2 seeds, missing for b"):
    tuning.choose({"a": [far, near], "b": [near]}, "reward")
  with pytest.raises(ValueError, match="missing for all"):
    tuning.choose({}, "area")


def test_scores_begin_at_the_reference():
  # What is measured at step 0 is noise around 0 and 0.5.
  found = scores.score(
    result(
      entry(0, 1e-7, 0.47, 0.0, wins=[0.4, 0.54]),
      entry(5, 2.0, 0.7, 0.2, wins=[0.6, 0.8]),
    )
  )
  assert found["kl_1"] == pytest.approx(0.6)
  assert found["kl_4"] == found["kl_2"] == pytest.approx(0.7)
  assert found["area"] == pytest.approx((2 * 0.6 + 2 * 0.7) / 4)
  assert found["selected_kl_1"] == 0.5
  assert found["selected_kl_2"] == pytest.approx(0.7)
  assert found["evaluations_1"] == 0 and found["evaluations_4"] == 1
  assert found["largest_kl"] == 2.0 and found["last_win_rate"] == 0.7


def test_an_evaluation_of_the_reference_itself_is_not_one_of_the_method():
  """The first update has rate 0: step 1 is the reference, measured anew."""
  found = scores.score(
    result(
      entry(0, 1e-7, 0.47, 0.0),
      entry(1, 0.0, 0.8, 0.0),
      entry(5, 2.0, 0.7, 0.2),
    )
  )
  assert found["evaluations_1"] == 0 and found["evaluations_4"] == 1
  assert found["selected_kl_1"] == 0.5
  assert found["selected_kl_2"] == pytest.approx(0.7)


def test_p_is_given_and_corrected_where_it_was_announced():
  rows = [*rows_of("main"), *rows_of("controls")]
  results = made_results(rows, {"dpo": -0.1})
  del results[13, "ipo"]

  def found(table, label):
    figures = page._figures(page._compared(rows, results))
    return figures[table][label]["differences"]["selected_area"]

  main = found(plan.MAIN_TABLE, "DPO")
  assert main["p"] <= main["holm"]
  missing = found(plan.MAIN_TABLE, "IPO")
  assert missing["p"] is None and missing["holm"] is None
  control = found("DPO held back otherwise", "cosine")
  assert control["p"] is not None and control["holm"] is None
  # Without HyPO's own seed no row has a p.
  del results[14, "hypo"]
  assert found(plan.MAIN_TABLE, "DPO")["p"] is None


def test_what_is_gained_has_no_spread_of_where_seeds_began():
  starts = np.array([[0.0], [5.0], [9.0]])
  values = starts + np.array([0.0, 1.0, 3.0])
  gained = curves.over_seeds(np.arange(3), values, gained=True)
  for line in gained[1:]:
    np.testing.assert_allclose(line, [0, 1, 3], atol=1e-12)
  plain = curves.over_seeds(np.arange(3), values)
  assert (plain.high - plain.low > 5).all()


def test_a_failed_tuning_ends_all_of_it(monkeypatch, config, tmp_path):
  config = config.copy_and_resolve_references()
  config.study.subset = "all"
  asked = []

  def run(config, workdir, subset):
    del config, workdir
    asked.append(subset)
    return failures

  monkeypatch.setattr(job_study, "_run_subset", run)
  failures = ["runs/study/2000/dpo: ValueError: no"]
  assert job_study.run_study(config, tmp_path) == failures
  assert asked == ["tuning"]
  failures = []
  assert job_study.run_study(config, tmp_path) == []
  assert asked == ["tuning", "tuning", "all"]


def test_a_worker_told_to_stop_costs_no_cell(config, tmp_path):
  chunk = workers.Chunk(11, "start", ("dpo", "ipo", "hypo"))
  pool = workers._Pool(config, tmp_path, {}, set())
  (tmp_path / "11" / "dpo").mkdir(parents=True)
  (tmp_path / "11" / "dpo" / job_cells.DONE).touch()
  assert pool._blame(chunk, workers._STOPPED) == ("ipo", "hypo")
  assert not (tmp_path / "11" / "ipo").exists()
  assert pool._blame(chunk, 1) == ("hypo",)
  assert "exit code 1" in (tmp_path / "11/ipo" / job_cells.FAILED).read_text()


def test_a_diverged_run_is_scored_as_far_as_it_went():
  whole = [entry(0, 0, 0.5, 0.0), entry(5, 2.0, 0.7, 0.2)]
  nothing = entry(9, None, 0.01, -1.0)
  found = scores.score(result(*whole, nothing))
  before = scores.score(result(*whole))
  assert found["last_win_rate"] == 0.01 and "last_kl" not in found
  for name in scores.OUTCOMES:
    assert found[name] == before[name]
  assert tuning.best_within([*whole, nothing])["step"] == 5
  broken = {"history": [{"kl": float("nan"), "wins": [1.0, float("inf")]}]}
  kept = json_values(broken)
  assert kept == {"history": [{"kl": None, "wins": [1.0, None]}]}


def test_pages_are_written_where_runs_diverged(tmp_path):
  whole = [entry(0, 0, 0.5, 0.0), entry(5, 2.0, 0.7, 0.2)]
  diverged = result(*whole, entry(300, None, 0.01, -1.0))
  optima = {seed: optimum_of(seed) for seed in range(11, 21)}
  for subset in ("main", "controls"):
    rows = rows_of(subset)
    results = made_results(rows, {})
    for name in ("hypo", "dpo", "ppo_judge"):
      if (12, name) in results:
        results[12, name] = diverged
    text = page.write(tmp_path, subset, rows, results, optima, {}).read_text()
    assert text.count("| DPO |") > 0
  rows = [ln for ln in text.splitlines() if ln.startswith("| PPO, tuned")]
  by_reward = "| PPO, tuned by reward | 4 of 5 |"
  assert rows[-2].startswith(by_reward), rows


def made_results(rows, ahead):
  """Results in which a method's win rate at KL 4 is ahead by so much."""
  rng = np.random.default_rng(0)
  noise = {seed: rng.normal(0, 0.05) for seed in range(11, 21)}
  return {
    (seed, row.cell): result(
      entry(0, 0.0, 0.5, 0.0),
      entry(
        300,
        4.0,
        0.7 + noise[seed] + ahead.get(row.cell, 0) + rng.normal(0, 1e-3),
        0.3,
      ),
    )
    for row in rows
    for seed in row.seeds
  }


def test_differences_are_paired_by_seed_and_corrected_over_the_table():
  rows = plan.tables(rows_of("main"))[plan.MAIN_TABLE]
  results = made_results(rows, {"dpo": -0.1, "ipo": 0.05})
  lines = scores.compare(rows, results, "hypo")
  by_cell = {line.row.cell: line for line in lines}
  assert by_cell["hypo"].differences is None
  dpo = by_cell["dpo"]
  # Seeds vary by 0.05, differences within a seed by 0.0015.
  assert dpo.differences["kl_4"].mean == pytest.approx(-0.1, abs=0.003)
  width = dpo.differences["kl_4"].high - dpo.differences["kl_4"].low
  assert width < 0.01 < dpo.values["kl_4"].high - dpo.values["kl_4"].low
  assert dpo.adjusted["area"] < 1e-6 and by_cell["ipo"].adjusted["area"] < 1e-6
  raw = by_cell["rloo"].differences["area"].p
  assert by_cell["rloo"].adjusted["area"] >= raw


def test_a_missing_cell_is_named_gets_no_verdict_and_still_counts():
  rows = plan.tables(rows_of("main"))[plan.MAIN_TABLE]
  results = made_results(rows, {"dpo": -0.1, "ipo": 0.05})
  del results[13, "dpo"]
  for seed in range(11, 21):
    del results[seed, "ppo"]
  lines = {
    line.row.cell: line for line in scores.compare(rows, results, "hypo")
  }
  assert lines["dpo"].missing == (13,) and lines["dpo"].adjusted["area"] is None
  assert lines["dpo"].differences["area"].count == 9
  assert len(lines["ppo"].missing) == 10
  ipo = lines["ipo"]
  assert ipo.adjusted["area"] == pytest.approx(10 * ipo.differences["area"].p)
  text = tables.differences(list(lines.values()))
  assert "**9 of 10**" in text and "p not given" in text
  assert "| PPO | **0 of 10** |" in text


def test_nothing_is_held_against_itself():
  rows = plan.tables(rows_of("main"))[plan.MAIN_TABLE]
  text = tables.differences(scores.compare(rows, {}, "hypo"))
  assert "HyPO, Rao-Blackwell" not in text and "HyPO, sequence" in text


def test_the_page_says_what_is_missing_and_holds_every_score(tmp_path):
  rows = rows_of("main")
  results = made_results(rows, {"dpo": -0.1})
  del results[13, "dpo"], results[14, "ipo"]
  failed = {(13, "dpo"): "runs/study/13/dpo: ValueError: no"}
  path = page.write(tmp_path, "main", rows, results, {}, failed)
  text = path.read_text()
  assert path.name == "study_main.md"
  # What explains a kind of table stands before the first of it alone.
  for explained in (page._FRONTIER, page._DIFFERENCES, page._COSTS):
    assert text.count(explained) == 1
  assert "**2 of 240 cells are missing:**" in text
  assert "- runs/study/13/dpo: ValueError: no" in text
  assert "- ipo, seed 14: not run" in text
  figures = json.loads((tmp_path / "study_main.json").read_text())
  dpo = figures[plan.MAIN_TABLE]["DPO"]
  ppo = figures[plan.MAIN_TABLE]["PPO"]["differences"]["selected_area"]
  assert ppo["count"] == 10 and ppo["p"] <= ppo["holm"]
  assert dpo["missing"] == [13] and len(dpo["scores"]) == 9
  curves = (tmp_path / "study_main_curves.csv").read_text().splitlines()
  assert curves[0].startswith("cell,seed,step,kl_rao_blackwell,win_rate,")
  assert len(curves) == 1 + 2 * 238  # Two evaluations of each cell there is.
  assert "hypo,11,0,0,0.5,0,0.05,20," in curves
  for name in ("frontier_win_rate", "frontier_reward"):
    assert (tmp_path / "study_main" / f"{name}.png").stat().st_size > 10_000


def test_what_is_written_by_hand_stays_and_results_stand_before_tuning(
  tmp_path,
):
  rows = rows_of("all")
  path = page.write(tmp_path, "all", rows, {}, {}, {})
  assert path.name == "study.md"
  marks = ("<!-- by hand: begin -->", "<!-- by hand: end -->")
  empty = path.read_text()
  path.write_text(empty.replace(marks[0], f"{marks[0]}\n\n## Read\n\nMine."))
  for _ in range(2):
    text = page.write(tmp_path, "all", rows, {}, {}, {}).read_text()
    before, _, rest = text.partition(marks[0])
    kept, _, after = rest.partition(marks[1])
    assert kept.strip() == "## Read\n\nMine."
    assert before + marks[0] + "\n\n" + marks[1] + after == empty
  titles = [x[3:] for x in empty.splitlines() if x.startswith("## ")]
  assert titles[0] == plan.MAIN_TABLE
  tuning = [title.startswith("Tuning ") for title in titles]
  assert tuning == sorted(tuning) and any(tuning)


def optimum_of(seed):
  points = [
    {"kl": kl, "win_rate": 0.5 + 0.1 * kl, "reward": 0.2 * kl}
    for kl in (0.0, 1.0, 4.5)
  ]
  return {
    "beta": 0.1,
    "value": 0.5,
    "value_stderr": 0.01,
    "excess": 0.002,
    "reference": 0.0,
    "effective_samples": 900.0,
    "frontier": points,
  }


def test_the_controls_page_gives_the_share_of_the_optimum(tmp_path):
  rows = rows_of("controls")
  results = made_results(rows, {})
  optima = {seed: optimum_of(seed) for seed in range(11, 16)}
  text = page.write(tmp_path, "controls", rows, results, optima, {}).read_text()
  # J = 0.3 - 0.1 x 4 = -0.1 of 0.5.
  share = "-0.100 [-0.100, -0.100] | -0.200 [-0.200, -0.200]".replace("-", "−")
  # The error of J*, 0.01 of 0.5, of a share of 0.2.
  assert f"{share} | 0.004 | −0.200 | **no** |" in text
  for name in ("controls_win_rate", "controls_reward", "epochs"):
    assert (tmp_path / "study_controls" / f"{name}.png").exists()
  # No verdict on four seeds of five, and none where one diverged.
  rows = [row for row in rows if row.table == plan.OPTIMUM_TABLE]
  diverged = entry(300, None, 0.1, -1.0)
  key = 11, rows[0].cell
  results[key] = results[key] | {"test": {"last": diverged}}
  line = tables.recovered(rows, results, optima).splitlines()[2]
  assert line.startswith(f"| {rows[0].label} | 4 of 5 |")
  assert line.endswith("|  |")


def test_epochs_are_read_at_the_last_evaluation_up_to_them():
  rows = [row for row in rows_of("controls") if row.table == plan.EPOCHS_TABLE]
  history = [
    entry(0, 0, 0.5, 0.0),
    entry(7, 0.5, 0.6, 0.1),
    entry(40, 1.5, 0.7, 0.2),
    entry(41, 9.0, 0.1, 0.2),
    entry(6400, None, 0.2, -1.0),
  ]
  results = {
    (seed, row.cell): result(*history) for row in rows for seed in row.seeds
  }
  lines = tables.epochs(rows, results).splitlines()
  assert lines[0].startswith("| row | epoch 1 | epoch 5 |")
  early, late = "0.600 / 0.5 / 0.05", "0.100 / 9.0 / 0.05"
  # Of 512 pairs an epoch is 8 steps of 64, of 8,192 it is 128.
  assert lines[2].startswith(f"| 512 pairs | {early} | 0.700 / 1.5 / 0.05 |")
  assert lines[4] == "| 8192 pairs | " + f"{late} | " * 4 + "0.200 /  / 0.05 |"


def test_the_tuning_page_marks_the_choice(tmp_path):
  rows = rows_of("tuning")
  results = {
    (seed, row.cell): result(entry(0, 0, 0.5, 0.0), entry(5, 1, 0.6, 0.1))
    for row in rows
    for seed in row.seeds
  }
  best = list(methods.grid("ppo"))[7]
  results[2000, best] = result(entry(0, 0, 0.5, 0.0), entry(5, 1, 0.6, 0.4))
  text = page.write(tmp_path, "tuning", rows, results, {}, {}).read_text()
  everywhere = "| chosen, largest area, at the edge of learning_rate and "
  assert text.count(everywhere) == len(methods.METHODS) - 1
  line = next(x for x in text.splitlines() if "0.400" in x)
  assert line.startswith("| 9.0e-04 | kl_coef 0.3 |")
  assert line.endswith("| 0.575 | chosen, at the edge of learning_rate |")
