# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from hypo_jax.data.hh import hh_messages
from hypo_jax.data.tokenize import tokenize_pair
from hypo_jax.models import tokenizer as tokenizer_lib

# Written for transformers' settings: blocks leave no blank lines behind.
TEMPLATE = """{{ bos_token }}
{% for message in messages %}
{% if message['role'] not in ('user', 'assistant') %}
{{ raise_exception('unknown role ' + message['role']) }}
{% endif %}
{{ '[' + message['role'] + ']' + message['content'] + eos_token }}
{% endfor %}
{{ '[assistant]' if add_generation_prompt }}"""
SPECIAL = ["<bos>", "<eos>", "<end>", "<pad>"]
NUM_BYTES = 256 + len(SPECIAL)


def byte_level_backend(*, adds_bos: bool) -> tokenizers.Tokenizer:
  """Every byte is a token, after four special ones; no merges."""
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  vocabulary = {token: i for i, token in enumerate(SPECIAL + alphabet)}
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocab=vocabulary, merges=[])
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  backend.decoder = tokenizers.decoders.ByteLevel()
  backend.add_special_tokens(SPECIAL)
  if adds_bos:
    backend.post_processor = tokenizers.processors.TemplateProcessing(
      single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
  return backend


def make(*, adds_bos=True, template=TEMPLATE, ends=(), **settings):
  settings = {"bos_token": "<bos>", "eos_token": "<eos>"} | settings
  return tokenizer_lib.Tokenizer(
    byte_level_backend(adds_bos=adds_bos),
    settings=settings,
    chat_template=template,
    eos_token_ids=ends,
  )


def gguf_metadata(**changes):
  """A tokenizer of three merges: "ab", "12" (never used) and " a"."""
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  tokens = SPECIAL + alphabet + ["ab", "12", "Ġa", "<tool>"]
  types = [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL) - 1) + [4]
  keys = {
    "ggml.model": "gpt2",
    "ggml.pre": "smollm",
    "ggml.tokens": tokens,
    "ggml.token_type": types,
    "ggml.merges": ["a b", "1 2", "Ġ a"],
    "ggml.bos_token_id": 0,
    "ggml.eos_token_id": 1,
    "ggml.eot_token_id": 2,
    "ggml.padding_token_id": 3,
  } | changes
  return {f"tokenizer.{k}": v for k, v in keys.items() if v is not None}


def test_demand_07_prompt_has_one_bos_and_no_eos():
  tokenizer = make(adds_bos=True)
  h = tokenizer.encode_completion("h")
  assert tokenizer.encode_prompt("h") == [0, *h]
  # Written out by the user, it isn't doubled.
  assert tokenizer.encode_prompt("<bos>h") == [0, *h]
  assert make(adds_bos=False).encode_prompt("h") == h


@pytest.mark.parametrize("adds_bos", [True, False])
def test_setting_add_bos_token_wins_over_the_post_processor(adds_bos):
  tokenizer = make(adds_bos=not adds_bos, add_bos_token=adds_bos)
  assert (tokenizer.encode_prompt("h")[0] == 0) == adds_bos


def test_messages_go_through_the_template_which_writes_its_own_bos():
  tokenizer = make()
  ids = tokenizer.encode_prompt(
    [
      {"role": "user", "content": "hi"},
      {"role": "assistant", "content": "yo"},
      {"role": "user", "content": "?"},
    ]
  )
  text = "<bos>\n[user]hi<eos>\n[assistant]yo<eos>\n[user]?<eos>\n[assistant]"
  assert ids == tokenizer.encode_completion(text)
  assert ids.count(0) == 1


def test_messages_without_template_or_with_refused_roles_are_errors():
  messages = [{"role": "judge", "content": "hi"}]
  with pytest.raises(ValueError, match="expected text, .* no chat template"):
    make(template=None).encode_prompt(messages)
  with pytest.raises(ValueError, match="no chat template"):
    make(template=None).encode_turn("hi")
  with pytest.raises(ValueError, match="expected .* judge: unknown role judge"):
    make().encode_prompt(messages)
  for wrong in (["hi"], []):
    with pytest.raises(ValueError, match="expected text or messages"):
      make().encode_prompt(wrong)


def test_template_that_is_not_jinja_is_an_error():
  with pytest.raises(ValueError, match="chat_template: expected a Jinja"):
    make(template="{% for %}")


def test_templates_cannot_reach_python():
  tokenizer = make(template="{{ messages.__class__.__mro__ }}")
  with pytest.raises(ValueError, match="'__class__' of .* unsafe"):
    tokenizer.encode_prompt([{"role": "user", "content": "hi"}])


