# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Reads preferences, demonstrations, prompts and texts from files, by row.

Which files and folders: see `formats`. What their rows mean: see `layouts`; the
layout is recognised by the keys of the first rows. A prompt is text or a list
of messages {"role", "content"}, which stays a list, so that the tokenizer's
chat template applies; a completion is text. Text is kept exactly as it stands.

A row is bad, and only that row is lost, where

  * it isn't UTF-8, isn't JSON (CSV: has another number of cells than the
    header), or isn't an object;
  * a field of its layout is missing, null, or of another kind;
  * a prompt or a completion is empty or white space alone: every tokenizer
    must find a token that predicts the completion's first, and not all add a
    BOS, so an empty prompt is bad whatever the tokenizer;
  * chosen and rejected are identical;
  * text holds a lone surrogate or a NUL, which no tokenizer was trained on.

Blank lines are counted, not bad. Length is no matter here: `tokenize` cuts.
"""

import dataclasses
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from hypo_jax.data import fields, formats, layouts
from hypo_jax.data.fields import Prompt as Prompt

_SHOWN = 10
_FIRST = 20  # rows that say what the layout is
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
  """What a file or folder held.

  Attributes:
    records: the good rows in file order, each with "file" (the file's name, in
      a folder relative to it) and "line" (from 1) beside its fields.
    bad_rows: the others, with reasons.
    blank_lines: number of lines of white space alone.
    layout: name in `layouts`.
    rows_read: good and bad ones.
    unpaired: good rows that stand in no record ("rated" alone).
  """

  records: list[dict[str, Any]]
  bad_rows: list[BadRow]
  blank_lines: int
  layout: str
  rows_read: int
  unpaired: int = 0


def read_preferences(
  path: str | os.PathLike,
  *,
  layout: str = "auto",
  split: str = "",
  on_bad: str = "auto",
  max_bad_fraction: float = 0.01,
  as_messages: bool = False,
) -> Reading:
  """Reads pairs.

  Args:
    path: a file, a folder or a hub name; see `formats`.
    layout: a name in `layouts.PAIRS`, or "auto": recognised by the first rows.
    split: which ready-made split of a folder; see `formats.find`.
    on_bad: "auto": bad rows are skipped, and fatal where they are more than
      max_bad_fraction of all; "skip": skipped; "fatal": one is enough.
      Skipped rows are logged, the first ten with their reasons.
    max_bad_fraction: in [0, 1], of the rows that aren't blank.
    as_messages: prompts become messages, for models with a chat template: a
      dialogue "\\n\\nHuman: ..." its turns (`hh.hh_messages` says what is a bad
      one), another text one user's turn. Texts that imply their prompt are bad
      rows then.

  Returns:
    Records whose prompt is text or a list of messages, whose chosen and
    rejected are text, and whose chosen_score and rejected_score, numbers, are
    there where the row has both. Other fields are dropped.

  Raises:
    ValueError: for no such path, split or layout, rows of another layout, too
      many bad rows (naming the first ten), no good row, or a broken file.
  """
  return _read(
    path, layouts.PAIRS, layout, split, on_bad, max_bad_fraction, as_messages
  )


def read_demonstrations(
  path: str | os.PathLike,
  *,
  on_bad: str = "auto",
  max_bad_fraction: float = 0.01,
  as_messages: bool = False,
) -> Reading:
  """Reads prompts with one completion each.

  Rows are {"prompt", "chosen"}, {"prompt", "completion"}, TL;DR's posts with
  summaries, or pairs; of a folder with several splits "train" is read. Other
  arguments and errors are those of `read_preferences`.

  Returns:
    Records {"prompt", "chosen"}, whichever name the file has.
  """
  return _only(
    ("prompt", "chosen"),
    _read(
      path,
      layouts.DEMONSTRATIONS,
      "auto",
      None,
      on_bad,
      max_bad_fraction,
      as_messages,
    ),
  )


def read_prompts(
  path: str | os.PathLike,
  *,
  on_bad: str = "auto",
  max_bad_fraction: float = 0.01,
  as_messages: bool = False,
) -> Reading:
  """Reads rows with a prompt, their own or their layout's.

  Of a folder with several splits "train" is read. Other arguments and errors
  are those of `read_preferences`, whose files it takes.

  Returns:
    Records {"prompt"}.
  """
  return _only(
    ("prompt",),
    _read(
      path,
      layouts.PROMPTS,
      "auto",
      None,
      on_bad,
      max_bad_fraction,
      as_messages,
    ),
  )


def read_texts(
  path: str | os.PathLike,
  *,
  on_bad: str = "auto",
  max_bad_fraction: float = 0.01,
) -> Reading:
  """Reads rows {"text"}, as rated texts are.

  Of a folder with several splits "train" is read. Other arguments and errors
  are those of `read_preferences`, whose files it takes.

  Returns:
    Records {"text"}.
  """
  return _read(
    path, layouts.TEXTS, "auto", None, on_bad, max_bad_fraction, False
  )


def recognise_layout(
  path: str | os.PathLike, *, layout: str = "auto", split: str = ""
) -> str:
  """Returns the name of a file's layout from its first rows alone.

  Arguments and errors are those of `read_preferences`.

  Raises:
    ValueError: also where no row is an object.
  """
  first = _first_rows(formats.find(path, split))
  if not first:
    raise ValueError(f"{path}: expected rows that are objects, got none")
  return layouts.recognise(
    first, layouts.PAIRS, name=layout, where=os.fspath(path)
  ).name


def _read(
  path: str | os.PathLike,
  known: Sequence[layouts.Layout],
  layout: str,
  split: str | None,
  on_bad: str,
  max_bad_fraction: float,
  as_messages: bool,
) -> Reading:
  if on_bad not in ("auto", "skip", "fatal"):
    raise ValueError(
      f'on_bad: expected "auto", "skip" or "fatal", got {on_bad!r}'
    )
  if not 0 <= max_bad_fraction <= 1:
    raise ValueError(
      f"max_bad_fraction: expected 0 to 1, got {max_bad_fraction}"
    )
  files = formats.find(path, split)
  path = os.fspath(path)
  first = _first_rows(files)
  # Without an object all rows are bad, whatever the layout.
  found = (
    layouts.recognise(first, known, name=layout, where=path)
    if first
    else known[-1]
  )
  records, bad, blank = [], [], 0
  for name, file in files:
    for line, decode in formats.rows(file):
      if decode is None:
        blank += 1
        continue
      try:
        row = decode()
        if not isinstance(row, dict):
          raise ValueError(f"expected an object, got {fields.kind(row)}")
        place = {"file": name, "line": line}
        records.append(found.to_record(row, as_messages) | place)
      except ValueError as error:
        bad.append(BadRow(str(file), line, str(error)))
  _judge_bad_rows(path, len(records), bad, on_bad, max_bad_fraction)
  rows_read, unpaired = len(records) + len(bad), 0
  if found.join:
    records, unpaired = found.join(records, as_messages)
  return Reading(records, bad, blank, found.name, rows_read, unpaired)


def _first_rows(files) -> list[fields.Row]:
  """Returns the first rows that are objects."""
  return list(itertools.islice(_objects(files), _FIRST))


def _objects(files) -> Iterator[fields.Row]:
  for _, file in files:
    for _, decode in formats.rows(file):
      try:
        row = decode() if decode else None
      except ValueError:
        continue  # The reader proper reports it.
      if isinstance(row, dict):
        yield row


def _only(names: tuple[str, ...], reading: Reading) -> Reading:
  """Returns a reading with these fields of its records, and their places."""
  names += ("file", "line")
  records = [
    {name: record[name] for name in names} for record in reading.records
  ]
  return dataclasses.replace(reading, records=records)


def _judge_bad_rows(
  path: str,
  num_good: int,
  bad: list[BadRow],
  on_bad: str,
  max_bad_fraction: float,
) -> None:
  """Raises or logs, as on_bad says."""
  total = num_good + len(bad)
  listing = "".join(f"\n  {row}" for row in bad[:_SHOWN])
  if not num_good:
    raise ValueError(
      f"{path}: expected pairs, prompts or texts, no good row among "
      f"{total}{listing}"
    )
  if not bad:
    return
  found = f"{path}: {len(bad)} of {total} rows are bad"
  allowed = {"auto": max_bad_fraction, "skip": 1.0, "fatal": 0.0}[on_bad]
  if len(bad) > allowed * total:
    raise ValueError(
      f"{found}, more than the {allowed:.2%} allowed; mend them or pass "
      'on_bad="skip" (data.on_bad_rows). '
      f"The first {min(len(bad), _SHOWN)}:{listing}"
    )
  _logger.warning("%s and skipped, the first being:%s", found, listing)
