# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back for pretrained models.

A `Tokenizer` wraps what a tokenizer.json describes and adds what stands beside
it: which ids begin and end a text, and the chat template.

    prompt, text        BOS where the tokenizer adds one + the text's ids
    prompt, messages    the chat template's text, ready for the answer; BOS only
                        where the template writes it, as in transformers
    completion          the text's ids as they follow other text
    turn                the same for an answer to messages: as the template
                        opens and closes it, its end token last

The ids of a row are prompt and completion joined, so a prompt's ids never
depend on what follows them: rollouts start from exactly these ids. The text of
both in one piece can give others, in three ways, and then ours are meant:

  * a merge across the seam ("Ans" + "wer", newline + newline) isn't made;
  * a tokenizer that puts a space before every text (Llama 2) puts none before a
    completion, since that goes on from the prompt, and `decode` drops none;
  * templates strip an answer's outer white space, and we strip nothing.

Text isn't searched for dialogue markers: a plain string stays plain, and only
messages go through the template. Special tokens written out in a text become
those tokens, as in transformers. A turn may end with another token than a text
does (Gemma: <end_of_turn>, <eos>); both then end completions. A tokenizer
without EOS or template works until one is needed. One may also know special
tokens that its model has no rows for (Gemma 3's text models: an image's): then
text that holds one is refused.

