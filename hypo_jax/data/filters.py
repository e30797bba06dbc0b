# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Leaves pairs out, by rules that are off unless asked for.

The rules run in the order of `Filters`' fields, each on what the one before it
left, and keep the order of pairs. Lengths are in characters: the data set is
built before a tokenizer is known.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from hypo_jax.data import fields

Records = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Filters:
  """What is left out; 0 or False: nothing.

  Attributes:
    min_margin: pairs whose chosen_score - rejected_score is below this, or
      that have no scores; in the scores' unit.
    max_length_ratio: pairs whose longer completion has more than this many
      times the characters of the shorter one; at least 1.
    max_pairs_per_prompt: pairs of a prompt after its first so many.
    drop_duplicate_prompts: pairs whose prompt stood in an earlier pair, letter
      case and white space aside: one pair a prompt.
  """

  min_margin: float = 0.0
  max_length_ratio: float = 0.0
  max_pairs_per_prompt: int = 0
  drop_duplicate_prompts: bool = False

  def __post_init__(self):
    if not 0 <= self.min_margin < math.inf:
      raise ValueError(
        "data.filter.min_margin: expected a number of at least 0, got "
        f"{self.min_margin}"
      )
    ratio = self.max_length_ratio
    if ratio and not 1 <= ratio < math.inf:
      raise ValueError(
        "data.filter.max_length_ratio: expected 0 (off) or at least 1, got "
        f"{ratio}"
      )
    if self.max_pairs_per_prompt < 0:
      raise ValueError(
        "data.filter.max_pairs_per_prompt: expected at least 0, got "
        f"{self.max_pairs_per_prompt}"
      )


NONE = Filters()


def apply(
  records: Records, filters: Filters
) -> tuple[Records, list[dict[str, Any]]]:
  """Applies the filters that are on.

  Args:
    records: {"prompt", "chosen", "rejected"}, perhaps with "chosen_score" and
      "rejected_score".
    filters: what to leave out.

  Returns:
    The records that stay, in order, and for each filter that is on, in order,
    {"name", "before", "after"}: how many pairs there were.

  Raises:
    ValueError: for min_margin where no record has scores, or a filter that
      leaves nothing.
  """
  if filters.min_margin and not any("chosen_score" in r for r in records):
    raise ValueError(
      "data.filter.min_margin: expected a layout with scores, got pairs "
      "without any; set it to 0"
    )
  counts = []
  for name, keep in (
    ("min_margin", _wide_margins),
    ("max_length_ratio", _like_lengths),
    ("max_pairs_per_prompt", _first_pairs),
    ("drop_duplicate_prompts", _first_prompts),
  ):
    limit = getattr(filters, name)
    if not limit:
      continue
    before = len(records)
    records = list(keep(records, limit))
    counts.append({"name": name, "before": before, "after": len(records)})
    if not records:
      raise ValueError(
        f"data.filter.{name}: expected a limit that leaves pairs, got {limit}, "
        f"which leaves none of {before}"
      )
  return records, counts


def _wide_margins(records: Records, limit: float) -> Iterable:
  for record in records:
    if "chosen_score" in record:
      if record["chosen_score"] - record["rejected_score"] >= limit:
        yield record


def _like_lengths(records: Records, limit: float) -> Iterable:
  for record in records:
    shorter, longer = sorted((len(record["chosen"]), len(record["rejected"])))
    if longer <= limit * shorter:
      yield record


def _first_pairs(records: Records, limit: int) -> Iterable:
  seen = collections.Counter()
  for record in records:
    identity = fields.identity(record["prompt"])
    seen[identity] += 1
    if seen[identity] <= limit:
      yield record


def _first_prompts(records: Records, limit: bool) -> Iterable:
  del limit  # It is on.
  seen = set()
  for record in records:
    identity = fields.identity(record["prompt"]).casefold()
    if identity not in seen:
      seen.add(identity)
      yield record
