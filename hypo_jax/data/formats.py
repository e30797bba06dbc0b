# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Finds files of rows and reads them, whatever the rows mean.

Files: .jsonl and .json (one object a line), .jsonl.gz and .json.gz, .parquet,
.csv (UTF-8, a header, cells quoted where they hold commas or line breaks), and
.arrow (an IPC stream). Folders hold such files; their splits are named by

  * dataset_dict.json and a folder for each split, or state.json for one: as
    the `datasets` library saves them with save_to_disk;
  * else the file's name without its ending and "-00000-of-00002", after the
    folders it is in, "data" aside: data/train_prefs-00000-of-00001.parquet is
    "train_prefs", a/test.jsonl is "a/test", a/test/0000.parquet too.

A split is asked for by that name or by its last part, which may take several
folders together ("train" for a/train and b/train).
"""

import codecs
import csv
import functools
import gzip
import json
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from hypo_jax import hub

ENDINGS = (
  ".jsonl",
  ".jsonl.gz",
  ".json",
  ".json.gz",
  ".parquet",
  ".csv",
  ".arrow",
)
# What folders hold beside rows, under one of the endings.
_ABOUT = (
  "state.json",
  "dataset_info.json",
  "dataset_infos.json",
  "dataset_dict.json",
)
# The hub's converter once added a hash.
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_CELL_BYTES = 2**30  # csv's own limit is 128 KB.

Rows = Iterator[tuple[int, Callable[[], Any] | None]]


def resolve(path: str | os.PathLike) -> pathlib.Path:
  """Returns a file or folder that exists; hub names "owner/name" are fetched.

  Raises:
    ValueError: where there is none, naming `path`.
  """
  path, name = pathlib.Path(path), os.fspath(path)
  if path.is_dir() or (path.is_file() and name.endswith(ENDINGS)):
    return path
  if not name.endswith(ENDINGS) and hub.is_name(name):
    patterns = [f"*{ending}" for ending in ENDINGS]
    found = hub.folder(name, kind="dataset", patterns=patterns)
    if isinstance(found, pathlib.Path):
      return found
    raise ValueError(
      f"path: expected a file, a folder or a data set on the hub or in its "
      f"cache, got {name!r} (no such path; the hub says: {found})"
    )
  why = "another file" if path.exists() else "no such path"
  raise ValueError(
    f"path: expected a file ({', '.join(ENDINGS)}), a folder of them or the "
    f"name of a data set on the hub (owner/name), got {name} ({why})"
  )


def find(
  path: str | os.PathLike, split: str | None = ""
) -> list[tuple[str, pathlib.Path]]:
  """Returns the files of one split, in order, with their names.

  Args:
    path: what `resolve` takes.
    split: of a folder; empty: the only one; None: the only one, or "train".
      Must be empty or None for a file.

  Returns:
    (name, path): the file's name, in a folder relative to it.

  Raises:
    ValueError: for no such path or split, listing the splits there are.
  """
  path = resolve(path)
  if path.is_file():
    if split:
      raise ValueError(
        f"data.split: expected none for a file, got {split!r} for {path}"
      )
    return [(path.name, path)]
  splits = _splits(path)
  if not splits:
    raise ValueError(
      f"path: expected files ({', '.join(ENDINGS)}) in the folder {path}, got "
      "none"
    )
  asked = "train" if split is None else split
  taken = [name for name in splits if name == asked] or [
    name for name in splits if name.split("/")[-1] == asked
  ]
  if not split and len(splits) == 1:
    taken = list(splits)
  if not taken:
    raise ValueError(
      f"data.split: expected one of {', '.join(splits)} in {path}, got "
      f"{asked!r}; pass --config.data.split=NAME, or a path to it"
    )
  for name in taken:
    _check_once(name, splits[name])
  files = [file for name in taken for file in splits[name]]
  return [(file.relative_to(path).as_posix(), file) for file in files]


def rows(path: pathlib.Path) -> Rows:
  """Yields (line, decode) from a file.

  `line` counts from 1; in Parquet and Arrow files it is the row. Decoding is
  the caller's, so that it can fail (ValueError) for one row alone; None stands
  for a blank line.

  Raises:
    ValueError: while reading, for a file that is broken as a whole.
  """
  if path.name.endswith(".parquet"):
    return _parquet_rows(path)
  if path.name.endswith(".arrow"):
    return _arrow_rows(path)
  return _csv_rows(path) if path.name.endswith(".csv") else _json_rows(path)


def _splits(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Returns the files of each split, by name."""
  if (folder / "dataset_dict.json").exists():
    names = json.loads((folder / "dataset_dict.json").read_text())["splits"]
    return {name: _saved_files(folder / name) for name in names}
  if (folder / "state.json").exists():
    return {"all": _saved_files(folder)}
  splits: dict[str, list[pathlib.Path]] = {}
  for file in sorted(folder.rglob("*")):
    inside = file.relative_to(folder)
    if any(part.startswith(".") for part in inside.parts):
      continue  # The hub's own bookkeeping.
    ending = _ending(file)
    if ending is None or file.name in _ABOUT or not file.is_file():
      continue
    stem = _SHARD.sub("", file.name.removesuffix(ending))
    parts = [part for part in inside.parts[:-1] if part != "data"]
    if not (stem.isdigit() and parts):
      parts.append(stem)
    splits.setdefault("/".join(parts), []).append(file)
  return splits


