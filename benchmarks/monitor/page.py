# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""docs/results/monitor.md: what the monitor's threshold rests on, and holds."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from benchmarks.monitor import rules
from benchmarks.monitor.cells import (
  CALIBRATION,
  JUDGED,
  KINDS,
  SILENT,
  WARNED,
  Run,
)
from hypo_jax import diagnostics
from hypo_jax.coverage import monitor

_CHOSEN = "fall of the reference's log-prob a token"


def make_page(calibration: Sequence[Run], judged: Sequence[Run]) -> str:
  """Returns the Markdown page of the runs that exist."""
  parts = [
    "# The coverage monitor",
    "",
    f"`python -m benchmarks.monitor --seeds={','.join(CALIBRATION)}`, then "
    f"`--seeds={','.join(JUDGED)}`, on the default's world. A run collapses at "
    "its first evaluation (128 validation prompts, 4 completions each) with a "
    "reward 0.1 below its highest so far, or more than 20% of its completions "
    "invalid; the collapse passes if the run's last evaluation is neither. The "
    "monitor sees no reward, no judge and no method's name. It is in time if "
    "it warns at the evaluation of the collapse at the latest; the lead is "
    "counted from the warning to the collapse. A fall within two standard "
    "errors is none for the monitor, whatever its threshold; with so many "
    "completions the threshold decides.",
    "",
    *_calibration(calibration),
  ]
  nothing = ["## Judged", "", "No run on the other seeds is done yet."]
  parts += ["", *(_judged(judged) if judged else nothing)]
  return "\n".join(parts) + "\n"


def warns(run: Run) -> np.ndarray:
  """Returns bool [n]: the evaluations at which the monitor warns, live."""
  found = [
    diagnostics.coverage_verdict(run.history[: i + 1])["coverage_lost_since"]
    for i in range(len(run.history))
  ]
  return np.array([since is not None for since in found])


