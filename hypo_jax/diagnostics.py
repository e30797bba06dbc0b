# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a policy's rollouts stay where there is evidence, without a judge.

Two things can speak for a rollout: the offline pairs, which hold what it is
made of, and the reference, which says such things itself. Both are known before
training; an evaluation compares its rollouts with them, and `coverage.monitor`
makes a line of the run's evaluations.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from hypo_jax import statistics
from hypo_jax.coverage import monitor, support
from hypo_jax.statistics import PolicySamples

# Shares of the reference's own tokens and rollouts that count as unlikely. With
# 128 prompts of 4 completions each these are 80 tokens and 26 rollouts.
_UNLIKELY_TOKENS, _UNLIKELY_ROLLOUTS = 0.01, 0.05


class Covered(NamedTuple):
  """What rollouts are held against.

  Attributes:
    offline: the n-grams of the offline pairs.
    token_floor: the log-prob below which 1% of the tokens of the reference's
      own rollouts lie, nats.
    rollout_floor: the same of 5% of whole rollouts.
  """

  offline: support.Support
  token_floor: float
  rollout_floor: float


def covered(
  pairs: dict[str, np.ndarray], ref_samples: PolicySamples
) -> Covered:
  """Collects what rollouts are held against.

  Args:
    pairs: those that are trained on, as `PreferenceBatch` names its arrays.
    ref_samples: the reference's own, cut at the training limit.
  """
  log_probs = ref_samples.ref_log_probs
  tokens = log_probs[ref_samples.mask]
  return Covered(
    offline_support(pairs),
    float(np.quantile(tokens, _UNLIKELY_TOKENS)) if len(tokens) else -np.inf,
    float(np.quantile(log_probs.sum(-1), _UNLIKELY_ROLLOUTS)),
  )


def offline_support(pairs: dict[str, np.ndarray]) -> support.Support:
  """Returns the n-grams of both sides of real pairs; see `coverage.support`.

  Args:
    pairs: as `PreferenceBatch` names its arrays.
  """
  sides = ("chosen", "rejected")
  tokens = np.concatenate([pairs[f"{s}_tokens"] for s in sides])
  real = np.tile(pairs["pair_mask"], 2)[:, None]
  mask = np.concatenate([pairs[f"{s}_mask"] for s in sides]) & real
  return support.offline_support(tokens, mask)


def seen_shares(
  samples: PolicySamples, valid: np.ndarray | None, offline: support.Support
) -> dict[str, float]:
  """Returns where completions lie: inside the offline pairs, or outside.

  A completion is seen where none of its tokens is outside the pairs' support,
  and so every n-gram of it, its beginning included, stands in some pair.

  Args:
    samples: of n x k completions, cut at the training limit.
    valid: bool [n, k], the judge's; None takes all as valid.
    offline: of the pairs.

  Returns:
    Shares "seen", "unseen_valid" and "invalid", which add up to 1; an invalid
    completion is only counted as such.
  """
  flat = (x.reshape(-1, x.shape[-1]) for x in (samples.tokens, samples.mask))
  seen = ~support.outside_support(offline, *flat).any(-1)
  good = np.ones_like(seen) if valid is None else valid.reshape(-1)
  return {
    "seen": float((seen & good).mean()),
    "unseen_valid": float((~seen & good).mean()),
    "invalid": float((~good).mean()),
  }


def describe_coverage(
  samples: PolicySamples, known: Covered
) -> dict[str, float | None]:
  """Returns what the coverage monitor and its reader need, without a judge.

  Args:
    samples: of the policy, cut at the training limit.
    known: what they are held against.

  Returns:
    "outside_support": share of tokens outside the pairs' support.
    "ref_log_prob": mean log-prob of a rollout under the reference, nats, its
      standard error over prompts "ref_log_prob_stderr", and
      "ref_log_prob_per_token".
    "ref_unlikely_tokens", "ref_unlikely_rollouts": shares below the floors, 1%
      and 5% for the reference itself.
    "effective_sample_share": of weights exp(-log_ratio); None where a log-ratio
      is nan.
  """
  log_ratio = samples.log_ratio.sum(-1)
  share = None
  if not np.isnan(log_ratio).any():
    share = support.effective_sample_share(log_ratio.reshape(-1))
  log_probs, mask = samples.ref_log_probs, samples.mask
  rollouts = log_probs.sum(-1)
  mean, stderr = statistics.mean_and_stderr(rollouts.mean(-1))
  num_tokens = max(int(mask.sum()), 1)
  per_token, per_token_stderr = statistics.ratio_and_stderr(
    rollouts.sum(-1), mask.sum((1, 2))
  )
  return {
    "outside_support": support.outside_share(
      known.offline,
      *(x.reshape(-1, x.shape[-1]) for x in (samples.tokens, mask)),
    ),
    "ref_log_prob": mean,
    "ref_log_prob_stderr": stderr,
    "ref_log_prob_per_token": per_token,
    "ref_log_prob_per_token_stderr": per_token_stderr,
    "ref_unlikely_tokens": float(
      (mask & (log_probs < known.token_floor)).sum() / num_tokens
    ),
    "ref_unlikely_rollouts": float((rollouts < known.rollout_floor).mean()),
    "effective_sample_share": share,
  }


def coverage_verdict(history: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns what the monitor says of a history, without name or reward.

  Returns:
    "coverage_verdict", a line, and "coverage_lost_since", the step that it
    names, None where coverage is kept.
  """
  found = monitor.verdict(_monitored(history))
  return {
    "coverage_verdict": found.text,
    "coverage_lost_since": found.lost_since,
  }


def coverage_warning(history: list[dict[str, Any]]) -> str | None:
  """Returns the monitor's line where the last evaluation begins a loss."""
  found = monitor.verdict(_monitored(history))
  begins = found.lost_since == history[-1]["step"]
  return f"warning: {found.text}" if begins else None


def _monitored(history: list[dict[str, Any]]) -> list[monitor.Diagnostics]:
  return [
    monitor.Diagnostics(
      step=e["step"],
      ref_log_prob=e["ref_log_prob_per_token"],
      ref_log_prob_stderr=_number(e["ref_log_prob_per_token_stderr"]),
      kl=_number(e["kl_rao_blackwell"]),
      unlikely=e["ref_unlikely_rollouts"],
      outside=e["outside_support"],
    )
    for e in history
  ]


def _number(value: float | None) -> float:
  """None is what was kept on disk of what was not a number."""
  return math.nan if value is None else value
