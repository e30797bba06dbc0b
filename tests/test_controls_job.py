# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Whole small jobs with the controls' settings, through run.py."""

import json
import os
import signal
import time

import pytest
from test_job import finish, metrics_of, results, start

FROM_REFERENCE = (
  "--config.rollout.source=reference",
  "--config.rollout.max_importance_weight=10.0",
)
DRAWS = {
  "kept": FROM_REFERENCE,
  "4 steps": ("--config.rollout.every_steps=4",),
  "16 steps": ("--config.rollout.every_steps=16",),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
  """One compilation cache for all runs: each would compile the same again."""
  cache = tmp_path_factory.mktemp("compiled")
  return os.environ | {
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }


def report_of(workdir):
  return json.loads((workdir / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("draws", DRAWS)
def test_demand_15_rollouts_that_serve_long_are_the_same_after_a_kill(
  environment, tmp_path, draws
):
  flags = DRAWS[draws]
  code, output = finish(tmp_path / "whole", environment, *flags)
  assert code == 0, output
  workdir = tmp_path / "killed"
  process = start(workdir, environment, *flags)
  checkpoint = workdir / "checkpoints" / "hypo" / "10"
  deadline = time.monotonic() + 600
  while not checkpoint.exists():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  code, output = finish(workdir, environment, *flags)
  assert code == 0, output
  assert results(workdir) == results(tmp_path / "whole")
  rows = [r for r in metrics_of(workdir) if r["stage"] == "hypo"]
  assert all(row["sampler_gap"] < 1e-4 for row in rows) == (draws == "kept")
  if draws == "kept":
    # At step 1 the policy is the reference.
    assert rows[0]["importance_weight"] == pytest.approx(1.0, abs=1e-4)
    assert rows[0]["importance_clipped"] == 0.0
    assert any(row["importance_weight"] != 1.0 for row in rows[1:])


@pytest.mark.slow
def test_a_job_takes_the_kl_at_its_pairs_states(environment, tmp_path):
  """On pairs of which half are even ones; some come to the judge twice."""
  flags = (
    "--config.preference.method=dpo",
    "--config.preference.kl_coef=0.0",
    "--config.preference.offline_kl_coef=0.05",
    "--config.preference.schedule=cosine",
    "--config.preference.weight_decay=0.1",
    "--config.data.uniform_share=0.5",
    "--config.data.num_pairs=2048",
  )
  code, output = finish(tmp_path, environment, *flags)
  assert code == 0, output
  rows = [r for r in metrics_of(tmp_path) if r["stage"] == "dpo"]
  assert rows[0]["offline_kl"] == pytest.approx(0.0, abs=1e-6)
  assert rows[-1]["offline_kl"] > 1e-4
  assert all(row["loss"] > row["preference_loss"] for row in rows[1:])
  assert all("rollout_seconds" not in row for row in rows)
  assert all(row["reference_seconds"] > 0 for row in rows)
  pairs = (tmp_path / "data" / "train.jsonl").read_text().splitlines()
  assert len(pairs) == 2048
  (policy,) = [
    p for name, p in report_of(tmp_path)["policies"].items() if name == "dpo"
  ]
  losses = {e["step"]: e["pair_loss"] for e in policy["history"]}
  best = policy["best_pair_loss"]
  assert losses[best["step"]] == min(losses.values())


@pytest.mark.slow
def test_a_report_has_the_optimum_and_every_methods_best_pair_loss(
  environment, tmp_path
):
  flags = ("--config.evaluate.optimum_samples=1000",)
  code, output = finish(tmp_path, environment, *flags)
  assert code == 0, output
  report = report_of(tmp_path)
  found = report["optimum"]
  # Whole draws of 16 prompts with 2 completions each.
  assert (found["samples"], found["prompts"]) == (1024, 16)
  reference = found["frontier"][0]
  assert reference["kl"] == 0.0 and found["values"] == []
  assert len(found["frontier"]) > 5
  rewards = [point["reward"] for point in found["frontier"]]
  assert rewards == sorted(rewards)
  assert "best_pair_loss" in report["policies"]["hypo"]
  assert "optimum: from 1024 samples" in output
  assert (
    "The dashed line is the optimum" in (tmp_path / "report.html").read_text()
  )
  # It is measured once.
  (tmp_path / "report.json").unlink()
  code, output = finish(tmp_path, environment, *flags)
  assert code == 0 and "optimum: from" not in output
  assert report_of(tmp_path)["optimum"] == found


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--config.rollout.source=reference"], "max_importance_weight: expected"),
    (
      ["--config.preference.offline_kl_coef=0.1"],
      "offline_kl_coef: expected a number >= 0, and 0 beside a kl_coef",
    ),
    (["--config.data.uniform_share=2.0"], "data.uniform_share: expected"),
    (
      ["--config.preference.estimator=leave_one_out"],
      "rollout.samples_per_prompt: expected at least 2",
    ),
  ],
)
def test_wrong_settings_end_a_job_before_it_computes(flags, message, tmp_path):
  code, output = finish(tmp_path / "job", os.environ, *flags)
  assert code != 0 and message in output, output
  assert not (tmp_path / "job" / "checkpoints").exists()
