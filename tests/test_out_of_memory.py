# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What is said when memory runs out: a real failure, and devices' words."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import run
from configs import hypo
from hypo_jax.job import out_of_memory

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_demand_20_running_out_of_memory_names_arrays_and_settings(tmp_path):
  """A process that may have 3 GiB more, and a step that needs far more."""
  done = subprocess.run(
    [sys.executable, "-m", "tests.memory_trial", str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  said, after = done.stdout.split("AFTER\n")
  assert said.startswith("out of memory: dpo's step\n")
  assert "RESOURCE_EXHAUSTED" in said
  # The largest arrays: of a batch's tokens, each 16,384 wide; and the weights.
  largest = said.split("largest made:\n")[1].splitlines()[0]
  assert largest.split()[:3] == ["912", "MiB", "f32[14592,16384]"]
  assert "state/trainable/layers/" in said.split("largest given:\n")[1]
  assert "preference.micro_batch_size: 256 is 256 rows a device" in said
  assert "saved: sft up to step 2; a second call goes on from there" in said
  # As the advice says: the same batch in smaller parts fits.
  assert after == "micro_batch_size 8: step 1\n"
  assert (tmp_path / "checkpoints" / "sft" / "2").is_dir()


def explain(config=None, *, workdir, running="", error):
  with pytest.raises(out_of_memory.OutOfMemory) as raised:
    with out_of_memory.explained(config or hypo.get_config(), workdir) as watch:
      watch.running = running
      raise jax.errors.JaxRuntimeError(error)
  return str(raised.value)


GPU = (
  "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 "
  "bytes.\nBufferAssignment OOM Debugging.\n"
)
TPU = (
  "RESOURCE_EXHAUSTED: Attempting to allocate 9.50G. That was not possible. "
  "There are 2.11G free.; (0x0x0_HBM0)"
)


@pytest.mark.parametrize("error", [GPU, TPU], ids=["gpu", "tpu"])
def test_demand_20_other_devices_words_are_kept_and_explained(tmp_path, error):
  said = explain(workdir=tmp_path, running="drawing rollouts", error=error)
  assert error.splitlines()[0] in said and "BufferAssignment" not in said
  assert "out of memory: drawing rollouts" in said
  for key in ("preference.batch_size", "model.remat", "lora.rank"):
    assert key in said
  assert "nothing is saved yet" in said


def test_what_a_second_call_goes_on_from_is_said(tmp_path):
  """Not from between two draws of rollouts, nor from what is half written."""
  config = hypo.get_config()
  config.rollout.every_steps = 4
  for name in ("sft/1000", "hypo/8", "hypo/10", "hypo/12.orbax-tmp"):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
  said = explain(config, workdir=tmp_path, error=TPU)
  assert "saved: hypo up to step 8; a second call goes on from there" in said
  # At its end a method draws no more; one without rollouts never does.
  config.preference.num_steps = 10
  said = explain(config, workdir=tmp_path, error=TPU)
  assert "saved: hypo up to step 10" in said
  config.preference.num_steps = 300
  config.preference.method, config.preference.kl_coef = "dpo", 0.0
  (tmp_path / "checkpoints" / "dpo" / "5").mkdir(parents=True)
  said = explain(config, workdir=tmp_path, error=TPU)
  assert "saved: dpo up to step 5" in said
  assert "out of memory: setting up the job" in said


def test_other_errors_pass_as_they_are(tmp_path):
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    with out_of_memory.explained(hypo.get_config(), tmp_path):
      raise jax.errors.JaxRuntimeError("INTERNAL: core halted")


def test_the_program_that_ran_is_named_with_what_it_was_given(tmp_path):
  """Shapes are kept from before the call: a donated array is gone after it."""

  def product(state, x):
    return state + jnp.sort(x @ x.T, axis=0)[0, 0]

  jitted = jax.jit(product, donate_argnums=0)

  def call(*args):
    jitted(*args)
    raise jax.errors.JaxRuntimeError(GPU)

  call.trace = jitted.trace
  with pytest.raises(out_of_memory.OutOfMemory) as raised:
    with out_of_memory.explained(hypo.get_config(), tmp_path) as watch:
      run = watch("a step", call, "state", "inputs")
      run(jnp.zeros((300, 200)), jnp.ones((700, 10)))
  said = str(raised.value)
  assert "out of memory: a step" in said
  assert "float32[300,200]  state" in said
  assert "float32[700,10]  inputs" in said
  assert "700,700" in said


def test_a_job_goes_on_with_what_only_changes_how_a_step_is_computed(tmp_path):
  """As the advice says; whatever else changes is refused, as ever."""
  folder = tmp_path / "job"
  config = hypo.get_config()
  run.claim_workdir(folder, config.to_dict(), anew=False)
  config.preference.micro_batch_size = 8
  config.model.remat = True
  run.claim_workdir(folder, config.to_dict(), anew=False)
  kept = json.loads((folder / "config.json").read_text())
  assert kept["preference"]["micro_batch_size"] == 8
  (folder / "metrics.jsonl").touch()
  config.preference.micro_batch_size = 4
  config.preference.batch_size = 4
  with pytest.raises(SystemExit, match="(?s)another config.*batch_size"):
    run.claim_workdir(folder, config.to_dict(), anew=False)
  assert json.loads((folder / "config.json").read_text()) == kept
