# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Single rows as the tokens that the loss sees, and those that it doesn't.

    prompt      cut | context (conditions the completion, isn't scored)
    completion  scored | eos | cut

A segment is {"kind", "tokens", "more"}: neighbours of one kind, each token
{"id", "text"}, and how many more of that kind stand there but are not listed.
Padding is only counted.
"""

from typing import Any

import numpy as np

from hypo_jax.data import tokenize

Record = dict[str, Any]
Segment = dict[str, Any]

SIDES = ("chosen", "rejected")
# Tokens listed of what was cut, next to where it was cut.
_SHOWN_CUT = 24


class EncodeOnce:
  """A tokenizer that encodes each text of a record once, however often asked.

  Made anew for every record, so that it never holds more than one.
  """

  def __init__(self, tokenizer: Any):
    self._tokenizer = tokenizer
    self._prompt: list[int] | None = None
    self._completions: dict[str, list[int]] = {}
    self.eos_token_id = tokenizer.eos_token_id
    self.pad_token_id = tokenizer.pad_token_id

  def encode_prompt(self, prompt: Any) -> list[int]:
    if self._prompt is None:
      self._prompt = list(self._tokenizer.encode_prompt(prompt))
    return self._prompt

  def encode_completion(self, text: str) -> list[int]:
    if text not in self._completions:
      self._completions[text] = list(self._tokenizer.encode_completion(text))
    return self._completions[text]


def tokenize_within(
  record: Record,
  tokenizer: EncodeOnce,
  *,
  prompt_length: int,
  completion_length: int,
) -> tuple[tokenize.Arrays, tokenize.TokenCounts]:
  """Tokenises a pair, or a demonstration where there is no rejected side."""
  function = tokenize.tokenize_demonstration
  if "rejected" in record:
    function = tokenize.tokenize_pair
  return function(
    record,
    tokenizer,
    prompt_length=prompt_length,
    completion_length=completion_length,
  )


def tokenize_whole(record: Record, tokenizer: EncodeOnce) -> tokenize.Arrays:
  """Tokenises by the rule of training, within limits that nothing reaches."""
  prompt = tokenizer.encode_prompt(record["prompt"])
  sides = [tokenizer.encode_completion(record[s]) for s in SIDES if s in record]
  # One more for EOS; an empty prompt has its own error in `tokenize`.
  arrays, _ = tokenize_within(
    record,
    tokenizer,
    prompt_length=max(len(prompt), 1),
    completion_length=max(map(len, sides)) + 1,
  )
  return arrays


def choose(sizes: np.ndarray, cut: np.ndarray) -> list[tuple[str, int]]:
  """Returns up to three rows worth a look, always the same ones.

  Args:
    sizes: int [R], tokens of the rows before cutting.
    cut: bool [R], whether anything was cut.

  Returns:
    (why, row): of median size; of median size among the cut ones, or the
    shortest where none is cut; the longest. No row comes twice.
  """
  order = np.argsort(sizes, kind="stable")
  among_cut = order[cut[order]]
  wanted = [("median length", order, (len(order) - 1) // 2)]
  if len(among_cut):
    wanted.append(("cut", among_cut, (len(among_cut) - 1) // 2))
  else:
    wanted.append(("shortest", order, 0))
  wanted.append(("longest", order, len(order) - 1))
  found: dict[int, str] = {}
  for why, rows, place in wanted:
    # The nearest one that isn't shown yet.
    for row in rows[np.argsort(abs(np.arange(len(rows)) - place))].tolist():
      if row not in found:
        found[row] = why
        break
  return [(why, row) for row, why in found.items()]


def show(
  record: Record,
  tokenizer: Any,
  *,
  prompt_length: int,
  completion_length: int,
) -> dict[str, Any]:
  """Returns a row's segments and padding.

  Args:
    record: a pair or a demonstration.
    tokenizer: as `tokenize` describes, with `token_text(id)`.
    prompt_length: P, tokens.
    completion_length: C, tokens.

  Returns:
    By "prompt" and side: {"segments", "padding"}, the padding in tokens.
  """
  once = EncodeOnce(tokenizer)
  whole = tokenize_whole(record, once)
  arrays, _ = tokenize_within(
    record,
    once,
    prompt_length=prompt_length,
    completion_length=completion_length,
  )
  eos = tokenizer.eos_token_id
  eos_ids = eos if isinstance(eos, tuple) else (eos,)

  def real(values: tokenize.Arrays, name: str) -> list[int]:
    return values[f"{name}_tokens"][values[f"{name}_mask"]].tolist()

  def segment(kind: str, ids: list[int], more: int = 0) -> Segment:
    tokens = [{"id": i, "text": tokenizer.token_text(i)} for i in ids]
    return {"kind": kind, "tokens": tokens, "more": more}

  kept, every = real(arrays, "prompt"), real(whole, "prompt")
  cut = every[: len(every) - len(kept)]
  shown = cut[-_SHOWN_CUT:]
  parts = [segment("cut", shown, len(cut) - len(shown))]
  sides = {"prompt": (parts + [segment("context", kept)], prompt_length, kept)}
  for side in SIDES:
    if side not in record:
      continue
    kept, every = real(arrays, side), real(whole, side)
    ends = bool(kept) and kept[-1] in eos_ids
    scored = kept[:-1] if ends else kept
    cut = every[len(kept) :]
    shown = cut[:_SHOWN_CUT]
    parts = [
      segment("scored", scored),
      segment("eos", kept[len(scored) :]),
      segment("cut", shown, len(cut) - len(shown)),
    ]
    sides[side] = (parts, completion_length, kept)
  return {
    name: {
      "segments": [part for part in parts if part["tokens"]],
      "padding": length - len(kept),
    }
    for name, (parts, length, kept) in sides.items()
  }
