# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""report.html: one file that a browser reads without a network.

Text from data is escaped wherever it stands; plots are inline SVG in a wide and
a narrow drawing, of which the style sheet shows one.
"""

from typing import Any

from hypo_jax.report.canvas import Plot
from hypo_jax.report.elements import (
  document,
  escape,
  figures,
  flat_settings,
  plot_section,
  table_region,
)
from hypo_jax.report.formatting import (
  duration,
  finite,
  kl_of,
  number,
  places,
  policy_name,
)
from hypo_jax.report.speed import speed_table
from hypo_jax.report.style import series
from hypo_jax.report.summary import (
  claim,
  compares_at_equal_kl,
  describe_checkpoints,
  describe_coverage,
  describe_optimum,
  matched_row,
  verdict,
)
from hypo_jax.report.tables import (
  COLUMNS,
  MORE_COLUMNS,
  Report,
  comparison_table,
  has_judge,
  matched_table,
  methods,
  policy_table,
)

# Prompts whose samples are open from the start.
_NUM_OPEN = 8
_SPEED_NOTE = (
  "Means over the steps during which nothing was compiled. The parts add up to "
  "the step; phases were timed on logged steps, where the device is awaited. "
  "What stands inside the train step’s program (the reference’s scoring, and "
  "rollouts where they are drawn there) was timed alone, at the start. Tokens "
  "a second and MFU count padding, and leave checkpoints and evaluations out. "
  "Memory is a device’s, on a CPU the whole process’s."
)


def make_page(
  report: Report,
  samples: list[dict[str, Any]],
  config: dict[str, Any],
  plots: list[Plot],
) -> str:
  """Returns the page.

  Args:
    report: what report.json holds.
    samples: what samples.jsonl holds.
    config: the resolved configuration.
    plots: of `make_plots`.
  """
  by_name = {plot.name: plot for plot in plots}
  parts = [
    _top(report),
    *(plot_section(by_name[n]) for n in ("frontier",) if n in by_name),
    _matched(report),
    *(plot_section(plot) for plot in plots if plot.name != "frontier"),
    _policies(report),
    _samples(report, samples),
    _speed(report),
    _run(report, config),
  ]
  return document(f"{verdict(report)} – hypo_jax report", parts)


def _top(report: Report) -> str:
  names = ", ".join(map(policy_name, methods(report)))
  seconds = (report.get("wall_seconds") or {}).values()
  facts = ["hypo_jax report", names, f"seed {report.get('seed', 'n/a')}"]
  if seconds:
    known = [s for s in map(finite, seconds) if s is not None]
    facts.append(duration(sum(known)))
  order = sorted(methods(report), key=lambda n: n != "dpo")
  paragraphs = [f'<p class="claim">{escape(s)}</p>' for s in claim(report)[:1]]
  rest = claim(report)[1:] + [describe_checkpoints(report, n) for n in order]
  rest += describe_optimum(report) + describe_coverage(report)
  paragraphs += [f"<p>{escape(sentence)}</p>" for sentence in rest]
  facts = escape(" · ".join(filter(None, facts)))
  return (
    f'<header>\n<p class="kicker">{facts}</p>\n'
    f"<h1>{escape(verdict(report))}</h1>\n"
    f"{paragraphs[0] if paragraphs else ''}\n{_figures(report)}\n"
    f"{''.join(paragraphs[1:])}\n</header>"
  )


def _figures(report: Report) -> str:
  """The numbers of the headline, large."""
  row = matched_row(report) if has_judge(report) else None
  items: list[tuple[str, str, str]] = []
  if row is not None:
    digits = places([row.get("stderr")])
    for name in ("hypo", "dpo"):
      label = f"{policy_name(name)}, win rate at KL {row['kl']:g}"
      items.append((label, number(row.get(name), digits), ""))
    gap = number(row["difference"], digits, signed=True)
    items.append(("difference", gap, number(row.get("stderr"), digits)))
  else:
    key = "win_rate" if has_judge(report) else "pair_accuracy"
    what = key.replace("_", " ")
    for name in methods(report):
      policy = report["policies"][name]
      error = policy.get(f"{key}_stderr")
      label = f"{policy_name(name)}, final {what}"
      value = number(policy.get(key), places([error]))
      items.append((label, value, number(error, places([error]))))
      kl, error = kl_of(policy)
      digits = min(places([error]), 2)
      label = f"{policy_name(name)}, final KL in nats"
      items.append((label, number(kl, digits), number(error, digits)))
  return figures(items)


def _matched(report: Report) -> str:
  parts = []
  if compares_at_equal_kl(report) and report.get("matched_kl"):
    parts += [
      "<h2>Win rate at equal KL</h2>",
      "<p>Each method's win rate where its own training curve first reached "
      "that KL, on a straight line between two evaluations. Differences are "
      "paired by prompt.</p>",
      table_region(matched_table(report), "Win rate at equal KL"),
    ]
  if has_judge(report) and report.get("comparisons"):
    level = "h3" if parts else "h2"
    parts += [
      f"<{level}>Whole checkpoints, at their own KL</{level}>",
      "<p>Differences of win rate on the test prompts, paired by prompt.</p>",
      table_region(comparison_table(report), "Differences between checkpoints"),
    ]
  if not parts:
    return ""
  return "\n".join(['<section id="matched">', *parts, "</section>"])


def _policies(report: Report) -> str:
  names = ["reference", *methods(report)]
  dots = {policy_name(n): colour for n, colour in series(names).items()}
  more = policy_table(report, MORE_COLUMNS)
  parts = [
    '<section id="policies">\n<h2>Policies on unseen prompts</h2>',
    table_region(policy_table(report, COLUMNS), "Policies", dots),
    '<p class="note">± is one standard error, over prompts or pairs. “Best” is '
    "the checkpoint that did best on validation prompts, “best pair loss” the "
    "one with the lowest loss on held-out pairs, which one would pick without "
    "a judge. All are measured here on test prompts, the curves on validation "
    "prompts.</p>",
  ]
  if len(more[0]) > 2:
    table = table_region(more, "More measurements", dots)
    parts.append(f"<details><summary>More measurements</summary>{table}")
    parts.append("</details>")
  return "\n".join(parts) + "\n</section>"


def _samples(report: Report, samples: list[dict[str, Any]]) -> str:
  if not samples:
    return ""
  colours = series(["reference", *methods(report)])
  rows = [_sample(row, colours) for row in samples]
  text = "\n".join(rows[:_NUM_OPEN])
  if folded := len(rows[_NUM_OPEN:]):
    prompts = "prompt" if folded == 1 else "prompts"
    text += (
      f"\n<details><summary>{folded} more {prompts}</summary>"
      + "\n".join(rows[_NUM_OPEN:])
      + "</details>"
    )
  note = "Drawn at temperature 1 by each final policy, not picked."
  if has_judge(report):
    note += " The number is the judge's reward."
  return (
    f'<section id="samples">\n<h2>Samples</h2>\n<p>{note}</p>\n{text}\n'
    "</section>"
  )


def _sample(row: dict[str, Any], colours: dict[str, str]) -> str:
  columns = []
  for name, texts in row["completions"].items():
    rewards = list((row.get("rewards") or {}).get(name) or [])
    rewards += [None] * (len(texts) - len(rewards))
    items = "".join(
      _completion(*pair) for pair in zip(texts, rewards, strict=False)
    )
    style = f"background: var(--{colours.get(name, 'muted')})"
    columns.append(
      f'<div><h3><span class="dot" style="{style}"></span>'
      f"{escape(policy_name(name))}</h3><ul>{items}</ul></div>"
    )
  return (
    f'<article class="sample"><p class="prompt">{escape(row["prompt"])}</p>'
    f'<div class="answers">{"".join(columns)}</div></article>'
  )


def _completion(text: str, reward: float | None) -> str:
  shown = escape(text) if text else '<span class="empty">(empty)</span>'
  if reward is None:
    return f"<li>{shown}</li>"
  number_text = number(reward, 2, signed=True)
  return f'<li>{shown}<span class="reward">{number_text}</span></li>'


def _speed(report: Report) -> str:
  if not report.get("speed"):
    return ""
  return (
    '<section id="speed">\n<h2>Where a step’s time went</h2>\n'
    f"{table_region(speed_table(report), 'Milliseconds of a step')}\n"
    f'<p class="note">{_SPEED_NOTE}</p>\n</section>'
  )


def _run(report: Report, config: dict[str, Any]) -> str:
  parts = ['<section id="run">\n<h2>The run</h2>']
  times = report.get("wall_seconds") or {}
  if times:
    rows = [[str(stage), duration(s)] for stage, s in times.items()]
    parts.append(table_region([["stage", "time"], *rows], "Time by stage"))
  settings = [["setting", "value"], *flat_settings(config, "")]
  parts.append(
    "<details><summary>Settings</summary>"
    f"{table_region(settings, 'Settings')}</details>\n</section>"
  )
  versions = " · ".join(
    f"{name} {version}"
    for name, version in (report.get("versions") or {}).items()
  )
  parts.append(f"<footer>{escape(versions)}</footer>")
  return "\n".join(parts)
