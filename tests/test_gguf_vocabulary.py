# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF metadata give the tokenizer that a tokenizer.json of the kind gives."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypo_jax.models import gguf_vocabulary
from hypo_jax.models import tokenizer as tokenizer_lib
from tests import kinds

PRE = {"gpt2": "gpt-2", "qwen2": "qwen2", "llama3": "llama-bpe"}
SENTENCE_PIECE = {"llama2": "llama", "mistral": "llama", "gemma": "gemma2"}
NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def metadata_of(kind, **changes):
  """Returns what converters write for a kind's tokenizer.json."""
  golden = kinds.GOLDEN["kinds"][kind]
  description = golden["tokenizer"]
  tokens = list(description["model"]["vocab"])
  types = [6 if token.startswith("<0x") else 1 for token in tokens]
  for added in description["added_tokens"]:
    if added["id"] >= len(tokens):
      tokens.append(added["content"])
      types.append(0)
    types[added["id"]] = 3 if added["special"] else 4
  keys = {"ggml.tokens": tokens, "ggml.token_type": types}
  if kind in PRE:
    keys |= {"ggml.model": "gpt2", "ggml.pre": PRE[kind]}
    merges = description["model"]["merges"]
    keys["ggml.merges"] = [" ".join(merge) for merge in merges]
  else:
    keys |= {"ggml.model": "llama", "ggml.pre": "default"}
    types[tokens.index("<unk>")] = 2
    keys["ggml.scores"] = [-float(i) for i in range(len(tokens))]
    if kind == "gemma":
      keys["ggml.add_space_prefix"] = False
      # Its blanks are spelled as such, and its scores say nothing.
      for i, token in enumerate(tokens):
        if types[i] == 4:
          tokens[i] = token.replace("▁", " ")
      keys["ggml.scores"] = [-1000.0] * len(tokens)
  special = golden["settings"]
  for short, long in NAMES.items():
    if token := special.get(f"{short}_token"):
      keys[f"ggml.{long}_token_id"] = tokens.index(token)
  keys |= changes
  found = {f"tokenizer.{k}": v for k, v in keys.items() if v is not None}
  return found | {"general.architecture": SENTENCE_PIECE.get(kind, "llama")}


@functools.cache
def read(kind):
  return tokenizer_lib.from_gguf(metadata_of(kind))


def check(kind, text):
  expected = kinds.tokenizer(kind)
  got = read(kind)
  ids = got.encode_completion(text)
  assert ids == expected.encode_completion(text), text
  assert got.decode(ids) == expected.decode(ids), text
  if text:
    assert got.encode_prompt(text) == expected.encode_prompt(text), text


every_kind = pytest.mark.parametrize("kind", [*PRE, "llama2", "gemma"])


@every_kind
@pytest.mark.parametrize("text", kinds.TEXTS)
def test_gguf_ids_are_those_of_the_tokenizer_json(kind, text):
  check(kind, text)


@every_kind
@settings(max_examples=100)
@given(text=st.text() | st.text("aeht \n'12.é", max_size=30))
def test_gguf_ids_are_those_of_the_tokenizer_json_on_any_text(kind, text):
  check(kind, text)


@every_kind
def test_gguf_special_tokens_are_those_of_the_tokenizer_json(kind):
  expected, got = kinds.tokenizer(kind), read(kind)
  for name in ("bos_token_id", "pad_token_id", "vocab_size"):
    assert getattr(got, name) == getattr(expected, name), name
  ends = expected.eos_token_id
  first = ends[0] if isinstance(ends, tuple) else ends
  assert got.eos_token_id == first  # The file's keys name no other here.


@every_kind
def test_gguf_tokens_are_spelled_as_in_the_tokenizer_json(kind):
  # Gemma's files write runs of spaces as such.
  got = gguf_vocabulary.read(metadata_of(kind)).backend
  assert got.get_vocab() == kinds.backend(kind).get_vocab()


def test_mistrals_gguf_ids_are_those_of_the_tokenizer_json_on_plain_text():
  # Where a text begins with a space, or goes on after a special token, a file
  # doesn't say which of two ways with the space before is meant.
  for text in kinds.TEXTS:
    if text.strip() and text[0] != " " and "<s>" not in text:
      check("mistral", text)


def test_gguf_texts_begin_with_bos_as_the_file_or_its_kind_says():
  for kind, usual in (
    ("gpt2", False),
    ("qwen2", False),
    ("llama3", True),
    ("llama2", True),
    ("gemma", True),
  ):
    for said, begins in ((None, usual), (False, False), (True, True)):
      changes = {"ggml.add_bos_token": said}
      if kind == "qwen2" and begins:
        with pytest.raises(ValueError, match="ggml.bos_token_id: expected"):
          tokenizer_lib.from_gguf(metadata_of(kind, **changes))
        continue
      tokenizer = tokenizer_lib.from_gguf(metadata_of(kind, **changes))
      ids = tokenizer.encode_prompt("The")
      assert (ids[0] == tokenizer.bos_token_id) == begins, kind
      assert tokenizer.bos_token_id not in ids[1:]


