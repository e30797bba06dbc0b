# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Figures on disk, a line of JSON each, so that a stopped benchmark goes on."""

import json
import pathlib
from collections.abc import Iterable, Mapping


def read(path: pathlib.Path) -> list[dict]:
  """Returns the lines of a file; none where there is no file.

  A last line without its end was being written when the run was stopped: it is
  left out, and cut off before the next is added.

  Raises:
    ValueError: any other line is not JSON.
  """
  if not path.exists():
    return []
  whole, found = path.read_text().split("\n")[:-1], []
  for number, text in enumerate(whole, start=1):
    try:
      found.append(json.loads(text))
    except json.JSONDecodeError as error:
      raise ValueError(
        f"{path}, line {number}: expected JSON, got {text[:60]!r}; remove it"
      ) from error
  return found


def append(path: pathlib.Path, line: dict) -> None:
  """Adds a line at the end of the file, which is made if missing."""
  path.parent.mkdir(parents=True, exist_ok=True)
  text = path.read_text() if path.exists() else ""
  if not text.endswith("\n"):
    path.write_text(text[: text.rfind("\n") + 1])
  with path.open("a") as file:
    file.write(json.dumps(line) + "\n")


def check_settings(
  path: pathlib.Path, lines: Iterable[dict], settings: Mapping[str, int]
) -> None:
  """Refuses to go on with a file whose figures were taken otherwise.

  Raises:
    ValueError: a setting, such as steps, differs.
  """
  for line in lines:
    for name, value in settings.items():
      if line[name] != value:
        raise ValueError(
          f"{name}: expected {line[name]}, as in {path}, got {value}; name "
          "another --path, or remove the file"
        )
