# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A small study through run.py: killed, resumed, with a cell that fails."""

import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
  "--config=configs/study.py",
  "--config.study.subset=smoke",
  "--config.model.architecture.num_hidden_layers=1",
  "--config.model.architecture.hidden_size=16",
  "--config.model.architecture.num_attention_heads=2",
  "--config.model.architecture.num_key_value_heads=1",
  "--config.model.architecture.intermediate_size=16",
  "--config.data.num_demonstrations=128",
  "--config.data.num_pairs=32",
  "--config.sft.num_steps=80",
  "--config.sft.learning_rate=0.02",
  "--config.preference.num_steps=12",
  "--config.preference.batch_size=16",
  "--config.preference.micro_batch_size=16",
  "--config.reward_model.num_steps=10",
  "--config.reward_model.batch_size=16",
  "--config.evaluate.num_prompts=16",
  "--config.evaluate.num_validation_prompts=16",
  "--config.evaluate.samples_per_prompt=2",
  "--config.evaluate.validation_samples_per_prompt=4",
  "--config.evaluate.optimum_samples=64",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
  cache = tmp_path_factory.mktemp("compiled")
  return os.environ | {
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }


def start(workdir, environment, *more):
  return subprocess.Popen(
    [sys.executable, "run.py", *SMALL, f"--workdir={workdir}", *more],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def finish(workdir, environment, *more):
  process = start(workdir, environment, *more)
  output, _ = process.communicate(timeout=1800)
  return process.returncode, output


def page_of(workdir):
  """The page without the seconds, the one column that isn't reproducible."""
  text = (workdir / "study_smoke.md").read_text()
  before, _, after = text.partition("| labels | seconds")
  return before + re.sub(r"\| [\d,]+ \([^)]*\) \|\n", "|\n", after)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, environment):
  workdir = tmp_path_factory.mktemp("study") / "undisturbed"
  code, output = finish(workdir, environment)
  assert code == 0, output
  return workdir, output


@pytest.mark.slow
def test_a_study_leaves_its_page_and_every_cell_a_folder(undisturbed):
  workdir, output = undisturbed
  assert "6 cells, 6 to run" in output and "study_smoke.md" in output
  text = page_of(workdir)
  assert "All 6 cells are done." in text
  for seed in ("2000", "2001"):
    folders = [f for f in (workdir / seed).iterdir() if f.name != "start"]
    assert len(folders) == 3
    for folder in folders:
      for name in ("config.json", "cell.json", "log.txt", "metrics.jsonl"):
        assert (folder / name).stat().st_size, folder / name
      result = json.loads((folder / "cell.json").read_text())
      steps = [entry["step"] for entry in result["history"]]
      assert steps == [0, 1, 2, 3, 4, 5, 7, 10, 12]
      assert set(result["test"]) == {"last", "best", "best_pair_loss"}
      assert result["costs"]["seconds"] > 0
    learned = json.loads((workdir / seed / LEARNER / "cell.json").read_text())
    assert "proxy_reward_mean" in learned["history"][0]
    assert learned["costs"]["labels"] == 32
    assert learned["costs"]["updates"] == 12 + 10
  figures = json.loads((workdir / "study_smoke.json").read_text())
  (table,) = figures.values()
  assert [len(row["scores"]) for row in table.values()] == [2, 2, 2]
  plots = {path.name for path in (workdir / "study_smoke").glob("*.png")}
  assert plots == {
    "frontier_win_rate.png",
    "frontier_reward.png",
    "proxy.png",
    "proxy_by_step.png",
  }


LEARNER = "smoke-rloo"


def wait_for(process, condition):
  deadline = time.monotonic() + 900
  while not condition():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)


def gone(pid):
  """Whether a process has ended, be it unburied."""
  try:
    return " Z " in pathlib.Path(f"/proc/{pid}/stat").read_text()
  except FileNotFoundError:
    return True


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_with_the_same_table(
  undisturbed, environment, tmp_path
):
  workdir = tmp_path / "killed"
  process = start(workdir, environment)
  wait_for(
    process, lambda: list(workdir.glob("*/smoke-hypo/checkpoints/hypo/5"))
  )
  process.send_signal(signal.SIGKILL)
  process.communicate()  # Waits for the workers: they hold its output.
  assert not list(workdir.glob("*/smoke-dpo/cell.json"))
  code, output = finish(workdir, environment)
  assert code == 0, output
  assert page_of(workdir) == page_of(undisturbed[0])
  # A second one at work in the folder, and a finished cell of other settings,
  # are refused.
  with (workdir / "lock").open() as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    code, output = finish(workdir, environment)
  assert code != 0 and "workdir: expected no other study" in output
  code, output = finish(workdir, environment, "--config.preference.beta=0.7")
  assert code != 0 and "others of preference.beta; remove" in output
  # All is there: nothing runs, the page is written again.
  shutil.rmtree(workdir / "study_smoke")
  (workdir / "study_smoke.md").unlink()
  code, output = finish(workdir, environment)
  assert code == 0 and "6 cells, 0 to run" in output
  assert page_of(workdir) == page_of(undisturbed[0])


@pytest.mark.slow
def test_ctrl_c_stops_all_workers_and_says_how_to_go_on(environment, tmp_path):
  workdir = tmp_path / "stopped"
  process = start(workdir, environment)
  wait_for(
    process, lambda: list(workdir.glob("*/smoke-hypo/checkpoints/hypo/5"))
  )
  os.killpg(process.pid, signal.SIGINT)
  output, _ = process.communicate(timeout=600)
  assert process.returncode == 130
  assert "same command goes on" in output and "Traceback" not in output
  assert not list(workdir.glob("*/*/failed.txt"))


@pytest.mark.slow
def test_a_failed_cell_is_named_and_the_others_go_on(
  undisturbed, environment, tmp_path
):
  workdir = tmp_path / "failed"
  shutil.copytree(undisturbed[0], workdir)
  folder = workdir / "2001" / LEARNER
  (folder / "cell.json").unlink()
  (folder / "config.json").write_text("{}")
  shutil.rmtree(next(workdir.glob("2000/smoke-dpo")))
  code, output = finish(workdir, environment)
  assert code == 1 and "failed cells: 1" in output
  assert f"{folder}: ValueError" in output and "remove the folder" in output
  assert "expected these settings" in (folder / "failed.txt").read_text()
  text = page_of(workdir)
  assert "**1 of 6 cells are missing:**" in text and f"- {folder}: " in text
  assert "| RLOO | **1 of 2** |" in text
  assert len(list(workdir.glob("2000/*/cell.json"))) == 3
