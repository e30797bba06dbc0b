# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The whole job on a small scale, through run.py as a user calls it.

`SMALL` shrinks the embedded default to about a minute, most of it compiling.
"""

import json
import math
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.test_traces import events

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
  "--config=configs/hypo.py",
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
  "--config.preference.micro_batch_size=8",
  "--config.evaluate.num_prompts=16",
  "--config.evaluate.num_validation_prompts=16",
  "--config.evaluate.samples_per_prompt=2",
  "--config.evaluate.validation_samples_per_prompt=4",
  "--config.evaluate.optimum_samples=256",
  "--config.checkpoint.every_steps=4",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
  """One compilation cache for all runs: each would compile the same again."""
  cache = tmp_path_factory.mktemp("compiled")
  return os.environ | {
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }


def start(workdir, environment, *flags):
  return subprocess.Popen(
    [sys.executable, "run.py", *SMALL, f"--workdir={workdir}", *flags],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(workdir, environment, *flags):
  process = start(workdir, environment, *flags)
  output, _ = process.communicate(timeout=600)
  return process.returncode, output


def rows_of(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return list(map(json.loads, lines))


def metrics_of(workdir):
  return [row for row in rows_of(workdir) if "evaluation" not in row]


def results(workdir):
  """All that must not depend on the clock or on restarts."""
  report = json.loads((workdir / "report.json").read_text())
  metrics = rows_of(workdir)
  timing = ("seconds_per_step", "tokens_per_second", "rollout_share", "mfu")
  timing += ("compilations", "compilations_after_warmup", "peak_memory_bytes")
  return {
    "policies": report["policies"],
    "matched_kl": report["matched_kl"],
    "samples": (workdir / "samples.jsonl").read_text(),
    "metrics": [
      {
        k: v
        for k, v in row.items()
        if k not in timing and not k.endswith("_seconds")
      }
      for row in metrics
    ],
  }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, environment):
  workdir = tmp_path_factory.mktemp("job") / "undisturbed"
  code, output = finish(workdir, environment)
  assert code == 0, output
  return workdir, output


@pytest.mark.slow
def test_the_job_leaves_its_report_and_says_what_came_out(undisturbed):
  workdir, output = undisturbed
  for name in ("config.json", "report.html", "samples.jsonl", "report.json"):
    assert (workdir / name).stat().st_size
  assert list((workdir / "plots").glob("*.png"))
  assert list(workdir.glob("events.out.tfevents.*"))
  assert "hypo" in output and "report.html" in output
  policies = json.loads((workdir / "report.json").read_text())["policies"]
  assert set(policies) == {"reference", "dpo", "hypo"}
  for name in ("dpo", "hypo"):
    steps = [entry["step"] for entry in policies[name]["history"]]
    assert steps == [0, 5, 10, 12]
    assert abs(policies[name]["history"][0]["kl"]) < 1e-4
    assert policies[name]["best"]["step"] in steps
    verdict = policies[name]["coverage_verdict"]
    assert verdict.startswith("coverage is") and f"{name}: {verdict}" in output
    history = policies[name]["history"]
    for entry in history:
      for share in ("outside_support", "ref_unlikely_tokens"):
        assert 0 <= entry[share] < 1
      assert 0 < entry["effective_sample_share"] <= 1
      assert entry["ref_log_prob"] < entry["ref_log_prob_per_token"] < 0
    start = history[0]
    assert start["effective_sample_share"] == pytest.approx(1.0, abs=1e-6)
    assert start["chosen_log_ratio"] == pytest.approx(0.0, abs=1e-4)
    logged = [
      {"step": row["step"]} | row["evaluation"]
      for row in rows_of(workdir)
      if row["stage"] == name and "evaluation" in row
    ]
    for entry, row in zip(history, logged, strict=True):
      assert entry.items() <= row.items()


@pytest.mark.slow
def test_a_finished_job_prints_its_result_again(undisturbed, environment):
  workdir, _ = undisturbed
  before = results(workdir)
  code, output = finish(workdir, environment)
  assert code == 0 and "is finished" in output
  assert results(workdir) == before


@pytest.mark.slow
def test_another_config_is_refused_with_the_difference(
  undisturbed, environment
):
  workdir, _ = undisturbed
  code, output = finish(workdir, environment, "--config.seed=5")
  assert code != 0
  assert '+ "seed": 5' in output and "--anew" in output


# The stages in order, and what is on disk when each has begun.
BEGUN = {
  "building data": lambda w: (w / "config.json").exists(),
  "fine-tuning": lambda w: has_row(w, "sft", 1),
  "sampling pairs": lambda w: (w / "checkpoints/sft/80").exists(),
  "labelling": lambda w: (w / "data/train.jsonl").exists(),
  "scoring the reference": lambda w: (w / "data/test.jsonl").exists(),
  "DPO": lambda w: (w / "checkpoints/dpo/0").exists(),
  "HyPO": lambda w: (w / "checkpoints/hypo/0").exists(),
  "evaluating HyPO": lambda w: has_row(w, "hypo", 10),
  "measuring on the test": lambda w: (w / "evaluations/dpo.json").exists(),
  "writing the report": lambda w: (w / "plots").exists(),
}


def has_row(workdir, stage, step):
  path = workdir / "metrics.jsonl"
  begin = f'{{"stage": "{stage}", "step": {step},'
  return path.exists() and begin in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_demand_15_a_job_killed_in_every_stage_ends_as_an_undisturbed_one(
  undisturbed, environment, tmp_path, seed
):
  workdir, rng = tmp_path / "killed", random.Random(seed)
  for stage, begun in BEGUN.items():
    assert not begun(workdir), f"{stage} had begun before its kill"
    process = start(workdir, environment)
    deadline = time.monotonic() + 300
    while not begun(workdir):
      assert process.poll() is None and time.monotonic() < deadline, stage
      time.sleep(0.005)
    time.sleep(rng.uniform(0.0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"{stage} was too short"
  code, output = finish(workdir, environment)
  assert code == 0, output
  assert results(workdir) == results(undisturbed[0])


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(undisturbed, environment, tmp_path):
  workdir = tmp_path / "stopped"
  process = start(workdir, environment)
  metrics = workdir / "metrics.jsonl"
  deadline = time.monotonic() + 300
  while not (metrics.exists() and '"step": 10' in metrics.read_text()):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 130
  assert "same command goes on" in output
  code, output = finish(workdir, environment)
  assert code == 0, output
  assert results(workdir) == results(undisturbed[0])


@pytest.mark.slow
def test_demand_15_rollouts_of_other_prompts_for_two_steps_resume_too(
  environment, tmp_path
):
  """Prompts without pairs, one draw for two updates, a kill in between."""
  flags = (
    "--config.data.rollout_path=reviews",
    "--config.rollout.every_steps=2",
  )
  code, output = finish(tmp_path / "whole", environment, *flags)
  assert code == 0, output
  workdir = tmp_path / "killed"
  process = start(workdir, environment, *flags)
  checkpoint = workdir / "checkpoints" / "hypo" / "5"
  deadline = time.monotonic() + 300
  while not checkpoint.exists():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  code, output = finish(workdir, environment, *flags)
  assert code == 0, output
  assert results(workdir) == results(tmp_path / "whole")


def test_a_file_of_prompts_does_not_fit_the_embedded_world(tmp_path):
  code, output = finish(
    tmp_path / "job", os.environ, "--config.data.rollout_path=prompts.jsonl"
  )
  assert code != 0 and "data.rollout_path: expected" in output


@pytest.mark.slow
def test_two_processes_do_the_job_of_one(environment, tmp_path):
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    address = f"--coordinator=localhost:{probe.getsockname()[1]}"
  processes = [
    start(
      tmp_path / "two",
      environment,
      address,
      f"--process_id={i}",
      "--num_processes=2",
    )
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=900)[0] for process in processes]
  assert not any(process.returncode for process in processes), outputs
  two_devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
  code, output = finish(tmp_path / "one", environment | two_devices)
  assert code == 0, output
  two, one = (results(tmp_path / name) for name in ("two", "one"))
  assert (tmp_path / "two" / "report.html").exists()
  assert len(two["metrics"]) == len(one["metrics"])
  for got, expected in zip(two["metrics"], one["metrics"], strict=True):
    assert got.pop("stage") == expected.pop("stage")
    got |= got.pop("evaluation", {})
    expected |= expected.pop("evaluation", {})
    # At step 1 every margin is 0 up to rounding, and its sign is chance.
    got.pop("reward_accuracy", None), expected.pop("reward_accuracy", None)
    assert got == pytest.approx(expected, rel=1e-3, abs=1e-4)
  for name, policy in one["policies"].items():
    for field in ("win_rate", "kl", "pair_accuracy", "length_mean"):
      assert two["policies"][name][field] == pytest.approx(
        policy[field], abs=1e-2
      )


def test_a_mistyped_key_fails_at_once_and_names_the_nearest(tmp_path):
  process = subprocess.run(
    [
      sys.executable,
      "run.py",
      "--config=configs/hypo.py",
      "--config.preference.kl_coeff=0.1",
      f"--workdir={tmp_path / 'typo'}",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert process.returncode != 0
  assert "kl_coef" in process.stderr
  assert not (tmp_path / "typo").exists()


@pytest.mark.slow
def test_demand_16_tokens_per_second_and_rollout_share_are_logged(undisturbed):
  for row in metrics_of(undisturbed[0]):
    assert row["tokens_per_second"] > 0
    share = row.get("rollout_share")
    assert (share is not None and 0 < share < 1) == (row["stage"] == "hypo")


@pytest.mark.slow
def test_demand_16_a_row_says_where_the_seconds_of_a_step_went(undisturbed):
  phases = {"data", "train", "checkpoint", "evaluation", "other"}
  for row in metrics_of(undisturbed[0]):
    parts = {
      key.removesuffix("_seconds"): value
      for key, value in row.items()
      if key.endswith("_seconds")
    }
    assert sum(parts.values()) == pytest.approx(row["seconds_per_step"])
    drawn = {"rollout", "reference"} if row["stage"] == "hypo" else set()
    assert drawn <= set(parts) <= phases | drawn
    # A step alone is 4 ms at the most; something is seen to take time.
    assert all(value >= 0 for value in parts.values())
    assert parts["train"] > 0 and parts["data"] > 0
    assert row["mfu"] is None  # A CPU's peak is not known.
    assert row["peak_memory_bytes"] > 50e6


@pytest.mark.slow
def test_demand_16_the_report_sums_the_rows_up(undisturbed):
  workdir, output = undisturbed
  report = json.loads((workdir / "report.json").read_text())
  assert list(report["speed"]) == ["sft", "dpo", "hypo"]
  for figures in report["speed"].values():
    seconds = figures["seconds"]
    assert sum(seconds.values()) == pytest.approx(figures["seconds_per_step"])
  assert "HyPO:" in output and "tokens/s" in output
  page = (workdir / "report.html").read_text()
  assert 'id="speed"' in page


@pytest.mark.slow
def test_demand_17_nothing_is_compiled_after_warm_up(undisturbed):
  for row in metrics_of(undisturbed[0]):
    assert row["compilations_after_warmup"] == 0
    assert (row["compilations"] > 0) == (row["step"] == 1), row


@pytest.mark.slow
def test_the_place_of_compiled_programs_is_said_once(undisturbed, environment):
  _, output = undisturbed
  folder = environment["JAX_COMPILATION_CACHE_DIR"]
  assert output.count(f"compiled programs are kept in {folder}") == 1
  assert list(pathlib.Path(folder).glob("jit_train_step-*-cache"))


@pytest.mark.slow
def test_demand_16_a_few_steps_of_each_method_are_traced(
  undisturbed, environment, tmp_path
):
  workdir = tmp_path / "traced"
  code, output = finish(workdir, environment, "--config.profile.steps=10,13")
  assert code == 0, output
  for method in ("dpo", "hypo"):
    found = events(workdir / "profile" / method)
    steps = [e["args"]["step_num"] for e in found if e["name"] == "step"]
    assert steps == ["10", "11", "12"]
    names = [e["name"] for e in found]
    phases = {"data", "train"} | ({"rollout"} if method == "hypo" else set())
    assert all(names.count(phase) == 3 for phase in phases)
  assert not (workdir / "profile" / "sft").exists()
  assert results(workdir) == results(undisturbed[0])


def test_steps_to_trace_beyond_the_run_are_refused_before_anything_is_computed(
  tmp_path,
):
  workdir = tmp_path / "job"
  code, output = finish(workdir, os.environ, "--config.profile.steps=10,14")
  assert code != 0 and "error: profile.steps: expected two" in output
  assert not (workdir / "metrics.jsonl").exists()


@pytest.mark.slow
def test_a_method_that_diverges_costs_the_others_nothing(
  undisturbed, environment, tmp_path
):
  rate = "--config.baselines.dpo.learning_rate=1e30"
  code, output = finish(tmp_path, environment, rate)
  assert code == 0, output
  assert "not finite, and nothing can be learned from here on" in output
  found, whole = results(tmp_path), results(undisturbed[0])
  assert found["policies"]["dpo"]["kl"] is None
  assert found["policies"]["dpo"]["best"]["step"] == 0
  for name in ("reference", "hypo"):
    assert found["policies"][name] == whole["policies"][name]
  # The report's lines are JSON, which has no NaN.
  assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
  assert (tmp_path / "report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_modes_use_the_trained_checkpoint(undisturbed, environment):
  workdir, _ = undisturbed
  code, output = finish(
    workdir, environment, "--mode=evaluate", "--checkpoint=best"
  )
  assert code == 0, output
  best = json.loads((workdir / "report.json").read_text())["policies"]["hypo"][
    "best"
  ]
  measured = json.loads(output[output.index("{\n") :])
  assert measured["win_rate"] == best["win_rate"]
  assert measured["kl"] == best["kl"]
  prompt = json.loads((workdir / "samples.jsonl").read_text().splitlines()[0])[
    "prompt"
  ]
  code, output = finish(workdir, environment, "--mode=sample", prompt)
  assert code == 0 and prompt in output, output
  code, output = finish(workdir, environment, "--mode=export")
  assert code == 0, output
  assert (workdir / "export" / "12" / "model.safetensors").exists()
  code, output = finish(workdir, environment, "--mode=export", "--checkpoint=7")
  assert code != 0 and "checkpoint: expected last, best or one of" in output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, of transformers
def test_demand_11_a_job_of_adapters_holds_and_exports_no_second_model(
  tmp_path_factory, environment
):
  """Checkpoints hold the adapter alone; both exports give the same policy."""
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  peft = pytest.importorskip("peft")
  workdir = tmp_path_factory.mktemp("job") / "lora"
  lora = ("--config.lora.rank=2", "--config.lora.alpha=4.0")
  code, output = finish(workdir, environment, *lora)
  assert code == 0, output
  # A of [16, 2] or [2 x 8, 2] and B of [2, outputs] for each matrix.
  outputs = {"query": 16, "key": 8, "value": 8, "output": 16}
  outputs |= {"gate": 16, "up": 16, "down": 16}
  trained = sum(2 * (16 + count) for count in outputs.values())
  (weights,) = (workdir / "checkpoints" / "hypo").glob("12/state")
  stored = json.loads((weights / "_METADATA").read_text())
  sizes = [
    math.prod(entry["value_metadata"]["write_shape"])
    for key, entry in stored["tree_metadata"].items()
    if "trainable" in key
  ]
  assert sum(sizes) == trained
  for flags in ((), ("--adapter",)):
    code, output = finish(workdir, environment, *lora, "--mode=export", *flags)
    assert code == 0, output
  export = workdir / "export"
  load = transformers.AutoModelForCausalLM.from_pretrained
  merged = load(export / "12").eval()
  over = peft.PeftModel.from_pretrained(
    load(export / "reference"), export / "12-adapter"
  ).eval()
  tokens = torch.tensor([[3, 7, 11, 5, 2]])
  with torch.no_grad():
    ours, theirs = (model(tokens).logits for model in (merged, over))
    with over.disable_adapter():
      base = over(tokens).logits
  assert (ours - theirs).abs().max() < 1e-5
  assert (ours - base).abs().max() > 1e-3
  for folder in ("12", "12-adapter"):
    assert "| HyPO |" in (export / folder / "README.md").read_text()


def policies_of_default(workdir, *flags):
  process = subprocess.run(
    [sys.executable, "run.py", "--config=configs/hypo.py"]
    + [f"--workdir={workdir}", *flags],
    cwd=ROOT,
    # Here a program's run is longer than its compilation.
    env=os.environ | {"XLA_FLAGS": ""},
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr[-2000:]
  return json.loads((workdir / "report.json").read_text())["policies"]


@pytest.mark.slow
def test_a_kl_target_is_reached_on_the_default(tmp_path):
  """About six minutes. Without a target the KL ends at 3.0 +- 0.2 nats."""
  target = "--config.preference.kl_target=2"
  hypo = policies_of_default(tmp_path / "target", target)["hypo"]
  late = [e["kl_rao_blackwell"] for e in hypo["history"] if e["step"] >= 240]
  assert all(1.5 < kl < 2.5 for kl in late), late
  rows = metrics_of(tmp_path / "target")
  weights = [r["kl_coef"] for r in rows if r["stage"] == "hypo"]
  assert max(weights) > 5 * weights[0]


@pytest.mark.slow
def test_demand_03_dpo_loses_coverage_and_hypo_keeps_it(tmp_path):
  """The default job, about six minutes."""
  policies = policies_of_default(tmp_path / "default")
  for field in ("kl", "invalid_rate"):
    for method, rises in (("dpo", True), ("hypo", False)):
      history = {e["step"]: e for e in policies[method]["history"]}
      assert (history[300][field] > 2 * history[20][field]) == rises, (
        f"{method} {field}: {history[20][field]} to {history[300][field]}"
      )
  for method in ("dpo", "hypo"):
    last = policies[method]["history"][-1]
    assert last["chosen_log_ratio"] < 0
