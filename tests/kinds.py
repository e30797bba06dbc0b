# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers of each kind, and what transformers makes of texts.

Written by golden/make_tokenizers_golden.py.
"""

import copy
import functools
import json
import pathlib

import tokenizers

from hypo_jax.models import tokenizer as tokenizer_lib

GOLDEN = json.loads(
  (pathlib.Path(__file__).parent / "golden" / "tokenizers.json").read_text(
    "utf-8"
  )
)
KINDS = tuple(GOLDEN["kinds"])
TEMPLATES = tuple(GOLDEN["templates"])
TEXTS = GOLDEN["texts"]


def description(kind: str) -> dict:
  """Returns the kind's tokenizer.json."""
  values = copy.deepcopy(GOLDEN["kinds"][kind]["tokenizer"])
  vocabulary = values["model"]["vocab"]
  values["model"]["vocab"] = {token: i for i, token in enumerate(vocabulary)}
  return values


def backend(kind: str) -> tokenizers.Tokenizer:
  return tokenizers.Tokenizer.from_str(json.dumps(description(kind)))


@functools.cache
def tokenizer(kind: str, template: str | None = None):
  """Returns our tokenizer of a kind, with the source of a template."""
  golden = GOLDEN["kinds"][kind]
  return tokenizer_lib.Tokenizer(
    backend(kind),
    settings=golden["settings"],
    chat_template=template,
    eos_token_ids=golden["eos_token_ids"],
  )


def chatting(name: str):
  """Returns the tokenizer that a template belongs to, with it."""
  template = GOLDEN["templates"][name]
  return tokenizer(template["kind"], template["source"])


def write_folder(folder: pathlib.Path, kind: str, template=None, **settings):
  """Writes what a hub's folder holds beside the weights."""
  golden = GOLDEN["kinds"][kind]
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    **golden["settings"],
    **settings,
  }
  if template is not None:
    settings["chat_template"] = template
  for name, values in (
    ("tokenizer.json", description(kind)),
    ("tokenizer_config.json", settings),
  ):
    text = json.dumps(values, ensure_ascii=False)
    (folder / name).write_text(text, "utf-8")
