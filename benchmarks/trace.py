# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Which operation a CPU's threads were in, from a JAX profile.

XLA on CPU writes an event for each operation, on the thread that runs it. A
large product hands parts to other threads; what they do is no event, but lies
between two marks (`StartRegion`, `StopRegion`) that carry the number of the
mark (`Record`) left where the work was handed over. So a thread's time goes to
the innermost operation around it, or, inside a region without operations, to
the one that handed it over.

Seconds are the threads' clock: where more threads run than there are cores, a
thread that waits for a core counts too.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jax.profiler import ProfileData

# What is no operation's own.
WAITING, BETWEEN = "waiting", "between operations"
_IDLE = "idle"
_NAMES = {
  "SlinkyThreadPool::Await": WAITING,
  "ThunkExecutor::Execute": BETWEEN,
  "ThunkExecutor::Execute (wait for completion)": _IDLE,
}
_START, _STOP = (
  "ThreadpoolListener::StartRegion",
  "ThreadpoolListener::StopRegion",
)
_RECORD = "ThreadpoolListener::Record"


class Operation(NamedTuple):
  """An operation's place: program, as numbered and named, and name in it."""

  program_id: int
  program: str
  name: str


class Event(NamedTuple):
  """Nanoseconds; marks last none."""

  name: str
  start: float
  end: float
  stats: dict


@dataclasses.dataclass
class Total:
  """Of one operation.

  Attributes:
    seconds: of all threads.
    calls: times that it ran.
  """

  seconds: float = 0.0
  calls: int = 0


@dataclasses.dataclass(eq=False)
class _Span:
  """Part of a thread's time.

  Attributes:
    start: nanoseconds.
    end: nanoseconds.
    what: an operation, WAITING, BETWEEN or _IDLE; None for a region.
    region: its number, of a region.
    inner: nanoseconds that spans inside it cover.
    mixed: whether operations are inside it.
  """

  start: float
  end: float
  what: Operation | str | None
  region: int | None = None
  inner: float = 0.0
  mixed: bool = False


def read(folder: pathlib.Path) -> list[list[Event]]:
  """Returns each host thread's events of the one profile under a folder.

  Raises:
    ValueError: there is none, or several.
  """
  files = list(folder.rglob("*.xplane.pb"))
  if len(files) != 1:
    raise ValueError(f"{folder}: expected one *.xplane.pb, got {len(files)}")
  return [
    [
      Event(e.name, e.start_ns, e.start_ns + e.duration_ns, dict(e.stats))
      for e in line.events
    ]
    for plane in ProfileData.from_file(str(files[0])).planes
    if plane.name == "/host:CPU"
    for line in plane.lines
  ]


def totals(threads: Iterable[Sequence[Event]]) -> dict[Operation | str, Total]:
  """Returns the time of each operation, of WAITING and of BETWEEN.

  Args:
    threads: events of each, in any order.
  """
  spans: list[_Span] = []
  givers: dict[int, _Span] = {}
  for events in threads:
    spans += _nested(events, givers)
  found: dict[Operation | str, Total] = {}
  for span in spans:
    total = found.setdefault(_owner(span, givers), Total())
    total.seconds += (span.end - span.start - span.inner) / 1e9
    total.calls += isinstance(span.what, Operation)
  found.pop(_IDLE, None)
  return found


def _nested(events: Sequence[Event], givers: dict[int, _Span]) -> list[_Span]:
  """Returns a thread's spans; adds to givers who handed over which region."""
  records = [
    (e.start, e.stats["_p"]) for e in events if e.name.endswith(_RECORD)
  ]
  spans = [s for e in events if (s := _span(e))] + _regions(events)
  # An outer span begins before an inner one, or at once with it and ends later.
  order: list[tuple[float, float, _Span | int]] = [
    (s.start, -s.end, s) for s in spans
  ]
  order += [(start, -start, number) for start, number in records]
  order.sort(key=lambda item: item[:2])
  stack: list[_Span] = []
  for start, _, item in order:
    while stack and stack[-1].end <= start:
      stack.pop()
    if isinstance(item, _Span):
      if stack:
        stack[-1].inner += min(item.end, stack[-1].end) - start
      for outer in stack:
        outer.mixed |= isinstance(item.what, Operation)
      stack.append(item)
    elif stack:
      givers[item] = stack[-1]
  return spans


def _span(event: Event) -> _Span | None:
  if event.end <= event.start:
    return None
  if "hlo_op" in event.stats:
    place = (event.stats[k] for k in ("program_id", "hlo_module", "hlo_op"))
    return _Span(event.start, event.end, Operation(*place))
  if event.name in _NAMES:
    return _Span(event.start, event.end, _NAMES[event.name])
  return None


def _regions(events: Sequence[Event]) -> list[_Span]:
  found, begun = [], []
  for event in sorted(events, key=lambda e: e.start):
    if event.name.endswith(_START):
      begun.append(event)
    elif event.name.endswith(_STOP) and begun:
      start = begun.pop()
      found.append(_Span(start.start, event.start, None, start.stats["_c"]))
  return found


def _owner(span: _Span, givers: dict[int, _Span]) -> Operation | str:
  """Whose the time is that a span has for itself."""
  seen: set[int] = set()
  while span.what is None:
    giver = givers.get(span.region)
    if span.mixed or giver is None or span.region in seen:
      return BETWEEN
    seen.add(span.region)
    span = giver
  return span.what
