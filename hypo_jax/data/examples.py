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

  Attributes:
    longest_prompt: most tokens of a prompt encoded so far.
    longest_completion: likewise of a completion.
  """

  def __init__(self, tokenizer: Any):
    self._tokenizer = tokenizer
    self._known: dict[tuple[str, str], list[int]] = {}
    self.eos_token_id = tokenizer.eos_token_id
    self.pad_token_id = tokenizer.pad_token_id
    self.longest_prompt = self.longest_completion = 0

  def encode_prompt(self, prompt: Any) -> list[int]:
    ids = self._encode("encode_prompt", prompt)
    self.longest_prompt = max(self.longest_prompt, len(ids))
    return ids

  def encode_completion(self, text: str) -> list[int]:
    return self._completion("encode_completion", text)

  def encode_turn(self, text: str) -> list[int]:
    """For tokenizers that write answers as their chat template does."""
    return self._completion("encode_turn", text)

  def _completion(self, method: str, text: str) -> list[int]:
    ids = self._encode(method, text)
    self.longest_completion = max(self.longest_completion, len(ids))
    return ids

  def _encode(self, method: str, text: Any) -> list[int]:
    # Messages are no keys; repr tells any two apart.
    key = (method, text if isinstance(text, str) else repr(text))
    if key not in self._known:
      self._known[key] = list(getattr(self._tokenizer, method)(text))
    return self._known[key]


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
  # First to learn what the rule encodes, and how long that is.
  tokenize_within(record, tokenizer, prompt_length=1, completion_length=1)
  arrays, _ = tokenize_within(
    record,
    tokenizer,
    prompt_length=tokenizer.longest_prompt,
    completion_length=tokenizer.longest_completion + 1,  # EOS.
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
