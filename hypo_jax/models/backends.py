# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of the tokenizers library, built where no file describes them.

Two kinds cover the families here. Byte-level BPE (GPT-2, Llama 3, Qwen) cuts
text by a regular expression, spells each piece in 256 letters that stand for
bytes, and merges. SentencePiece's BPE (Llama 2, Mistral, Gemma) writes "▁" for
a space, merges whole texts, and spells what it has no token for in bytes
<0x00> to <0xFF>.

`continuation` takes from either kind what it does to the beginning of a text.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

# GPT-2's expression leaves the last white space of a text to the gaps between
# matches; the newer ones name it.
_GPT2 = (
  r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
  r"|\s+(?!\S)|\s+"
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|\p{{N}}|{_REST}"
_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
  rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+"
  rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
  r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# By the name that GGUF files give them (tokenizer.ggml.pre): expressions that
# cut a text one after the other. "default" is what llama.cpp does under that
# name.
SPLITS: dict[str, tuple[str, ...]] = {
  "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
  "gpt-2": (_GPT2,),
  "llama-bpe": (_LLAMA3,),
  "llama-v3": (_LLAMA3,),
  "llama3": (_LLAMA3,),
  "qwen2": (_QWEN2,),
  "smollm": (r"\p{N}", _GPT2),
  "tekken": (_TEKKEN,),
}
# Those that begin a text with BOS and take a piece that is a token whole,
# whatever the merges would make of it.
WHOLE_PIECES = frozenset({"llama-bpe", "llama-v3", "llama3", "tekken"})


# Token types of GGUF files, which are SentencePiece's.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_SPACE = "▁"


def byte_level(
  vocabulary: Mapping[str, int],
  merges: Sequence[tuple[str, str]],
  *,
  split: str,
  special: Iterable[str] = (),
  added: Iterable[str] = (),
) -> tokenizers.Tokenizer:
  """Builds a byte-level BPE tokenizer, which adds nothing to a text.

  Args:
    vocabulary: token to id.
    merges: pairs of tokens, the first to be merged first.
    split: a key of `SPLITS`.
    special: tokens found in text before all else, and dropped by decoding.
    added: likewise found, and kept.

  Raises:
    ValueError: for merges of what isn't in the vocabulary.
  """
  try:
    bpe = models.BPE(
      vocab=dict(vocabulary),
      merges=list(merges),
      ignore_merges=split in WHOLE_PIECES,
    )
  except Exception as error:  # The library raises Exception itself.
    raise ValueError(
      f"merges: expected pairs of tokens of the vocabulary: {error}"
    ) from error
  backend = tokenizers.Tokenizer(bpe)
  if split == "qwen2":
    backend.normalizer = normalizers.NFC()
  backend.pre_tokenizer = pre_tokenizers.Sequence(
    [
      *(
        pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        for pattern in SPLITS[split]
      ),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  backend.decoder = decoders.ByteLevel()
  _add_tokens(backend, special, added)
  return backend


def from_merges(
  vocabulary_path: str | os.PathLike,
  merges_path: str | os.PathLike,
  *,
  split: str,
  special: Iterable[str],
  added: Mapping[str, int],
) -> tokenizers.Tokenizer:
  """Builds a byte-level BPE tokenizer from vocab.json and merges.txt.

  Args:
    vocabulary_path: JSON, token to id.
    merges_path: a pair of tokens a line.
    split: a key of `SPLITS`.
    special: tokens found whole in text; those that are in neither vocabulary
      follow it.
    added: further such tokens with their ids.

  Raises:
    ValueError: for a file that can't be read, or ids that leave a gap.
  """
  try:
    vocabulary, merges = models.BPE.read_file(
      str(vocabulary_path), str(merges_path)
    )
  except Exception as error:  # The library raises Exception itself.
    raise ValueError(
      f"{vocabulary_path}, {merges_path}: expected a vocabulary and merges of "
      f"it, not readable: {error}"
    ) from error
  listed = sorted(added, key=added.get)
  backend = byte_level(
    vocabulary,
    merges,
    split=split,
    special=dict.fromkeys([*listed, *special]),
  )
  for token, i in added.items():
    if (got := backend.token_to_id(token)) != i:
      raise ValueError(
        f"{vocabulary_path}: expected added tokens to follow the vocabulary, "
        f"{token!r} as {got}, got {i}"
      )
  return backend


def sentence_piece(
  tokens: Sequence[str],
  scores: Sequence[float],
  types: Sequence[int],
  *,
  prefix_space: bool,
  by_position: bool,
) -> tokenizers.Tokenizer:
  """Builds a SentencePiece BPE tokenizer, which adds no BOS.

  The pieces' scores say which pair is merged first; a run of merges that leads
  to a piece is found again from its halves. User-defined pieces are found in
  the text before that, the longest first; but runs of spaces, which are "▁▁"
  only later, are merged, as in Gemma's tokenizer.json. (SentencePiece takes
  them whole: 40 spaces are 31 and 9 there, not 16 and 24.)

  Args:
    tokens: pieces by id; one of blanks alone may be spelled either way.
    scores: by id.
    types: by id, as in GGUF files.
    prefix_space: put a space before each text, and before what follows a
      special token.
    by_position: merge in the order of ids, where scores mean something else
      (Gemma).
  """
  tokens = [_SPACE * len(t) if t and not t.strip(" ") else t for t in tokens]
  vocabulary = {token: i for i, token in enumerate(tokens)}

  def of_type(kind: int) -> list[str]:
    pairs = zip(tokens, types, strict=True)
    return [token for token, token_type in pairs if token_type == kind]

  unknown = of_type(UNKNOWN)
  backend = tokenizers.Tokenizer(
    models.BPE(
      vocab=vocabulary,
      merges=_merges(
        {
          token: vocabulary[token]
          for token in of_type(NORMAL) + of_type(USER_DEFINED)
        },
        None if by_position else scores,
      ),
      unk_token=unknown[0] if unknown else None,
      fuse_unk=True,
      byte_fallback=bool(of_type(BYTE)),
    )
  )
  write_spaces = normalizers.Replace(" ", _SPACE)
  read_spaces = [
    decoders.Replace(_SPACE, " "),
    decoders.ByteFallback(),
    decoders.Fuse(),
  ]
  if prefix_space:
    prepend = normalizers.Prepend(_SPACE)
    backend.normalizer = normalizers.Sequence([prepend, write_spaces])
    read_spaces.append(decoders.Strip(content=" ", left=1, right=0))
  else:
    backend.normalizer = write_spaces
  backend.decoder = decoders.Sequence(read_spaces)
  _add_tokens(backend, of_type(CONTROL), of_type(USER_DEFINED))
  return backend


def _merges(
  pieces: Mapping[str, int], scores: Sequence[float] | None
) -> list[tuple[str, str]]:
  """Returns the pairs of pieces that make a piece, first to be merged first.

  Where several pairs make one piece, their order is that of transformers, whose
  tokenizer.json files were made in this way.
  """
  ranked = []
  for piece, i in pieces.items():
    for cut in range(1, len(piece)):
      left, right = piece[:cut], piece[cut:]
      if left in pieces and right in pieces:
        key = (i, cut) if scores is None else (-scores[i], -cut)
        ranked.append((key, left, right))
  ranked.sort(key=lambda entry: entry[0])
  return [(left, right) for _, left, right in ranked]


def _add_tokens(
  backend: tokenizers.Tokenizer, special: Iterable[str], added: Iterable[str]
) -> None:
  def whole(tokens: Iterable[str]) -> list[tokenizers.AddedToken]:
    return [tokenizers.AddedToken(token, normalized=False) for token in tokens]

  backend.add_special_tokens(whole(special))
  backend.add_tokens(whole(added))


def continuation(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
  """Returns `backend` for text that goes on from other text.

  The space that is put before a text (by ByteLevel, Metaspace or Prepend) is
  left out, and so is the decoder's dropping of it. Where there is nothing of
  the kind, the same object comes back.
  """
  names = ("normalizer", "pre_tokenizer", "decoder")
  parts = {name: _state(getattr(backend, name)) for name in names}
  bare = {name: _without_prefix(part) for name, part in parts.items()}
  if bare == parts:
    return backend
  described = json.loads(backend.to_str()) | bare
  return tokenizers.Tokenizer.from_str(json.dumps(described))


def _state(component: Any) -> dict[str, Any] | None:
  """Returns a component as tokenizer.json has it, without the vocabulary."""
  return component and json.loads(component.__getstate__())


def _without_prefix(part: dict[str, Any] | None) -> dict[str, Any] | None:
  match part:
    case {"type": "Sequence"}:
      (name,) = part.keys() - {"type"}
      inner = [_without_prefix(p) for p in part[name]]
      return part | {name: [p for p in inner if p is not None]}
    case {"type": "Prepend"}:
      return None
    case {"type": "Metaspace"}:
      return part | {"prepend_scheme": "never"}
    case {"type": "ByteLevel"}:  # A decoder of this type ignores the setting.
      return part | {"add_prefix_space": False}
    case {"type": "Strip", "content": " ", "start": 1}:
      return part | {"start": 0}
  return part
