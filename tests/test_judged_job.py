# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs on texts with a user's judge, and with a reward model that measures."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from hypo_jax import models
from tests import kinds

ROOT = pathlib.Path(__file__).parents[1]
KIND = "qwen2"
CONFIG = models.TransformerConfig(
  vocab_size=352,
  num_layers=1,
  width=32,
  num_heads=2,
  num_kv_heads=1,
  head_dim=16,
  mlp_width=64,
  max_positions=64,
)
SMALL = (
  "--config.data.prompt_length=12",
  "--config.data.completion_length=8",
  "--config.preference.num_steps=12",
  "--config.preference.batch_size=16",
  "--config.preference.micro_batch_size=16",
  "--config.preference.learning_rate=1e-2",
  "--config.preference.kl_coef=0.1",
  "--config.rollout.samples_per_prompt=2",
  "--config.evaluate.batch_size=32",
  "--config.evaluate.every_steps=6",
  "--config.evaluate.also_at_steps=()",
  "--config.evaluate.num_prompts=48",
  "--config.evaluate.num_validation_prompts=32",
  "--config.evaluate.samples_per_prompt=4",
  "--config.evaluate.validation_samples_per_prompt=4",
)


def goodness(prompts, completions):
  """What both jobs' texts differ in: good 1, bad -1."""
  return [float("good" in t) - float("bad" in t) for t in completions]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("model")
  model = models.Model(CONFIG)
  params = model.init(jax.random.key(0))
  models.save(models.Policy(model.apply, params, CONFIG, None, model), folder)
  kinds.write_folder(folder, KIND)
  ends = kinds.GOLDEN["kinds"][KIND]["eos_token_ids"]
  path = folder / "generation_config.json"
  path.write_text(json.dumps({"eos_token_id": ends}))
  return folder


def run(workdir, *flags, config="configs/hypo.py"):
  output = call(f"--config={config}", *SMALL, f"--workdir={workdir}", *flags)
  return json.loads((workdir / "report.json").read_text()), output


