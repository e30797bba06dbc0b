# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Readers: what is good, what is bad and why, and what a bad row costs."""

import gzip
import json
import os
import pathlib

import pyarrow
import pyarrow.parquet
import pytest

from hypo_jax.data import readers

GOOD = {"prompt": "ask", "chosen": " yes", "rejected": " no"}


def write_lines(path, rows):
  """Writes rows: objects as JSON, bytes as they are."""
  lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
  path.write_bytes(b"\n".join(lines) + b"\n")
  return path


def read_one_bad(tmp_path, row, read=readers.read_preferences):
  """Returns the reason for a row that stands between two good ones."""
  path = write_lines(tmp_path / "rows.jsonl", [GOOD, row, GOOD])
  reading = read(path, on_bad="skip")
  assert [r["line"] for r in reading.records] == [1, 3]
  (bad,) = reading.bad_rows
  assert (bad.file, bad.line) == (str(path), 2)
  assert str(bad) == f"{path}:2: {bad.reason}"
  return bad.reason


def fields(record):
  return {k: v for k, v in record.items() if k not in ("file", "line")}


def shared_file(name):
  folder = os.environ.get("HYPO_JAX_TEST_DATA") or (
    pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
  )
  path = pathlib.Path(folder) / name
  if not path.exists():
    pytest.skip(f"{name} is not here: set HYPO_JAX_TEST_DATA to its folder")
  return path


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_gives_the_same_records(tmp_path, ending):
  rows = [GOOD | {"prompt": f" é{n}\n", "source": "x"} for n in range(3)]
  path = tmp_path / f"rows{ending}"
  if ending == ".parquet":
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path, row_group_size=2)
  else:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    data = text.encode()  # No newline at the end.
    path.write_bytes(gzip.compress(data) if ending == ".jsonl.gz" else data)
  reading = readers.read_preferences(path)
  assert reading.records == [
    GOOD | {"prompt": f" é{n}\n", "file": path.name, "line": n + 1}
    for n in range(3)
  ]
  assert not reading.bad_rows and reading.blank_lines == 0


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_messages_stay_a_prompt_and_become_completion_text(tmp_path, ending):
  prompt = [
    {"role": "system", "content": ""},
    {"role": "user", "content": "ask"},
  ]
  row = {"prompt": prompt}
  for name in ("chosen", "rejected"):
    row[name] = [{"role": "assistant", "content": GOOD[name], "weight": 1}]
  path = tmp_path / f"rows{ending}"
  if ending == ".parquet":
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
  else:
    write_lines(path, [row])
  (record,) = readers.read_preferences(path).records
  assert fields(record) == GOOD | {"prompt": prompt}


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    ({"chosen": ""}, "chosen: empty"),
    ({"rejected": " \n\t\u00a0"}, "rejected: empty (white space)"),
    ({"prompt": ""}, "prompt: empty"),
    ({"prompt": "  "}, "prompt: empty (white space)"),
    ({"prompt": None}, "prompt: expected text or a list of messages, got null"),
    ({"chosen": 7}, "chosen: expected text or a list of messages, got int"),
    ({"prompt": []}, "got an empty list"),
    ({"chosen": GOOD["rejected"]}, "identical"),
    ({"prompt": "a\ud800"}, "prompt: holds a lone surrogate at position 1"),
    ({"chosen": "ab\0"}, "chosen: holds a NUL at position 2"),
    ({"prompt": ["hi"]}, "prompt[0]: expected a message, got str"),
    ({"prompt": [{"role": "user"}]}, "prompt[0].content: expected text"),
    (
      {"prompt": [{"role": "user", "content": "\0"}]},
      "prompt[0].content: holds a NUL",
    ),
    ({"prompt": [{"role": "user", "content": " "}]}, "prompt: empty"),
    (
      {
        "chosen": [
          {"role": "user", "content": "ask"},
          {"role": "assistant", "content": "yes"},
        ]
      },
      "chosen: expected the one assistant turn after the prompt, got roles "
      "['user', 'assistant']",
    ),
  ],
)
def test_a_bad_field_is_named_with_its_reason(tmp_path, change, reason):
  assert reason in read_one_bad(tmp_path, GOOD | change)


