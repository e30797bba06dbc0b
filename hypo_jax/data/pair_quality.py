# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What pairs teach besides quality: duplicates, length, wrong labels.

Two texts are the same where they differ in nothing but white space; prompts, as
`fields.identity` has it.
"""

import collections
import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy import stats

from hypo_jax.data import fields

Records = list[dict[str, Any]]

_PERCENTS = (1, 5, 25, 50, 75, 95, 99)


def identity(text: fields.Prompt) -> bytes:
  """Returns what texts, or lists of messages, share that are the same."""
  # 16 bytes, so that a million rows don't stand in memory twice.
  words = fields.identity(text).encode("utf-8", errors="replace")
  return hashlib.blake2b(words, digest_size=16).digest()


def duplicates(records: Records) -> dict[str, int]:
  """Counts rows that say the same, or the opposite.

  Args:
    records: {"prompt", "chosen", "rejected"}.

  Returns:
    prompts: different ones; shared_prompt: rows whose prompt another row has
    too; repeated: rows that are a pair seen before; contradictory: rows whose
    pair also stands there with its sides swapped; identical: rows whose sides
    are the same; repeat_prompt: rows both of whose sides begin with their
    prompt, a text.
  """
  prompts = [identity(r["prompt"]) for r in records]
  sides = [(identity(r["chosen"]), identity(r["rejected"])) for r in records]
  pairs = list(zip(prompts, sides, strict=True))
  rows_of_prompt = collections.Counter(prompts)
  different = set(pairs)
  return {
    "prompts": len(rows_of_prompt),
    "shared_prompt": sum(n for n in rows_of_prompt.values() if n > 1),
    "repeated": len(pairs) - len(different),
    "contradictory": sum(
      chosen != rejected and (prompt, (rejected, chosen)) in different
      for prompt, (chosen, rejected) in pairs
    ),
    "identical": sum(chosen == rejected for chosen, rejected in sides),
    "repeat_prompt": sum(
      isinstance(r["prompt"], str)
      and r["chosen"].startswith(r["prompt"])
      and r["rejected"].startswith(r["prompt"])
      for r in records
    ),
  }


def length_bias(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, Any]:
  """Compares the two sides' lengths, pair by pair.

  Args:
    chosen: int [R], tokens.
    rejected: likewise.

  Returns:
    longer, shorter, equal: pairs by the chosen side; share_longer: of the
    unequal pairs, with a 95% Wilson interval (low, high), None where all are
    equal; p: of so uneven a split by chance alone (exact two-sided sign test);
    mean, mean_stderr, median: of the difference chosen - rejected, tokens (no
    standard error of a single pair).
  """
  difference = chosen.astype(np.int64) - rejected
  longer, shorter = int((difference > 0).sum()), int((difference < 0).sum())
  share, low, high, p = None, None, None, 1.0
  if unequal := longer + shorter:
    test = stats.binomtest(longer, unequal)
    low, high = map(float, test.proportion_ci(method="wilson"))
    share, p = float(test.statistic), float(test.pvalue)
  stderr = None
  if len(difference) > 1:
    stderr = float(difference.std(ddof=1)) / math.sqrt(len(difference))
  return {
    "longer": longer,
    "shorter": shorter,
    "equal": len(difference) - longer - shorter,
    "share_longer": share,
    "low": low,
    "high": high,
    "p": p,
    "mean": float(difference.mean()),
    "mean_stderr": stderr,
    "median": float(np.median(difference)),
  }


def label_noise(
  records: Records, judge: Callable[[str, str], Any] | None
) -> dict[str, Any] | None:
  """Counts pairs whose chosen side has no higher reward than the rejected.

  Args:
    records: pairs; "chosen_score" and "rejected_score" are used where any
      record has both, else the judge is asked.
    judge: (prompt, completion) -> something with a `reward`, or None.

  Returns:
    by ("score" or "judge"), rows (with a margin), negative and zero (of them),
    and quantiles of the margin by percent; None where no reward is known.
  """
  margins, by = list(_score_margins(records)), "score"
  if not margins and judge is not None:
    by = "judge"
    margins = [
      judge(r["prompt"], r["chosen"]).reward
      - judge(r["prompt"], r["rejected"]).reward
      for r in records
    ]
  if not margins:
    return None
  values = np.array(margins)
  return {
    "by": by,
    "rows": len(values),
    "negative": int((values < 0).sum()),
    "zero": int((values == 0).sum()),
    "quantiles": quantiles(values),
  }


def _score_margins(records: Records) -> Iterable[float]:
  for record in records:
    scores = [record.get(f"{side}_score") for side in ("chosen", "rejected")]
    if all(isinstance(s, int | float) and math.isfinite(s) for s in scores):
      yield scores[0] - scores[1]


def quantiles(values: np.ndarray) -> dict[str, float]:
  """Returns quantiles by percent, each a value that occurs."""
  points = np.quantile(values, np.array(_PERCENTS) / 100, method="inverted_cdf")
  return {
    str(percent): value
    for percent, value in zip(_PERCENTS, points.tolist(), strict=True)
  }
