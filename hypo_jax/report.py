# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What came out, in one sentence, one terminal table and one HTML file.

Every sentence here is made from the report's numbers, favourable or not. The
page needs nothing from outside: its plots are inline SVG that take the page's
text colour, so that they read in light and in dark.
"""

import html
import io
import json
import os
import pathlib
from typing import Any

# Okabe and Ito's palette, told apart by the colour-blind; markers differ too.
_STYLES = (
  ("#0072B2", "o"),
  ("#D55E00", "s"),
  ("#009E73", "^"),
  ("#CC79A7", "D"),
)
_CSS = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 17px/1.55 system-ui, sans-serif; max-width: 46rem; margin: auto;
  padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.headline { font-size: 1.15rem; border-left: 4px solid #0072B2;
  padding-left: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
td, th { padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
figure { margin: 1rem 0; } svg { width: 100%; height: auto; }
.sample { border-top: 1px solid var(--line); padding: .6rem 0; }
.reward { opacity: .7; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; font-size: .8rem; } footer { opacity: .7; }
"""


def headline(report: dict[str, Any]) -> str:
  """Returns what came out, in words, from matched KL first."""
  rows = [r for r in report["matched_kl"] if r["difference"] is not None]
  sentences = []
  if rows:
    row = rows[-1]
    gap, error = row["difference"], row["stderr"]
    if abs(gap) <= 2 * error:
      verdict = "no clear difference"
    else:
      verdict = f"{'HyPO' if gap > 0 else 'DPO'} is ahead"
    sentences.append(
      f"At an equal KL of {row['kl']:g} nats HyPO wins {row['hypo']:.3f} of "
      f"comparisons with the reference, DPO {row['dpo']:.3f}: {verdict} "
      f"({gap:+.3f} ± {error:.3f})."
    )
  elif report["matched_kl"]:
    sentences.append("HyPO and DPO reached no common KL of 1 nat or more.")
  for name, row in report.get("comparisons", {}).items():
    mine, other = name.split(" - ")
    label = other.replace(" best_pair_loss", "'s best pair loss")
    label = label.replace(" best", "'s best checkpoint")
    sentences.append(
      f"{mine} minus {label} (step {row['other_step']}): "
      f"{row['difference']:+.3f} ± {row['stderr']:.3f} win rate, at KL "
      f"{row['kl']:.2f} against {row['other_kl']:.2f}."
    )
  if not sentences:
    parts = [
      f"{name} {p['pair_accuracy']:.3f} ± {p['pair_accuracy_stderr']:.3f}"
      for name, p in report["policies"].items()
    ]
    sentences.append("No judge: pair accuracy is " + ", ".join(parts) + ".")
  return " ".join(sentences)


_COLUMNS = (
  ("step", "step", "d"),
  ("win rate", "win_rate", ".3f"),
  ("reward", "reward_mean", ".3f"),
  ("KL", "kl", ".2f"),
  ("KL (RB)", "kl_rao_blackwell", ".2f"),
  ("invalid", "invalid_rate", ".1%"),
  ("EOS", "eos_rate", ".1%"),
  ("pairs", "pair_accuracy", ".3f"),
)


def _table(report: dict[str, Any]) -> list[list[str]]:
  """Rows of text: a header, then each policy: final, best, best pair loss."""
  rows = [["policy", *(label for label, _, _ in _COLUMNS)]]
  for name, policy in report["policies"].items():
    entries = {name: policy}
    if name != "reference":
      entries |= {
        f"{name}, {kind}": policy[key]
        for kind, key in (
          ("best", "best"),
          ("best pair loss", "best_pair_loss"),
        )
        if policy.get(key)
      }
    for label, entry in entries.items():
      cells = [_cell(entry, key, form) for _, key, form in _COLUMNS]
      rows.append([label, *cells])
  return rows


