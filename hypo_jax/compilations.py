# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How many programs this process has asked XLA for, since it was imported.

A program counts when it is compiled or read from the persistent cache, not when
a call finds it in memory. After warm-up the count must stand still: a step that
moves it met new shapes, dtypes, shardings or static arguments.
"""

import threading

from jax import monitoring

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
