# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Signs of lost coverage in rollouts, as functions of arrays (numpy).

Support, by n-grams with back-off. Completions are read with a mark before their
first token. A *context* is the up to order - 1 tokens (or the mark) before a
token. For each token of a rollout, take the longest context, the empty one
included, that stands before some token of the offline completions, chosen or
rejected. The token is *inside* the support if some offline completion goes on
with it after that context, and *outside* otherwise.

So a token that no pair puts there counts once: the contexts that hold it are
unknown offline, and what follows is judged by the shorter ones. With the empty
context a token is outside if it occurs nowhere offline. The reference's own
rollouts have a share outside too, the larger the fewer the pairs: what counts
is the change from the start of training.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp


class Support(NamedTuple):
  """The n-grams of offline completions.

  Attributes:
    base: numbers of n-grams are digits of this base.
    contexts: by length 0 to order - 1, sorted numbers of contexts.
    continued: by the same length, sorted numbers of context and token.
  """

  base: int
  contexts: tuple[np.ndarray, ...]
  continued: tuple[np.ndarray, ...]


def offline_support(
  tokens: np.ndarray, mask: np.ndarray, *, order: int = 3
) -> Support:
  """Collects what the offline completions hold.

  Args:
    tokens: int [N, C], chosen and rejected completions, right-padded, ids >= 0.
    mask: bool [N, C], True up to and including the first EOS.
    order: of the longest n-gram, >= 1.

  Raises:
    ValueError: a shape or dtype is wrong, or n-grams of that order can't be
      numbered in 63 bits.
  """
  tokens = _checked(tokens, mask)
  # The mark is 0, token i is i + 1, and one number more is left for the ids of
  # rollouts that no offline completion has.
  base = int(tokens.max(initial=0)) + 3
  if order < 1 or base**order >= 2**63:
    raise ValueError(
      f"order: expected at least 1 and {base}**order below 2**63, got {order}"
    )
  grams = _numbers(tokens, base, order)
  return Support(
    base,
    tuple(np.unique(context[mask]) for context, _ in grams),
    tuple(np.unique(gram[mask]) for _, gram in grams),
  )


def outside_support(
  support: Support, tokens: np.ndarray, mask: np.ndarray
) -> np.ndarray:
  """Returns bool [N, C]: the rollouts' tokens outside, False where masked.

  Args:
    support: of `offline_support`.
    tokens: int [N, C], right-padded.
    mask: bool [N, C], True up to and including the first EOS.
  """
  tokens = np.minimum(_checked(tokens, mask), support.base - 2)
  outside = np.ones(tokens.shape, bool)
  grams = _numbers(tokens, support.base, len(support.contexts))
  # Shorter contexts first, so that the longest known one has the last word.
  for length, (context, gram) in enumerate(grams):
    known = np.isin(context, support.contexts[length])
    goes_on = np.isin(gram, support.continued[length])
    outside = np.where(known, ~goes_on, outside)
  return outside & mask


def outside_share(
  support: Support, tokens: np.ndarray, mask: np.ndarray
) -> float:
  """Returns the share of the rollouts' tokens outside; 0 if there are none."""
  outside = outside_support(support, tokens, mask)
  return float(outside.sum() / max(np.sum(mask), 1))


def effective_sample_share(log_ratio: np.ndarray) -> float:
  """Computes how many of N rollouts still speak for the reference, as a share.

      w = exp(-log_ratio),   (sum w)^2 / sum w^2 / N

  1 where the policy is the reference, 1 / N where one rollout has all the
  weight.

  Args:
    log_ratio: float [N], log policy - log reference of whole rollouts that were
      drawn from the policy, nats; inf where the reference never says it.

  Returns:
    In [0, 1]; 0 if the reference says none of them.

  Raises:
    ValueError: log_ratio is empty, or holds nan or -inf, which no rollout of
      the policy has.

  Source: Kish 1965, "Survey Sampling".
  """
  log_weight = -np.asarray(log_ratio, np.float64)
  if log_weight.ndim != 1 or not len(log_weight):
    raise ValueError(
      f"log_ratio: expected shape [N], N >= 1, got {log_weight.shape}"
    )
  if np.isnan(log_weight).any() or np.isposinf(log_weight).any():
    raise ValueError("log_ratio: expected no nan and no -inf, got some")
  if np.isneginf(log_weight).all():
    return 0.0
  count = np.log(len(log_weight))
  return float(
    np.exp(2 * logsumexp(log_weight) - logsumexp(2 * log_weight) - count)
  )


def _numbers(
  tokens: np.ndarray, base: int, order: int
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns by length the numbers [N, C] of each token's context and n-gram."""
  symbols = tokens + 1
  context = np.zeros_like(symbols)
  result = [(context, symbols)]
  for length in range(1, order):
    before = np.zeros_like(symbols)  # marks, before the first token
    before[:, length:] = symbols[:, :-length]
    context = context + before * base ** (length - 1)
    result.append((context, context * base + symbols))
  return result


def _checked(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Returns tokens as int64, 0 where masked."""
  tokens, mask = np.asarray(tokens), np.asarray(mask)
  if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
    raise ValueError(
      f"tokens: expected int [N, C], got {tokens.dtype} {tokens.shape}"
    )
  if mask.dtype != bool or mask.shape != tokens.shape:
    raise ValueError(
      f"mask: expected bool {tokens.shape}, got {mask.dtype} {mask.shape}"
    )
  tokens = np.where(mask, tokens, 0).astype(np.int64)
  if (tokens < 0).any():
    raise ValueError(f"tokens: expected ids >= 0, got {tokens.min()}")
  return tokens
