# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a tokenizer in a Hugging Face folder.

tokenizer.json              the tokenizer proper, or, before there was that,
vocab.json, merges.txt      its vocabulary and merges, and
added_tokens.json           what follows the vocabulary
tokenizer_config.json       special tokens and settings
special_tokens_map.json     special tokens, where the former has none
chat_template.jinja         the template; before, a setting
additional_chat_templates/  others by name; before, a setting too
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import tokenizers

from hypo_jax.models import backends

_TEMPLATE = "chat_template.jinja"
_NAMED_TEMPLATES = "additional_chat_templates"
_FILE_NAME = re.compile(r"[\w-][\w.-]*")


@dataclasses.dataclass(frozen=True)
class Files:
  """What a folder says.

  Attributes:
    backend: the tokenizer proper.
    settings: of tokenizer_config.json, but for the templates.
    chat_template: Jinja source, or None.
    named_templates: others by name.
  """

  backend: tokenizers.Tokenizer
  settings: dict[str, Any]
  chat_template: str | None
  named_templates: dict[str, str]


def has_tokenizer(folder: pathlib.Path) -> bool:
  """Whether `folder` holds files that `read` makes a tokenizer of."""
  names = {path.name for path in folder.iterdir()}
  return "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names


def read(folder: pathlib.Path) -> Files:
  """Reads a folder's tokenizer and what stands beside it.

  Raises:
    ValueError: for a file that can't be read, or none that describes a
      tokenizer.
  """
  special = read_json(folder / "special_tokens_map.json")
  settings = special | read_json(folder / "tokenizer_config.json")
  templates = _read_templates(folder, settings.pop("chat_template", None))
  path = folder / "tokenizer.json"
  if path.exists():
    try:
      backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises Exception itself.
      raise ValueError(
        f"{path}: expected a tokenizer, not readable as one: {error}"
      ) from error
  elif has_tokenizer(folder):
    settings, backend = _from_merges(folder, settings)
  else:
    models = [p.name for p in folder.glob("*.model")]
    raise ValueError(
      f"{folder}: expected tokenizer.json"
      + (f", got {models[0]} (SentencePiece) alone" if models else ", none")
      + "; transformers makes it: AutoTokenizer.from_pretrained(folder)"
      ".save_pretrained(folder), with sentencepiece installed"
    )
  return Files(backend, settings, templates.pop("default", None), templates)


def write(
  folder: pathlib.Path,
  backend: tokenizers.Tokenizer,
  *,
  settings: Mapping[str, Any],
  chat_template: str | None,
  named_templates: Mapping[str, str],
) -> None:
  """Writes what `read` reads, over what lay there before.

  Args:
    folder: exists.
    backend: for tokenizer.json.
    settings: for tokenizer_config.json.
    chat_template: Jinja source, or None.
    named_templates: others by name.
  """
  backend.save(str(folder / "tokenizer.json"))
  text = json.dumps(settings, indent=2, ensure_ascii=False)
  (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")
  others = folder / _NAMED_TEMPLATES
  for old in (folder / _TEMPLATE, *others.glob("*.jinja")):
    old.unlink(missing_ok=True)
  if chat_template is not None:
    (folder / _TEMPLATE).write_text(chat_template, "utf-8")
  for name, source in named_templates.items():
    others.mkdir(exist_ok=True)
    (others / f"{name}.jinja").write_text(source, "utf-8")


def _read_templates(folder: pathlib.Path, setting: Any) -> dict[str, str]:
  """Returns chat templates by name, "default" the one in use.

  Args:
    folder: its files win.
    setting: tokenizer_config.json's chat_template: None, one, or a list of
      {"name", "template"}.
  """
  if isinstance(setting, str):
    setting = [{"name": "default", "template": setting}]
  try:
    named = {entry["name"]: entry["template"] for entry in setting or ()}
    sound = all(
      _FILE_NAME.fullmatch(name) and isinstance(source, str)
      for name, source in named.items()
    )
  except (TypeError, KeyError, AttributeError):
    sound = False
  if not sound:  # Names become names of files.
    raise ValueError(
      f"{folder / 'tokenizer_config.json'}: chat_template: expected text or a "
      f"list of {{name, template}} with plain names, got {setting!r:.80}"
    )
  if (folder / _TEMPLATE).exists():
    named["default"] = (folder / _TEMPLATE).read_text("utf-8")
  for path in sorted((folder / _NAMED_TEMPLATES).glob("*.jinja")):
    named[path.stem] = path.read_text("utf-8")
  return named


def _from_merges(
  folder: pathlib.Path, settings: dict[str, Any]
) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
  """Builds what vocab.json and merges.txt, which name no splits, stand for."""
  kind = settings.get("tokenizer_class") or "GPT2Tokenizer"
  splits = {"GPT2Tokenizer": "gpt-2", "Qwen2Tokenizer": "qwen2"}
  split = splits.get(kind.removesuffix("Fast"))
  if split is None or settings.get("add_prefix_space"):
    raise ValueError(
      f"{folder}: expected tokenizer.json, since vocab.json and merges.txt "
      f"alone tell all of {' and '.join(splits)} without add_prefix_space, got "
      f"{kind}; transformers' AutoTokenizer saves it"
    )
  end = "<|endoftext|>"
  if split == "gpt-2" and end in read_json(folder / "vocab.json"):
    # GPT-2's files leave its one special token unsaid.
    settings = {"bos_token": end, "eos_token": end} | settings
  added = read_json(folder / "added_tokens.json")
  for i, token in (settings.get("added_tokens_decoder") or {}).items():
    added[token["content"]] = int(i)
  backend = backends.from_merges(
    folder / "vocab.json",
    folder / "merges.txt",
    split=split,
    special=special_tokens(settings).values(),
    added=added,
  )
  return settings, backend


def special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
  """Returns the special tokens that are set, as text, by name.

  All that a template may write: mask_token, image_token and the like too.
  """
  named = settings.get("extra_special_tokens")
  values = {**settings, **(named if isinstance(named, dict) else {})}
  texts = {}
  for name, value in values.items():
    text = value.get("content") if isinstance(value, dict) else value
    if name.endswith("_token") and isinstance(text, str):
      texts[name] = text
  return texts


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the JSON object in `path`, {} where there is no such file."""
  if not path.exists():
    return {}
  try:
    values = json.loads(path.read_text("utf-8"))
  except ValueError as error:
    raise ValueError(
      f"{path}: not readable as JSON, expected an object: {error}"
    ) from error
  if not isinstance(values, dict):
    raise ValueError(f"{path}: expected an object, got {type(values).__name__}")
  return values
