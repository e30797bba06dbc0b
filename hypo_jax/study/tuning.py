# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""How each method's setting is chosen: one rule, the same budget for all.

By reward, a setting is worth the highest validation reward of its evaluations
with a KL of at most 4, the reference at step 0 among them; by area, the area
under its frontier of the win rate, which is what the study compares. Either is
the mean of the tuning seeds. The highest wins; of equals the first of the grid,
which has the lower rate.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hypo_jax.study import frontier
from hypo_jax.study.scores import LIMIT, curve

History = Sequence[Mapping[str, Any]]


def best_within(history: History) -> Mapping[str, Any]:
  """Returns the evaluation with the highest reward and a KL of at most 4.

  Where training diverged, the KL is None, and the evaluation not within.
  """
  measured = [e for e in history if e["kl_rao_blackwell"] is not None]
  within = [e for e in measured if e["kl_rao_blackwell"] <= LIMIT]
  return max(within, key=lambda entry: entry["reward_mean"])


def _area(history: History) -> float:
  kl, wins = curve(history, "wins")
  return frontier.selected_area(kl, wins, LIMIT)


# What a setting is worth on a seed, by rule.
_WORTH = {
  "reward": lambda history: best_within(history)["reward_mean"],
  "area": _area,
}


def choose(settings: Mapping[str, Sequence[History]], rule: str) -> str:
  """Returns the name of the chosen setting.

  Args:
    settings: by name, a history a seed; every setting on every seed.
    rule: of `plan.RULES`.

  Raises:
    ValueError: where a setting has fewer histories than another, for a budget
      that is not spent by one method would favour the others.
  """
  counts = {name: len(found) for name, found in settings.items()}
  most = max(counts.values(), default=0)
  missing = [name for name, count in counts.items() if count < max(most, 1)]
  if missing or not settings:
    raise ValueError(
      f"settings: expected a history on each of {max(most, 1)} seeds, missing "
      f"for {', '.join(missing) or 'all'}"
    )
  worth = _WORTH[rule]
  return max(settings, key=lambda name: np.mean([*map(worth, settings[name])]))
