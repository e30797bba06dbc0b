# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer that a GGUF file's metadata describe.

Two of its kinds are read: "gpt2", byte-level BPE with the splits that
`backends.SPLITS` knows by name, and "llama", SentencePiece's BPE, which has
scores for merges. What a file leaves unsaid is what llama.cpp takes it for:
Llama 3's and SentencePiece's texts begin with BOS, and SentencePiece's with a
space.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import tokenizers

from hypo_jax.models import backends

# Special tokens: Hugging Face's name for what GGUF calls <name>_token_id.
_SPECIAL_NAMES = {
  "bos_token": "bos",
  "eos_token": "eos",
  "unk_token": "unknown",
  "pad_token": "padding",
}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """A tokenizer and what stands beside it.

  Attributes:
    backend: adds nothing to texts.
    settings: as in tokenizer_config.json, add_bos_token included.
    chat_template: Jinja source, or None.
    eos_token_ids: what ends a turn or a message, beside the EOS.
  """

  backend: tokenizers.Tokenizer
  settings: dict[str, Any]
  chat_template: str | None
  eos_token_ids: Sequence[int]


def read(metadata: dict[str, Any]) -> Vocabulary:
  """Builds the tokenizer of a file.

  Args:
    metadata: the file's keys; general.architecture and those under tokenizer.*
      are read.

  Raises:
    ValueError: for another kind or other splits, by name, or a key that is
      missing or doesn't fit.
  """
  keys = {
    key.removeprefix("tokenizer.").removeprefix("ggml."): value
    for key, value in metadata.items()
    if key.startswith("tokenizer.")
  }
  model, split = keys.get("model"), keys.get("pre")
  if model == "llama":
    # Gemma's scores aren't in the order of its merges; its ids are.
    gemma = str(metadata.get("general.architecture")).startswith("gemma")
    backend, begins = _sentence_piece(keys, by_position=gemma), True
  elif model != "gpt2":
    raise ValueError(
      f"tokenizer.ggml.model: expected 'gpt2' or 'llama', got {model!r}"
    )
  elif split not in backends.SPLITS:
    raise ValueError(
      f"tokenizer.ggml.pre: expected one of {', '.join(backends.SPLITS)}, got "
      f"{split!r}"
    )
  else:
    backend, begins = _byte_level(keys), split in backends.WHOLE_PIECES
  settings: dict[str, Any] = {
    "add_bos_token": bool(keys.get("add_bos_token", begins)),
    "clean_up_tokenization_spaces": False,
  }
  for name, short in _SPECIAL_NAMES.items():
    if (token_id := keys.get(f"{short}_token_id")) is not None:
      token = backend.id_to_token(token_id)
      if token is None:
        raise ValueError(
          f"tokenizer.ggml.{short}_token_id: expected below "
          f"{len(keys['tokens'])}, the number of tokens, got {token_id}"
        )
      settings[name] = token
  if settings["add_bos_token"] and "bos_token" not in settings:
    raise ValueError(
      "tokenizer.ggml.bos_token_id: expected in a file whose texts begin with "
      "BOS, missing"
    )
  ends = [keys.get(f"{name}_token_id") for name in ("eot", "eom")]
  return Vocabulary(
    backend,
    settings,
    keys.get("chat_template"),
    [i for i in ends if i is not None],
  )


def _sentence_piece(
  keys: dict[str, Any], *, by_position: bool
) -> tokenizers.Tokenizer:
  for name in ("remove_extra_whitespaces", "precompiled_charsmap"):
    if keys.get(name):
      raise ValueError(
        f"tokenizer.ggml.{name}: expected unset, since text is taken as it is"
      )
  tokens, scores, types = _columns(keys, "tokens", "scores", "token_type")
  return backends.sentence_piece(
    tokens,
    scores,
    types,
    prefix_space=bool(keys.get("add_space_prefix", True)),
    by_position=by_position,
  )


def _byte_level(keys: dict[str, Any]) -> tokenizers.Tokenizer:
  tokens, types = _columns(keys, "tokens", "token_type")
  if "merges" not in keys:
    raise ValueError("tokenizer.ggml.merges: expected in the file, missing")
  special, added = (
    [t for t, kind in zip(tokens, types, strict=True) if kind == wanted]
    for wanted in (backends.CONTROL, backends.USER_DEFINED)
  )
  return backends.byte_level(
    {token: i for i, token in enumerate(tokens)},
    [tuple(merge.split(" ", 1)) for merge in keys["merges"]],
    split=keys["pre"],
    special=special,
    added=added,
  )


def _columns(keys: dict[str, Any], *names: str) -> list[Sequence[Any]]:
  """Returns what a file says of each token."""
  for name in names:
    if name not in keys:
      raise ValueError(f"tokenizer.ggml.{name}: expected in the file, missing")
    if len(keys[name]) != len(keys[names[0]]):
      raise ValueError(
        f"tokenizer.ggml.{name}: expected {len(keys[names[0]])} entries, one a "
        f"token, got {len(keys[name])}"
      )
  return [keys[name] for name in names]
