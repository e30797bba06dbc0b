# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs that learn from rewards, through run.py as a user calls it."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = "--config=tests/online_config.py"
ONLINE = ("ppo", "rloo", "grpo", "online_dpo")


def shortest(prompts, completions):
  """A user's reward: few words."""
  return [-len(text.split()) / 10 for text in completions]


def broken(prompts, completions):
  return [0.0 / (len(text) - len(text)) for text in completions]


def not_a_number(prompts, completions):
  """Fails for completions of more than one clause."""
  return [math.nan if " the " in t[24:] else 0.0 for t in completions]


def one_too_few(prompts, completions):
  return [0.0 for _ in completions[1:]]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
  """One compilation cache for all runs: each would compile the same again."""
  cache = tmp_path_factory.mktemp("compiled")
  return os.environ | {
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }


def start(workdir, environment, *flags):
  return subprocess.Popen(
    [sys.executable, "run.py", f"--workdir={workdir}", *flags],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(workdir, environment, *flags):
  process = start(workdir, environment, *flags)
  output, _ = process.communicate(timeout=1200)
  return process.returncode, output


def metrics(workdir, stage):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [r for r in rows if r["stage"] == stage and "evaluation" not in r]


@pytest.fixture(scope="module")
def judged(tmp_path_factory, environment):
  workdir = tmp_path_factory.mktemp("online") / "judged"
  code, output = finish(workdir, environment, CONFIG)
  assert code == 0, output
  return workdir


@pytest.mark.slow
@pytest.mark.parametrize("method", ONLINE)
def test_the_exact_judges_reward_rises(judged, method):
  policies = json.loads((judged / "report.json").read_text())["policies"]
  first, last = (policies[method]["history"][i] for i in (0, -1))
  assert (first["step"], last["step"]) == (0, 30)
  gain = last["reward_mean"] - first["reward_mean"]
  noise = (first["reward_stderr"] ** 2 + last["reward_stderr"] ** 2) ** 0.5
  assert gain > 3 * noise, (first["reward_mean"], last["reward_mean"])
  assert "proxy_reward_mean" not in last  # It would be the same.
  rows = metrics(judged, method)
  assert all(row["sampler_gap"] < 1e-4 for row in rows if "sampler_gap" in row)
  # Drawn and scored at one temperature, and called so.
  assert all(("kl_tempered" in row) == (method == "ppo") for row in rows)


@pytest.mark.slow
def test_a_share_of_the_gain_that_there_is_is_told(judged):
  found = json.loads((judged / "report.json").read_text())["optimum"]
  (row,) = found["values"]
  assert row["beta"] == 0.02 and row["value"] > row["reference"]
  # PPO's objective is at another temperature.
  assert row["recovered"].keys() == {"rloo", "grpo"}
  assert all(0 < share < 1 for share in row["recovered"].values())


@pytest.mark.slow
def test_hypos_kl_coefficient_moves_towards_its_target(judged):
  rows = metrics(judged, "hypo")
  coefs = [row["kl_coef"] for row in rows]
  assert coefs[0] == pytest.approx(0.05) and len(set(coefs)) > 2
  for row, following in zip(rows, rows[1:], strict=False):
    assert following["kl_coef"] <= row["kl_coef"] * 1.02 ** (
      following["step"] - row["step"]
    ) * (1 + 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ppo", "hypo"])
def test_a_killed_job_ends_as_an_undisturbed_one(
  judged, environment, tmp_path, method
):
  """With a value head, and with a KL coefficient that adapts."""
  workdir = tmp_path / "killed"
  process = start(workdir, environment, CONFIG)
  checkpoint = workdir / "checkpoints" / method / "10"
  deadline = time.monotonic() + 900
  while not checkpoint.exists():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  code, output = finish(workdir, environment, CONFIG)
  assert code == 0, output
  ours, theirs = (
    json.loads((w / "report.json").read_text())["policies"]
    for w in (workdir, judged)
  )
  assert ours == theirs


@pytest.mark.slow
def test_a_reward_model_is_trained_measured_and_learned_from(
  environment, tmp_path
):
  workdir = tmp_path / "learned"
  flags = (
    "--config.preference.method=rloo",
    "--config.reward=model",
    "--config.data.num_pairs=512",
    "--config.reward_model.num_steps=100",
    "--config.preference.num_steps=10",
  )
  config = "--config=tests/online_config.py:one"
  code, output = finish(workdir, environment, config, *flags)
  assert code == 0, output
  found = json.loads(
    (workdir / "evaluations" / "reward_model.json").read_text()
  )
  assert found["validation"]["accuracy"] > 0.55
  assert sum(b["count"] for b in found["validation"]["bins"]) > 100
  counts = [found[name]["count"] for name in ("validation", "test", "held_out")]
  assert counts[0] + counts[1] == counts[2]
  report = json.loads((workdir / "report.json").read_text())
  assert report["reward_model"] == found
  assert (workdir / "plots" / "reliability.png").stat().st_size
  # What is learned from, beside the judge's gold reward, of the same samples.
  first, last = (report["policies"]["rloo"]["history"][i] for i in (0, -1))
  assert last["proxy_reward_mean"] > first["proxy_reward_mean"]
  assert first["proxy_reward_stderr"] > 0
  rows = metrics(workdir, "rloo")
  assert rows[-1]["rollout_reward"] > rows[0]["rollout_reward"]
  assert metrics(workdir, "reward_model")[-1]["reward_accuracy"] > 0.6


@pytest.mark.slow
def test_a_users_function_is_learned_from(environment, tmp_path):
  workdir = tmp_path / "users"
  flags = (
    "--config.preference.method=grpo",
    "--config.preference.learning_rate=5e-3",
    "--config.reward=tests.test_online_job:shortest",
  )
  config = "--config=tests/online_config.py:one"
  code, output = finish(workdir, environment, config, *flags)
  assert code == 0, output
  rows = metrics(workdir, "grpo")
  assert rows[-1]["rollout_length"] < rows[0]["rollout_length"] - 2


@pytest.mark.slow
@pytest.mark.parametrize(
  ("function", "what"),
  [
    ("broken", "got ZeroDivisionError"),
    ("not_a_number", "got nan"),
    ("one_too_few", "got shape (0,)"),
  ],
)
def test_a_users_function_that_fails_is_named_with_its_row(
  environment, tmp_path, function, what
):
  flags = (
    "--config.preference.method=rloo",
    f"--config.reward=tests.test_online_job:{function}",
    "--config.reward_retries=1",
    "--config.sft.num_steps=100",
  )
  config = "--config=tests/online_config.py:one"
  code, output = finish(tmp_path / "job", environment, config, *flags)
  assert code != 0
  assert f"reward function {function}: expected" in output, output
  assert f"after 2 calls {what}" in output
  assert "in row " in output and "(prompt 'film:" in output


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--config.reward="], "reward: expected judge, model or module:function"),
    (["--config.reward=nowhere:f"], "raised ModuleNotFoundError"),
    (["--config.rollout.samples_per_prompt=1"], "expected at least 2"),
    (["--config.online.epochs=2"], "online.epochs: expected no value for"),
  ],
)
def test_wrong_settings_end_a_job_before_it_computes(flags, message, tmp_path):
  config = "--config=tests/online_config.py:one"
  method = "--config.preference.method=rloo"
  code, output = finish(tmp_path / "job", os.environ, config, method, *flags)
  assert code != 0 and message in output, output
  assert not (tmp_path / "job" / "checkpoints").exists()
