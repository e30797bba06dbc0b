# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
r"""Writes tokenizers.json: small tokenizers of each kind, and what transformers
makes of texts and dialogues with them.

    pip install transformers && python tests/golden/make_tokenizers_golden.py

A kind holds a tokenizer.json, the settings of tokenizer_config.json and what a
generation_config.json would name as ends. The vocabularies are trained on the
texts below. SentencePiece's merges are those that its scores stand for.
"""

import json
import pathlib
import tempfile

import tokenizers
import transformers
from tokenizers import (
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

TRAINING = (
  """The river runs past the old mill and on to the sea. There were
12 boats in the harbour in 1969, and 345 people came to see them. "It's late,"
she said; "we'll go home when they've eaten." What is the capital of France?
The answer is that nobody knows, and the answers we have are not the answers
that we wanted. Answer the question in one word, if you can: yes or no.
    for boat in boats:
        print(boat.name, boat.length)

The weather was fine, the water was warm, the film was good, and the music was
better. Zürich is a city; a café is a café. user assistant system
"""
  * 3
)
# Seams, white space, digits, bytes, special tokens of all kinds.
TEXTS = [
  "",
  " ",
  "a",
  " The answer is",
  "  two spaces, and  two more ",
  "\n",
  "The end.\n\n\nAnd on",
  "\tprint(x)\r\n    y = 12345\n",
  "In 1969, 2 boats; by 1972 it was 1234567.",
  "It's late, they've gone, WE'LL SEE",
  "Zürich naïve cafe\u0301 Å",
  "東京 привет हिन्दी",
  "🙂👩‍👩‍👧 🏳️‍🌈",
  "\u00a0\u3000\u200b x",
  "<|im_start|>user\nhi<|im_end|>\n<|endoftext|> a",
  "<s>[INST] hi [/INST] yo</s> a",
  "<|begin_of_text|><|eot_id|> a",
  "<bos><start_of_turn>user\nhi<end_of_turn>\n<eos> a",
]
DIALOGUE = [
  {"role": "user", "content": "It's 12 o'clock?"},
  {"role": "assistant", "content": "Yes.\n\nIt was."},
  {"role": "user", "content": " And now? 🙂 "},
]
SYSTEM = [{"role": "system", "content": "Answer in one word."}]
ANSWER = "The café, in 1969."

CHATML = """{% for message in messages %}
{% if loop.first and message['role'] != 'system' %}
{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{% endif %}
{{- '<|im_start|>' + message.role + '\\n' + message.content -}}
{{- '<|im_end|>\\n' -}}
{% endfor %}
{% if add_generation_prompt %}{{- '<|im_start|>assistant\\n' -}}{% endif %}"""
# As ChatML, with the answer in an empty <think> block where it is the last.
THINKING = """{%- set ns = namespace(last=-1) -%}
{%- if tools %}{{- raise_exception('no tools here') }}{% endif -%}
{%- for m in messages[::-1] -%}
{%- if ns.last < 0 and m.role == 'user' -%}
{%- set ns.last = messages | length - 1 - loop.index0 -%}
{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- set text = m.content if m.content is string else '' -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' and loop.index0 > ns.last -%}
{{- '<think>\\n' + (m.reasoning_content | default('')) | trim('\\n') -}}
{{- '\\n</think>\\n\\n' + text.lstrip('\\n') -}}
{%- else -%}{{- text -}}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}"""
GENERATION = """{% for m in messages %}
{% if m.role == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}

{% else %}
{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}
{%- endif %}
{% if m.role == 'tool' %}{% continue %}{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""
LLAMA3 = """{% if strftime_now is defined %}
{% set date = strftime_now('%Y') %}
{% else %}
{% set date = '26 Jul 2024' %}
{% endif %}
{{ bos_token }}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content | trim %}
{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{%- if tools is not none %}{{ tools | tojson(indent=2) }}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date }}
{{- '\\n\\n' + system }}
{{- '<|eot_id|>' }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}
{{- m['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
LLAMA2 = """{% if messages[0]['role'] == 'system' %}
{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{% set messages = messages[1:] %}
{% else %}{% set system = '' %}{% endif %}
{% for m in messages %}
{% if m['role'] == 'user' %}
{{- bos_token + '[INST] ' + (system if loop.first else '') -}}
{{- m['content'].strip() + ' [/INST]' -}}
{% elif m['role'] == 'assistant' %}
{{- ' ' + m['content'].strip() + ' ' + eos_token -}}
{% else %}{{ raise_exception('Only user and assistant roles') }}{% endif %}
{% endfor %}"""
ZEPHYR = """{% for m in messages %}
{% if m['role'] == 'user' %}
{{ '<|user|>\\n' + m['content'] + eos_token }}
{% elif m['role'] == 'system' %}
{{ '<|system|>\\n' + m['content'] + eos_token }}
{% elif m['role'] == 'assistant' %}
{{ '<|assistant|>\\n' + m['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
MISTRAL = """{{- bos_token }}
{%- for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate user/assistant') }}
{%- endif %}
{%- if m['role'] == 'user' %}
{{- '[INST] ' + m['content'] + '[/INST]' }}
{%- else %}
{{- ' ' + m['content'] | trim + eos_token }}
{%- endif %}
{%- endfor %}"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}
{%- endif %}
{%- for m in messages %}
{%- set role = 'model' if m['role'] == 'assistant' else m['role'] %}
{{- '<start_of_turn>' + role + '\\n' + m['content'] | trim }}
{{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}"""
# Name, kind, source, whether it takes a system message.
TEMPLATES = [
  ("chatml", "qwen2", CHATML, True),
  ("thinking", "qwen2", THINKING, True),
  ("generation", "qwen2", GENERATION, True),
  ("llama3", "llama3", LLAMA3, True),
  ("llama2", "llama2", LLAMA2, True),
  ("zephyr", "llama2", ZEPHYR, True),
  ("mistral", "mistral", MISTRAL, False),
  ("gemma", "gemma", GEMMA, False),
]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def modern_split(digits):
  return (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
  )


def byte_level(special, *, split=None, normalizer=None, added=(), whole=False):
  backend = tokenizers.Tokenizer(models.BPE(ignore_merges=whole))
  backend.normalizer = normalizer
  letters = pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=split is None
  )
  if split is None:
    backend.pre_tokenizer = letters
  else:
    cut = pre_tokenizers.Split(tokenizers.Regex(split), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, letters])
  backend.decoder = decoders.ByteLevel()
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  trainer = trainers.BpeTrainer(
    vocab_size=len(alphabet) + 90,
    initial_alphabet=alphabet,
    show_progress=False,
  )
  backend.train_from_iterator([TRAINING], trainer)
  backend.add_special_tokens(list(special))
  backend.add_tokens(list(added))
  return backend


def sentence_piece(special, *, runs=()):
  """Pieces in SentencePiece's order: special, bytes, merged, single letters."""
  trained = tokenizers.Tokenizer(models.BPE())
  trained.pre_tokenizer = pre_tokenizers.Metaspace()
  trainer = trainers.BpeTrainer(vocab_size=140, show_progress=False)
  trained.train_from_iterator([TRAINING], trainer)
  pieces = sorted(trained.get_vocab(), key=trained.get_vocab().get)
  pieces = [p for p in pieces if "\n" not in p]  # As in the real ones.
  merged = [p for p in pieces if len(p) > 1]
  single = [p for p in pieces if len(p) == 1]
  spelled = [f"<0x{i:02X}>" for i in range(256)]
  order = [*special, *runs, *spelled, *merged, *single]
  vocabulary = {piece: i for i, piece in enumerate(order)}
  known = {*merged, *single, *runs}
  ranked = []
  for piece in [*runs, *merged]:
    halves = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
    ranked += [h for h in halves if known.issuperset(h)]
  return tokenizers.Tokenizer(
    models.BPE(
      vocab=vocabulary,
      merges=ranked,
      unk_token="<unk>",
      fuse_unk=True,
      byte_fallback=True,
    )
  )


def begins(backend, token):
  backend.post_processor = processors.TemplateProcessing(
    single=f"{token} $A",
    pair=f"{token} $A {token}:1 $B:1",
    special_tokens=[(token, backend.token_to_id(token))],
  )


def spaces_back(*, first):
  """Decoders; `first`: of a tokenizer that puts a space before texts."""
  strip = [decoders.Strip(" ", 1, 0)] if first else []
  steps = [decoders.Replace("▁", " "), decoders.ByteFallback()]
  return decoders.Sequence([*steps, decoders.Fuse(), *strip])


def make_kinds():
  """Yields name, tokenizer, settings, further ends."""
  end = "<|endoftext|>"
  yield "gpt2", byte_level([end]), {"bos_token": end, "eos_token": end}, []

  neox = byte_level(
    [end, "<|padding|>"], normalizer=normalizers.NFC(), added=["    ", "  "]
  )
  yield "neox", neox, {"bos_token": end, "eos_token": end}, []

  special = [end, "<|im_start|>", "<|im_end|>"]
  qwen2 = byte_level(
    special, split=modern_split(r"\p{N}"), normalizer=normalizers.NFC()
  )
  settings = {"eos_token": "<|im_end|>", "pad_token": end}
  yield "qwen2", qwen2, settings | {"add_bos_token": False}, [end]

  special = ["<|begin_of_text|>", "<|end_of_text|>"]
  special += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
  llama3 = byte_level(special, split=modern_split(r"\p{N}{1,3}"), whole=True)
  begins(llama3, special[0])
  settings = {"bos_token": special[0], "eos_token": "<|eot_id|>"}
  yield "llama3", llama3, settings, ["<|end_of_text|>", "<|eot_id|>"]

  llama2 = sentence_piece(["<unk>", "<s>", "</s>"])
  llama2.add_special_tokens(["<unk>", "<s>", "</s>"])
  llama2.normalizer = normalizers.Sequence(
    [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
  )
  llama2.decoder = spaces_back(first=True)
  begins(llama2, "<s>")
  names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
  settings = names | {"add_bos_token": True, "add_eos_token": False}
  yield "llama2", llama2, settings, ["</s>"]

  special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
  mistral = sentence_piece(special)
  mistral.add_special_tokens(special)
  mistral.pre_tokenizer = pre_tokenizers.Metaspace(
    replacement="▁", prepend_scheme="first", split=False
  )
  mistral.decoder = spaces_back(first=True)
  begins(mistral, "<s>")
  yield "mistral", mistral, names, ["</s>"]

  special = ["<pad>", "<eos>", "<bos>", "<unk>"]
  turns = ["<start_of_turn>", "<end_of_turn>"]
  runs = ["\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁"]
  gemma = sentence_piece([*special, *turns], runs=runs)
  gemma.add_special_tokens([*special, *turns])
  gemma.add_tokens([tokenizers.AddedToken(r, normalized=False) for r in runs])
  gemma.normalizer = normalizers.Replace(" ", "▁")
  gemma.decoder = spaces_back(first=False)
  begins(gemma, "<bos>")
  settings = {f"{token[1:-1]}_token": token for token in special}
  yield "gemma", gemma, settings, ["<eos>", "<end_of_turn>"]


def described(backend):
  """Returns tokenizer.json with the vocabulary as a list, which is shorter."""
  values = json.loads(backend.to_str())
  vocabulary = values["model"]["vocab"]
  values["model"]["vocab"] = sorted(vocabulary, key=vocabulary.get)
  return values


def load(backend, settings, folder):
  backend.save(str(folder / "tokenizer.json"))
  settings = settings | {"tokenizer_class": "PreTrainedTokenizerFast"}
  path = folder / "tokenizer_config.json"
  path.write_text(json.dumps(settings), "utf-8")
  return transformers.AutoTokenizer.from_pretrained(folder)


def dialogue_of(tokenizer, template, takes_system):
  messages = SYSTEM + DIALOGUE if takes_system else DIALOGUE
  answered = [*messages, {"role": "assistant", "content": ANSWER}]
  row = {"messages": messages, "answer": ANSWER}
  for name, dialogue in (("open", messages), ("answered", answered)):
    arguments = {
      "conversation": dialogue,
      # Ours has no clock.
      "chat_template": template.replace("strftime_now", "no_clock"),
      "add_generation_prompt": name == "open",
    }
    row[name] = tokenizer.apply_chat_template(**arguments, tokenize=False)
    row[f"{name}_ids"] = tokenizer.apply_chat_template(
      **arguments, return_dict=False
    )
  return row


def main():
  golden = {
    "versions": {
      "tokenizers": tokenizers.__version__,
      "transformers": transformers.__version__,
    },
    "texts": TEXTS,
    "kinds": {},
    "templates": {},
  }
  loaded = {}
  for name, backend, settings, ends in make_kinds():
    with tempfile.TemporaryDirectory() as folder:
      tokenizer = load(backend, settings, pathlib.Path(folder))
    loaded[name] = tokenizer
    golden["kinds"][name] = {
      "tokenizer": described(backend),
      "settings": settings,
      "eos_token_ids": tokenizer.convert_tokens_to_ids(ends),
      "ids": [tokenizer(text)["input_ids"] for text in TEXTS],
    }
  for name, kind, source, takes_system in TEMPLATES:
    golden["templates"][name] = {
      "kind": kind,
      "source": source,
      "dialogue": dialogue_of(loaded[kind], source, takes_system),
    }
  path = pathlib.Path(__file__).with_name("tokenizers.json")
  text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
  path.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
  main()
