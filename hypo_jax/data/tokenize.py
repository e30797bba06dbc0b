# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Turns text records into token rows of fixed length, by one rule:

    prompt      encode_prompt(prompt), the last P tokens of it
    completion  encode_completion(text) + EOS, the first C tokens of it;
                encode_turn(text) where the prompt is messages, plus an EOS
                where that has none

The prompt is cut from the left (its end is what the completion answers, though
a cut prompt loses its BOS), each completion from the right, where it also loses
its EOS: nobody said that it ends there. The two limits don't trade tokens, so
a row's completions always follow the same prompt tokens, and a prompt's tokens
don't depend on what follows. Prompt and completion are encoded apart and their
ids joined.

A completion never holds a second EOS: none is added where it ends with one, and
what follows the first is dropped. A text that gives no tokens is an empty side,
not a bare EOS, which nobody judged: its mask is all False, and pair_mask too.

Text is never stripped: a completion's leading space and its last newline are
tokens like others.

A tokenizer is any object with `encode_prompt(prompt) -> ids` (text or a list
of messages; at least one token), `encode_completion(text) -> ids` (no EOS
needed), `encode_turn(text) -> ids` if it takes messages (an answer as the chat
template writes it, with the token that ends it; none for a text without
tokens), `eos_token_id` (an int, or a tuple whose first ends completions; None
until one has to end) and `pad_token_id`.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

Record = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TokenCounts:
  """What tokenisation did to the text; counts of several rows add up.

  Attributes:
    rows: records seen.
    truncated_prompts: prompts longer than P.
    truncated_completions: completions longer than C, EOS included.
    cut_at_eos: completions with text after their first EOS.
    empty_rows: records with a completion of no tokens; they get zero weight.
  """

  rows: int = 0
  truncated_prompts: int = 0
  truncated_completions: int = 0
  cut_at_eos: int = 0
  empty_rows: int = 0

  def __add__(self, other: "TokenCounts") -> "TokenCounts":
    mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
    return TokenCounts(*(a + b for a, b in zip(mine, theirs, strict=True)))

  def __str__(self) -> str:
    """Rows, and whatever else is not zero: for people."""
    counts = dataclasses.asdict(self)
    return ", ".join(
      f"{count} {name.replace('_', ' ')}"
      for name, count in counts.items()
      if count or name == "rows"
    )


def tokenize_pair(
  record: Record, tokenizer, *, prompt_length: int, completion_length: int
) -> tuple[Arrays, TokenCounts]:
  """Tokenises {"prompt", "chosen", "rejected"}.

  Args:
    record: prompt as text or messages, completions as text.
    tokenizer: see the module's docstring.
    prompt_length: P, tokens, at least 1.
    completion_length: C, tokens, at least 1.

  Returns:
    prompt_tokens int32 [P], left-padded; prompt_mask bool [P]; chosen_tokens
    int32 [C], right-padded; chosen_mask bool [C], True on scored tokens, EOS
    included; rejected_tokens and rejected_mask likewise; pair_mask bool [],
    False where a side is empty. Then the counts.

  Raises:
    ValueError: for a limit below 1, or a prompt without tokens.
  """
  arrays, counts = _tokenize(
    record,
    tokenizer,
    ("chosen", "rejected"),
    prompt_length=prompt_length,
    completion_length=completion_length,
  )
  arrays["pair_mask"] = np.array(
    arrays["chosen_mask"].any() and arrays["rejected_mask"].any()
  )
  return arrays, counts


def tokenize_demonstration(
  record: Record, tokenizer, *, prompt_length: int, completion_length: int
) -> tuple[Arrays, TokenCounts]:
  """Tokenises the prompt and the chosen side, as `tokenize_pair` does.

  Returns:
    prompt_tokens, prompt_mask, chosen_tokens, chosen_mask; then the counts.
  """
  return _tokenize(
    record,
    tokenizer,
    ("chosen",),
    prompt_length=prompt_length,
    completion_length=completion_length,
  )


