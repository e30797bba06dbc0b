# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers from samples: means over prompts, win rates, KL, coverage (numpy).

Standard errors are over prompts: the completions of one prompt are no
independent draws.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from hypo_jax import losses

# Of `distinct_ngrams`, in tokens.
_NGRAM = 3

# What `describe_judged` returns; None where there is no judge.
JUDGED_FIELDS = (
  "reward_mean",
  "reward_stderr",
  "win_rate",
  "win_rate_stderr",
  "win_rate_length_matched",
  "invalid_rate",
)


class PolicySamples(NamedTuple):
  """Completions of n prompts, k each, scored under both policies.

  Attributes:
    tokens: int32 [n, k, T], T the long limit.
    mask: bool [n, k, T].
    log_ratio: float32 [n, k, T], 0 where mask is False.
    token_kl: float32 [n, k, T], likewise.
    ref_log_probs: float32 [n, k, T], log-probs of the tokens under the
      reference, likewise; None where nobody asks for them.
  """

  tokens: np.ndarray
  mask: np.ndarray
  log_ratio: np.ndarray
  token_kl: np.ndarray
  ref_log_probs: np.ndarray | None = None

  def cut(self, length: int) -> "PolicySamples":
    """Returns the same completions, cut at a limit of `length` tokens."""
    return jax.tree.map(lambda x: x[..., :length], self)


class Judged(NamedTuple):
  """A judge's view of n x k completions (numpy).

  Attributes:
    rewards: float64 [n, k].
    valid: bool [n, k].
    clauses: int64 [n, k], or words: what lengths are compared by.
  """

  rewards: np.ndarray
  valid: np.ndarray
  clauses: np.ndarray


def mean_and_stderr(values: np.ndarray) -> tuple[float, float]:
  """Returns the mean over prompts and its standard error, nan of one prompt."""
  values = np.asarray(values, np.float64)
  stderr = math.nan
  if len(values) > 1:
    stderr = values.std(ddof=1) / np.sqrt(len(values))
  return float(values.mean()), float(stderr)


def ratio_and_stderr(
  totals: np.ndarray, sizes: np.ndarray
) -> tuple[float, float]:
  """Returns sum(totals) / sum(sizes) and its standard error over prompts.

  The error is by linearisation, nan of one prompt or where all sizes are 0; the
  ratio is then 0.

  Args:
    totals: [n].
    sizes: [n], >= 0.
  """
  totals, sizes = (np.asarray(x, np.float64) for x in (totals, sizes))
  if not sizes.any():
    return 0.0, math.nan
  ratio = totals.sum() / sizes.sum()
  _, stderr = mean_and_stderr(totals - ratio * sizes)
  return float(ratio), stderr / float(sizes.mean())


def wins(rewards: np.ndarray, ref_rewards: np.ndarray) -> np.ndarray:
  """Share of comparisons won, by prompt, over all k x k; ties are half.

  Args:
    rewards: [n, k].
    ref_rewards: [n, m], the reference's completions of the same prompts.

  Returns:
    float64 [n].
  """
  mine, other = rewards[:, :, None], ref_rewards[:, None, :]
  return ((mine > other) + 0.5 * (mine == other)).mean((1, 2))


def length_matched_win_rate(judged: Judged, reference: Judged) -> float | None:
  """Win rate over comparisons of completions that are equally long."""
  won, same = _matched(judged, reference)
  return float(won[same].mean()) if same.any() else None


def _matched(judged: Judged, reference: Judged):
  """Returns [n, k, m]: who wins, and whether both are equally long."""
  mine, other = judged.rewards[:, :, None], reference.rewards[:, None, :]
  same = judged.clauses[:, :, None] == reference.clauses[:, None, :]
  return (mine > other) + 0.5 * (mine == other), same


def by_prompt(
  samples: PolicySamples,
  eos_token_ids: Sequence[int],
  judged: Judged | None = None,
  reference: Judged | None = None,
  learned_rewards: np.ndarray | None = None,
) -> dict[str, list[float]]:
  """Returns what means over prompts are means of, to draw prompts again from.

  Args:
    samples: of n prompts, cut at the training limit.
    eos_token_ids: ids that end a completion.
    judged: of the same, or None.
    reference: the reference's own completions, judged; with `judged`.
    learned_rewards: [n, k], a reward model's, or None.

  Returns:
    n numbers each: "kl" and "kl_rao_blackwell" (nats), "length" (tokens),
    "ended" (shares), "reward", "learned_reward", and "matched" and
    "matched_won", the comparisons of equally long completions and those won:
    the length-matched win rate is the one's sum over the other's.
  """
  found = {
    "kl": samples.log_ratio.sum(-1).mean(-1),
    "kl_rao_blackwell": samples.token_kl.sum(-1).mean(-1),
    "length": samples.mask.sum(-1).mean(-1),
    "ended": _ended(samples, eos_token_ids).mean(-1),
  }
  if judged is not None:
    won, same = _matched(judged, reference)
    found["reward"] = judged.rewards.mean(-1)
    found["matched"] = same.sum((1, 2))
    found["matched_won"] = (won * same).sum((1, 2))
  if learned_rewards is not None:
    found["learned_reward"] = learned_rewards.mean(-1)
  return {name: [float(x) for x in values] for name, values in found.items()}


