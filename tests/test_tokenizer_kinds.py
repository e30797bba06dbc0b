# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""BOS, EOS and the seam between prompt and completion, for each kind."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypo_jax.data.tokenize import tokenize_pair
from hypo_jax.models import tokenizer as tokenizer_lib
from tests import kinds

every_kind = pytest.mark.parametrize("kind", kinds.KINDS)
every_template = pytest.mark.parametrize("name", kinds.TEMPLATES)
SPECIAL = {
  token["content"]
  for golden in kinds.GOLDEN["kinds"].values()
  for token in golden["tokenizer"]["added_tokens"]
  if token["special"]
}
# Written-out special tokens have tests of their own. And SentencePiece can't
# tell its own sign for a space from one in the text.
text = st.text(st.characters(codec="utf-8", exclude_characters="▁")).filter(
  lambda t: not any(token in t for token in SPECIAL)
)
NORMALISED = ("neox", "qwen2")
PUTS_SPACE_BEFORE = ("llama2", "mistral")


def row_of(tokenizer, prompt, completion):
  """Returns the ids of prompt and completion as training sees them."""
  arrays, _ = tokenize_pair(
    {"prompt": prompt, "chosen": completion, "rejected": "x"},
    tokenizer,
    prompt_length=1024,
    completion_length=1024,
  )
  return [
    arrays[f"{part}_tokens"][arrays[f"{part}_mask"]].tolist()
    for part in ("prompt", "chosen")
  ]


def ends_of(tokenizer):
  ids = tokenizer.eos_token_id
  return ids if isinstance(ids, tuple) else (ids,)


@every_kind
def test_demand_07_golden_ids_of_every_kind(kind):
  tokenizer = kinds.tokenizer(kind)
  bos = tokenizer.bos_token_id
  for text, ids in zip(
    kinds.TEXTS, kinds.GOLDEN["kinds"][kind]["ids"], strict=True
  ):
    if not ids:
      with pytest.raises(ValueError, match="expected text of at least one"):
        tokenizer.encode_prompt(text)
      continue
    if ids[:2] == [bos, bos]:  # Written out in the text and added: doubled.
      ids = ids[1:]
    assert tokenizer.encode_prompt(text) == ids, text


@every_kind
@pytest.mark.parametrize("adds_bos", [None, True, False])
@settings(max_examples=20)
@given(prompt=text, completion=text)
def test_demand_07_one_bos_at_most_and_one_last_eos(
  kind, adds_bos, prompt, completion
):
  golden = kinds.GOLDEN["kinds"][kind]
  changed = {} if adds_bos is None else {"add_bos_token": adds_bos}
  tokenizer = kinds.tokenizer(kind)
  if changed:
    tokenizer = tokenizer_lib.Tokenizer(
      kinds.backend(kind),
      settings=golden["settings"] | changed,
      eos_token_ids=golden["eos_token_ids"],
    )
  prompt_ids, ids = row_of(tokenizer, "x" + prompt, completion)
  bos, ends = tokenizer.bos_token_id, ends_of(tokenizer)
  if bos in ends:  # GPT-2: one token for both.
    assert prompt_ids.count(bos) == bool(adds_bos)
    assert prompt_ids[0] == bos or not adds_bos
  else:
    usual = kind in ("llama3", "llama2", "mistral", "gemma")
    begins = bos is not None and (usual if adds_bos is None else adds_bos)
    assert [i == bos for i in prompt_ids].count(True) == begins
    assert (prompt_ids[0] == bos) == begins
    assert not set(ends) & set(prompt_ids)
    assert bos not in ids
  assert [i in ends for i in ids].count(True) == bool(completion)
  assert not completion or ids[-1] == ends[0]


@every_kind
def test_demand_07_bos_and_eos_written_out_are_not_doubled(kind):
  tokenizer = kinds.tokenizer(kind)
  special = kinds.GOLDEN["kinds"][kind]["settings"]
  eos = special["eos_token"]
  _, ids = row_of(tokenizer, "x", "Yes." + eos)
  assert ids == row_of(tokenizer, "x", "Yes.")[1]
  assert ids == row_of(tokenizer, "x", f"Yes.{eos}{eos} No.")[1]
  if bos := special.get("bos_token"):
    ids = tokenizer.encode_prompt(f"{bos}x")
    assert ids.count(tokenizer.bos_token_id) == 1


