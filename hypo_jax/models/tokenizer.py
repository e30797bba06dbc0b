# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back for pretrained models.

A `Tokenizer` wraps what a tokenizer.json describes and adds what stands beside
it: which ids begin and end a text, and the chat template.

    prompt, text        BOS where the tokenizer adds one + the text's ids
    prompt, messages    the chat template's rendering, ready for the answer
    completion          the text's ids alone

The ids of a row are these two joined, so a prompt's ids never depend on what
follows them. Text isn't searched for dialogue markers: a plain string stays
plain, and only messages go through the template. Special tokens written out in
a text become those tokens, as in transformers. A tokenizer that puts a space
before every text puts one before completions too, and `decode` drops it.

Neither transformers nor torch is needed. Templates see no clock: a run's tokens
are the same tomorrow.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import tokenizers

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
# Token types in GGUF files.
_CONTROL, _USER_DEFINED = 3, 4


class Tokenizer:
  """A tokenizers library tokenizer with its special tokens and chat template.

  Attributes:
    bos_token_id: int, or None where there is no such token.
    eos_token_id: int or tuple of ints that end a completion, the first of them
      written by us.
    pad_token_id: int; the first EOS where the files name no other, since masks
      and not ids say what is padding.
    vocab_size: tokens, added ones included; a model may have more rows.
    chat_template: Jinja source, or None.
  """

  def __init__(
    self,
    backend: tokenizers.Tokenizer,
    *,
    settings: dict[str, Any],
    chat_template: str | None = None,
    eos_token_ids: Sequence[int] = (),
  ):
    """Wraps `backend`.

    Args:
      backend: the tokenizer proper; its truncation and padding are put off.
      settings: as in tokenizer_config.json, of which bos_token, eos_token,
        unk_token, pad_token and add_bos_token are read and all is saved.
      chat_template: Jinja source, or None.
      eos_token_ids: further ids that end a completion.

    Raises:
      ValueError: for a special token outside the vocabulary, no EOS at all, or
        a template that isn't Jinja.
    """
    backend.no_truncation()
    backend.no_padding()
    self._backend = backend
    self._settings = settings
    self._special = _special_tokens(settings)
    ids = {name: self._id(name) for name in self._special}
    ends = [ids.get("eos_token"), *eos_token_ids]
    ends = tuple(dict.fromkeys(i for i in ends if i is not None))
    if not ends:
      raise ValueError(
        "eos_token: expected a token that ends completions in "
        "tokenizer_config.json or generation_config.json, got none"
      )
    self.bos_token_id = ids.get("bos_token")
    self.eos_token_id = ends if len(ends) > 1 else ends[0]
    self.pad_token_id = ids.get("pad_token", ends[0])
    self.vocab_size = backend.get_vocab_size()
    self.chat_template = chat_template
    self._prefix = self._find_prefix(ends)
    self._template = chat_template and _compile_template(chat_template)

  def _id(self, name: str) -> int:
    found = self._backend.token_to_id(self._special[name])
    if found is None:
      raise ValueError(
        f"{name}: expected a token of the vocabulary, got "
        f"{self._special[name]!r}"
      )
    return found

  def _find_prefix(self, ends: tuple[int, ...]) -> list[int]:
    """Returns the ids that begin every text."""
    prefix = self._backend.encode("").ids
    while prefix and prefix[-1] in ends and prefix[-1] != self.bos_token_id:
      prefix = prefix[:-1]
    adds_bos = self._settings.get("add_bos_token")
    if adds_bos is None or self.bos_token_id is None:
      return prefix
    prefix = [i for i in prefix if i != self.bos_token_id]
    return [self.bos_token_id, *prefix] if adds_bos else prefix

  def encode_prompt(self, prompt: str | list[dict[str, str]]) -> list[int]:
    """Returns the ids of text, or of messages and the start of the answer.

    Args:
      prompt: text, or messages {"role", "content"} for the chat template.

    Raises:
      ValueError: where no token results, messages come without a template or
        with roles that it refuses.
    """
    if isinstance(prompt, str):
      ids = self.encode_completion(prompt)
      if ids[: len(self._prefix)] != self._prefix:
        ids = self._prefix + ids
    else:
      ids = self.encode_completion(self._render(prompt))
    if not ids:
      raise ValueError(
        "prompt: expected text of at least one token (this tokenizer adds no "
        f"BOS), got {prompt!r}"
      )
    return ids

  def encode_completion(self, text: str) -> list[int]:
    """Returns the ids of `text`, with neither BOS nor EOS added."""
    return self._backend.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of `ids` without special tokens."""
    return self._backend.decode([int(i) for i in ids])

  def token_text(self, token_id: int) -> str:
    """Returns one token for people to see; special ones by their name."""
    name = self._backend.id_to_token(int(token_id)) or f"<{token_id}>"
    text = self._backend.decode([int(token_id)], skip_special_tokens=False)
    if not text or "\ufffd" in text:  # Part of a character.
      return name
    starts_word = name.startswith("\u2581") and not text.startswith(" ")
    return f" {text}" if starts_word else text

  def _render(self, messages: list[dict[str, str]]) -> str:
    if self._template is None:
      raise ValueError(
        "prompt: got messages, but this tokenizer has no chat template; "
        "expected text"
      )
    try:
      return self._template.render(
        messages=messages, add_generation_prompt=True, **self._special
      )
    except (jinja2.TemplateError, TypeError) as error:
      raise ValueError(
        f"prompt: the chat template refuses the messages: {error}"
      ) from error

  def fingerprint(self) -> str:
    """Returns what the ids of any text, and of messages, follow from."""
    parts = [self._backend.to_str(), self._settings, self.chat_template]
    return json.dumps([*parts, self.eos_token_id, self.pad_token_id])

  def save(self, folder: str | os.PathLike) -> None:
    """Writes tokenizer.json and tokenizer_config.json, template included."""
    folder = pathlib.Path(folder)
    self._backend.save(str(folder / "tokenizer.json"))
    settings = self._settings | self._special
    if self.chat_template is not None:
      settings["chat_template"] = self.chat_template
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")


def from_folder(
  folder: str | os.PathLike, *, eos_token_ids: Sequence[int] = ()
) -> Tokenizer:
  """Reads tokenizer.json and what stands beside it.

  Args:
    folder: holds tokenizer.json and, where they exist, tokenizer_config.json,
      special_tokens_map.json and chat_template.jinja.
    eos_token_ids: ids that the generation config ends on.

  Raises:
    ValueError: for a file that can't be read.
  """
  folder = pathlib.Path(folder)
  path = folder / "tokenizer.json"
  try:
    backend = tokenizers.Tokenizer.from_file(str(path))
  except Exception as error:  # The library raises Exception itself.
    raise ValueError(f"{path}: not a readable tokenizer: {error}") from error
  special = read_json(folder / "special_tokens_map.json")
  settings = special | read_json(folder / "tokenizer_config.json")
  template = settings.pop("chat_template", None)
  if isinstance(template, list):  # Several, by name.
    named = {entry["name"]: entry["template"] for entry in template}
    template = named.get("default")
  if (path := folder / "chat_template.jinja").exists():
    template = path.read_text("utf-8")
  return Tokenizer(
    backend,
    settings=settings,
    chat_template=template,
    eos_token_ids=eos_token_ids,
  )


def from_gguf(metadata: dict[str, Any]) -> Tokenizer:
  """Builds the tokenizer that a GGUF file's metadata describe.

  Args:
    metadata: the file's keys; those under tokenizer.* are read.

  Raises:
    ValueError: for a kind of tokenizer other than "gpt2" (byte-level BPE) with
      the "smollm" splits, or a missing key.
  """
  metadata = {
    key.removeprefix("tokenizer.").removeprefix("ggml."): value
    for key, value in metadata.items()
    if key.startswith("tokenizer.")
  }
  for key, known in (("model", "gpt2"), ("pre", "smollm")):
    if metadata.get(key) != known:
      raise ValueError(
        f"tokenizer.ggml.{key}: expected {known!r}, got {metadata.get(key)!r}"
      )
  for key in ("tokens", "merges", "token_type"):
    if key not in metadata:
      raise ValueError(f"tokenizer.ggml.{key}: expected in the file, missing")
  tokens = metadata["tokens"]
  names = ("bos", "eos", "unknown", "padding")
  settings: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "add_bos_token": bool(metadata.get("add_bos_token", False)),
    "clean_up_tokenization_spaces": False,
  }
  for ours, theirs in zip(_SPECIAL_NAMES, names, strict=True):
    if (token_id := metadata.get(f"{theirs}_token_id")) is not None:
      settings[ours] = tokens[token_id]
  ends = [metadata.get(f"{name}_token_id") for name in ("eot", "eom")]
  return Tokenizer(
    _smollm_backend(tokens, metadata["merges"], metadata["token_type"]),
    settings=settings,
    chat_template=metadata.get("chat_template"),
    eos_token_ids=[i for i in ends if i is not None],
  )


def _smollm_backend(
  tokens: list[str], merges: list[str], types: list[int]
) -> tokenizers.Tokenizer:
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=[tuple(merge.split(" ", 1)) for merge in merges],
    )
  )
  # Every digit apart, then GPT-2's regular expression on what lies between.
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Digits(individual_digits=True),
      tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  backend.decoder = tokenizers.decoders.ByteLevel()

  def added(kind: int) -> list[tokenizers.AddedToken]:
    return [
      tokenizers.AddedToken(token, normalized=False)
      for token, token_type in zip(tokens, types, strict=True)
      if token_type == kind
    ]

  backend.add_special_tokens(added(_CONTROL))
  backend.add_tokens(added(_USER_DEFINED))
  return backend


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the JSON object in `path`, {} where there is no such file."""
  if not path.exists():
    return {}
  try:
    values = json.loads(path.read_text("utf-8"))
  except ValueError as error:
    raise ValueError(f"{path}: not readable as JSON: {error}") from error
  if not isinstance(values, dict):
    raise ValueError(f"{path}: expected an object, got {type(values).__name__}")
  return values


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
  """Returns the special tokens that are set, as text."""
  texts = {}
  for name in _SPECIAL_NAMES:
    value = settings.get(name)
    text = value["content"] if isinstance(value, dict) else value
    if text is not None:
      texts[name] = text
  return texts


def _compile_template(source: str) -> jinja2.Template:
  def raise_exception(message):
    raise jinja2.TemplateError(message)

  def tojson(value, indent=None):
    return json.dumps(value, ensure_ascii=False, indent=indent)

  # As transformers sets it up: templates are written for these settings. The
  # sandbox, because a template is somebody else's program.
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
  )
  environment.filters["tojson"] = tojson
  environment.globals["raise_exception"] = raise_exception
  try:
    return environment.from_string(source)
  except jinja2.TemplateError as error:
    raise ValueError(
      f"chat_template: expected a Jinja template, got an error: {error}"
    ) from error