def _ended(samples: PolicySamples, eos_token_ids: Sequence[int]) -> np.ndarray:
  """Returns bool [n, k], whether a completion ended by itself."""
  return (np.isin(samples.tokens, eos_token_ids) & samples.mask).any(-1)


def describe_samples(
  samples: PolicySamples, length: int, eos_token_ids: Sequence[int]
) -> dict[str, Any]:
  """KL and form of the completions: the fields that need no judge.

  Args:
    samples: drawn from the policy.
    length: the training limit, in tokens.
    eos_token_ids: ids that end a completion.
  """
  short = samples.cut(length)
  kl = short.log_ratio.sum(-1).mean(-1)
  rao_blackwell = short.token_kl.sum(-1).mean(-1)
  long = None
  if samples.tokens.shape[-1] > length:
    long = float(samples.token_kl.sum(-1).mean())
  ended = _ended(short, eos_token_ids)
  grams = _ngrams(short.tokens, short.mask)
  result = {
    "kl_per_token": float(short.log_ratio.sum() / max(short.mask.sum(), 1)),
    "kl_long": long,
    "eos_rate": float(ended.mean()),
    "length_mean": float(short.mask.sum(-1).mean()),
    "distinct_ngrams": len(set(grams)) / max(len(grams), 1),
  }
  result["kl"], result["kl_stderr"] = mean_and_stderr(kl)
  (
    result["kl_rao_blackwell"],
    result["kl_rao_blackwell_stderr"],
  ) = mean_and_stderr(rao_blackwell)
  return result


def describe_judged(judged: Judged, reference: Judged) -> dict[str, Any]:
  """Reward and win rate against the reference's own completions."""
  won = wins(judged.rewards, reference.rewards)
  result = {
    "invalid_rate": float(1.0 - judged.valid.mean()),
    "win_rate_length_matched": length_matched_win_rate(judged, reference),
  }
  result["reward_mean"], result["reward_stderr"] = mean_and_stderr(
    judged.rewards.mean(-1)
  )
  result["win_rate"], result["win_rate_stderr"] = mean_and_stderr(won)
  return result


def describe_pairs(
  log_probs: np.ndarray,
  ref_log_probs: np.ndarray,
  pair_mask: np.ndarray,
  *,
  beta: float,
) -> dict[str, Any]:
  """Accuracy and DPO loss on held-out pairs, and how far both sides moved.

  "by_pair" holds what the means over pairs are means of, by name.

  Args:
    log_probs: [n, 2], chosen and rejected, under the policy.
    ref_log_probs: [n, 2], under the reference.
    pair_mask: bool [n].
    beta: of the loss.
  """
  ratio = (log_probs - ref_log_probs)[pair_mask]
  margin = ratio[:, 0] - ratio[:, 1]
  correct = (margin > 0) + 0.5 * (margin == 0)
  loss = losses.dpo_loss(
    *log_probs[pair_mask].T, *ref_log_probs[pair_mask].T, beta=beta
  )
  accuracy, stderr = mean_and_stderr(correct)
  return {
    "pair_accuracy": accuracy,
    "pair_accuracy_stderr": stderr,
    "pair_loss": float(np.mean(loss)),
    "chosen_log_ratio": float(ratio[:, 0].mean()),
    "rejected_log_ratio": float(ratio[:, 1].mean()),
    "by_pair": {
      "right": correct.tolist(),
      "chosen_log_ratio": [float(x) for x in ratio[:, 0]],
      "rejected_log_ratio": [float(x) for x in ratio[:, 1]],
    },
  }


def _ngrams(tokens: np.ndarray, mask: np.ndarray) -> list[tuple[int, ...]]:
  """The n-grams inside the real tokens of every completion."""
  return [
    tuple(row[i : i + _NGRAM])
    for row in (
      list(t[m]) for t, m in zip(_flat(tokens), _flat(mask), strict=True)
    )
    for i in range(len(row) - _NGRAM + 1)
  ]


def _flat(x: np.ndarray) -> np.ndarray:
  return x.reshape(-1, x.shape[-1])


