# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a job says when a device's memory runs out: what took it, what helps.

The compiler and the allocator say how many bytes they wanted, and nothing of
which arrays or settings these come from. `explained` adds what was running, the
largest arrays of that program and the settings that shrink it, and from which
step the job goes on.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from hypo_jax.aot import compiled, memory, summary
from hypo_jax.aot.compiled import Buffer
from hypo_jax.checkpoint import abstract
from hypo_jax.job.methods import draw_every, of_config

# Arrays named of a program's arguments, and of what it makes.
_SHOWN = 4
# What shrinks only what has this beginning.
_ADVICE = {
  "drawing rollouts": "preference.batch_size: so many prompts at once",
  "evaluating": "evaluate.samples_per_prompt and "
  "evaluate.validation_samples_per_prompt: so many completions at once of "
  "preference.batch_size prompts, each up to twice data.completion_length",
}


class OutOfMemory(RuntimeError):
  """A device's memory ran out; the message says what to change."""


class Watch:
  """Remembers which program was started last, and what it was given.

  Attributes:
    running: what was started last, in words.
    programs: by name, a jitted function, its arguments' names and shapes.
  """

  def __init__(self):
    self.running = ""
    self.programs: dict[str, tuple[Any, tuple[str, ...], tuple]] = {}

  def __call__(
    self, name: str, function: Callable[..., Any], *arguments: str
  ) -> Callable[..., Any]:
    """Returns the function, watched.

    Args:
      name: in words.
      function: jitted, where arguments are named.
      *arguments: names of what the function is given, in order.
    """

    def run(*args):
      self.running = name
      if arguments and name not in self.programs:
        # Before the call: what is donated is gone after it.
        self.programs[name] = (function, arguments, abstract(args))
      return function(*args)

    return run


@contextlib.contextmanager
def explained(config: Any, workdir: pathlib.Path) -> Iterator[Watch]:
  """Turns an error for want of memory into one that says what to change.

  Args:
    config: the job's.
    workdir: its checkpoints tell what is saved.

  Raises:
    OutOfMemory: in place of jax's own error.
  """
  watch = Watch()
  try:
    yield watch
  except jax.errors.JaxRuntimeError as error:
    if not memory.is_of_memory(error):
      raise
    text = _explanation(config, workdir, watch, error)
    raise OutOfMemory(text) from error


def _explanation(
  config: Any, workdir: pathlib.Path, watch: Watch, error: BaseException
) -> str:
  lines = [f"out of memory: {watch.running or 'setting up the job'}"]
  lines.append(f"  {str(error).splitlines()[0]}")
  if watch.running in watch.programs:
    lines += _of_program(*watch.programs[watch.running])
  lines.append("  what shrinks it:")
  advice = [t for name, t in _ADVICE.items() if watch.running.startswith(name)]
  advice += memory.advice(config, jax.device_count())
  lines += [f"    {text}" for text in advice]
  lines.append(f"  {_saved(workdir, config)}")
  return "\n".join(lines)


def _of_program(
  function: Any, names: tuple[str, ...], arguments: tuple
) -> list[str]:
  """Returns what a program takes on a device, and its largest arrays."""
  given: tuple[Buffer, ...] = ()
  made: tuple[Buffer, ...] = ()
  lines = []
  try:
    named = dict(zip(names, arguments, strict=True))
    given = memory.largest_arguments(named, _SHOWN)
    traced = function.trace(*arguments)
    made = memory.largest_made(
      traced.jaxpr, arguments, jax.device_count(), _SHOWN
    )
    done = traced.lower().compile()
    stats = memory.of_compiled(done)
    lines.append(
      f"  on each device: arguments {summary.size(stats.arguments)}, "
      f"beside them {summary.size(stats.beside_arguments)}"
    )
    # How often a loop runs changes no array's size.
    made = compiled.read(done.as_text(), while_trips=1).buffers[:_SHOWN]
  except Exception:
    pass  # Nothing may be left to compile with: what is known by now is said.
  for title, buffers in (("given", given), ("made", made)):
    if buffers:
      lines.append(f"  largest {title}:")
      lines += [
        f"    {summary.size(b.bytes):>10}  {b.shape}  {_source(b)}"
        for b in buffers
      ]
  return lines


def _source(buffer: Buffer) -> str:
  return summary.operation(buffer.source) if buffer.source else ""


def _saved(workdir: pathlib.Path, config: Any) -> str:
  """Returns what a second call goes on from, in words."""
  methods = of_config(config)
  ends = {"sft": config.sft.num_steps}
  ends |= {name: settings["num_steps"] for name, settings in methods.items()}
  draws = {name: draw_every(config, methods[name]) for name in methods}
  for stage, end in reversed(ends.items()):
    folders = (workdir / "checkpoints" / stage).glob("*")
    steps = [int(f.name) for f in folders if f.name.isdecimal()]
    every = draws.get(stage, 1)
    if steps := [s for s in steps if s == end or s % every == 0]:
      return (
        f"saved: {stage} up to step {max(steps)}; a second call goes on from "
        "there, also with another model.remat, preference.micro_batch_size or "
        "mesh"
      )
  return "nothing is saved yet; a second call starts anew"
