# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Takes one field out of a row, or says what is wrong with it.

Every function raises ValueError with a reason that begins with the field's
name; the reader adds file and line. Text is kept exactly as it stands.
"""

import math
from typing import Any

Message = dict[str, str]
Prompt = str | list[Message]
Row = dict[str, Any]


def field(row: Row, name: str) -> Any:
  """Returns row[name]."""
  if name not in row:
    raise ValueError(f"{name}: missing; the row has {sorted(row)}")
  return row[name]


def prompt(row: Row, name: str = "prompt") -> Prompt:
  """Returns text, or messages with role and content alone; never blank."""
  value = field(row, name)
  if isinstance(value, str):
    return text(row, name)
  found = messages(name, value)
  check_not_blank(name, "".join(m["content"] for m in found))
  return found


def identity(value: Prompt) -> str:
  """Returns what prompts share that should not be told apart.

  That is the text, white space aside; one user's turn alone is its text, since
  files of one set differ in whether they write it as a message.
  """
  if not isinstance(value, str):
    if [message["role"] for message in value] == ["user"]:
      value = value[0]["content"]
    else:
      value = "\n".join(f"{m['role']}: {m['content']}" for m in value)
  return " ".join(value.split())


def completion(row: Row, name: str) -> str:
  """Returns text that isn't blank, of a text or of one assistant message."""
  value = field(row, name)
  if isinstance(value, str):
    return text(row, name)
  return answer(name, messages(name, value))


def answer(name: str, turns: list[Message]) -> str:
  """Returns the text of turns that are one assistant's turn."""
  roles = [message["role"] for message in turns]
  if roles != ["assistant"]:
    raise ValueError(
      f"{name}: expected the one assistant turn after the prompt, got roles "
      f"{roles}"
    )
  check_not_blank(name, turns[0]["content"])
  return turns[0]["content"]


def text(row: Row, name: str) -> str:
  """Returns a text that isn't blank."""
  value = field(row, name)
  check_text(name, value)
  check_not_blank(name, value)
  return value


def number(row: Row, name: str) -> float:
  """Returns a finite number; CSV and some JSON hold it as text."""
  value = field(row, name)
  try:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
      raise ValueError
    result = float(value)
  except (ValueError, OverflowError):
    raise ValueError(
      f"{name}: expected a number, got {_shown(value)}"
    ) from None
  if not math.isfinite(result):
    raise ValueError(f"{name}: expected a finite number, got {value}")
  return result


def choice(row: Row, name: str) -> int:
  """Returns 0 or 1."""
  value = number(row, name)
  if value not in (0, 1):
    raise ValueError(f"{name}: expected 0 or 1, got {_shown(row[name])}")
  return int(value)


def messages(name: str, value: Any) -> list[Message]:
  """Returns a copy that holds role and content alone."""
  if not isinstance(value, list) or not value:
    raise ValueError(
      f"{name}: expected text or a list of messages, got {kind(value)}"
    )
  result = []
  for position, message in enumerate(value):
    place = f"{name}[{position}]"
    if not isinstance(message, dict):
      raise ValueError(f"{place}: expected a message, got {kind(message)}")
    for key in ("role", "content"):
      check_text(f"{place}.{key}", message.get(key))
    check_not_blank(f"{place}.role", message["role"])
    result.append({key: message[key] for key in ("role", "content")})
  return result


def check_text(name: str, value: Any) -> None:
  """Refuses what is no text, or holds what no tokenizer was trained on."""
  if not isinstance(value, str):
    raise ValueError(f"{name}: expected text, got {kind(value)}")
  if "\0" in value:
    raise ValueError(f"{name}: holds a NUL at position {value.index(chr(0))}")
  try:
    value.encode("utf-8")
  except UnicodeEncodeError as error:
    raise ValueError(
      f"{name}: holds a lone surrogate at position {error.start}"
    ) from None


def check_not_blank(name: str, value: str) -> None:
  """Refuses text of white space alone."""
  if not value.strip():
    raise ValueError(f"{name}: empty" + (" (white space)" if value else ""))


def kind(value: Any) -> str:
  """Names the kind of a JSON value."""
  if value is None:
    return "null"
  if value == []:
    return "an empty list"
  return type(value).__name__


def _shown(value: Any) -> str:
  if isinstance(value, str):
    return repr(value[:40])
  return str(value) if isinstance(value, int | float) else kind(value)