def _check_once(split: str, files: list[pathlib.Path]) -> None:
  """Refuses rows that seem to stand in a split twice.

  That is, files of one name or of several formats.
  """
  names: dict[str, pathlib.Path] = {}
  endings: dict[str, pathlib.Path] = {}
  for file in files:
    ending = _ending(file)
    twin = names.setdefault(file.name.removesuffix(ending), file)
    endings.setdefault(ending, file)
    if twin == file and len(endings) > 1:
      twin = files[0]
    if twin != file:
      raise ValueError(
        f"data.split: expected the rows of {split!r} once, got {twin} and "
        f"{file}; pass the path of one, or move the other away"
      )


def _ending(file: pathlib.Path) -> str | None:
  return next((e for e in ENDINGS if file.name.endswith(e)), None)


def _saved_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of one saved data set, in the order of its rows."""
  path = folder / "state.json"
  if not path.exists():
    raise ValueError(f"{path}: expected it in a saved data set, got no file")
  state = json.loads(path.read_text(encoding="utf-8"))
  if state.get("_indices_files") or state.get("_indices_data_files"):
    raise ValueError(
      f"{path}: expected rows as they lie, got a selection by index; call "
      "flatten_indices() before save_to_disk"
    )
  return [folder / entry["filename"] for entry in state["_data_files"]]


def _json_rows(path: pathlib.Path) -> Rows:
  line = 0
  opened = gzip.open if path.name.endswith(".gz") else open
  with opened(path, "rb") as file:
    try:
      for line, raw in enumerate(file, 1):
        if line == 1:  # Some editors begin a file with a byte order mark.
          raw = raw.removeprefix(codecs.BOM_UTF8)
          if ".json" in path.suffixes and raw.lstrip().startswith(b"["):
            raise ValueError(
              f"{path}: expected one object a line, got one list of all; write "
              "a line for each of its elements"
            )
        blank = not raw.strip()
        yield line, None if blank else functools.partial(_decode_json, raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise ValueError(
        f"{path}: broken gzip stream after line {line}: {error}"
      ) from error


def _csv_rows(path: pathlib.Path) -> Rows:
  csv.field_size_limit(_CELL_BYTES)
  # Bytes that aren't UTF-8 become surrogates, which only their row then holds.
  with open(
    path, encoding="utf-8-sig", errors="surrogateescape", newline=""
  ) as file:
    reader = csv.reader(file, strict=True)
    header: list[str] | None = None
    while True:
      line = reader.line_num + 1  # A row may take several lines.
      try:
        cells, failure = next(reader), None
      except StopIteration:
        return
      except csv.Error as error:
        cells, failure = [""], f"not CSV: {error}"
      if failure is None and not any(cell.strip() for cell in cells):
        yield line, None
      elif header is None:
        header = cells
        if failure or len(set(header)) != len(header):
          raise ValueError(
            f"{path}: expected a header of distinct names, got "
            f"{failure or header}"
          )
      elif failure and reader.line_num > line:
        # A stray quote swallows lines that may be rows: each counts as lost.
        failure += f", in a cell quoted from line {line} to {reader.line_num}"
        for lost in range(line, reader.line_num + 1):
          yield lost, functools.partial(_decode_csv, header, cells, failure)
      else:
        yield line, functools.partial(_decode_csv, header, cells, failure)


def _parquet_rows(path: pathlib.Path) -> Rows:
  import pyarrow.parquet  # Slow to import, and JSONL doesn't need it.

  try:
    file = pyarrow.parquet.ParquetFile(path)
  except pyarrow.ArrowInvalid as error:
    raise ValueError(f"{path}: expected Parquet: {error}") from error
  with file:
    yield from _batch_rows(path, file.iter_batches())


def _arrow_rows(path: pathlib.Path) -> Rows:
  import pyarrow

  with pyarrow.memory_map(os.fspath(path)) as source:
    try:
      stream = pyarrow.ipc.open_stream(source)
    except pyarrow.ArrowInvalid as error:
      raise ValueError(
        f"{path}: expected an Arrow IPC stream: {error}"
      ) from error
    with stream:
      yield from _batch_rows(path, stream)


def _batch_rows(path: pathlib.Path, batches) -> Rows:
  import pyarrow

  line = 0
  try:
    for batch in batches:
      # No layout reads a date, and Python has not all that Arrow has.
      names = [
        column.name
        for column in batch.schema
        if not pyarrow.types.is_temporal(column.type)
      ]
      batch = batch.select(names)
      for index in range(batch.num_rows):
        line += 1
        yield line, functools.partial(_decode_arrow, batch, index)
  except (pyarrow.ArrowException, OSError) as error:
    raise ValueError(f"{path}: broken after row {line}: {error}") from error


def _decode_json(raw: bytes) -> Any:
  try:
    return json.loads(raw.decode("utf-8"))
  except UnicodeDecodeError as error:
    raise ValueError(_not_utf8(error)) from error
  except json.JSONDecodeError as error:
    raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
  except RecursionError:
    raise ValueError("not JSON: nested too deeply") from None


def _decode_csv(
  header: list[str], cells: list[str], failure: str | None
) -> dict[str, str]:
  if failure:
    raise ValueError(failure)
  if len(cells) != len(header):
    raise ValueError(f"expected {len(header)} cells, got {len(cells)}")
  for name, cell in zip(header, cells, strict=True):
    try:
      cell.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError as error:
      raise ValueError(f"{name}: {_not_utf8(error)}") from error
  return dict(zip(header, cells, strict=True))


def _decode_arrow(batch, index: int) -> dict[str, Any]:
  try:
    return batch.slice(index, 1).to_pylist()[0]
  except UnicodeDecodeError as error:
    raise ValueError(_not_utf8(error)) from error


def _not_utf8(error: UnicodeDecodeError) -> str:
  return (
    f"not UTF-8: byte 0x{error.object[error.start]:02x} "
    f"at position {error.start}"
  )