def _calibration(runs: Sequence[Run]) -> list[str]:
  fits = {n: rules.fit(s, runs) for n, s in rules.STATISTICS.items()}
  lines = [
    f"## Calibration: {_counted(runs)}",
    "",
    "Each statistic warns above a threshold half-way between the largest value "
    "in a run without a lasting collapse and the smallest of the largest "
    "values up to a lasting one; where the first is above the second, no "
    "threshold tells the two apart. Precision: runs that collapsed, of those "
    "warned of. Recall: runs warned of in time, of those that collapsed; "
    "ahead: at least an evaluation before. Leads are medians.",
    "",
    "| statistic | quiet up to | loud from | told apart | threshold | "
    "precision | recall | ahead | lead, evaluations | lead, steps |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  frozen = fits[_CHOSEN]._replace(threshold=monitor.FALL_LIMIT)
  for name, label, found in (
    *((name, name, found) for name, found in fits.items()),
    (_CHOSEN, f"**{_CHOSEN}, as frozen**", frozen),
  ):
    statistic = rules.STATISTICS[name]
    watched = [
      rules.watch(run, statistic(run) > found.threshold) for run in runs
    ]
    row = [label, f"{found.quiet:.3g}", f"{found.loud:.3g}"]
    row += ["yes" if found.apart else "no"]
    row += [f"{found.threshold:.3g}"]
    row += _scored(rules.score(watched))
    lines.append(_row(row))
  best = max(fits, key=lambda name: (fits[name].apart, fits[name].ratio))
  every = rules.fit(rules.STATISTICS[_CHOSEN], runs, passing=True)
  return [
    *lines,
    "",
    "Told apart with the largest ratio of loud to quiet: by the "
    f"{best} ({fits[best].ratio:.2f}). The monitor goes by the {_CHOSEN} "
    f"({fits[_CHOSEN].ratio:.2f}), frozen at {monitor.FALL_LIMIT:g} nats a "
    f"token (fitted to these runs: {fits[_CHOSEN].threshold:.3f}). If it had "
    "to warn of collapses that pass, too, it would be quiet up to "
    f"{every.quiet:.3g} and loud from {every.loud:.3g}: "
    f"{'' if every.apart else 'not '}told apart.",
  ]


def _judged(runs: Sequence[Run]) -> list[str]:
  watched = [rules.watch(run, warns(run)) for run in runs]
  total = rules.score(watched)
  lines = [
    f"## Judged: {_counted(runs)}",
    "",
    f"{_share('Precision', total.rightly, total.warned)}; "
    f"{_share('recall', total.in_time, total.collapsed)}; "
    f"{_share('ahead', total.ahead, total.collapsed)}; "
    f"{_share('recall of lasting collapses', *_lasting(watched))} (95% "
    "intervals as if runs were independent, which kinds of one seed are not). "
    f"{_leads(total)}",
    "",
    "| kind | runs | collapsed | of them passing | warned of in time | too "
    "late | not at all | warned of without collapse | lead, evaluations | "
    "lead, steps | reward given up |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
  ]
  for kind in KINDS:
    own = [w for w in watched if w.run.kind == kind]
    if not own:
      continue
    found = rules.score(own)
    outcomes = [w.outcome for w in own]
    passing = [
      w for w in own if w.run.collapse is not None and not w.run.lasting
    ]
    row = [kind, len(own), found.collapsed, len(passing)]
    row += [outcomes.count(o) for o in ("in time", "late", "missed", "false")]
    row += [_spread(found.leads), _spread(found.lead_steps)]
    row += [_spread([given_up(w) for w in own if w.at is not None], ".2f")]
    lines.append(_row(map(str, row)))
  return [
    *lines,
    "",
    *_musts(watched),
    "",
    "Leads are medians, lowest to highest. Reward given up: the highest "
    "validation reward of the run minus that of the evaluation before the "
    "warning, where the monitor says to stop.",
  ]


def _musts(watched: Sequence[rules.Warned]) -> list[str]:
  """Says whether what was asked of the monitor holds, kind by kind."""
  lines = []
  for kind in (*SILENT, *WARNED):
    own = [w for w in watched if w.run.kind == kind]
    if kind in SILENT:
      own = [w for w in own if w.run.collapse is None]
      what, right = (
        "silent where nothing collapses",
        [w.at is None for w in own],
      )
    else:
      what, right = "warned of", [w.at is not None for w in own]
    if own:
      held = "yes" if all(right) else "**no**"
      lines.append(f"- {kind}, {what}: {held}, {sum(right)} of {len(own)}.")
  return lines


def given_up(watched: rules.Warned) -> float:
  """Returns how far the advised stop's reward is below the run's highest."""
  rewards = watched.run.rewards
  return max(rewards) - rewards[max(watched.at - 1, 0)]


def _lasting(watched: Sequence[rules.Warned]) -> tuple[int, int]:
  own = [w for w in watched if w.run.lasting]
  return sum(w.outcome == "in time" for w in own), len(own)


def _counted(runs: Sequence[Run]) -> str:
  collapsed = sum(run.collapse is not None for run in runs)
  lasting = sum(run.lasting for run in runs)
  seeds = ", ".join(sorted({run.seed for run in runs}, key=int))
  return (
    f"{len(runs)} runs on seeds {seeds}, of which {collapsed} collapse, "
    f"{lasting} lastingly"
  )


def _scored(found: rules.Score) -> list[str]:
  return [
    f"{found.rightly} of {found.warned}",
    f"{found.in_time} of {found.collapsed}",
    f"{found.ahead} of {found.collapsed}",
    f"{np.median(found.leads):g}" if found.leads else "",
    f"{np.median(found.lead_steps):g}" if found.lead_steps else "",
  ]


def _share(name: str, part: int, whole: int) -> str:
  if not whole:
    return f"{name}: none of none"
  low, high = binomtest(part, whole).proportion_ci(method="wilson")
  return (
    f"{name} {part} of {whole}: {part / whole:.2f} ({low:.2f} to {high:.2f})"
  )


def _leads(found: rules.Score) -> str:
  if not found.leads:
    return "No run was warned of rightly."
  return (
    f"Lead of those warned of rightly: {_spread(found.leads)} evaluations, "
    f"{_spread(found.lead_steps)} steps (median, lowest to highest)."
  )


def _spread(values: Sequence[float], form: str = "g") -> str:
  if not values:
    return ""
  numbers = (np.median(values), min(values), max(values))
  middle, low, high = (f"{x:{form}}" for x in numbers)
  return f"{middle} ({low} to {high})"


def _row(cells) -> str:
  return "| " + " | ".join(cells) + " |"