def at_kl(history: list[dict[str, Any]], kl: float) -> np.ndarray | None:
  """Win rate by prompt where the training curve first reaches a KL.

  Linear between the two evaluations around the crossing, in the Rao-Blackwell
  estimate of the KL.

  Args:
    history: entries with "kl_rao_blackwell" and "wins" (by prompt).
    kl: nats a sequence.

  Returns:
    float64 [n], or None where the curve never reaches the KL.
  """
  for before, after in zip(history, history[1:], strict=False):
    low, high = before["kl_rao_blackwell"], after["kl_rao_blackwell"]
    if low <= kl <= high:
      weight = (kl - low) / max(high - low, 1e-12)
      return (1 - weight) * np.array(before["wins"]) + weight * np.array(
        after["wins"]
      )
  return None


def matched_kl(
  histories: dict[str, list[dict[str, Any]]],
  levels: Sequence[float] = (1.0, 2.0, 3.0, 4.0),
) -> list[dict[str, float | None]]:
  """Compares hypo and dpo at equal KL, paired by prompt.

  Returns:
    One row a level: kl, each method's win rate (None where it never got
    there), and difference and stderr of hypo - dpo (None unless both did).
  """
  rows = []
  for level in levels:
    curves = {m: at_kl(h, level) for m, h in histories.items()}
    row: dict[str, float | None] = {"kl": level}
    row |= {
      m: None if c is None else float(c.mean()) for m, c in curves.items()
    }
    row |= {"difference": None, "stderr": None}
    hypo, dpo = curves.get("hypo"), curves.get("dpo")
    if hypo is not None and dpo is not None:
      row["difference"], row["stderr"] = mean_and_stderr(hypo - dpo)
    rows.append(row)
  return rows


def reliability(margins: np.ndarray, *, num_bins: int = 10) -> dict[str, Any]:
  """Compares a reward model's certainty with how often it is right.

  A pair with margin m (chosen minus rejected) is called with probability
  p = sigmoid(|m|), from 0.5 to 1, and rightly where m > 0; a tie is half right.

  Args:
    margins: float [n], n >= 1.
    num_bins: bins of p, of equal width.

  Returns:
    "count" of pairs, "accuracy" and its standard error "accuracy_stderr",
    "log_loss" (nats), "calibration_error" (the mean of |p - accuracy| over
    bins, weighted by pairs), "calibration_error_by_chance" (about what a model
    whose every p is right has of it, with as many pairs: bins are never right
    to the last pair) and "bins": a list of {"low", "high", "count",
    "certainty", "accuracy", "interval"}, the last three None where a bin is
    empty; "interval" holds 95% of the accuracy.

  Source: expected calibration error as in Guo et al. 2017 (arXiv 1706.04599).
  """
  margins = np.asarray(margins, np.float64)
  if margins.ndim != 1 or not len(margins) or not np.isfinite(margins).all():
    raise ValueError(
      "margins: expected finite numbers [n], at least one, got shape "
      f"{margins.shape} with {int((~np.isfinite(margins)).sum())} not finite"
    )
  certainty = 1 / (1 + np.exp(-np.abs(margins)))
  right = np.where(margins == 0, 0.5, margins > 0)
  edges = np.linspace(0.5, 1.0, num_bins + 1)
  place = np.clip(np.digitize(certainty, edges) - 1, 0, num_bins - 1)
  bins, error, by_chance = [], 0.0, 0.0
  for i, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
    here = place == i
    count = int(here.sum())
    row: dict[str, Any] = {"low": float(low), "high": float(high)}
    row |= {"count": count}
    row |= dict.fromkeys(("certainty", "accuracy", "interval"))
    if count:
      row["certainty"] = float(certainty[here].mean())
      row["accuracy"] = float(right[here].mean())
      row["interval"] = wilson_interval(row["accuracy"], count)
      gap = abs(row["certainty"] - row["accuracy"])
      error += gap * count / len(margins)
      # The mean of |x| where x is normal with the sum's variance.
      spread = (certainty[here] * (1 - certainty[here])).sum()
      by_chance += float(np.sqrt(2 / np.pi * spread)) / len(margins)
    bins.append(row)
  accuracy, stderr = mean_and_stderr(right)
  return {
    "count": len(margins),
    "accuracy": accuracy,
    "accuracy_stderr": stderr,
    "log_loss": float(np.logaddexp(0.0, -margins).mean()),
    "calibration_error": error,
    "calibration_error_by_chance": by_chance,
    "bins": bins,
  }


def wilson_interval(share: float, count: int) -> tuple[float, float]:
  """Returns an interval that holds 95% of a share.

  Unlike the standard error it is no point where all or none of a few are right.

  Args:
    share: observed, in [0, 1].
    count: of what it is a share, >= 1.

  Source: Wilson 1927.
  """
  z2 = 1.959964**2 / count
  centre = (share + z2 / 2) / (1 + z2)
  half = np.sqrt(z2 * share * (1 - share) + z2**2 / 4) / (1 + z2)
  # Rounding may leave the end of a share of 0 or 1 just outside.
  return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))
