# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Full-size configurations, lowered on virtual devices without weights."""

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
LLAMA, PYTHIA = "ultrafeedback_llama3_8b", "tldr_pythia_1.4b"

# Of the released checkpoints, counted from the shapes in their model cards.
PARAMETERS = {
  "tldr_pythia_1.4b": 1_414_647_808,
  "tldr_pythia_2.8b": 2_775_208_960,
  "ultrafeedback_llama3_8b": 8_030_261_248,
  "hh_qwen3_0.6b": 596_049_920,
}
DEVICES = {  # As each config's head says.
  "tldr_pythia_1.4b": 16,
  "tldr_pythia_2.8b": 16,
  "ultrafeedback_llama3_8b": 64,
  "hh_qwen3_0.6b": 8,
}
INT8 = f"{LLAMA},lora.rank=16,model.param_dtype=int8"
TOO_LONG = f"{PYTHIA},data.prompt_length=2048"
TOO_NARROW = f"{PYTHIA},model.architecture.num_attention_heads=15"
UNEVEN = "hh_qwen3_0.6b,preference.batch_size=60"


@pytest.fixture(scope="module")
def lowered():
  """What tests/configs_trial.py prints for each configuration."""
  asked = [*PARAMETERS, INT8, TOO_LONG, TOO_NARROW, UNEVEN]
  files = []
  for text in asked:
    name, *changes = text.split(",")
    files.append(",".join([f"configs/{name}.py@{DEVICES[name]}", *changes]))
  flag = "--xla_force_host_platform_device_count=64"
  done = subprocess.run(
    [sys.executable, "-m", "tests.configs_trial", *files],
    cwd=ROOT,
    env=os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  results = json.loads(done.stdout.splitlines()[-1])
  return dict(zip(asked, results.values(), strict=True))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_full_size_config_lowers_with_its_models_parameter_count(
  lowered, name
):
  assert lowered[name]["trained"] == PARAMETERS[name]
  assert lowered[name]["trained_dtypes"] == ["float32"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_its_state_is_cut_over_the_devices(lowered, name):
  """Weights and two moments in float32, an even share of nearly all on each."""
  found = lowered[name]
  assert found["state_bytes"] == 12 * PARAMETERS[name] + 8 + 4
  assert found["frozen_bytes"] == 4 * PARAMETERS[name]
  for part in ("state", "frozen"):
    share = found[f"{part}_bytes_per_device"] / found[f"{part}_bytes"]
    assert 1 <= share * DEVICES[name] < 1.05


@pytest.mark.parametrize("name", PARAMETERS)
def test_its_head_says_how_much_the_state_takes(lowered, name):
  text = (ROOT / "configs" / f"{name}.py").read_text()
  head = " ".join(text.split('"""')[1].split())
  gigabytes = [float(x) for x in re.findall(r"([\d.]+) GB", head)]
  state, frozen = (lowered[name][f"{x}_bytes"] for x in ("state", "frozen"))
  for expected in (state, state + 2 * frozen):  # The gradient is as large.
    assert any(abs(expected / 1e9 - said) < 0.7 for said in gigabytes)


def test_adapters_over_int8_train_little_and_hold_the_base_once(lowered):
  found = lowered[INT8]
  # 16 (inputs + outputs) for each of a layer's seven matrices.
  sides = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336)
  assert found["trained"] == 16 * 32 * sides
  assert found["state_bytes"] == 12 * found["trained"] + 8 + 4
  # A byte a weight of the layers, two of the embeddings, scales on top.
  embeddings = 2 * 128256 * 4096
  layers = PARAMETERS[LLAMA] - embeddings
  assert 1 <= found["frozen_bytes"] / (layers + 2 * embeddings) < 1.01


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (TOO_LONG, "expected at most 2048 positions, got 2386"),
    (TOO_NARROW, "model.architecture.hidden_size: expected a multiple"),
    (UNEVEN, "preference.batch_size: expected a multiple of mesh.data x"),
  ],
)
def test_a_broken_full_size_config_is_told(lowered, text, message):
  assert message in lowered[text]["error"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_the_same_keys_and_names_its_command(path):
  config = runpy.run_path(str(path))["get_config"]()
  default = runpy.run_path(str(ROOT / "configs/hypo.py"))["get_config"]()
  free = ("model.architecture.", "baselines.", "study.")

  def keys(config):
    flat = config.to_dict()
    sections = {a: b for a, b in flat.items() if isinstance(b, dict)}
    names = (flat.keys() - sections) | {
      f"{a}.{b}" for a, inner in sections.items() for b in inner
    }
    nested = config.model.architecture.keys()
    assert "architectures" in nested
    return {n for n in names if not n.startswith(free)}

  assert keys(config) == keys(default)
  text = path.read_text()
  if path.stem != "tldr":
    assert f"python run.py --config=configs/{path.name}" in text
  if path.stem != "hypo":  # Which says what every key means.
    assert len(text.splitlines()) <= 100
