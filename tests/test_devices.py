# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One run on 1 and on 8 devices, and the layout of weights while decoding."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "mixed": (2, 2, 2)}


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
  """What tests/devices_trial.py prints for one device and for each mesh."""
  folder = tmp_path_factory.mktemp("devices")
  environment = os.environ | {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    "JAX_COMPILATION_CACHE_DIR": str(folder),
  }
  process = subprocess.run(
    [sys.executable, str(ROOT / "tests" / "devices_trial.py")],
    env=environment | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr[-3000:]
  return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_demand_18_five_steps_agree_on_any_mesh(trials, mesh):
  one, eight = trials["one"], trials[mesh]
  assert eight["tokens"] == one["tokens"]
  for name in ("loss", "grad_norm", "kl", "chosen_log_probs"):
    np.testing.assert_allclose(
      eight["metrics"][name], one["metrics"][name], rtol=1e-5, atol=1e-6
    )
  np.testing.assert_allclose(eight["params"], one["params"], atol=1e-5)


@pytest.mark.slow
def test_decoding_gathers_no_weights(trials):
  """No all-gather as large as a weight stands inside the decode loop."""
  assert trials["fsdp"]["largest_gather_in_loop"] < trials["weight_size"]
