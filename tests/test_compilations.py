# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The counter of compiled programs."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from hypo_jax import compilations

_TWICE = """
import jax, jax.numpy as jnp
from hypo_jax import compilations
jax.block_until_ready(jax.jit(lambda x: x * 3 + 1)(jnp.ones(5)))
print(compilations.count(), compilations.read_from_cache())
"""


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


def test_programs_read_from_the_persistent_cache_count_as_such(tmp_path):
  environment = os.environ | {
    "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }

  def run():
    done = subprocess.run(
      [sys.executable, "-c", _TWICE],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    )
    return tuple(map(int, done.stdout.split()))

  compiled, read = run()
  assert compiled > 0 and read == 0
  assert run() == (compiled, compiled)