@given(prompt=st.text(min_size=1, max_size=8), completion=st.text(max_size=8))
@example(prompt="<pad>", completion="<eos>")
def test_demand_08_prompt_ids_do_not_depend_on_the_completion(
  prompt, completion
):
  tokenizer = make()
  row, _ = tokenize_pair(
    {"prompt": prompt, "chosen": completion, "rejected": "x"},
    tokenizer,
    prompt_length=64,
    completion_length=64,
  )
  ids = tokenizer.encode_prompt(prompt)
  assert row["prompt_tokens"][row["prompt_mask"]].tolist() == ids
  # A special token's name stands for the token, which decoding leaves out.
  if not any(name in prompt + completion for name in SPECIAL):
    assert tokenizer.decode(ids) == prompt
    ids = tokenizer.encode_completion(completion)
    assert tokenizer.decode(ids) == completion


def test_prompt_without_tokens_is_an_error_unless_bos_is_added():
  assert make(adds_bos=True).encode_prompt("") == [0]
  with pytest.raises(ValueError, match="at least one token"):
    make(adds_bos=False).encode_prompt("")


def test_ending_ids_are_the_tokenizers_first_then_the_configs():
  assert make().eos_token_id == 1
  assert make(ends=[2, 1]).eos_token_id == (1, 2)
  assert make(ends=[2], eos_token=None).eos_token_id == 2
  # The end of the template's turns is one too.
  ends_otherwise = TEMPLATE.replace("+ eos_token", "+ '<end>'")
  assert make(template=ends_otherwise).eos_token_id == (1, 2)


def test_pad_is_the_first_eos_unless_named():
  assert make().pad_token_id == 1
  assert make(pad_token={"content": "<pad>"}).pad_token_id == 3


def test_special_token_outside_the_vocabulary_is_an_error():
  with pytest.raises(ValueError, match="eos_token: .* got '<nowhere>'"):
    make(eos_token="<nowhere>")


def test_decode_drops_special_tokens():
  tokenizer = make()
  ids = tokenizer.encode_prompt("hé🙂") + [1, 3, 3]
  assert tokenizer.decode(ids) == "hé🙂"


def test_single_tokens_are_shown_with_their_space_and_specials_by_name():
  tokenizer = tokenizer_lib.from_gguf(gguf_metadata())
  ids = tokenizer.encode_completion("ab a<eos>\n")
  shown = [tokenizer.token_text(i) for i in ids]
  assert shown == ["ab", " a", "<eos>", "\n"]
  # Half of a letter is shown as the vocabulary spells the byte.
  halves = tokenizer.encode_completion("é")
  assert [tokenizer.token_text(i) for i in halves] == ["Ã", "©"]


def test_a_space_written_as_a_mark_is_shown_as_a_space():
  vocabulary = {"<eos>": 0, "\u2581a": 1, "b": 2}
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocab=vocabulary, merges=[])
  )
  backend.decoder = tokenizers.decoders.Metaspace()
  backend.add_special_tokens(["<eos>"])
  tokenizer = tokenizer_lib.Tokenizer(backend, settings={"eos_token": "<eos>"})
  assert [tokenizer.token_text(i) for i in (1, 2)] == [" a", "b"]


def with_image(num_rows, **settings):
  """A special token of its own is the last, as Gemma 3's for images."""
  backend = byte_level_backend(adds_bos=True)
  backend.add_special_tokens(["<image>"])
  assert backend.token_to_id("<image>") == NUM_BYTES
  return tokenizer_lib.Tokenizer(
    backend,
    settings={"bos_token": "<bos>", "eos_token": "<eos>"} | settings,
    chat_template=TEMPLATE,
    num_rows=num_rows,
  )


def test_special_tokens_beyond_the_models_rows_are_refused_in_text_alone():
  plain, tokenizer = make(), with_image(NUM_BYTES)
  messages = [{"role": "user", "content": "hé"}]
  for prompt in ("hé", messages):
    assert tokenizer.encode_prompt(prompt) == plain.encode_prompt(prompt)
  assert tokenizer.encode_turn("hé") == plain.encode_turn("hé")
  error = f": expected .* below vocab_size = {NUM_BYTES}, .* got '<image>'"
  with pytest.raises(ValueError, match=f"^prompt{error}"):
    tokenizer.encode_prompt("a<image>b")
  messages[0]["content"] = "<image>"
  with pytest.raises(ValueError, match=f"^prompt{error}"):
    tokenizer.encode_prompt(messages)
  for encode in (tokenizer.encode_completion, tokenizer.encode_turn):
    with pytest.raises(ValueError, match=f"^completion{error}"):
      encode("a<image>")
  assert not tokenizer.spells("a<image>") and tokenizer.spells("a")
  wider = with_image(NUM_BYTES + 1)
  assert wider.encode_completion("<image>") == [NUM_BYTES]


def test_tokens_that_rows_need_must_have_a_row():
  for name in ("bos_token", "eos_token", "pad_token"):
    with pytest.raises(ValueError, match=f"^{name}: .* got '<image>'"):
      with_image(NUM_BYTES, **{name: "<image>"})


