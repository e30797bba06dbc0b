# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What the page of real models' jobs says of jobs whose numbers are given."""

import json

import fake_report
import numpy as np
import pytest

from benchmarks import real_model

PROMPTS = 40


def evaluation(entry, *, judged):
  """An entry as `evaluations/` holds it, with numbers by prompt."""
  rng = np.random.default_rng(int(entry["step"]))
  names = {
    "kl": "kl",
    "kl_rao_blackwell": "kl_rao_blackwell",
    "length": "length_mean",
    "ended": "eos_rate",
  }
  by_prompt = {n: [entry[field]] * PROMPTS for n, field in names.items()}
  by_pair = {
    n: [entry[field]] * PROMPTS
    for n, field in (
      ("right", "pair_accuracy"),
      ("chosen_log_ratio", "chosen_log_ratio"),
      ("rejected_log_ratio", "rejected_log_ratio"),
    )
  }
  wins = None
  if judged:
    wins = rng.uniform(size=PROMPTS).tolist()
    matched = np.tile((0, 4), PROMPTS // 2)
    by_prompt |= {
      "reward": [entry["reward_mean"]] * PROMPTS,
      "matched": matched.tolist(),
      "matched_won": (0.75 * matched).tolist(),
    }
  return entry | {"wins": wins, "by_prompt": by_prompt, "by_pair": by_pair}


@pytest.fixture(params=[True, False], ids=["judged", "unjudged"])
def judged(request):
  return request.param


@pytest.fixture
def folders(tmp_path, judged):
  """Jobs of two seeds; HyPO's best checkpoint is its final one."""
  make = fake_report.make_report if judged else fake_report.without_judge
  found = []
  for seed in (0, 1):
    report = make() | {"seed": seed}
    folder = tmp_path / str(seed)
    (folder / "evaluations").mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    policies = report["policies"]
    measured = {
      "reference": policies["reference"],
      "dpo": policies["dpo"],
      "dpo_best": policies["dpo"]["best"],
      "hypo": policies["hypo"],
    }
    for name, entry in measured.items():
      path = folder / "evaluations" / f"{name}.json"
      path.write_text(json.dumps(evaluation(entry, judged=judged)))
    found.append(folder)
  return found


def rows_of(text):
  lines = [line for line in text.splitlines() if line.startswith("| ")]
  cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
  return [dict(zip(cells[0], row, strict=False)) for row in cells[2:]]


def test_every_policy_of_every_seed_is_a_row(folders, judged):
  text = real_model.figures([real_model.read(f) for f in folders])
  rows = [row for row in rows_of(text) if row["policy"].split()[0].islower()]
  names = [(row["policy"], row["seed"]) for row in rows[:8]]
  policies = ("reference", "dpo", "dpo best", "hypo")
  assert names == [(name, seed) for name in policies for seed in "01"]
  assert ("win rate" in rows[0]) == judged
  assert "learned reward" not in rows[0]  # No job has it.
  hypo = rows[6]
  kl = fake_report.hypo_at(400)["kl_rao_blackwell"]
  assert hypo["KL, nats"] == f"{kl:.2f} ({kl:.2f} to {kl:.2f})"
  assert hypo["held-out pairs right"] == "0.700 (0.700 to 0.700)"
  if judged:
    assert hypo["win rate, equal length"] == "0.750 (0.750 to 0.750)"
    assert hypo["comparisons of equal length"] == str(4 * PROMPTS // 2)


def test_early_stopping_has_rows_and_is_explained_where_it_has_a_file(
  folders, judged
):
  early = evaluation(
    fake_report.make_report()["policies"]["dpo"], judged=judged
  )
  path = folders[1] / "evaluations" / "dpo_best_pair_loss.json"
  path.write_text(json.dumps(early))
  runs = [real_model.read(folder) for folder in folders]
  text = real_model.figures(runs)
  rows = [row for row in rows_of(text) if row["policy"] == "dpo best pair loss"]
  assert [row["seed"] for row in rows] == ["1"]
  assert "lowest loss on validation pairs" in text
  assert text.startswith("Seeds 0, 1; ")
  alone = real_model.figures(runs[:1])
  assert "best pair loss" not in alone and alone.startswith("Seed 0; ")


def test_an_interval_covers_the_mean_of_prompts_as_often_as_it_says():
  rng = np.random.default_rng(1)
  covered = 0
  for _ in range(200):
    mean, low, high = real_model.interval(rng.normal(size=60))
    assert low <= mean <= high
    covered += low <= 0 <= high
  assert 180 <= covered <= 199


def test_an_interval_of_a_ratio_is_over_prompts_not_comparisons():
  values, weights = [3.0, 0.0, 1.0], [4.0, 0.0, 4.0]
  mean, low, high = real_model.interval(values, weights)
  assert mean == 0.5
  assert (low, high) == (0.25, 0.75)


def test_text_around_the_figures_is_kept():
  page = f"before\n{real_model.BEGIN}\nold\n{real_model.END}\nafter\n"
  text = real_model.replaced(page, "new")
  assert "old" not in text
  assert text.startswith("before\n") and text.endswith("\nafter\n")
  assert real_model.replaced(text, "new") == text
  with pytest.raises(ValueError, match="page: expected"):
    real_model.replaced("nothing", "new")


def test_a_job_without_a_report_is_an_error(folders):
  (folders[0] / "report.json").unlink()
  with pytest.raises(FileNotFoundError, match="report.json"):
    real_model.read(folders[0])


def test_seeds_are_kept_and_the_page_is_of_all_that_are(
  folders, judged, tmp_path
):
  results = tmp_path / "results"
  results.mkdir()
  page = results / "some.md"
  page.write_text(f"before\n{real_model.BEGIN}\n{real_model.END}\n")
  real_model.write("some", folders[1:], results)
  assert "Seed 1;" in page.read_text()
  real_model.write("some", folders[:1], results)
  both = page.read_text()
  assert "Seeds 0, 1;" in both
  assert both.startswith("before\n")
  figures = real_model.figures([real_model.read(f) for f in folders])
  assert figures in both  # Rounding what is kept changes no figure here.
  (results / "some.png").unlink()
  real_model.write("some", [], results)
  assert page.read_text() == both
  assert (results / "some.png").exists()


def test_six_digits_are_kept_and_no_texts(folders, tmp_path):
  path = folders[0] / "evaluations" / "hypo.json"
  entry = json.loads(path.read_text())
  entry["by_prompt"]["kl"][0] = 2 / 3
  entry["shown"] = {"completions": [["a text"]]}
  path.write_text(json.dumps(entry))
  real_model.write("some", folders[:1], tmp_path)
  text = (tmp_path / "some" / "seed_0.json").read_text()
  kept = json.loads(text)["measured"]["hypo"]
  assert kept["by_prompt"]["kl"][0] == 0.666667
  assert kept["step"] == entry["step"]
  assert "a text" not in text


def test_an_unfinished_job_leaves_what_is_kept_alone(folders, tmp_path):
  (folders[1] / "report.json").unlink()
  with pytest.raises(FileNotFoundError, match="report.json"):
    real_model.write("some", folders, tmp_path)
  assert not (tmp_path / "some").exists()
  with pytest.raises(FileNotFoundError, match="some"):
    real_model.write("some", [], tmp_path)


def test_curves_are_drawn_and_the_optimum_where_it_is_known(
  folders, judged, tmp_path
):
  runs = [real_model.read(f) for f in folders]
  drawn = []
  for known in (False, True):
    path = tmp_path / f"plot_{known}.png"
    if known:
      frontier = [
        {"kl": kl, "win_rate": 0.5 + 0.1 * kl, "reward": 0.1 * kl}
        for kl in (0.0, 2.0, 4.0)
      ]
      for run in runs:
        run["measured"]["optimum"] = {"frontier": frontier}
    real_model.plot(runs, path)
    drawn.append(path.read_bytes())
    assert drawn[-1].startswith(b"\x89PNG")
  assert (drawn[0] != drawn[1]) == judged
