# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the test process, before jax is imported."""

import os

# The tests' programs are small and many: nearly all their time is compilation,
# which each of these halves (the second has XLA write LLVM's code itself, not
# by way of MLIR). Results differ by rounding alone.
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
  ]
).strip()

# The cache of compiled programs is the user's: no test reads or writes it.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import hypothesis  # noqa: E402

# An example that compiles takes seconds, the next one microseconds.
hypothesis.settings.register_profile("compiled", deadline=None)
hypothesis.settings.load_profile("compiled")
