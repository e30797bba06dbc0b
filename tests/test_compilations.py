# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The counter of compiled programs, and where they are kept."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hypo_jax import compilations

# Prints the folder, a result's bits, programs, those of them read back.
PROGRAM = """
import os, sys
if len(sys.argv) > 1:
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from hypo_jax import compilations
folder = compilations.keep_programs()
import jax, jax.numpy as jnp, numpy as np
x = np.random.default_rng(0).normal(size=(500, 500)).astype(np.float32)
y = jax.jit(lambda x: (jnp.exp(x @ x / 500) * jnp.sin(x)).sum())(x)
print(folder, float(y).hex(), end=" ")
print(compilations.count(), compilations.read_from_cache())
"""
KEEP_ALL = {
  "JAX_ENABLE_COMPILATION_CACHE": "true",
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def run(*arguments, **environment):
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, *arguments],
    env=os.environ | KEEP_ALL | environment,
    capture_output=True,
    text=True,
    check=True,
  )
  folder, bits, *counts = done.stdout.split()
  return folder, bits, *map(int, counts)


def test_a_program_counts_once_for_each_shape_and_not_when_called_again():
  step = jax.jit(lambda x: x * 2.0)
  inputs = [jnp.asarray(np.ones(n, np.float32)) for n in (3, 4)]
  before = compilations.count()
  step(inputs[0])
  assert compilations.count() == before + 1
  step(inputs[0])
  assert compilations.count() == before + 1
  step(inputs[1])
  assert compilations.count() == before + 2


def test_a_second_process_reads_the_programs_and_gives_the_same_bits(tmp_path):
  cache = {"XDG_CACHE_HOME": str(tmp_path)}
  folder, bits, compiled, read = run(**cache)
  cores = len(os.sched_getaffinity(0))
  assert folder == str(tmp_path / "hypo_jax" / "xla" / f"cpu-{cores}")
  assert compiled > 0 and read == 0
  assert run(**cache) == (folder, bits, compiled, compiled)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="needs two cores")
def test_a_program_of_other_cores_is_not_read(tmp_path):
  """XLA cuts loops to the cores there are, and its key doesn't say so."""
  cache = {"XDG_CACHE_HOME": str(tmp_path)}
  run(**cache)
  folder, _, compiled, read = run("one core", **cache)
  assert folder.endswith("cpu-1") and compiled > 0 and read == 0


def test_the_users_own_folder_is_taken(tmp_path):
  own = str(tmp_path / "own")
  folder, _, compiled, read = run(JAX_COMPILATION_CACHE_DIR=own)
  assert folder == own and read == 0
  assert run(JAX_COMPILATION_CACHE_DIR=own)[2:] == (compiled, compiled)


def test_without_a_folder_that_can_be_written_nothing_is_kept(tmp_path):
  (tmp_path / "file").touch()
  folder, _, compiled, read = run(XDG_CACHE_HOME=str(tmp_path / "file"))
  assert folder == "None" and compiled > 0 and read == 0


def test_a_cache_that_is_switched_off_stays_off(tmp_path):
  found = run(
    XDG_CACHE_HOME=str(tmp_path), JAX_ENABLE_COMPILATION_CACHE="false"
  )
  assert found[0] == "None" and not list(tmp_path.iterdir())
