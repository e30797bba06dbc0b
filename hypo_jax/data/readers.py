# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Reads preferences, demonstrations and prompts from files, row by row.

Files are .jsonl, .jsonl.gz or .parquet. A prompt is text or a list of messages
{"role", "content"}, which stays a list, so that the tokenizer's chat template
applies; a completion is text or a list that holds the one assistant turn after
the prompt, and becomes its text. Text is kept exactly as it stands.

A row is bad, and only that row is lost, where

  * it isn't UTF-8, isn't JSON, or isn't an object;
  * a field is missing, null, or neither text nor messages;
  * a prompt or a completion is empty or white space alone: every tokenizer
    must find a token that predicts the completion's first, and not all add a
    BOS, so an empty prompt is bad whatever the tokenizer;
  * chosen and rejected are identical;
  * text holds a lone surrogate or a NUL, which no tokenizer was trained on.

Blank lines are counted, not bad. Length is no matter here: `tokenize` cuts. A
prompt that is only implied (whole conversations under chosen and rejected) is
not split off for you.
"""

import codecs
import dataclasses
import functools
import gzip
import json
import logging
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from hypo_jax.data import hh

Message = dict[str, str]
Prompt = str | list[Message]

_SHOWN = 10
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BadRow:
  """One row that can't be used; `line` counts from 1 (Parquet: row)."""

  file: str
  line: int
  reason: str

  def __str__(self) -> str:
    return f"{self.file}:{self.line}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Reading:
  """What a file held.

  Attributes:
    records: the good rows in file order, each with "file" (the file's name)
      and "line" (from 1) beside its fields.
    bad_rows: the others, with reasons.
    blank_lines: number of lines of white space alone.
  """

  records: list[dict[str, Any]]
  bad_rows: list[BadRow]
  blank_lines: int


def read_preferences(
  path: str | os.PathLike,
  *,
  on_bad: str = "auto",
  max_bad_fraction: float = 0.01,
  as_messages: bool = False,
) -> Reading:
  """Reads rows {"prompt", "chosen", "rejected"}; other keys are dropped.

  Args:
    path: a .jsonl, .jsonl.gz or .parquet file.
    on_bad: "auto": bad rows are skipped, and fatal where they are more than
      max_bad_fraction of all; "skip": skipped; "fatal": one is enough.
      Skipped rows are logged, the first ten with their reasons.
    max_bad_fraction: in [0, 1], of the rows that aren't blank.
    as_messages: a text prompt becomes messages by `hh.hh_messages`; a row where
      it is no such dialogue is bad.

  Returns:
    Records whose prompt is text or a list of messages, and whose chosen and
    rejected are text.

  Raises:
    ValueError: for too many bad rows (naming the first ten), no good row, a
      broken gzip stream, or an unknown ending or argument.
  """
  to_record = _as_messages(_preference) if as_messages else _preference
  return _read(path, to_record, on_bad, max_bad_fraction)


def read_demonstrations(
  path: str | os.PathLike,
  *,
  on_bad: str = "auto",
  max_bad_fraction: float = 0.01,
) -> Reading:
  """Reads rows {"prompt", "chosen"} or {"prompt", "completion"}.

  Arguments and errors are those of `read_preferences`, whose files it takes.

  Returns:
    Records {"prompt", "chosen"}, whichever name the file has.
  """
  return _read(path, _demonstration, on_bad, max_bad_fraction)


def read_prompts(
  path: str | os.PathLike,
  *,
  on_bad: str = "auto",
  max_bad_fraction: float = 0.01,
  as_messages: bool = False,
) -> Reading:
  """Reads rows with at least "prompt"; returns records {"prompt"}.

  Arguments and errors are those of `read_preferences`, whose files it takes.
  """
  to_record = _as_messages(_prompt) if as_messages else _prompt
  return _read(path, to_record, on_bad, max_bad_fraction)


def _read(
  path: str | os.PathLike,
  to_record: Callable[[dict[str, Any]], dict[str, Any]],
  on_bad: str,
  max_bad_fraction: float,
) -> Reading:
  if on_bad not in ("auto", "skip", "fatal"):
    raise ValueError(
      f'on_bad: expected "auto", "skip" or "fatal", got {on_bad!r}'
    )
  if not 0 <= max_bad_fraction <= 1:
    raise ValueError(
      f"max_bad_fraction: expected 0 to 1, got {max_bad_fraction}"
    )
  path = pathlib.Path(path)
  records, bad, blank = [], [], 0
  for line, decode in _rows(path):
    if decode is None:
      blank += 1
      continue
    try:
      row = decode()
      if not isinstance(row, dict):
        raise ValueError(f"expected an object, got {_kind(row)}")
      records.append(to_record(row) | {"file": path.name, "line": line})
    except ValueError as error:
      bad.append(BadRow(str(path), line, str(error)))
  _judge_bad_rows(path, len(records), bad, on_bad, max_bad_fraction)
  return Reading(records, bad, blank)


def _judge_bad_rows(
  path: pathlib.Path,
  num_good: int,
  bad: list[BadRow],
  on_bad: str,
  max_bad_fraction: float,
) -> None:
  """Raises or logs, as on_bad says."""
  total = num_good + len(bad)
  listing = "".join(f"\n  {row}" for row in bad[:_SHOWN])
  if not num_good:
    raise ValueError(f"{path}: no good row among {total}{listing}")
  if not bad:
    return
  found = f"{path}: {len(bad)} of {total} rows are bad"
  allowed = {"auto": max_bad_fraction, "skip": 1.0, "fatal": 0.0}[on_bad]
  if len(bad) > allowed * total:
    raise ValueError(
      f"{found}, more than the {allowed:.2%} allowed; mend them or pass "
      f'on_bad="skip". The first {min(len(bad), _SHOWN)}:{listing}'
    )
  _logger.warning("%s and skipped, the first being:%s", found, listing)