def test_demand_07_one_token_that_begins_and_ends_texts_begins_them_once():
  # What a post-processor adds before and after a text can't be told apart by
  # its id here.
  backend = kinds.backend("gpt2")
  end = backend.token_to_id("<|endoftext|>")
  backend.post_processor = kinds.tokenizers.processors.TemplateProcessing(
    single="<|endoftext|> $A <|endoftext|>",
    special_tokens=[("<|endoftext|>", end)],
  )
  tokenizer = tokenizer_lib.Tokenizer(
    backend,
    settings={"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
  )
  ids = kinds.tokenizer("gpt2").encode_prompt("x")
  assert tokenizer.encode_prompt("x") == [end, *ids]


@every_template
@settings(max_examples=20)
@given(prompt=text, completion=text)
def test_demand_07_templates_begin_once_and_end_as_they_end_turns(
  name, prompt, completion
):
  tokenizer = kinds.chatting(name)
  messages = [{"role": "user", "content": prompt}]
  prompt_ids, ids = row_of(tokenizer, messages, completion)
  # The template writes it, or nobody: ChatML and Zephyr have none.
  writes_bos = name in ("llama3", "llama2", "mistral", "gemma")
  assert prompt_ids.count(tokenizer.bos_token_id) == writes_bos
  ends = ends_of(tokenizer)
  last = kinds.GOLDEN["templates"][name]["dialogue"]["answered_ids"]
  last = [i for i in last if i in ends][-1]
  assert [i in ends for i in ids].count(True) == bool(completion)
  assert not completion or ids[-1] == last


@every_kind
@settings(max_examples=50)
@given(prompt=text, completion=text)
def test_demand_08_prompt_ids_are_a_prefix_of_the_row(kind, prompt, completion):
  tokenizer = kinds.tokenizer(kind)
  prompt = "x" + prompt
  alone = tokenizer.encode_prompt(prompt)
  prompt_ids, ids = row_of(tokenizer, prompt, completion)
  assert prompt_ids == alone
  # And the row says what was written.
  said = tokenizer.decode(prompt_ids) + tokenizer.decode(ids)
  if kind in PUTS_SPACE_BEFORE:
    said = said.removeprefix(" ")
  if kind in NORMALISED:
    parts = (prompt, completion)
    assert said == "".join(unicodedata.normalize("NFC", p) for p in parts)
  else:
    assert said == prompt + completion


SEAMS = {
  "gpt2": ("The ans", "wer"),
  "neox": ("if x:\n  ", "  y"),  # An added token of four spaces.
  "qwen2": ("A cafe", "\u0301"),  # Composed to one letter.
  "llama3": ("The ans", "wer"),
  "llama2": ("The ans", "wer"),
  "mistral": ("boats ", "are"),
  "gemma": ("Yes.\n", "\nNo."),
}


@every_kind
def test_demand_08_the_naive_way_changes_the_prompts_ids(kind):
  prompt, completion = SEAMS[kind]
  tokenizer = kinds.tokenizer(kind)
  alone = tokenizer.encode_prompt(prompt)
  whole = tokenizer.encode_prompt(prompt + completion)
  assert whole[: len(alone)] != alone  # Both in one piece: not a prefix.
  prompt_ids, ids = row_of(tokenizer, prompt, completion)
  assert prompt_ids == alone
  assert tokenizer.decode(ids) == completion


@every_kind
@pytest.mark.parametrize(
  "prompt, completion",
  [
    ("The answer is", " that nobody knows"),
    ("What is it?", " 12 boats, 🙂\n"),
    ("TL;DR:", " The weather.\n\nIt was fine "),
  ],
)
def test_demand_08_at_a_words_end_the_row_is_the_text_in_one_piece(
  kind, prompt, completion
):
  tokenizer = kinds.tokenizer(kind)
  prompt_ids, ids = row_of(tokenizer, prompt, completion)
  assert prompt_ids + ids[:-1] == tokenizer.encode_prompt(prompt + completion)


@pytest.mark.parametrize("kind", PUTS_SPACE_BEFORE)
def test_demand_08_completions_get_no_space_that_was_not_written(kind):
  tokenizer = kinds.tokenizer(kind)
  naive = kinds.backend(kind).encode("The", add_special_tokens=False).ids
  assert naive == tokenizer.encode_completion(" The")
  assert naive != tokenizer.encode_completion("The")
  # After "(", say, the text goes on without one, and so do the ids.
  whole = tokenizer.encode_prompt("x (The")
  joined = tokenizer.encode_prompt("x (") + tokenizer.encode_completion("The")
  assert whole == joined


@every_kind
@pytest.mark.parametrize("completion", [" a", "a\n", "  a  \n\n", " ", "\n"])
def test_nothing_is_stripped_from_a_completion(kind, completion):
  tokenizer = kinds.tokenizer(kind)
  _, ids = row_of(tokenizer, "x", completion)
  assert tokenizer.decode(ids[:-1]) == completion


def test_byte_level_prefix_space_is_left_out_of_completions_too():
  backend = kinds.backend("gpt2")
  backend.pre_tokenizer = kinds.tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=True
  )
  tokenizer = tokenizer_lib.Tokenizer(
    backend, settings=kinds.GOLDEN["kinds"]["gpt2"]["settings"]
  )
  plain = kinds.tokenizer("gpt2")
  assert tokenizer.encode_prompt("The") == plain.encode_prompt(" The")
  assert tokenizer.encode_completion("The") == plain.encode_completion("The")


@every_template
def test_empty_answers_are_empty_sides(name):
  tokenizer = kinds.chatting(name)
  assert tokenizer.encode_turn("") == []
  _, ids = row_of(tokenizer, [{"role": "user", "content": "?"}], "")
  assert ids == []