Neither transformers nor torch is needed.
"""

import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import processors

from hypo_jax.models import backends, chat, gguf_vocabulary, tokenizer_files
from hypo_jax.models.tokenizer_files import has_tokenizer, read_json

__all__ = [
  "Tokenizer",
  "from_folder",
  "from_gguf",
  "has_tokenizer",
  "read_json",
]

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
  """A tokenizers library tokenizer with its special tokens and chat template.

  Attributes:
    bos_token_id: int, or None where there is no such token.
    eos_token_id: int or tuple of ints that end a completion, or None where the
      files name none. Text ends with the first of them, a turn with the
      template's.
    pad_token_id: int; the first EOS where the files name no other (0 without
      one), since masks and not ids say what is padding.
    vocab_size: tokens, added ones included; a model may have more rows.
    chat_template: Jinja source, or None.
  """

  def __init__(
    self,
    backend: tokenizers.Tokenizer,
    *,
    settings: dict[str, Any],
    chat_template: str | None = None,
    named_templates: Mapping[str, str] | None = None,
    eos_token_ids: Sequence[int] = (),
    num_rows: int | None = None,
  ):
    """Wraps `backend`.

    Args:
      backend: the tokenizer proper; its truncation and padding are put off, and
        BOS before texts is put on or off as `settings` say.
      settings: as in tokenizer_config.json, of which the special tokens and
        add_bos_token are read and all is saved.
      chat_template: Jinja source, or None.
      named_templates: others by name, which are saved and not used.
      eos_token_ids: further ids that end a completion.
      num_rows: of the model's embedding. Only special tokens that text needn't
        hold may have ids beyond them; None: any may.

    Raises:
      ValueError: for a special token outside the vocabulary, another token
        beyond the model's rows, or a template that isn't Jinja.
    """
    backend.no_truncation()
    backend.no_padding()
    self._backend = backend
    self._num_rows = num_rows
    self._rowless = self._find_rowless()
    self._bare = backends.continuation(backend)
    self._settings = settings
    self._named_templates = dict(named_templates or {})
    self._special = tokenizer_files.special_tokens(settings)
    if "eos_token" not in self._special and eos_token_ids:
      # Templates and transformers, of a saved folder, know it by its name.
      token = backend.id_to_token(eos_token_ids[0])
      self._special |= {} if token is None else {"eos_token": token}
    ids = {name: self._id(name) for name in _SPECIAL_NAMES}
    ends = [ids["eos_token"], *eos_token_ids]
    self.bos_token_id = ids["bos_token"]
    self.vocab_size = backend.get_vocab_size()
    self.chat_template = chat_template
    self._template = self._turn = None
    if chat_template is not None:
      self._template = chat.ChatTemplate(chat_template, self._special)
      self._turn = self._find_turn(ends)
      ends.append(self._token_id(self._turn.end_token))
    ends = tuple(dict.fromkeys(i for i in ends if i is not None))
    self.eos_token_id = (ends if len(ends) > 1 else ends[0]) if ends else None
    pad = ids["pad_token"]
    self.pad_token_id = (*ends, 0)[0] if pad is None else pad
    self._prefix = self._find_prefix()

  def _find_rowless(self) -> dict[int, str]:
    """Returns the special tokens that the model has no rows for."""
    if self._num_rows is None:
      return {}
    added = self._backend.get_added_tokens_decoder()
    beyond = {
      i: token
      for token, i in self._backend.get_vocab().items()
      if i >= self._num_rows
    }
    special = {i for i, token in added.items() if token.special}
    if wrong := sorted(beyond.keys() - special):
      raise ValueError(
        f"tokenizer: expected ids below vocab_size = {self._num_rows}, the "
        f"model's rows, got {beyond[wrong[0]]!r} with id {wrong[0]} "
        f"({len(wrong)} such tokens)"
      )
    return beyond

  def _check_rows(self, ids: list[int], what: str) -> list[int]:
    """Returns `ids`; ValueError where the model has no row for one."""
    wrong = next((i for i in ids if i in self._rowless), None)
    if wrong is not None:
      raise ValueError(
        f"{what}: expected tokens with ids below vocab_size = "
        f"{self._num_rows}, the model's rows, got {self._rowless[wrong]!r} "
        f"with id {wrong}"
      )
    return ids

  def _token_id(self, token: str | None) -> int | None:
    return None if token is None else self._backend.token_to_id(token)

  def _id(self, name: str) -> int | None:
    token = self._special.get(name)
    found = self._token_id(token)
    if token is not None and found is None:
      raise ValueError(
        f"{name}: expected a token of the vocabulary, got {token!r}"
      )
    if name != "unk_token" and found is not None:
      self._check_rows([found], name)
    return found

  def _find_prefix(self) -> list[int]:
    """Returns the ids that are added before every text.

    The setting add_bos_token wins over the file's post-processor, which is then
    replaced, since transformers 5 looks at nothing else.
    """
    prefix = []
    # Of some text that gives tokens: what is added before and what after one
    # that gives none can't be told apart.
    words = map(self._backend.id_to_token, range(self.vocab_size))
    for text in itertools.chain("a", filter(None, words)):
      encoded = self._backend.encode(text)
      if 0 in encoded.special_tokens_mask:
        prefix = encoded.ids[: encoded.special_tokens_mask.index(0)]
        break
    adds_bos = self._settings.get("add_bos_token")
    if adds_bos is None or self.bos_token_id is None:
      return prefix
    wanted = [i for i in prefix if i != self.bos_token_id]
    if adds_bos:
      wanted = [self.bos_token_id, *wanted]
    if wanted != prefix:
      tokens = [self._backend.id_to_token(i) for i in wanted]
      self._backend.post_processor = processors.TemplateProcessing(
        single=[*tokens, "$A"],
        special_tokens=list(dict(zip(tokens, wanted, strict=True)).items()),
      )
    return wanted

  def _find_turn(self, ends: Sequence[int | None]) -> chat.Turn:
    known = self._backend.get_added_tokens_decoder().values()
    named = (self._backend.id_to_token(i) for i in ends if i is not None)
    turn = chat.find_turn(
      self._template,
      eos=filter(None, named),
      special=(token.content for token in known if token.special),
    )
    if self._bare is self._backend:
      return turn
    # Some put a space before whatever follows a special token, so before an
    # answer too where the open prompt ends with one.
    try:
      prompt = self._template.render(chat.QUESTION, open_answer=True)
    except ValueError:
      return turn
    answer = turn.opening + chat.PROBE
    whole = self._encode(prompt + answer)
    spaced = self._encode(prompt) + self._encode_bare(" " + answer)
    if whole == spaced:
      return chat.Turn(" " + turn.opening, turn.closing, turn.end_token)
    return turn

  def _encode(self, text: str) -> list[int]:
    return self._backend.encode(text, add_special_tokens=False).ids

  def _encode_bare(self, text: str) -> list[int]:
    return self._bare.encode(text, add_special_tokens=False).ids

  def encode_prompt(self, prompt: str | list[dict[str, str]]) -> list[int]:
    """Returns the ids of text, or of messages and the start of the answer.

    Args:
      prompt: text, or messages {"role", "content"} for the chat template.

    Raises:
      ValueError: where no token results, or one that the model has no row for;
        where messages come without a template or with roles that it refuses.
    """
    if isinstance(prompt, str):
      ids = self._encode(prompt)
      if ids[: len(self._prefix)] != self._prefix:
        ids = self._prefix + ids
    else:
      text = self._needed_template().render(prompt, open_answer=True)
      ids = self._encode(text)
    if not ids:
      raise ValueError(
        "prompt: expected text of at least one token (this tokenizer adds no "
        f"BOS), got {prompt!r}"
      )
    return self._check_rows(ids, "prompt")

  def encode_completion(self, text: str) -> list[int]:
    """Returns the ids of `text` after other text; nothing is added to it.

    Raises:
      ValueError: where a token results that the model has no row for.
    """
    return self._check_rows(self._encode_bare(text), "completion")

  def encode_turn(self, text: str) -> list[int]:
    """Returns the ids of `text` as the template writes an answer.

    They end with the token that ends the template's turns; what it writes after
    that is left out. Where it has no such token, the text's ids stand alone. No
    tokens come of a text without any.

    Raises:
      ValueError: without a template, and as `encode_completion`.
    """
    self._needed_template()
    if not self.encode_completion(text):
      return []
    turn = self._turn
    return self.encode_completion(turn.opening + text + turn.closing)

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of a completion's ids without special tokens."""
    return self._bare.decode([int(i) for i in ids])

  def spells(self, text: str) -> bool:
    """Whether encoding gives at least one id, and decoding those the text."""
    ids = self._encode_bare(text)
    return bool(ids) and self.decode(ids) == text

  def token_text(self, token_id: int) -> str:
    """Returns one token for people to see; special ones by their name."""
    name = self._backend.id_to_token(int(token_id)) or f"<{token_id}>"
    text = self._backend.decode([int(token_id)], skip_special_tokens=False)
    if not text or "\ufffd" in text:  # Part of a character.
      return name
    starts_word = name.startswith("\u2581") and not text.startswith(" ")
    return f" {text}" if starts_word else text

  def _needed_template(self) -> chat.ChatTemplate:
    if self._template is None:
      raise ValueError(
        "prompt: expected text, since this tokenizer has no chat template, got "
        "messages; put one into chat_template.jinja beside tokenizer.json"
      )
    return self._template

  def fingerprint(self) -> str:
    """Returns what the ids of any text, and of messages, follow from."""
    parts = [self._backend.to_str(), self._settings, self.chat_template]
    return json.dumps([*parts, self.eos_token_id, self.pad_token_id])

  def save(self, folder: str | os.PathLike) -> None:
    """Writes tokenizer.json, tokenizer_config.json and the chat templates.

    The class named there becomes the one that takes tokenizer.json as it is:
    transformers has others that follow rules of their own instead.
    """
    settings = self._settings | self._special
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer_files.write(
      pathlib.Path(folder),
      self._backend,
      settings=settings,
      chat_template=self.chat_template,
      named_templates=self._named_templates,
    )


