# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Colours of the page and its plots, in light and in dark, and the style sheet.

Plots are drawn in the light colours; in the page each of these becomes a CSS
variable, so that one SVG follows the reader's setting. Series have Okabe and
Ito's colours, which the colour-blind tell apart, lighter in the dark.
"""

import re

# Name: (light, dark). The light ones are all different: they are the keys.
PALETTE = {
  "paper": ("#fffefc", "#15181c"),
  "ink": ("#22262b", "#e5e4e0"),
  "muted": ("#646a73", "#a1a7b0"),
  "line": ("#dedbd5", "#343a42"),
  "panel": ("#f6f4ef", "#1d2127"),
  "reference": ("#7a828c", "#98a1ac"),
  "hypo": ("#0072b2", "#56b4e9"),
  "dpo": ("#d55e00", "#f39055"),
  "other1": ("#009e73", "#3fcfa3"),
  "other2": ("#b0568a", "#e39ac6"),
  "other3": ("#8f7200", "#e2c54a"),
  "seen": ("#46688c", "#86aed6"),
  "unseen": ("#bdd0e3", "#385673"),
}
MARKERS = {
  "reference": "x",
  "hypo": "o",
  "dpo": "s",
  "other1": "^",
  "other2": "D",
  "other3": "v",
}


def light(name: str) -> str:
  return PALETTE[name][0]


def series(names: list[str]) -> dict[str, str]:
  """Returns the palette's name of each policy; only beyond three others twice.

  Args:
    names: policies, in the order in which they are shown.
  """
  own = ("reference", "hypo", "dpo")
  others = [n for n in names if n not in own]
  return {
    n: n if n in own else f"other{others.index(n) % 3 + 1}" for n in names
  }


def themed(svg: str) -> str:
  """Returns SVG whose light colours follow the page's setting."""
  variables = {colour: name for name, (colour, _) in PALETTE.items()}

  def variable(match: re.Match[str]) -> str:
    name = variables.get(match[0].lower())
    return f"var(--{name})" if name else match[0]

  return re.sub("#[0-9a-fA-F]{6}", variable, svg)


def _variables(column: int) -> str:
  return " ".join(f"--{n}: {pair[column]};" for n, pair in PALETTE.items())


CSS = (
  f":root {{ color-scheme: light dark; {_variables(0)} }}\n"
  f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(1)} }} }}\n"
  """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto,
    "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1, .claim { font-family: "Iowan Old Style", "Palatino Linotype", Palatino,
  "Book Antiqua", Georgia, "DejaVu Serif", serif; }
h1 { font-size: clamp(1.7rem, 5vw, 2.4rem); line-height: 1.2; margin: 0 0 1rem;
  font-weight: 600; text-wrap: balance; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3.5rem 0 .5rem; }
p { margin: .5rem 0 1rem; max-width: 42rem; }
.kicker, .note, figcaption, footer { color: var(--muted); font-size: .9rem; }
.kicker { margin: 0 0 .75rem; }
.claim { font-size: 1.2rem; line-height: 1.5; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.5rem 0;
  padding: 1.1rem 0; border: solid var(--line); border-width: 1px 0; }
.figures div { display: flex; flex-direction: column; }
.figures dt { color: var(--muted); font-size: .9rem; }
.figures dd { margin: 0; font-size: 1.7rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.figures .error { font-size: 1rem; color: var(--muted); }
figure { margin: 1rem 0 0; }
figcaption { max-width: 42rem; margin-top: .5rem; }
.plot svg { display: block; width: 100%; height: auto; overflow: visible; }
.plot svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif !important; }
.narrow { display: none; }
h3 { font-size: 1rem; line-height: 1.4; margin: 1.75rem 0 .25rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
.scroll:focus-visible { outline: 2px solid var(--hypo); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { color: var(--muted); font-weight: 500; vertical-align: bottom; }
th[scope=row], thead th:first-child, .word { text-align: left; }
th[scope=row], thead th:first-child { padding-left: 0; position: sticky;
  left: 0; background: var(--paper); }
.dot { display: inline-block; width: .65em; height: .65em; margin-right: .45em;
  border-radius: 50%; }
details { margin: 1rem 0; }
summary { cursor: pointer; padding: .35rem 0; }
summary:hover { color: var(--hypo); }
.sample { border-top: 1px solid var(--line); padding: 1rem 0 .75rem; }
.prompt { font-weight: 600; margin: 0 0 .75rem; }
.prompt, .sample li { white-space: pre-wrap; overflow-wrap: anywhere; }
.answers { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); }
.answers h3 { margin: 0 0 .25rem; font-size: .9rem; }
.answers ul { list-style: none; margin: 0; padding: 0; }
.sample li { font-size: .92rem; line-height: 1.45; margin-bottom: .55rem;
  padding: .5rem .7rem; background: var(--panel); border-radius: .35rem; }
.reward { display: block; color: var(--muted); font-size: .85rem;
  font-variant-numeric: tabular-nums; }
.findings { list-style: none; margin: 1rem 0; padding: 0; max-width: 46rem; }
.findings li { margin: 0 0 .6rem; padding: .55rem .8rem; border-radius: .2rem;
  overflow-wrap: anywhere; background: var(--panel);
  border-left: .25rem solid var(--other3); }
.findings .stop { border-color: var(--dpo); }
.advice { color: var(--muted); }
.tokens { max-width: none; margin: .15rem 0 .75rem; font-size: .88rem;
  line-height: 1.9; overflow-wrap: anywhere; }
.sample .tokens { margin-bottom: .9rem; }
.sample .note { margin: .5rem 0 .1rem; }
.token { display: inline-block; max-width: 100%; line-height: 1.45;
  padding: 0 .05em; border: 1px solid var(--line);
  border-radius: .2rem; background: var(--panel); margin-right: 1px;
  white-space: pre-wrap; }
.scored { background: color-mix(in srgb, var(--hypo) 22%, var(--paper)); }
.eos { background: color-mix(in srgb, var(--other1) 35%, var(--paper));
  font-weight: 600; }
.cut { background: color-mix(in srgb, var(--dpo) 18%, var(--paper));
  text-decoration: line-through; }
.padding, .more { color: var(--muted); border-style: dashed;
  padding: 0 .4em; }
.padding { background: none; }
.more { text-decoration: none; }
.empty { color: var(--muted); }
footer { border-top: 1px solid var(--line); margin-top: 3.5rem;
  padding-top: 1rem; overflow-wrap: anywhere; }
@media (max-width: 36rem) {
  main { padding-top: 1.75rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .figures { gap: 1rem 1.5rem; }
  .figures dd { font-size: 1.4rem; }
  table { font-size: .85rem; }
  th, td { padding: .35rem .4rem; }
}
@media print { .answers, figure, tr { break-inside: avoid; } }
"""
)