def test_other_tokens_beyond_the_models_rows_are_refused_by_their_ids():
  error = "^tokenizer: expected ids below vocab_size = {}, .* got {} with id {}"
  with pytest.raises(ValueError, match=error.format(259, ".*", 259)):
    with_image(259)
  added = byte_level_backend(adds_bos=False)
  added.add_tokens(["<tool>"])
  gap = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocab={"<eos>": 0, "a": 1, "b": 9}, merges=[])
  )
  for backend, rows, token, i in (
    (added, NUM_BYTES, "'<tool>'", NUM_BYTES),
    (gap, 3, "'b'", 9),  # No more tokens than rows, and yet.
  ):
    with pytest.raises(ValueError, match=error.format(rows, token, i)):
      tokenizer_lib.Tokenizer(
        backend, settings={"eos_token": "<eos>"}, num_rows=rows
      )


def test_saved_tokenizer_loads_equal(tmp_path):
  tokenizer = make(ends=[2], pad_token="<pad>", model_max_length=77)
  tokenizer.save(tmp_path)
  loaded = tokenizer_lib.from_folder(tmp_path, eos_token_ids=[1, 2])
  prompts = ["hé 12", [{"role": "user", "content": "hi"}]]
  for prompt in prompts:
    assert loaded.encode_prompt(prompt) == tokenizer.encode_prompt(prompt)
  for name in ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size"):
    assert getattr(loaded, name) == getattr(tokenizer, name)
  settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
  assert settings["model_max_length"] == 77  # Kept, though not read.


def test_template_file_wins_over_the_one_in_the_settings(tmp_path):
  make().save(tmp_path)
  (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}!")
  loaded = tokenizer_lib.from_folder(tmp_path)
  ids = loaded.encode_prompt([{"role": "user", "content": "hi"}])
  assert loaded.decode(ids) == "hi!"


def test_files_truncation_and_padding_are_put_off(tmp_path):
  backend = byte_level_backend(adds_bos=False)
  backend.enable_truncation(2)
  backend.enable_padding(length=5)
  backend.save(str(tmp_path / "tokenizer.json"))
  (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<eos>"}')
  loaded = tokenizer_lib.from_folder(tmp_path)
  assert len(loaded.encode_completion("abc")) == 3


def test_unreadable_tokenizer_is_a_named_error(tmp_path):
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(ValueError, match="tokenizer.json: expected a tokenizer"):
    tokenizer_lib.from_folder(tmp_path)


def test_gguf_tokenizer_merges_and_splits_every_digit_off():
  tokenizer = tokenizer_lib.from_gguf(gguf_metadata())
  tokens = gguf_metadata()["tokenizer.ggml.tokens"]

  def pieces(text):
    return [tokens[i] for i in tokenizer.encode_completion(text)]

  # The earlier merge goes first: " ab" isn't " a" + "b".
  assert pieces("ab ab a12") == ["ab", "Ġ", "ab", "Ġa", "1", "2"]
  assert pieces("<tool> 3") == ["<tool>", "Ġ", "3"]
  assert tokenizer.encode_prompt("ab") == [tokens.index("ab")]
  assert tokenizer.decode(tokenizer.encode_completion("ab<eos>12")) == "ab12"
  assert tokenizer.eos_token_id == (1, 2)
  assert (tokenizer.bos_token_id, tokenizer.pad_token_id) == (0, 3)


@pytest.mark.parametrize(
  "key, value", [("ggml.pre", "poro-chat"), ("ggml.model", "t5")]
)
def test_unknown_gguf_tokenizers_are_refused_by_name(key, value):
  with pytest.raises(ValueError, match=f"tokenizer.{key}: .* got '{value}'"):
    tokenizer_lib.from_gguf(gguf_metadata(**{key: value}))


def test_gguf_tokenizer_without_merges_is_an_error():
  with pytest.raises(ValueError, match="ggml.merges: expected in the file"):
    tokenizer_lib.from_gguf(gguf_metadata(**{"ggml.merges": None}))


def test_hh_dialogue_becomes_messages():
  assert hh_messages(
    "\n\nHuman: Hi!\n\nStill me.\n\nAssistant: Yes?\n\nHuman: A Human: b"
    "\n\nAssistant:"
  ) == [
    {"role": "user", "content": "Hi!\n\nStill me."},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "A Human: b"},
  ]


@pytest.mark.parametrize(
  "prompt, error",
  [
    ("Hi!", "at the start"),
    ("", "at the end"),
    ("Hi\n\nHuman: a\n\nAssistant:", "at the start, got 'Hi'"),
    ("\n\nHuman: a", "'\\\\n\\\\nAssistant:' at the end"),
    ("\n\nHuman: a\n\nAssistant: b", "at the end"),
    ("\n\nAssistant: a\n\nHuman: b\n\nAssistant:", "got Assistant as turn 1"),
    ("\n\nHuman: a\n\nHuman: b\n\nAssistant:", "got Human as turn 2"),
    ("\n\nHuman: \n\nAssistant:", "text in turn 1"),
  ],
)
def test_text_that_is_no_open_hh_dialogue_is_refused(prompt, error):
  with pytest.raises(ValueError, match=error):
    hh_messages(prompt)
