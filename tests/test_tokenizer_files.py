# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenizer folders in and out, ours and transformers'."""

import json

import pytest

from hypo_jax.data.tokenize import tokenize_pair, tokenize_prompt
from hypo_jax.models import tokenizer as tokenizer_lib
from tests import kinds
from tests.test_gguf_vocabulary import metadata_of

every_kind = pytest.mark.parametrize("kind", kinds.KINDS)
USER = [{"role": "user", "content": "Why?"}]
LENGTHS = {"prompt_length": 64, "completion_length": 64}
TEMPLATE_OF = {
  golden["kind"]: golden["source"]
  for golden in kinds.GOLDEN["templates"].values()
  if "strftime" not in golden["source"]  # Theirs has a clock.
}
WITHOUT_CLOCK = kinds.GOLDEN["templates"]["llama3"]["source"].replace(
  "strftime_now", "no_clock"
)


def from_folder(folder, kind):
  ends = kinds.GOLDEN["kinds"][kind]["eos_token_ids"]
  return tokenizer_lib.from_folder(folder, eos_token_ids=ends)


def write_merges(folder, kind, **settings):
  """Writes vocab.json and merges.txt as folders before tokenizer.json did."""
  description = kinds.description(kind)
  vocabulary, merges = (description["model"][k] for k in ("vocab", "merges"))
  added = {t["content"]: t["id"] for t in description["added_tokens"]}
  lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
  (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
  (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
  return vocabulary, added


def write_json(path, values):
  path.write_text(json.dumps(values), "utf-8")


@every_kind
def test_a_folder_gives_what_its_files_describe_and_so_does_its_copy(
  kind, tmp_path
):
  template = TEMPLATE_OF.get(kind, WITHOUT_CLOCK)
  expected = kinds.tokenizer(kind, template)
  kinds.write_folder(tmp_path, kind, template)
  loaded = from_folder(tmp_path, kind)
  (tmp_path / "copy").mkdir()
  loaded.save(tmp_path / "copy")
  for tokenizer in (loaded, from_folder(tmp_path / "copy", kind)):
    for text in filter(None, kinds.TEXTS):
      assert tokenizer.encode_prompt(text) == expected.encode_prompt(text)
      ids = expected.encode_completion(text)
      assert tokenizer.encode_completion(text) == ids
      assert tokenizer.decode(ids) == expected.decode(ids)
    assert tokenizer.encode_prompt(USER) == expected.encode_prompt(USER)
    assert tokenizer.encode_turn("Yes.") == expected.encode_turn("Yes.")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size"):
      assert getattr(tokenizer, name) == getattr(expected, name), name


@pytest.mark.parametrize(
  "kind, family",
  [
    ("gpt2", "gpt2"),
    ("gpt2", "llama"),
    ("neox", "gpt_neox"),
    ("qwen2", "qwen2"),
    ("qwen2", "qwen3"),
    ("llama3", "llama"),
    ("llama2", "llama"),
    ("llama2", "mistral"),
    ("mistral", "mistral"),
    ("gemma", "gemma2"),
    ("gemma", "gemma3_text"),
  ],
)
def test_transformers_reads_a_saved_folder_as_we_do(kind, family, tmp_path):
  transformers = pytest.importorskip("transformers")
  template = TEMPLATE_OF.get(kind, WITHOUT_CLOCK)
  # Whatever class the files named: some of transformers' follow own rules.
  kinds.write_folder(
    tmp_path, kind, template, tokenizer_class="LlamaTokenizerFast"
  )
  ours = from_folder(tmp_path, kind)
  (tmp_path / "saved").mkdir()
  ours.save(tmp_path / "saved")
  write_json(tmp_path / "saved" / "config.json", {"model_type": family})
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
  bos = ours.bos_token_id
  for text in filter(None, kinds.TEXTS):
    ids = theirs(text)["input_ids"]
    if ids[:2] == [bos, bos]:  # Written out and added.
      ids = ids[1:]
    assert ours.encode_prompt(text) == ids
    plain = theirs(text, add_special_tokens=False)["input_ids"]
    if kind not in ("llama2", "mistral"):
      assert ours.encode_completion(text) == plain
  assert theirs.chat_template == template
  ids = theirs.apply_chat_template(
    USER, add_generation_prompt=True, return_dict=False
  )
  assert ours.encode_prompt(USER) == ids
  for name in ("bos", "eos"):
    id_ = getattr(ours, f"{name}_token_id")
    first = id_[0] if isinstance(id_, tuple) else id_
    assert getattr(theirs, f"{name}_token_id") == first


@pytest.mark.parametrize("adds_bos", [True, False])
def test_transformers_adds_bos_to_a_saved_folders_texts_as_we_do(
  adds_bos, tmp_path
):
  transformers = pytest.importorskip("transformers")
  kinds.write_folder(tmp_path, "llama3", add_bos_token=adds_bos)
  ours = from_folder(tmp_path, "llama3")
  ours.save(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert ours.encode_prompt("The") == theirs("The")["input_ids"]
  assert (ours.encode_prompt("The")[0] == ours.bos_token_id) == adds_bos


def test_transformers_reads_a_gguf_files_saved_tokenizer_as_we_do(tmp_path):
  transformers = pytest.importorskip("transformers")
  for kind in ("llama3", "llama2", "gemma"):
    folder = tmp_path / kind
    folder.mkdir()
    ours = tokenizer_lib.from_gguf(metadata_of(kind))
    ours.save(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("The answer", "  two\n\n12 🙂", " "):
      assert ours.encode_prompt(text) == theirs(text)["input_ids"]


def test_templates_by_name_are_kept_and_the_default_is_used(tmp_path):
  templates = [
    {"name": "default", "template": "{{ messages[0].content }}!"},
    {"name": "tool_use", "template": "{{ messages[0].content }}?"},
  ]
  kinds.write_folder(tmp_path, "gpt2", templates)
  tokenizer = tokenizer_lib.from_folder(tmp_path)
  assert tokenizer.decode(tokenizer.encode_prompt(USER)) == "Why?!"
  copy = tmp_path / "copy"
  copy.mkdir()
  tokenizer.save(copy)
  named = copy / "additional_chat_templates"
  assert [p.name for p in named.iterdir()] == ["tool_use.jinja"]
  again = tokenizer_lib.from_folder(copy)
  assert again.chat_template == templates[0]["template"]
  # And out again from files, over a folder that held others.
  kinds.write_folder(tmp_path, "gpt2")
  plain = tokenizer_lib.from_folder(tmp_path)
  assert plain.chat_template is None
  plain.save(copy)
  assert not list(copy.rglob("*.jinja"))
  assert tokenizer_lib.from_folder(copy).chat_template is None


@pytest.mark.parametrize(
  "template",
  [
    [{"name": "default"}],
    [{"name": "default", "template": 1}],
    [{"name": "../out", "template": "x"}],
    {"default": "x"},
    3,
  ],
)
def test_templates_that_are_none_are_named(template, tmp_path):
  kinds.write_folder(tmp_path, "gpt2", template)
  with pytest.raises(ValueError, match="config.json: chat_template: expected"):
    tokenizer_lib.from_folder(tmp_path)


def test_gpt2_folders_of_vocabulary_and_merges_alone_load(tmp_path):
  vocabulary, added = write_merges(tmp_path, "gpt2", model_max_length=1024)
  write_json(tmp_path / "vocab.json", vocabulary | added)
  assert tokenizer_lib.has_tokenizer(tmp_path)
  tokenizer = tokenizer_lib.from_folder(tmp_path)
  expected = kinds.tokenizer("gpt2")
  for text in filter(None, kinds.TEXTS):
    assert tokenizer.encode_prompt(text) == expected.encode_prompt(text)
  # GPT-2's one special token, which its files don't name.
  assert tokenizer.eos_token_id == expected.eos_token_id
  assert tokenizer.bos_token_id == expected.bos_token_id
  # A folder to be saved is whole.
  (tmp_path / "copy").mkdir()
  tokenizer.save(tmp_path / "copy")
  again = tokenizer_lib.from_folder(tmp_path / "copy")
  assert again.encode_prompt("The") == expected.encode_prompt("The")


@pytest.mark.parametrize("where", ["added_tokens.json", "added_tokens_decoder"])
def test_qwen2_folders_of_vocabulary_and_merges_alone_load(where, tmp_path):
  settings = kinds.GOLDEN["kinds"]["qwen2"]["settings"]
  settings = settings | {"tokenizer_class": "Qwen2Tokenizer"}
  added = kinds.description("qwen2")["added_tokens"]
  if where == "added_tokens_decoder":
    by_id = {str(token["id"]): token for token in added}
    settings["added_tokens_decoder"] = by_id
  vocabulary, added = write_merges(tmp_path, "qwen2", **settings)
  write_json(tmp_path / "vocab.json", vocabulary)
  if where == "added_tokens.json":
    write_json(tmp_path / where, dict(reversed(added.items())))
  tokenizer = from_folder(tmp_path, "qwen2")
  expected = kinds.tokenizer("qwen2")
  for text in filter(None, kinds.TEXTS):
    assert tokenizer.encode_prompt(text) == expected.encode_prompt(text)
  assert tokenizer.eos_token_id == expected.eos_token_id
  assert tokenizer.pad_token_id == expected.pad_token_id


def test_transformers_reads_gpt2_files_as_we_do(tmp_path):
  transformers = pytest.importorskip("transformers")
  vocabulary, added = write_merges(tmp_path, "gpt2")
  write_json(tmp_path / "vocab.json", vocabulary | added)
  theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
  ours = tokenizer_lib.from_folder(tmp_path)
  for text in filter(None, kinds.TEXTS):
    assert ours.encode_prompt(text) == theirs(text)["input_ids"]
  assert ours.eos_token_id == theirs.eos_token_id


def test_vocabularies_whose_splits_are_unknown_are_refused(tmp_path):
  vocabulary, _ = write_merges(
    tmp_path, "gpt2", tokenizer_class="RobertaTokenizer"
  )
  write_json(tmp_path / "vocab.json", vocabulary)
  with pytest.raises(ValueError, match="expected tokenizer.json.*got Roberta"):
    tokenizer_lib.from_folder(tmp_path)
  write_merges(tmp_path, "gpt2", add_prefix_space=True)
  with pytest.raises(ValueError, match="without add_prefix_space"):
    tokenizer_lib.from_folder(tmp_path)


def test_vocabularies_that_do_not_fit_are_named(tmp_path):
  vocabulary, _ = write_merges(tmp_path, "gpt2")
  write_json(tmp_path / "vocab.json", {"a": 0})
  with pytest.raises(ValueError, match="merges: expected pairs of tokens of"):
    tokenizer_lib.from_folder(tmp_path)
  (tmp_path / "vocab.json").write_text("{")
  with pytest.raises(ValueError, match="vocab.json.*not readable"):
    tokenizer_lib.from_folder(tmp_path)
  write_json(tmp_path / "vocab.json", vocabulary)
  write_json(tmp_path / "added_tokens.json", {"<tool>": len(vocabulary) + 3})
  with pytest.raises(ValueError, match=f"'<tool>' as {len(vocabulary)}, got"):
    tokenizer_lib.from_folder(tmp_path)


def test_a_sentencepiece_model_alone_is_refused_with_what_to_do(tmp_path):
  assert not tokenizer_lib.has_tokenizer(tmp_path)
  with pytest.raises(ValueError, match="expected tokenizer.json, none"):
    tokenizer_lib.from_folder(tmp_path)
  (tmp_path / "tokenizer.model").write_bytes(b"\n")
  assert not tokenizer_lib.has_tokenizer(tmp_path)
  error = "got tokenizer.model .* alone; .*save_pretrained.*sentencepiece"
  with pytest.raises(ValueError, match=error):
    tokenizer_lib.from_folder(tmp_path)


def test_a_tokenizer_without_eos_or_template_works_until_one_is_needed(
  tmp_path,
):
  kinds.write_folder(tmp_path, "gpt2", eos_token=None, bos_token=None)
  tokenizer = tokenizer_lib.from_folder(tmp_path)
  assert tokenizer.eos_token_id is None and tokenizer.pad_token_id == 0
  expected = kinds.tokenizer("gpt2").encode_prompt("The answer")
  assert tokenizer.encode_prompt("The answer") == expected
  record = {"prompt": "The answer", "chosen": "a", "rejected": "b"}
  tokenize_prompt(record, tokenizer, prompt_length=64)
  with pytest.raises(ValueError, match="eos_token_id: expected .*config.json"):
    tokenize_pair(record, tokenizer, **LENGTHS)
  with pytest.raises(ValueError, match="expected text, .*chat_template.jinja"):
    tokenizer.encode_prompt(USER)
  (tmp_path / "copy").mkdir()
  tokenizer.save(tmp_path / "copy")
  assert tokenizer_lib.from_folder(tmp_path / "copy").eos_token_id is None


def test_an_end_that_only_the_configs_name_is_the_eos_everywhere(tmp_path):
  end = kinds.tokenizer("gpt2").eos_token_id
  template = "{{ messages[0].content + eos_token }}"
  kinds.write_folder(tmp_path, "gpt2", template, eos_token=None)
  tokenizer = tokenizer_lib.from_folder(tmp_path, eos_token_ids=[end])
  assert tokenizer.eos_token_id == end
  assert tokenizer.encode_prompt(USER)[-1] == end
  tokenizer.save(tmp_path)
  saved = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
  assert saved["eos_token"] == "<|endoftext|>"


def test_special_tokens_outside_the_vocabulary_are_errors(tmp_path):
  for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
    kinds.write_folder(tmp_path, "gpt2", **{name: "<nowhere>"})
    with pytest.raises(ValueError, match=f"{name}: expected .*'<nowhere>'"):
      tokenizer_lib.from_folder(tmp_path)