@pytest.mark.parametrize(
  ("row", "reason"),
  [
    ({"prompt": "a", "chosen": "b"}, "rejected: missing"),
    ([1, 2], "expected an object, got list"),
    (None, "expected an object, got null"),
    (b'{"prompt": "x", "chos', "not JSON"),
    (b'{"prompt": "\xff"}', "not UTF-8: byte 0xff at position 12"),
    (b"[" * 100_000, "nested too deeply"),
    (b"1" * 5_000, "integer string conversion"),
  ],
)
def test_a_bad_line_is_lost_alone(tmp_path, row, reason):
  assert reason in read_one_bad(tmp_path, row)


def test_a_long_prompt_line_ends_and_a_byte_order_mark_are_fine(tmp_path):
  row = GOOD | {"prompt": "long\u2028" * 20_000}
  text = json.dumps(row, ensure_ascii=False)
  path = tmp_path / "rows.jsonl"
  path.write_bytes(f"\ufeff{text}\r\n\r\n  \n{text}".encode())
  reading = readers.read_preferences(path, on_bad="fatal")
  assert [fields(record) for record in reading.records] == [row, row]
  assert [record["line"] for record in reading.records] == [1, 4]
  assert reading.blank_lines == 2


def test_a_parquet_string_that_is_not_utf8_is_lost_alone(tmp_path):
  raw = pyarrow.array([b"one", b"\xff", b"three"]).cast(pyarrow.binary())
  offsets_and_bytes = raw.buffers()
  prompts = pyarrow.Array.from_buffers(pyarrow.string(), 3, offsets_and_bytes)
  table = pyarrow.table(
    {"prompt": prompts, "chosen": ["a"] * 3, "rejected": ["b"] * 3}
  )
  path = tmp_path / "rows.parquet"
  pyarrow.parquet.write_table(table, path)
  reading = readers.read_preferences(path, on_bad="skip")
  assert [record["line"] for record in reading.records] == [1, 3]
  assert [bad.line for bad in reading.bad_rows] == [2]
  assert "not UTF-8: byte 0xff" in reading.bad_rows[0].reason


@pytest.mark.parametrize(("num_bad", "fatal"), [(1, False), (2, True)])
def test_auto_is_fatal_above_one_per_cent(tmp_path, caplog, num_bad, fatal):
  rows = [GOOD] * (100 - num_bad) + [b"{"] * num_bad
  path = write_lines(tmp_path / "rows.jsonl", rows)
  if fatal:
    with pytest.raises(ValueError, match="2 of 100 rows are bad.*1.00%"):
      readers.read_preferences(path)
  else:
    assert len(readers.read_preferences(path).records) == 99
    assert f"{path}:100: not JSON" in caplog.text  # Skipped, but said.


def test_fatal_takes_no_bad_row_and_skip_any_number(tmp_path):
  rows = [GOOD] * 999 + [b"{"]
  path = write_lines(tmp_path / "one.jsonl", rows)
  with pytest.raises(ValueError, match="1 of 1000 rows are bad"):
    readers.read_preferences(path, on_bad="fatal")
  path = write_lines(tmp_path / "many.jsonl", [GOOD] + [b"{"] * 99)
  assert len(readers.read_preferences(path, on_bad="skip").bad_rows) == 99


def test_the_error_lists_the_first_ten_bad_rows_with_file_and_line(tmp_path):
  path = write_lines(tmp_path / "rows.jsonl", [GOOD] + [[]] * 12)
  with pytest.raises(ValueError) as error:
    readers.read_preferences(path)
  listed = [line.strip() for line in str(error.value).splitlines()[1:]]
  reason = "expected an object, got an empty list"
  assert listed == [f"{path}:{line}: {reason}" for line in range(2, 12)]


@pytest.mark.parametrize("on_bad", ["auto", "skip"])
def test_a_file_without_a_good_row_is_an_error(tmp_path, on_bad):
  path = write_lines(tmp_path / "rows.jsonl", [[], b""])
  with pytest.raises(ValueError, match="no good row among 1"):
    readers.read_preferences(path, on_bad=on_bad)