def tokenize_prompt(
  record: Record, tokenizer, *, prompt_length: int
) -> tuple[Arrays, TokenCounts]:
  """Tokenises the prompt alone, as `tokenize_pair` does.

  Returns:
    prompt_tokens int32 [P], prompt_mask bool [P]; then the counts.
  """
  _check_length("prompt_length", prompt_length)
  ids = list(tokenizer.encode_prompt(record["prompt"]))
  if not ids:
    raise ValueError(
      "prompt: expected at least one token, got none for "
      f"{record['prompt']!r:.80}"
    )
  kept = ids[-prompt_length:]
  tokens = np.full(prompt_length, tokenizer.pad_token_id, np.int32)
  mask = np.zeros(prompt_length, bool)
  tokens[prompt_length - len(kept) :] = kept
  mask[prompt_length - len(kept) :] = True
  counts = TokenCounts(rows=1, truncated_prompts=int(len(ids) > len(kept)))
  return {"prompt_tokens": tokens, "prompt_mask": mask}, counts


def with_place(record, number: int, function, *args, **kwargs):
  """Returns function(record, *args, **kwargs); errors say which record."""
  try:
    return function(record, *args, **kwargs)
  except ValueError as error:
    raise ValueError(f"{place(record, number)}: {error}") from error


def place(record: Record, number: int) -> str:
  """Says where a record stands: in its file, else among all that are given."""
  if "file" in record:
    return f"{record['file']}:{record['line']}"
  return f"row {number + 1}"


def stack_rows(
  tokenized: Iterable[tuple[Arrays, TokenCounts]],
) -> tuple[Arrays, TokenCounts]:
  """Stacks rows of one `tokenize_...` function and sums their counts.

  Returns:
    The same names, each [rows, ...]; then the counts of all rows.

  Raises:
    ValueError: if there is no row.
  """
  rows, total = [], TokenCounts()
  for arrays, counts in tokenized:
    rows.append(arrays)
    total += counts
  if not rows:
    raise ValueError("tokenized: expected at least one row, got none")
  return {k: np.stack([row[k] for row in rows]) for k in rows[0]}, total


def _tokenize(
  record: Record,
  tokenizer,
  sides: tuple[str, ...],
  *,
  prompt_length: int,
  completion_length: int,
) -> tuple[Arrays, TokenCounts]:
  _check_length("completion_length", completion_length)
  arrays, counts = tokenize_prompt(
    record, tokenizer, prompt_length=prompt_length
  )
  empty = False
  for side in sides:
    is_text = isinstance(record["prompt"], str)
    encode = tokenizer.encode_completion if is_text else tokenizer.encode_turn
    ids, cut = _end_at_eos(list(encode(record[side])), tokenizer.eos_token_id)
    kept = ids[:completion_length]
    tokens = np.full(completion_length, tokenizer.pad_token_id, np.int32)
    tokens[: len(kept)] = kept
    arrays[f"{side}_tokens"] = tokens
    arrays[f"{side}_mask"] = np.arange(completion_length) < len(kept)
    empty |= not ids
    counts += TokenCounts(
      truncated_completions=int(len(ids) > len(kept)), cut_at_eos=int(cut)
    )
  return arrays, counts + TokenCounts(empty_rows=int(empty))


def _end_at_eos(
  ids: list[int], eos: int | tuple[int, ...] | None
) -> tuple[list[int], bool]:
  """Returns ids that end with their only EOS, and whether more followed it."""
  if eos is None:
    raise ValueError(
      "eos_token_id: expected a token that ends completions, but the tokenizer "
      "names none; set eos_token in tokenizer_config.json or eos_token_id in "
      "generation_config.json"
    )
  eos_ids = eos if isinstance(eos, tuple) else (eos,)
  for place, token in enumerate(ids):
    if token in eos_ids:
      return ids[: place + 1], place + 1 < len(ids)
  # No tokens, no EOS: an empty side must not train the policy to stop at once.
  return ids + [eos_ids[0]] if ids else [], False


def _check_length(name: str, value: int) -> None:
  if value < 1:
    raise ValueError(f"{name}: expected at least 1 token, got {value}")