def call(*flags):
  done = subprocess.run(
    [sys.executable, "run.py", *flags],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stderr


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
  path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
  with path.open("w") as file:
    for n in range(2000):
      word = ("good", "bad", "odd")[n % 3]
      file.write(json.dumps({"text": f"it {n} {word}"}) + "\n")
  return path


@pytest.fixture(scope="module")
def judged(tmp_path_factory, model_folder, texts):
  """The work directory and flags of a job of all weights."""
  workdir = tmp_path_factory.mktemp("judged") / "run"
  flags = (
    f"--config.model.path={model_folder}",
    f"--config.data.path={texts}",
    "--config.data.layout=text",
    "--config.data.prompt_words=2",
    "--config.data.num_pairs=256",
    "--config.data.judge=tests.test_judged_job:goodness",
    "--config.sft.num_steps=200",
    "--config.sft.learning_rate=1e-2",
    "--config.reward=judge",
    "--config.preference.method=rloo",
    "--config.baselines.dpo.learning_rate=1e-2",
  )
  run(workdir, *flags)
  return workdir, flags


def assert_learned(report, names):
  for name in names:
    found = report["policies"][name]
    assert found["win_rate"] > 0.55 + 3 * found["win_rate_stderr"], name
    assert found["win_rate_length_matched"] > 0.55


@pytest.mark.slow
def test_texts_a_judge_and_three_methods(judged):
  """Policies learn to say good, from pairs that they were sampled for."""
  workdir, _ = judged
  report = json.loads((workdir / "report.json").read_text())
  reference = report["policies"]["reference"]
  assert abs(reference["reward_mean"]) < 0.35
  assert reference["invalid_rate"] < 0.1
  assert_learned(report, ("dpo", "rloo"))
  pairs = [
    json.loads(line)
    for line in (workdir / "data/train.jsonl").read_text().splitlines()
  ]
  assert len(pairs) == 256
  assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
  margins = [
    goodness([], [pair["chosen"]])[0] - goodness([], [pair["rejected"]])[0]
    for pair in pairs
  ]
  assert sum(m > 0 for m in margins) > 20 * sum(m < 0 for m in margins)


@pytest.mark.slow
def test_the_real_models_job_on_a_small_one(tmp_path, judged, texts):
  """Sentiment's: adapters over an exported model, three methods."""
  workdir, flags = judged
  same = ("--config=configs/hypo.py", *SMALL, f"--workdir={workdir}", *flags)
  call("--mode=export", *same)
  (base,) = (workdir / "export").iterdir()
  report, _ = run(
    tmp_path / "run",
    f"--config.model.path={base}",
    f"--config.data.path={texts}",
    "--config.data.prompt_words=2",
    "--config.data.num_pairs=256",
    "--config.data.judge=tests.test_judged_job:goodness",
    "--config.lora.rank=4",
    "--config.lora.alpha=8.0",
    "--config.sft.batch_size=64",
    "--config.sft.learning_rate=1e-2",
    "--config.preference.num_steps=24",
    "--config.preference.kl_coef=0.03",
    "--config.preference.learning_rate=1e-2",
    # Twice that, and it has gone 37 nats by the end, where nothing is good.
    "--config.baselines.dpo.learning_rate=5e-3",
    "--config.baselines.rloo.learning_rate=1e-2",
    config="configs/sentiment_smollm2.py",
  )
  assert_learned(report, ("dpo", "rloo", "hypo"))
  for name in ("dpo", "rloo", "hypo"):
    history = report["policies"][name]["history"]
    assert abs(history[0]["kl"]) < 1e-3 < 0.01 < history[-1]["kl"], name


@pytest.mark.slow
def test_a_reward_model_of_other_pairs_measures_policies(
  tmp_path, model_folder
):
  pairs = tmp_path / "pairs.jsonl"
  with pairs.open("w") as file:
    for n in range(800):
      row = {"prompt": f"it {n}", "chosen": " good", "rejected": " bad"}
      file.write(json.dumps(row) + "\n")
  # The reference says both, so there is something to gain.
  demonstrations = tmp_path / "demonstrations.jsonl"
  with demonstrations.open("w") as file:
    for n in range(800):
      row = {"prompt": f"it {n}", "completion": (" good", " bad")[n % 2]}
      file.write(json.dumps(row) + "\n")
  workdir = tmp_path / "run"
  flags = (
    f"--config.model.path={model_folder}",
    f"--config.data.path={pairs}",
    "--config.data.validation_fraction=0.2",
    f"--config.data.demonstration_path={demonstrations}",
    "--config.sft.num_steps=150",
    "--config.sft.learning_rate=1e-2",
    "--config.evaluate.reward_model_share=0.5",
    "--config.reward_model.num_steps=60",
    "--config.reward_model.learning_rate=1e-2",
    "--config.baselines.dpo.learning_rate=1e-2",
    # A light price and many prompts: what is learned stands out of the noise.
    "--config.preference.kl_coef=0.01",
    "--config.evaluate.num_validation_prompts=96",
    "--config.evaluate.num_prompts=96",
  )
  report, output = run(workdir, *flags)
  assert "for the reward model" in output
  measured = json.loads((workdir / "evaluations/reward_model.json").read_text())
  assert measured["test"]["accuracy"] > 0.95
  policies = report["policies"]
  for name in ("dpo", "hypo"):
    history = policies[name]["history"]
    first, last = (history[i]["learned_reward_mean"] for i in (0, -1))
    noise = policies[name]["learned_reward_stderr"]
    assert last > first + 3 * noise, name
    assert policies[name]["learned_reward_stderr"] > 0
    assert policies[name]["reward_mean"] is None  # Nobody judges.
  (workdir / "report.json").unlink()
  again, _ = run(workdir, *flags)  # From its checkpoints.
  assert again["policies"] == policies
