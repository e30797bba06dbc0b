# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One run on 1 and on 8 devices, and the layout of weights while decoding."""

import json
import os
import pathlib
import socket
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
  return output_of(start([], num_devices=8, cache=folder))


def start(arguments, *, num_devices, cache):
  """Starts the trial in a process of its own with virtual devices."""
  flag = f"--xla_force_host_platform_device_count={num_devices}"
  environment = os.environ | {
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "PYTHONPATH": str(ROOT),
  }
  return subprocess.Popen(
    [sys.executable, str(ROOT / "tests" / "devices_trial.py"), *arguments],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def output_of(process):
  output, errors = process.communicate(timeout=600)
  assert process.returncode == 0, errors[-3000:]
  return json.loads(output.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["", " adapter"], ids=["all", "adapter"])
@pytest.mark.parametrize("mesh", MESHES)
def test_demand_18_five_steps_agree_on_any_mesh(trials, mesh, trained):
  one, eight = trials[f"one{trained}"], trials[mesh + trained]
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


@pytest.mark.slow
def test_two_processes_equal_one(trials, tmp_path):
  """Two processes of four devices over loopback, and one of eight."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  processes = [
    start([address, str(i)], num_devices=4, cache=tmp_path / str(i))
    for i in range(2)
  ]
  two, one = output_of(processes[0]), trials["data"]
  processes[1].communicate(timeout=60)
  assert two["tokens"] == one["tokens"]
  np.testing.assert_allclose(two["params"], one["params"], atol=1e-6)
  for name, value in one["metrics"].items():
    np.testing.assert_allclose(
      two["metrics"][name], value, rtol=1e-5, atol=1e-6, err_msg=name
    )
