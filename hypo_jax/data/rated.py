# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of rated texts, which answer no prompt of their own.

Texts of one file are paired with others of as many words, so that length says
nothing about the rating, under a prompt that names the number:

    "Length in words: {n}\\nReview:"

Among the m texts of n words, ordered by rating (ties: file order), the i-th of
the lower half is rejected and the i-th of the upper half chosen: every text
stands in one pair at most, and margins are alike. The middle one of an odd
number, and two that are rated equal or read the same, stay without a pair and
are counted. Prompts are few, one for each number of words; the split by prompt
keeps all texts of one length together.
"""

import collections
from typing import Any

from hypo_jax.data import fields

Record = dict[str, Any]


def text(row: fields.Row, as_messages: bool = False) -> Record:
  """Returns one rated text of a row {"text", "rating"}."""
  del as_messages  # `join` makes the prompts.
  return {
    "text": fields.text(row, "text"),
    "rating": fields.number(row, "rating"),
  }


def join(records: list[Record], as_messages: bool) -> tuple[list[Record], int]:
  """Pairs the texts of a file.

  Args:
    records: {"text", "rating", "file", "line"} in file order.
    as_messages: whether prompts are one user's turn, and completions without
      the space before them.

  Returns:
    Pairs by the place of the chosen text, whose file and line they have, with
    both ratings as scores; and the number of texts without a pair.
  """
  lengths = collections.defaultdict(list)
  for place, record in enumerate(records):
    lengths[len(record["text"].split())].append((record["rating"], place))
  pairs = {}
  for words, rated in lengths.items():
    rated.sort()
    half = len(rated) // 2
    for (low, rejected), (high, chosen) in zip(
      rated[:half], rated[len(rated) - half :], strict=True
    ):
      texts = [records[place]["text"] for place in (chosen, rejected)]
      if low < high and texts[0].strip() != texts[1].strip():
        pairs[chosen] = _pair(words, texts, (high, low), as_messages) | {
          name: records[chosen][name] for name in ("file", "line")
        }
  return [pairs[place] for place in sorted(pairs)], len(records) - 2 * len(
    pairs
  )


def _pair(words, texts, ratings, as_messages: bool) -> Record:
  prompt = f"Length in words: {words}\nReview:"
  space = "" if as_messages else " "
  return {
    "prompt": (
      [{"role": "user", "content": prompt}] if as_messages else prompt
    ),
    "chosen": space + texts[0].lstrip(),
    "rejected": space + texts[1].lstrip(),
    "chosen_score": ratings[0],
    "rejected_score": ratings[1],
  }