def test_a_broken_gzip_stream_is_an_error_that_names_the_place(tmp_path):
  path = tmp_path / "rows.jsonl.gz"
  noise = [GOOD | {"prompt": os.urandom(500).hex()} for _ in range(100)]
  data = gzip.compress("\n".join(map(json.dumps, noise)).encode())
  path.write_bytes(data[: len(data) // 2])
  with pytest.raises(ValueError, match=r"broken gzip stream after line \d+"):
    readers.read_preferences(path, on_bad="skip")


def test_wrong_arguments_are_named(tmp_path):
  path = write_lines(tmp_path / "rows.jsonl", [GOOD])
  with pytest.raises(ValueError, match="on_bad: .*'ignore'"):
    readers.read_preferences(path, on_bad="ignore")
  with pytest.raises(ValueError, match="max_bad_fraction: .*2"):
    readers.read_preferences(path, max_bad_fraction=2)
  with pytest.raises(ValueError, match="path: .*rows.txt.*no such path"):
    readers.read_preferences(tmp_path / "rows.txt")


def test_demonstrations_come_under_either_name(tmp_path):
  rows = [GOOD, {"prompt": "ask", "completion": "so"}]
  path = write_lines(tmp_path / "rows.jsonl", rows)
  records = readers.read_demonstrations(path).records
  assert [fields(record) for record in records] == [
    {"prompt": "ask", "chosen": " yes"},
    {"prompt": "ask", "chosen": "so"},
  ]
  both = GOOD | {"completion": "so"}
  reason = read_one_bad(tmp_path, both, readers.read_demonstrations)
  assert reason == "expected chosen or completion, got both"


def test_prompts_need_nothing_else(tmp_path):
  path = write_lines(tmp_path / "rows.jsonl", [{"prompt": "ask"}, GOOD])
  records = readers.read_prompts(path).records
  assert [fields(record) for record in records] == [{"prompt": "ask"}] * 2


def test_the_dirty_file_gives_its_good_rows_and_a_reason_for_each_other():
  path = shared_file("hh_dirty.jsonl")
  reading = readers.read_preferences(path, on_bad="skip")
  assert [record["line"] for record in reading.records] == [1, 7, 16, 18]
  assert reading.blank_lines == 1
  expected = {
    2: "chosen: empty",
    3: "identical",
    4: "rejected: missing",
    5: "got int",
    6: "prompt: empty",
    8: "lone surrogate",
    9: "not JSON",
    11: "got list",
    12: "got null",
    13: "got null",
    14: "NUL",
    15: "white space",
    17: "not UTF-8",
  }
  assert [bad.line for bad in reading.bad_rows] == list(expected)
  for bad in reading.bad_rows:
    assert expected[bad.line] in bad.reason
  with pytest.raises(ValueError, match="13 of 17 rows are bad"):
    readers.read_preferences(path)


def test_real_pairs_are_all_good():
  path = shared_file("hh_harmless.jsonl.gz")
  with gzip.open(path, "rt", encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
  records = readers.read_preferences(path, on_bad="fatal").records
  assert [fields(record) for record in records] == [
    {name: row[name] for name in GOOD} for row in rows
  ]


def test_a_dialogue_that_is_none_is_a_bad_row_not_the_end(tmp_path):
  path = tmp_path / "dialogues.jsonl"
  prompts = [
    "\n\nHuman: Hi\n\nAssistant:",
    "\n\nHuman: Hi\n\nAssistant: Yes?\n\nAssistant: So?\n\nAssistant:",
  ]
  rows = [{"prompt": p, "chosen": "a", "rejected": "b"} for p in prompts]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  reading = readers.read_preferences(path, on_bad="skip", as_messages=True)
  assert [r["prompt"] for r in reading.records] == [
    [{"role": "user", "content": "Hi"}]
  ]
  (bad,) = reading.bad_rows
  assert bad.line == 2 and "alternate" in bad.reason
  reading = readers.read_prompts(path, on_bad="skip", as_messages=True)
  assert len(reading.records) == len(reading.bad_rows) == 1
