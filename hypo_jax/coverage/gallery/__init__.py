# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The gallery: one page, a plot for each statement, nothing from outside."""

import importlib.metadata
import io
import os
import pathlib
from collections.abc import Callable

from hypo_jax.coverage.gallery import covering, language, learned, solved
from hypo_jax.report.canvas import Plot
from hypo_jax.report.elements import (
  Table,
  document,
  escape,
  plot_section,
  table_region,
)

_PACKAGES = ("jax", "numpy", "scipy", "matplotlib")
_TITLE = "Coverage: what offline pairs cannot say"


def write(
  out: str | os.PathLike[str],
  command: str,
  say: Callable[[str], None] = print,
) -> None:
  """Computes everything and writes index.html and one PNG a plot.

  Args:
    out: the folder; made if it doesn't exist.
    command: how this was called, shown on the page.
    say: gets a line as each plot is done.
  """
  out = pathlib.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  sections = []
  for chapter, words, plots in _CHAPTERS:
    sections.append(f"<h2>{escape(chapter)}</h2>\n<p>{escape(words)}</p>")
    for make in plots:
      plot, tables = make()
      (out / f"{plot.name}.png").write_bytes(_small(plot.png))
      sections.append(_section(plot, tables))
      say(f"{plot.name}: {plot.alt}")
  page = document(_TITLE, [_head(), *sections, _foot(command)])
  (out / "index.html").write_text(page, encoding="utf-8")


def _small(png: bytes) -> bytes:
  """Returns the picture in 64 colours, a third of the bytes."""
  from PIL import Image

  picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(64)
  file = io.BytesIO()
  picture.save(file, format="png", optimize=True)
  return file.getvalue()


def _section(plot: Plot, tables: dict[str, Table]) -> str:
  # Chapters have the second level of headings, plots the third.
  html = plot_section(plot).replace("<h2>", "<h3>").replace("</h2>", "</h3>")
  for label, table in tables.items():
    html += f'\n<p class="note">{escape(label)}</p>'
    html += table_region(table, label)
  return html


def _head() -> str:
  return (
    '<header>\n<p class="kicker">hypo_jax coverage gallery</p>\n'
    f"<h1>{escape(_TITLE)}</h1>\n<p>{escape(_INTRODUCTION)}</p>\n</header>"
  )


def _foot(command: str) -> str:
  versions = " · ".join(
    f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES
  )
  return f"<footer>{escape(command)}<br>{escape(versions)}</footer>"


_INTRODUCTION = (
  "Song et al. (arXiv 2406.01462) compare offline contrastive methods with "
  "online RL through coverage: how badly the data may miss what a policy can "
  "say. Here their statements stand on problems that can be solved exactly, "
  "with the losses of the library in expectation. beta is the weight of the KL "
  "in J = E[r] − beta KL(policy ‖ reference), and DPO's temperature; K, h and "
  "all KL are in nats. What is random is drawn from fixed seeds."
)


def _alone(make: Callable[[], Plot]) -> Callable[[], tuple[Plot, dict]]:
  return lambda: (make(), {})


def _settings() -> tuple[Plot, dict[str, Table]]:
  label = "Three completions, the third in no pair; beta 0.5, K as above"
  return covering.learned_reward(), {label: covering.settings_table()}


def _spread() -> tuple[Plot, dict[str, Table]]:
  linear, half = learned.extrapolate(0.0), learned.extrapolate(0.5)
  return learned.spread(linear), {
    "Share of 200 problems in which a probability rises, with 95% intervals; "
    "share of a problem's 12 seen and 12 unseen completions that rise; reward "
    "linear in the features": learned.rising_table(linear),
    "How far, over the same problems; means ± one standard error": (
      learned.outcome_table(linear)
    ),
    "The same with half of the reward's variance not linear in the features: "
    "what is learned on the seen completions no longer carries over": (
      learned.rising_table(half)
    ),
    "How far there": learned.outcome_table(half),
  }


_CHAPTERS = (
  (
    "Optima and minimisers",
    "Online RL's optimum lies in a ball. DPO's minimisers do not, once pairs "
    "leave something out; HyPO's do, at a price.",
    (
      _alone(solved.ball),
      _alone(solved.family),
      _alone(covering.kl_by_method),
      _alone(solved.path),
      _alone(solved.tied),
      _alone(solved.deterministic),
    ),
  ),
  (
    "Coverage",
    "A coefficient is the largest ratio of a policy's probability to that of "
    "the data, over all policies (global) or over those in a KL ball (local).",
    (_alone(covering.jump), _settings),
  ),
  (
    "What training reaches",
    "A minimiser that exists need not be reached. The paper reports that "
    "without function approximation DPO's mass on unseen completions grows; "
    "how its policies are parametrised there is not known to us. In tabular "
    "ones it does or does not, by a condition that can be computed; with "
    "shared features it does in about half of our problems or more. It also "
    "reports that under function approximation online RL raises the best "
    "unseen completion while the seen ones fall, and DPO too, with more "
    "variance. Our problems show the first. That seen ones fall tells nothing "
    "apart: most of the unseen do too. More variance comes from few labels; "
    "with exact ones, of a linear reward, DPO's minimiser is the optimum of "
    "online RL.",
    (
      _alone(learned.example),
      _alone(learned.draws),
      _spread,
      _alone(language.language),
    ),
  ),
)
