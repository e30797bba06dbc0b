# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Timed programs run in processes of their own, which print a line of JSON."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks import cases

# As our own commands set it; for all alike. See `benchmarks.large_pages`. What
# is set already stays: `GLIBC_TUNABLES= python -m benchmarks.compare` does
# without.
_SETTINGS = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Nothing is fetched while timing, and no account is asked for.
_SETTINGS |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


class Failed(Exception):
  """A program did not finish; holds its last words."""


def run(
  module: str,
  arguments: Sequence[str],
  label: str,
  *,
  python: pathlib.Path | None = None,
  environment: Mapping[str, str] | None = None,
) -> dict:
  """Runs `python -m module arguments`; returns its last line of output.

  Args:
    module: to run.
    arguments: of its command line.
    label: what it is, for an error.
    python: the interpreter; this one's if None.
    environment: variables beside this process's and the settings above.

  Raises:
    Failed: the process ended with an error, or printed nothing.
  """
  found = subprocess.run(
    [str(python or sys.executable), "-m", module, *arguments],
    cwd=cases.ROOT,
    env=_SETTINGS | os.environ | (environment or {}),
    capture_output=True,
    text=True,
  )
  if found.returncode or not found.stdout.strip():
    last = found.stderr.strip().splitlines()[-15:]
    raise Failed("\n".join([f"{label}: it failed", *last]))
  return json.loads(found.stdout.splitlines()[-1])
