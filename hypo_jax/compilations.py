# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled programs: how many there were, and where they are kept.

A program counts when it is compiled or read from the persistent cache, not when
a call finds it in memory. After warm-up the count must stand still: a step that
moves it met new shapes, dtypes, shardings or static arguments.
"""

import os
import pathlib
import threading

import jax
from jax import monitoring

# Programs that compile faster aren't kept: reading one back takes some
# milliseconds.
_MIN_SECONDS = 0.1

_COMPILED = "/jax/core/compile/backend_compile_duration"
_READ = "/jax/compilation_cache/cache_hits"

_lock = threading.Lock()
_compiled = 0
_read = 0


def count() -> int:
  """Returns the programs compiled or read from the persistent cache so far."""
  return _compiled


def read_from_cache() -> int:
  """Returns how many of `count()` came from the persistent cache."""
  return _read


def keep_programs() -> pathlib.Path | None:
  """Keeps compiled programs on disk, where later processes find them.

  The folder is the one in JAX_COMPILATION_CACHE_DIR, where that is set, or
  hypo_jax/xla under XDG_CACHE_HOME or ~/.cache. Of this, CPUs have a folder for
  each number of cores: XLA cuts a program's loops to that number, which isn't
  in its key, and a program that is read must be the one that would be compiled.
  (The rest is in the key: program, versions, flags, devices, CPU features.)

  Returns:
    The folder; None where jax_enable_compilation_cache is off, or the folder
    can't be written.
  """
  if not jax.config.jax_enable_compilation_cache:
    return None
  if set_by_user := jax.config.jax_compilation_cache_dir:
    return pathlib.Path(set_by_user)
  above = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  folder = pathlib.Path(above, "hypo_jax", "xla")
  if jax.default_backend() == "cpu":
    folder /= f"cpu-{_num_cores()}"
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return None
  if not os.access(folder, os.W_OK):
    return None
  jax.config.update("jax_compilation_cache_dir", str(folder))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update(
      "jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS
    )
  return folder


def _num_cores() -> int:
  """Cores that this process may use, as XLA counts them."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _note_duration(event: str, seconds: float, **unused) -> None:
  global _compiled
  if event == _COMPILED:
    with _lock:
      _compiled += 1


def _note_event(event: str, **unused) -> None:
  global _read
  if event == _READ:
    with _lock:
      _read += 1


monitoring.register_event_duration_secs_listener(_note_duration)
monitoring.register_event_listener(_note_event)