def test_merges_follow_scores_and_for_gemma_ids():
  tokens = ["<unk>", "a", "b", "c", "ab", "bc", "▁"]
  keys = {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": [2, 1, 1, 1, 1, 1, 1],
    "tokenizer.ggml.scores": [0.0, -9.0, -9.0, -9.0, -2.0, -1.0, -9.0],
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.ggml.add_bos_token": False,
  }

  def pieces(keys):
    ids = tokenizer_lib.from_gguf(keys).encode_completion("abc")
    return [tokens[i] for i in ids]

  assert pieces(keys) == ["a", "bc"]
  assert pieces(keys | {"general.architecture": "gemma3"}) == ["ab", "c"]


def splits(name, text):
  """Returns what the splits of a name cut a text into."""
  keys = metadata_of("gpt2", **{"ggml.pre": name, "ggml.bos_token_id": 0})
  cutter = gguf_vocabulary.read(keys).backend.pre_tokenizer
  return [text[a:b] for _, (a, b) in cutter.pre_tokenize_str(text)]


@pytest.mark.parametrize(
  "name, pieces",
  [
    ("gpt-2", ["It", "'s", " 12345", " -", "\n\n ", " AbC", "'", "LL", "/"]),
    ("smollm", ["It", "'s", " ", *"12345", " -"]),
    ("qwen2", ["It", "'s", " ", *"12345", " -\n\n", " ", " AbC", "'LL", "/\n"]),
    ("llama-bpe", ["It", "'s", " ", "123", "45", " -\n\n", " ", " AbC", "'LL"]),
    ("llama3", ["It", "'s", " ", "123", "45", " -\n\n", " ", " AbC", "'LL"]),
    ("tekken", ["It", "'s", " ", *"12345", " -\n\n", " ", " Ab", "C", "'LL"]),
    ("default", ["It", "'", "s", " ", "123", "45", " ", "-", "\n\n ", " AbC"]),
  ],
)
def test_splits_cut_text_as_their_name_says(name, pieces):
  cut = splits(name, "It's 12345 -\n\n  AbC'LL/\n")
  assert cut[: len(pieces)] == pieces


def test_llama_3_takes_a_piece_that_is_a_token_whole():
  tokens = ["<bos>", "a", "b", "c", "ab", "abc"]  # No merge makes "abc".
  changes = {
    "ggml.tokens": tokens,
    "ggml.token_type": [3, 1, 1, 1, 1, 1],
    "ggml.merges": ["a b"],
    "ggml.bos_token_id": 0,
    "ggml.eos_token_id": None,
  }
  for name, pieces in (("llama-bpe", ["abc"]), ("gpt-2", ["ab", "c"])):
    keys = metadata_of("gpt2", **changes | {"ggml.pre": name})
    ids = tokenizer_lib.from_gguf(keys).encode_completion("abc")
    assert [tokens[i] for i in ids] == pieces


@pytest.mark.parametrize(
  "kind, changes, error",
  [
    ("gpt2", {"pre": "poro-chat"}, "pre: expected one of .*got 'poro-chat'"),
    ("gpt2", {"pre": None}, "pre: expected one of .*got None"),
    ("gpt2", {"model": "t5"}, "model: expected 'gpt2' or 'llama', got 't5'"),
    ("gpt2", {"merges": None}, "merges: expected in the file, missing"),
    ("gpt2", {"tokens": None}, "tokens: expected in the file, missing"),
    ("llama2", {"scores": None}, "scores: expected in the file, missing"),
    ("llama2", {"scores": [1.0]}, "scores: expected .* entries, one a token"),
    ("llama2", {"remove_extra_whitespaces": True}, "remove_.* expected unset"),
    ("llama2", {"eos_token_id": 9999}, "eos_token_id: expected below .*9999"),
  ],
)
def test_gguf_vocabularies_that_do_not_fit_are_named(kind, changes, error):
  changes = {f"ggml.{name}": value for name, value in changes.items()}
  keys = metadata_of(kind)
  keys |= {f"tokenizer.{name}": value for name, value in changes.items()}
  keys = {name: value for name, value in keys.items() if value is not None}
  with pytest.raises(ValueError, match=f"tokenizer.ggml.{error}"):
    tokenizer_lib.from_gguf(keys)


def test_gguf_chat_template_ends_turns():
  golden = kinds.GOLDEN["templates"]["gemma"]
  keys = metadata_of("gemma", **{"chat_template": golden["source"]})
  tokenizer = tokenizer_lib.from_gguf(keys)
  expected = kinds.chatting("gemma")
  dialogue = golden["dialogue"]
  assert tokenizer.encode_prompt(dialogue["messages"]) == dialogue["open_ids"]
  assert tokenizer.encode_turn("Yes.") == expected.encode_turn("Yes.")
  assert tokenizer.eos_token_id == expected.eos_token_id