def _cell(entry: dict[str, Any], key: str, form: str) -> str:
  value = entry.get(key)
  if value is None:
    return "–"
  error = entry.get(key.replace("_mean", "") + "_stderr")
  return f"{value:{form}}" + (f" ± {error:{form}}" if error else "")


def _matched_table(report: dict[str, Any]) -> list[list[str]]:
  rows = [["KL (nats)", "hypo", "dpo", "difference"]]
  for row in report["matched_kl"]:
    cells = [_cell(row, name, ".3f") for name in ("hypo", "dpo")]
    gap = "–"
    if row["difference"] is not None:
      gap = f"{row['difference']:+.3f} ± {row['stderr']:.3f}"
    rows.append([f"{row['kl']:g}", *cells, gap])
  return rows


def terminal_summary(report: dict[str, Any]) -> str:
  """Returns headline and tables as plain text."""
  parts = [headline(report), _plain(_table(report))]
  if report["matched_kl"]:
    parts.append("Win rate at equal KL:\n" + _plain(_matched_table(report)))
  return "\n\n".join(parts)


def _plain(rows: list[list[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(w) if not i else cell.rjust(w)
      for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  )


def write_report(
  workdir: pathlib.Path,
  report: dict[str, Any],
  samples: list[dict[str, Any]],
  config: dict[str, Any],
) -> None:
  """Writes plots/*.png and report.html, each aside and renamed.

  Args:
    workdir: where to write.
    report: what report.json holds.
    samples: what samples.jsonl holds.
    config: the resolved configuration.
  """
  folder = workdir / "plots"
  folder.mkdir(exist_ok=True)
  figures = _figures(report)
  for name, (figure, _) in figures.items():
    aside = folder / f"{name}.aside"
    figure.savefig(aside, format="png", dpi=150, facecolor="white")
    os.replace(aside, folder / f"{name}.png")
  page = _page(report, samples, config, figures)
  aside = workdir / "report.html.aside"
  aside.write_text(page, encoding="utf-8")
  os.replace(aside, workdir / "report.html")


def _figures(report: dict[str, Any]) -> dict[str, tuple[Any, str]]:
  """Figures by name, each with the sentence that says how to read it."""
  methods = {
    n: p for n, p in report["policies"].items() if len(p["history"]) > 1
  }
  figures = {
    "kl": (
      _curves(methods, "step", "kl_rao_blackwell", "update", "KL (nats)"),
      "How far each policy has moved from the reference: reverse KL, nats a "
      "completion, on its own samples. Lower is closer.",
    )
  }
  judged = [m for m in methods.values() if m["win_rate"] is not None]
  if judged:
    figures = {
      "frontier": (
        _curves(
          methods, "kl_rao_blackwell", "win_rate", "KL (nats)", "win rate"
        ),
        "Win rate against the reference over KL; a point is an evaluation, a "
        "bar one standard error. Higher at the same KL is better.",
      ),
      **figures,
      "rewards": (
        _histograms(report["policies"]),
        "Rewards of the completions of unseen prompts; -1 also stands for "
        "text outside the grammar.",
      ),
    }
  figures["coverage"] = (
    _coverage(report["policies"]),
    "Where completions lie: made only of 3-grams that the offline pairs hold "
    "(seen), valid but not so (unseen), or invalid.",
  )
  return figures


def _axes(x_label: str, y_label: str):
  # Slow to import, and nothing but the report needs it.
  from matplotlib.figure import Figure

  figure = Figure(figsize=(7, 3.8), layout="constrained")
  axes = figure.subplots()
  axes.set(xlabel=x_label, ylabel=y_label)
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(alpha=0.25)
  return figure, axes


def _curves(methods, x: str, y: str, x_label: str, y_label: str):
  figure, axes = _axes(x_label, y_label)
  for (name, policy), (color, marker) in zip(
    methods.items(), _STYLES, strict=False
  ):
    history = [e for e in policy["history"] if e.get(y) is not None]
    axes.errorbar(
      [e[x] for e in history],
      [e[y] for e in history],
      yerr=[e.get(f"{y}_stderr") or 0.0 for e in history],
      color=color,
      marker=marker,
      markersize=4,
      linewidth=1.3,
      elinewidth=0.8,
      label=name,
    )
  axes.legend(frameon=False)
  return figure


def _histograms(policies):
  figure, axes = _axes("reward", "share of completions")
  styles = (("#888888", "x"), *_STYLES)
  for (name, policy), (color, _) in zip(policies.items(), styles, strict=False):
    histogram = policy.get("reward_histogram")
    if histogram:
      total = sum(histogram["counts"])
      shares = [c / total for c in histogram["counts"]]
      axes.stairs(shares, histogram["edges"], color=color, label=name, lw=1.6)
  axes.legend(frameon=False)
  return figure


def _coverage(policies):
  figure, axes = _axes("share of completions", "")
  names = list(policies)
  left = [0.0] * len(names)
  for kind, color in (
    ("seen", "#009E73"),
    ("unseen_valid", "#56B4E9"),
    ("invalid", "#D55E00"),
  ):
    widths = [policies[n]["coverage"][kind] for n in names]
    label = kind.replace("_", ", ")
    axes.barh(names, widths, left=left, color=color, label=label)
    left = [a + b for a, b in zip(left, widths, strict=True)]
  axes.legend(
    frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1)
  )
  return figure


def _svg(figure, label: str) -> str:
  """The figure as SVG whose black becomes the page's text colour."""
  buffer = io.StringIO()
  metadata = {"Date": None}
  figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
  svg = buffer.getvalue()
  svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
  # Glyphs without a fill are black by default.
  start = f'<svg fill="currentColor" role="img" aria-label="{label}"'
  return svg.replace("<svg", start, 1)


def _html_table(rows: list[list[str]]) -> str:
  head = "".join(f"<th>{html.escape(c)}</th>" for c in rows[0])
  body = "".join(
    "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
    for row in rows[1:]
  )
  return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _page(report, samples, config, figures) -> str:
  plots = "".join(
    f"<figure>{_svg(figure, html.escape(name))}"
    f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    for name, (figure, caption) in figures.items()
  )
  matched = ""
  if report["matched_kl"]:
    matched = "<h2>Win rate at equal KL</h2>" + _html_table(
      _matched_table(report)
    )
  times = [["stage", "seconds"]] + [
    [k, f"{v:.1f}"] for k, v in report["wall_seconds"].items()
  ]
  settings = html.escape(json.dumps(config, indent=1))
  versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
  shown = "".join(map(_sample, samples[:8]))
  more = "".join(map(_sample, samples[8:]))
  return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>HyPO report</title><style>{_CSS}</style></head><body>
<h1>HyPO report</h1><p class="headline">{html.escape(headline(report))}</p>
{plots}{matched}
<h2>Policies on unseen prompts</h2>{_html_table(_table(report))}
<p>± is one standard error over prompts. KL is reverse, in nats a completion, at
temperature 1; RB is its Rao-Blackwell estimate. Best is the checkpoint chosen
on validation prompts, measured again here.</p>
<h2>Samples</h2>{shown}<details><summary>More</summary>{more}</details>
<h2>Seconds by stage</h2>{_html_table(times)}
<details><summary>Settings</summary><pre>{settings}</pre></details>
<footer>{html.escape(versions)}; seed {report["seed"]}</footer>
</body></html>
"""


def _sample(row: dict[str, Any]) -> str:
  lines = []
  for name, texts in row["completions"].items():
    for text, reward in zip(texts, row["rewards"][name], strict=True):
      number = "" if reward is None else f" ({reward:+.2f})"
      lines.append(
        f"<li><b>{html.escape(name)}</b><span class='reward'>{number}</span> "
        f"{html.escape(text)}</li>"
      )
  prompt = html.escape(row["prompt"])
  return f"<div class='sample'><i>{prompt}</i><ul>{''.join(lines)}</ul></div>"