def from_folder(
  folder: str | os.PathLike,
  *,
  eos_token_ids: Sequence[int] = (),
  num_rows: int | None = None,
) -> Tokenizer:
  """Reads what a folder says of its tokenizer; see `tokenizer_files`.

  Args:
    folder: holds tokenizer.json, or vocab.json and merges.txt (GPT-2, Qwen 2),
      and what stands beside them.
    eos_token_ids: ids that the generation config ends on.
    num_rows: of the model's embedding, as for `Tokenizer`.

  Raises:
    ValueError: for a file that can't be read, none that describes a tokenizer,
      or tokens that the model has no rows for.
  """
  read = tokenizer_files.read(pathlib.Path(folder))
  return Tokenizer(
    read.backend,
    settings=read.settings,
    chat_template=read.chat_template,
    named_templates=read.named_templates,
    eos_token_ids=eos_token_ids,
    num_rows=num_rows,
  )


def from_gguf(
  metadata: dict[str, Any], *, num_rows: int | None = None
) -> Tokenizer:
  """Builds the tokenizer that a GGUF file's metadata describe.

  Args:
    metadata: the file's keys, of which general.architecture and those under
      tokenizer.* are read; see `gguf_vocabulary`.
    num_rows: of the model's embedding, as for `Tokenizer`.

  Raises:
    ValueError: for an unknown kind of tokenizer, a missing key, or tokens that
      the model has no rows for.
  """
  read = gguf_vocabulary.read(metadata)
  return Tokenizer(
    read.backend,
    settings=read.settings,
    chat_template=read.chat_template,
    eos_token_ids=read.eos_token_ids,
    num_rows=num_rows,
  )