def _rows(
  path: pathlib.Path,
) -> Iterator[tuple[int, Callable[[], Any] | None]]:
  """Yields (line, decode): decoding is the caller's, so that it can fail for
  one row alone. None stands for a blank line."""
  if path.name.endswith((".jsonl", ".jsonl.gz")):
    return _jsonl_rows(path)
  if path.name.endswith(".parquet"):
    return _parquet_rows(path)
  raise ValueError(
    f"path: expected a .jsonl, .jsonl.gz or .parquet file, got {path}"
  )


def _jsonl_rows(path):
  line = 0
  opened = gzip.open if path.name.endswith(".gz") else open
  with opened(path, "rb") as file:
    try:
      for line, raw in enumerate(file, 1):
        if line == 1:  # Some editors begin a file with a byte order mark.
          raw = raw.removeprefix(codecs.BOM_UTF8)
        blank = not raw.strip()
        yield line, None if blank else functools.partial(_decode_json, raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise ValueError(
        f"{path}: broken gzip stream after line {line}: {error}"
      ) from error


def _parquet_rows(path):
  import pyarrow.parquet  # Slow to import, and JSONL doesn't need it.

  with pyarrow.parquet.ParquetFile(path) as file:
    line = 0
    for batch in file.iter_batches():
      for index in range(batch.num_rows):
        line += 1
        yield line, functools.partial(_decode_parquet, batch, index)


def _decode_json(raw: bytes) -> Any:
  try:
    return json.loads(raw.decode("utf-8"))
  except UnicodeDecodeError as error:
    raise ValueError(_not_utf8(error)) from error
  except json.JSONDecodeError as error:
    raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
  except RecursionError:
    raise ValueError("not JSON: nested too deeply") from None


def _decode_parquet(batch, index: int) -> dict[str, Any]:
  try:
    return batch.slice(index, 1).to_pylist()[0]
  except UnicodeDecodeError as error:
    raise ValueError(_not_utf8(error)) from error


def _not_utf8(error: UnicodeDecodeError) -> str:
  return (
    f"not UTF-8: byte 0x{error.object[error.start]:02x} "
    f"at position {error.start}"
  )


def _prompt(row: dict[str, Any]) -> dict[str, Any]:
  value = _field(row, "prompt")
  if isinstance(value, str):
    _check_text("prompt", value)
    _check_not_blank("prompt", value)
    return {"prompt": value}
  messages = _messages("prompt", value)
  _check_not_blank("prompt", "".join(m["content"] for m in messages))
  return {"prompt": messages}


def _demonstration(row: dict[str, Any]) -> dict[str, Any]:
  name = "chosen" if "completion" not in row else "completion"
  if "chosen" in row and "completion" in row:
    raise ValueError("expected chosen or completion, got both")
  return _prompt(row) | {"chosen": _completion(row, name)}


def _preference(row: dict[str, Any]) -> dict[str, Any]:
  record = _prompt(row)
  for name in ("chosen", "rejected"):
    record[name] = _completion(row, name)
  if record["chosen"] == record["rejected"]:
    raise ValueError("chosen and rejected are identical")
  return record


def _as_messages(to_record):
  """Returns to_record, with a dialogue written as text turned into messages."""

  def converted(row: dict[str, Any]) -> dict[str, Any]:
    record = to_record(row)
    if isinstance(record["prompt"], str):
      record["prompt"] = hh.hh_messages(record["prompt"])
    return record

  return converted


def _completion(row: dict[str, Any], name: str) -> str:
  text = _field(row, name)
  if not isinstance(text, str):
    messages = _messages(name, text)
    roles = [message["role"] for message in messages]
    if roles != ["assistant"]:
      raise ValueError(
        f"{name}: expected the one assistant turn after the prompt, got roles "
        f"{roles}"
      )
    text = messages[0]["content"]
  _check_text(name, text)
  _check_not_blank(name, text)
  return text


def _field(row: dict[str, Any], name: str) -> Any:
  if name not in row:
    raise ValueError(f"{name}: missing; the row has {sorted(row)}")
  return row[name]


def _messages(name: str, value: Any) -> list[Message]:
  """Returns a copy that holds role and content alone."""
  if not isinstance(value, list) or not value:
    raise ValueError(
      f"{name}: expected text or a list of messages, got {_kind(value)}"
    )
  messages = []
  for number, message in enumerate(value):
    place = f"{name}[{number}]"
    if not isinstance(message, dict):
      raise ValueError(f"{place}: expected a message, got {_kind(message)}")
    for key in ("role", "content"):
      _check_text(f"{place}.{key}", message.get(key))
    _check_not_blank(f"{place}.role", message["role"])
    messages.append({key: message[key] for key in ("role", "content")})
  return messages


def _check_text(name: str, value: Any) -> None:
  if not isinstance(value, str):
    raise ValueError(f"{name}: expected text, got {_kind(value)}")
  if "\0" in value:
    raise ValueError(f"{name}: holds a NUL at position {value.index(chr(0))}")
  try:
    value.encode("utf-8")
  except UnicodeEncodeError as error:
    raise ValueError(
      f"{name}: holds a lone surrogate at position {error.start}"
    ) from None


def _check_not_blank(name: str, value: str) -> None:
  if not value.strip():
    raise ValueError(f"{name}: empty" + (" (white space)" if value else ""))


def _kind(value: Any) -> str:
  if value is None:
    return "null"
  if value == []:
    return "an empty list"
  return type(value).__name__
