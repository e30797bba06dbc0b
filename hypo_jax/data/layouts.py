# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Layouts: what the rows of published preference sets mean as pairs.

    name           a row holds
    explicit       prompt, chosen, rejected: texts or messages (TRL)
    implicit       chosen, rejected: whole texts or conversations (TRL)
    ultrafeedback  prompt; chosen, rejected: conversations that repeat it
    hh             chosen, rejected: "\\n\\nHuman: ... \\n\\nAssistant: ..."
                   texts as published; or prompt, chosen, rejected of them
    tldr           info {subreddit, title, post}, summaries [{text}, {text}],
                   choice 0 or 1 (summarize_from_feedback's comparisons)
    shp            history, human_ref_A, human_ref_B, labels (1: A preferred),
                   score_A, score_B (Stanford Human Preferences)
    rated          text, rating; see `rated`
    tldr_sft       subreddit, title, post, summary; demonstrations alone
    text           text; not pairs: see `continuations`

What they become: see `rows` and `rated`.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from hypo_jax.data import fields, hh, rated, rows

Record = dict[str, Any]

_SHOWN_KEYS = 12


@dataclasses.dataclass(frozen=True)
class Layout:
  """One layout.

  Attributes:
    name: as in data.layout.
    keys: what a row holds, for messages.
    fits: whether a row looks like this layout, bad values aside.
    to_record: (row, as_messages) -> record; ValueError says why a row is bad.
    join: makes pairs of all records of a file, and counts those left over;
      None where each row is a pair.
  """

  name: str
  keys: tuple[str, ...]
  fits: Callable[[fields.Row], bool]
  to_record: Callable[[fields.Row, bool], Record]
  join: Callable[[list[Record], bool], tuple[list[Record], int]] | None = None


def recognise(
  first: Sequence[fields.Row],
  layouts: Sequence[Layout],
  *,
  name: str = "auto",
  where: str = "the file",
) -> Layout:
  """Returns the layout of a file.

  Args:
    first: its first rows, at least one.
    layouts: what may be, the more particular before the more general.
    name: "auto" for the layout of most rows, or a layout's name, which at least
      one row must fit.
    where: the file, for messages.

  Raises:
    ValueError: one line, for an unknown name, a layout that no row fits, or
      rows that fit none.
  """
  known = "; ".join(f"{x.name} ({', '.join(x.keys)})" for x in layouts)
  by_name = {layout.name: layout for layout in layouts}
  if name != "auto" and name not in by_name:
    raise ValueError(
      f'data.layout: expected "auto" or one of {known}; got {name!r}'
    )
  if name != "auto" and any(by_name[name].fits(row) for row in first):
    return by_name[name]
  votes = collections.Counter(
    next((x.name for x in layouts if x.fits(row)), None) for row in first
  )
  del votes[None]
  found = votes.most_common(1)[0][0] if votes else None
  if name == "auto" and found:
    return by_name[found]
  keys = sorted(set().union(*first))
  shown = ", ".join(keys[:_SHOWN_KEYS]) + (", ..." * (len(keys) > _SHOWN_KEYS))
  looks = f'it looks like "{found}"' if found else _nearest(keys, layouts)
  asked = "a known layout" if name == "auto" else f'layout "{name}"'
  raise ValueError(
    f"data.layout: expected rows of {asked} in {where}, got rows with "
    f"{shown or 'no keys'}; {looks}; layouts: {known}"
  )


def _nearest(keys: list[str], layouts: Sequence[Layout]) -> str:
  """Says which layout shares most keys, and what it lacks."""
  if {"chosen", "rejected"} <= set(keys) and "prompt" not in keys:
    asked = [key for key in _ASKED_UNDER if key in keys]
    if asked:
      return (
        f"what is asked seems to stand under {asked[0]!r}: name it prompt, or "
        "leave it out where chosen and rejected are whole texts"
      )
  if layouts is PAIRS and not {"chosen", "rejected"} & set(keys):
    for known in (_TLDR_SFT.keys, ("prompt", "completion")):
      if set(known) <= set(keys):
        return (
          "it looks like demonstrations: data.demonstration_path takes them"
        )
  best = max(  # Of equal ones the more general.
    reversed(layouts), key=lambda x: len(set(x.keys) & set(keys)) / len(x.keys)
  )
  if not set(best.keys) & set(keys):
    return "no layout has any of these keys"
  missing = ", ".join(key for key in best.keys if key not in keys)
  why = f"without {missing}" if missing else "but for its values"
  return f'it looks most like "{best.name}", {why}'


def _has(*keys: str) -> Callable[[fields.Row], bool]:
  return lambda row: row.keys() >= set(keys)


def _is_dialogue(row: fields.Row) -> bool:
  if not _has("chosen", "rejected")(row):
    return False
  texts = [row["prompt"]] if "prompt" in row else [row["chosen"]]
  return all(isinstance(t, str) and t.startswith(hh.HUMAN) for t in texts)


def _repeats_prompt(row: fields.Row) -> bool:
  """Whether chosen is a conversation that doesn't begin with the answer."""
  chosen = row.get("chosen")
  if not isinstance(chosen, list) or not chosen:
    return False
  return isinstance(chosen[0], dict) and chosen[0].get("role") != "assistant"


_PAIR_KEYS = ("prompt", "chosen", "rejected")
# Whole texts beside one of these would lose the question.
_ASKED_UNDER = ("question", "instruction", "input", "query")

# Of pairs; the more particular first.
PAIRS = (
  Layout(
    "rated", ("text", "rating"), _has("text", "rating"), rated.text, rated.join
  ),
  Layout(
    "shp",
    ("history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B"),
    _has("history", "human_ref_A", "human_ref_B", "labels"),
    rows.shp,
  ),
  Layout(
    "tldr",
    ("info", "summaries", "choice"),
    _has("info", "summaries", "choice"),
    rows.tldr,
  ),
  Layout("hh", ("chosen", "rejected"), _is_dialogue, rows.dialogue),
  Layout(
    "ultrafeedback",
    _PAIR_KEYS,
    lambda row: _has(*_PAIR_KEYS)(row) and _repeats_prompt(row),
    rows.ultrafeedback,
  ),
  Layout(
    "explicit",
    _PAIR_KEYS,
    lambda row: _has(*_PAIR_KEYS)(row) and not _repeats_prompt(row),
    rows.explicit,
  ),
  Layout(
    "implicit",
    ("chosen", "rejected"),
    lambda row: (
      _has("chosen", "rejected")(row)
      and not {"prompt", *_ASKED_UNDER} & row.keys()
    ),
    rows.implicit,
  ),
)

_OTHERS = tuple(
  layout for layout in PAIRS if layout.name in ("shp", "tldr", "hh", "implicit")
)
_TLDR_SFT = Layout(
  "tldr_sft",
  ("subreddit", "title", "post", "summary"),
  _has("subreddit", "title", "post", "summary"),
  rows.tldr_demonstration,
)
_ULTRAFEEDBACK = next(x for x in PAIRS if x.name == "ultrafeedback")

# Of demonstrations: these, or the chosen completions of pairs.
DEMONSTRATIONS = (
  _TLDR_SFT,
  _ULTRAFEEDBACK,
  Layout(
    "explicit",
    ("prompt", "completion"),
    lambda row: "prompt" in row and bool({"chosen", "completion"} & row.keys()),
    rows.demonstration,
  ),
  *_OTHERS,
)

# Of prompts: prompts alone, or those of the others.
PROMPTS = (
  _TLDR_SFT,
  _ULTRAFEEDBACK,
  Layout("explicit", ("prompt",), _has("prompt"), rows.prompt_alone),
  *_OTHERS,
)

# Of texts, of which the first words will be the prompts.
TEXTS = (Layout("text", ("text",), _has("text"), rows.text_alone),)
