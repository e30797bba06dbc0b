# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""aot.html: what a plan takes on each device, as bars and tables."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hypo_jax.aot import chips
from hypo_jax.aot.summary import (
  FUSED,
  labels,
  operation,
  pace,
  recommendation,
  seconds,
  size,
  utilisation,
  verdict,
)
from hypo_jax.report.style import CSS

_STYLE = """
.bars { display: grid; grid-template-columns: max-content 1fr max-content;
  gap: .35rem .8rem; align-items: center; margin: 1rem 0;
  font-variant-numeric: tabular-nums; font-size: .9rem; }
.bar { position: relative; display: flex; height: 1.1rem;
  background: var(--panel); border-radius: .2rem; }
.bar span { display: block; }
.bar .limit { position: absolute; top: -.3rem; bottom: -.3rem; width: 2px;
  background: var(--ink); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9rem;
  color: var(--muted); margin: 0; }
td.source { text-align: left; white-space: normal; overflow-wrap: break-word;
  min-width: 16rem; max-width: 30rem; }
@media (max-width: 36rem) { td.source { min-width: 7.5rem; max-width: 12rem; } }
td.source, td.word { padding-left: 0; }
"""
_COLOURS = {
  "arguments": "hypo",
  "temporaries": "dpo",
  "results and program": "other3",
  "compute": "hypo",
  "main memory": "other1",
  "interconnect": "dpo",
  "predicted": "reference",
}


def make_page(plan: Any, trials: Sequence[Any] = ()) -> str:
  """Returns the page of a plan (`job.aot.Plan`) and of changes tried."""
  title = f"{plan.topology}: {verdict(plan)}"
  parts = [
    '<p class="kicker">hypo_jax, compiled ahead for '
    f"{_text(plan.topology)}, {plan.place.num_devices} devices</p>",
    f"<h1>{_text(_unbroken(verdict(plan)))}</h1>",
    _figures(plan),
    "<h2>Memory of a device</h2>",
    _memory(plan),
    *(_times(plan) if plan.fits else ()),
    "<h2>What would help</h2>",
    _help(plan, trials),
    "<h2>Largest arrays on a device</h2>",
    _buffers(plan),
    "<h2>Collectives</h2>",
    _collectives(plan),
    "<h2>How this was found</h2>",
    _method(plan),
  ]
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
    f"<title>{_text(title)}</title>\n<style>\n{CSS}{_STYLE}</style>\n</head>\n"
    "<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
  )


def _text(value: Any) -> str:
  return html.escape(str(value))


def _breaking(text: str) -> str:
  """Escapes the name of a setting or array, which may be cut at its joints."""
  return re.sub(r"([._=])(?=\w)", r"\1<wbr>", _text(text))


def _unbroken(text: str) -> str:
  """Keeps a number and its unit on one line."""
  return re.sub(r"(\d) (?=([KMG]i)?B\b|m?s\b)", "\\1\N{NO-BREAK SPACE}", text)


def _figures(plan: Any) -> str:
  if plan.fits:
    _, _, mfu = utilisation(plan)[0]
    figures = [
      ("Peak a device", size(plan.peak)),
      ("Step, at best", seconds(plan.step_seconds)),
      ("MFU, at best", f"{mfu:.2f}"),
      ("Tokens/s", f"{pace(plan):,.0f}"),
      (f"Chip hours, {plan.num_steps} updates", f"{plan.chip_hours:,.0f}"),
    ]
  else:
    usable = plan.place.usable_hbm
    figures = [
      ("Needed on a device", size(plan.peak)),
      ("Usable there", size(usable)),
      ("Too much by", size(plan.peak - usable)),
    ]
  cells = "".join(
    f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
    for name, value in figures
  )
  return f'<dl class="figures">{cells}</dl>'


def _bar(
  label: str,
  parts: list[tuple[str, float]],
  whole: float,
  said: str,
  limit: float | None = None,
) -> str:
  """A bar of parts, and a line across it at `limit`, of `whole` in width."""
  spans = "".join(
    f'<span style="width:{100 * value / whole:.2f}%;'
    f'background:var(--{_COLOURS[name]})" title="{_text(name)}"></span>'
    for name, value in parts
    if value > 0
  )
  if limit is not None:
    spans += f'<i class="limit" style="left:{100 * limit / whole:.2f}%"></i>'
  return (
    f"<span>{_text(label)}</span>"
    f'<div class="bar" role="img" aria-label="{_text(label)}: {_text(said)}">'
    f"{spans}</div><span>{_text(said)}</span>"
  )


def _key(names: Iterable[str]) -> str:
  dots = "".join(
    f'<span><i class="dot" style="background:var(--{_COLOURS[n]})"></i>'
    f"{_text(n)}</span>"
    for n in names
  )
  return f'<p class="key">{dots}</p>'


def _memory(plan: Any) -> str:
  state = plan.train.memory.arguments
  rows, names = {}, labels(plan)
  for name, each in plan.programs.items():
    rows[names[name]] = [
      ("arguments", state + plan.idle),
      ("temporaries", each.memory.temporaries),
      ("results and program", each.memory.rest),
    ]
  limit = plan.place.usable_hbm
  whole = max(
    plan.place.hbm, *(sum(v for _, v in parts) for parts in rows.values())
  )
  bars = [
    _bar(name, parts, whole, size(sum(v for _, v in parts)), limit)
    for name, parts in rows.items()
  ]
  return (
    _key(("arguments", "temporaries", "results and program"))
    + f'<div class="bars">{"".join(bars)}</div>'
    + f"<p>The line marks {size(limit)}, what programs may use of "
    f"{size(plan.place.hbm)}. The state and the reference stay while rollouts "
    "are drawn; the two programs run one after the other.</p>"
  )


