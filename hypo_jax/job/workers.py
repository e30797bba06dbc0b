# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the cells of a study on all cores.

A worker is a process of its own, on its share of the cores, that runs some
cells of one start in turn. Whatever happens to a cell, the others go on: an
error is kept in the cell's folder, a process that died costs the cell that it
was at. Workers end when their parent is gone.
"""

import math
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing import connection
from typing import Any, NamedTuple

from absl import logging

from hypo_jax import compilations
from hypo_jax.job import cells
from hypo_jax.loop import Stopped
from hypo_jax.study import plan
from hypo_jax.study.methods import Settings

# Cells that one process runs: enough to share what is compiled, few enough to
# keep all cores at work until the end.
_CHUNK = 8
_STOPPED = 130


class Chunk(NamedTuple):
  """Cells of one start, for one process."""

  seed: int
  start: str
  names: tuple[str, ...]


def run(
  config: Any,
  workdir: pathlib.Path,
  settings: Mapping[tuple[int, str], Settings],
  tested: set[tuple[int, str]],
) -> None:
  """Runs cells, as many at a time as `study.workers` says.

  Args:
    config: the study's.
    workdir: holds a folder a seed.
    settings: of the cells, by seed and name.
    tested: those to be measured on the test prompts.

  Raises:
    ValueError: for more workers than cores.
    loop.Stopped: after a stop signal, when all workers have saved.
  """
  _Pool(config, workdir, settings, tested).run(chunks(settings))


def chunks(settings: Mapping[tuple[int, str], Settings]) -> list[Chunk]:
  """Returns the cells by seed and start, at most eight to a chunk.

  The next start's first chunk goes before a start's later ones, so that workers
  make several starts side by side, where they would wait for one.
  """
  groups: dict[tuple[int, str], list[str]] = {}
  for (seed, name), values in settings.items():
    groups.setdefault((seed, plan.start_of(values)), []).append(name)
  found = [
    (at + i, i, Chunk(*group, tuple(names[i * _CHUNK : (i + 1) * _CHUNK])))
    for at, (group, names) in enumerate(groups.items())
    for i in range(math.ceil(len(names) / _CHUNK))
  ]
  return [chunk for *_, chunk in sorted(found, key=lambda item: item[:2])]


class _Pool:
  """Keeps as many workers busy as there are shares of the cores."""

  def __init__(self, config, workdir, settings, tested):
    self._config, self._workdir = config, workdir
    self._settings, self._tested = settings, tested
    self._context = multiprocessing.get_context("spawn")
    self._shares = core_shares(config.study.workers)
    self._running: dict[int, tuple[Any, Chunk]] = {}
    self._told: set[int] = set()

  def run(self, waiting: list[Chunk]) -> None:
    waiting = list(waiting)
    stop = threading.Event()
    before = {
      s: signal.signal(s, lambda *_: stop.set())
      for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
      while (waiting and not stop.is_set()) or self._running:
        for slot in range(len(self._shares)):
          if waiting and slot not in self._running and not stop.is_set():
            self._start(slot, waiting.pop(0))
        if stop.is_set():
          self._tell()
        self._collect(waiting, stopping=stop.is_set())
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)
    if stop.is_set():
      raise Stopped("the study was stopped; all of it is saved")

  def _start(self, slot: int, chunk: Chunk) -> None:
    settings = {name: self._settings[chunk.seed, name] for name in chunk.names}
    tested = {n for n in chunk.names if (chunk.seed, n) in self._tested}
    process = self._context.Process(
      target=_work,
      args=(
        self._config,
        self._workdir,
        chunk,
        settings,
        tested,
        self._shares[slot],
        os.getpid(),
      ),
    )
    process.start()
    self._running[slot] = process, chunk

  def _tell(self) -> None:
    """Tells each worker, once, to save and stop."""
    for slot, (process, _) in self._running.items():
      if slot not in self._told:
        process.terminate()
        self._told.add(slot)

  def _collect(self, waiting: list[Chunk], *, stopping: bool) -> None:
    """Waits for a worker to end; what it left undone after a crash goes on."""
    connection.wait(
      [process.sentinel for process, _ in self._running.values()], timeout=1.0
    )
    for slot, (process, chunk) in list(self._running.items()):
      if process.is_alive():
        continue
      del self._running[slot]
      if process.exitcode and not stopping:
        left = self._blame(chunk, process.exitcode)
        if left:
          waiting.insert(0, chunk._replace(names=left))

  def _folder(self, seed: int, name: str) -> pathlib.Path:
    return self._workdir / str(seed) / name

  def _blame(self, chunk: Chunk, code: int) -> tuple[str, ...]:
    """Marks the cell at which a process died; returns those after it.

    A worker that somebody else told to stop has saved, and left its cell whole.
    """
    left = [
      name
      for name in chunk.names
      if not any(
        (self._folder(chunk.seed, name) / file).exists()
        for file in (cells.DONE, cells.FAILED)
      )
    ]
    if code == _STOPPED:
      return tuple(left)
    if left:
      folder = self._folder(chunk.seed, left[0])
      folder.mkdir(parents=True, exist_ok=True)
      (folder / cells.FAILED).write_text(
        f"the cell's process ended with exit code {code}\n"
      )
    return tuple(left[1:])


def core_shares(workers: int) -> list[tuple[int, ...]]:
  """Returns the cores of each worker.

  Args:
    workers: how many; 0 for one a core.

  Raises:
    ValueError: if there are fewer cores.
  """
  if hasattr(os, "sched_getaffinity"):
    cores = sorted(os.sched_getaffinity(0))
  else:
    cores = list(range(os.cpu_count() or 1))
  count = workers or len(cores)
  if not 1 <= count <= len(cores):
    raise ValueError(
      f"study.workers: expected 0 to {len(cores)}, the cores that there are, "
      f"got {workers}"
    )
  return [tuple(cores[i::count]) for i in range(count)]


def _work(
  config: Any,
  workdir: pathlib.Path,
  chunk: Chunk,
  settings: dict[str, Any],
  tested: set[str],
  cores: tuple[int, ...],
  parent: int,
) -> None:
  """A worker's process."""
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cores)  # Before XLA counts them.
  threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
  # The parent is told by the terminal, and tells its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  logging.set_verbosity(logging.WARNING)
  compilations.keep_programs()
  try:
    _run_chunk(config, workdir, chunk, settings, tested)
  except Stopped:
    sys.exit(_STOPPED)


def _end_with(parent: int) -> None:
  """Ends this process when its parent is gone, as a kill leaves it."""
  while os.getppid() == parent:
    time.sleep(0.5)
  os._exit(1)


def _run_chunk(config, workdir, chunk: Chunk, settings, tested) -> None:
  seed_folder = workdir / str(chunk.seed)
  first = settings[chunk.names[0]]
  data = {k: v for k, v in first.items() if k.startswith("data.")}
  try:
    begun = cells.begin(
      cells.cell_config(config, chunk.seed, {}),
      data,
      seed_folder / chunk.start,
      seed_folder / "start",
    )
  except Stopped:
    raise
  except Exception as error:  # Of all that would begin there.
    for name in chunk.names:
      text = cells.mark_failed(seed_folder / name, error)
      print(f"{seed_folder / name}: failed: {text}", flush=True)
    return
  for name in chunk.names:
    folder = seed_folder / name
    wall, cpu = time.monotonic(), time.process_time()
    own = cells.cell_config(config, chunk.seed, settings[name])
    error = cells.run_cell(begun, own, folder, test=name in tested)
    what = f"failed: {error}" if error else cells.describe(folder)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{folder}: {what} ({wall:.0f} s, {cpu:.0f} of CPU)", flush=True)