def _times(plan: Any) -> tuple[str, ...]:
  called = labels(plan)
  names = ("compute", "main memory", "interconnect", "predicted")
  values = {
    name: (e.compute, e.hbm, e.interconnect, e.step)
    for name, e in ((n, p.estimate) for n, p in plan.programs.items())
  }
  whole = max(v for row in values.values() for v in row)
  bars = [
    _bar(f"{called[name]}, {part}", [(part, value)], whole, seconds(value))
    for name, row in values.items()
    for part, value in zip(names, row, strict=True)
  ]
  rows = [
    (name, seconds(took), f"{mfu:.3f}") for name, took, mfu in utilisation(plan)
  ]
  table = _table(("", "seconds", "MFU"), rows)
  bars = f'<div class="bars">{"".join(bars)}</div>'
  return "<h2>Time of a step</h2>", _key(names), bars, table


def _help(plan: Any, trials: Sequence[Any]) -> str:
  parts = []
  if trials:
    parts.append(f"<p>{_text(recommendation(plan, trials))}</p>")
    rows = [("as it is", *_trial(plan))]
    for trial in trials:
      figures = _trial(trial.plan) if trial.plan else ("refused", "", "")
      rows.append((trial.change, *figures))
    heads = ("change", "peak", "tokens/s", "step")
    parts.append(_table(heads, rows, sources=True))
    parts += [
      f"<p>{_text(t.change)} is refused: {_text(t.refusal)}</p>"
      for t in trials
      if not t.plan
    ]
  else:
    parts.append("<p>--search compiles a handful of changes and tells.</p>")
  items = "".join(f"<li>{_text(text)}</li>" for text in plan.advice)
  parts.append(f"<p>Settings that shrink the memory:</p><ul>{items}</ul>")
  return "".join(parts)


def _trial(plan: Any) -> tuple[str, str, str]:
  if not plan.fits:
    return f"{size(plan.peak)}, does not fit", "", ""
  return size(plan.peak), f"{pace(plan):,.0f}", seconds(plan.step_seconds)


def _buffers(plan: Any) -> str:
  parts, names = [], labels(plan)
  for name, each in plan.programs.items():
    for label, buffers in (
      ("is given", each.arguments),
      ("makes", each.made),
    ):
      rows = [(operation(b.source), size(b.bytes), b.shape) for b in buffers]
      parts.append(f"<h3>The {names[name]} {label}</h3>")
      parts.append(_table(("array", "size", "shape"), rows, sources=True))
  return "".join(parts)


def _collectives(plan: Any) -> str:
  rows, names = [], labels(plan)
  for name, each in plan.programs.items():
    groups: dict[tuple[str, str, bool], list[float]] = {}
    for c in each.program.collectives:
      key = (operation(c.source), c.kind, c.overlaps)
      found = groups.setdefault(key, [0.0, 0.0, 0.0])
      took = chips.collective_seconds(c, plan.place)
      for at, value in enumerate((c.trips, c.trips * c.bytes, c.trips * took)):
        found[at] += value
    ordered = sorted(groups.items(), key=lambda item: -item[1][2])
    for (source, kind, overlaps), (trips, moved, took) in ordered[:10]:
      rows.append(
        (
          f"{names[name]}: {source}",
          kind + (", overlapped" if overlaps else ""),
          f"{trips:,.0f}",
          size(moved),
          seconds(took),
        )
      )
  if not rows:
    return "<p>None that is known.</p>"
  heads = ("for", "kind", "times", "a device sends", "seconds")
  return _table(heads, rows, sources=True)


def _method(plan: Any) -> str:
  names = labels(plan)
  notes = [FUSED] if plan.fused else []
  notes += [
    f"{names[name]}: {note}"
    for name, each in plan.programs.items()
    for note in each.notes
    + ((each.memory.message,) * bool(each.memory.message))
  ]
  items = "".join(f"<li>{_text(note)}</li>" for note in notes)
  chip = plan.place.chip
  return (
    "<p>The programs were compiled for the slice by the TPU compiler; nothing "
    "was run or measured. Rows are of full length; a train step that is given "
    "its rollouts has a branch for each shorter length of the data besides, "
    "left out here. Memory is the compiler's account. Operations, bytes "
    "and collectives are read from the compiled program, each loop as often as "
    "it runs. An instruction takes the longer of its operations at "
    f"{chip.flops / 1e12:g} TFLOP/s and its bytes at "
    f"{chip.hbm_bandwidth / 1e9:g} GB/s; a collective that stops the work adds "
    "its bytes over the links and a microsecond a hop; overlapped ones, and "
    "copies beside the work, count where they take longer than it. So a real "
    "step is slower than this. MFU counts three forwards for learning, one for "
    "the reference, and sampling; nothing that is computed again.</p>"
    f"<ul>{items}</ul>"
  )


def _table(
  heads: Sequence[str], rows: Sequence[Sequence[str]], *, sources: bool = False
) -> str:
  head = "".join(f'<th scope="col">{_text(h)}</th>' for h in heads)
  style = ' class="source"' if sources else ""
  body = "".join(
    f"<tr><td{style or ' class=word'}>{_breaking(row[0])}</td>"
    + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
    + "</tr>"
    for row in rows
  )
  return (
    '<div class="scroll" tabindex="0"><table><thead><tr>'
    f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
  )
