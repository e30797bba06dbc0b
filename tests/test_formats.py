# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Files, folders and hub names: which are found, and what they hold."""

import gzip
import json
import pathlib

import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants
from test_readers import write_lines

from hypo_jax.data import formats, preferences, readers

GOOD = {"prompt": "ask", "chosen": " yes", "rejected": " no"}


def rows_of(tag, num_rows=2):
  return [GOOD | {"prompt": f"{tag} {n}"} for n in range(num_rows)]


def prompts_of(path, **kwargs):
  records = readers.read_preferences(path, on_bad="fatal", **kwargs).records
  return [record["prompt"] for record in records]


def write_parquet(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_saved(folder, rows, *, num_files=2, **state):
  """Writes a folder as save_to_disk does: its state, and an IPC stream each."""
  folder.mkdir(parents=True)
  names = [f"data-{n:05}-of-{num_files:05}.arrow" for n in range(num_files)]
  size = -(-len(rows) // num_files)
  for n, name in enumerate(names):
    table = pyarrow.Table.from_pylist(rows[n * size : (n + 1) * size])
    with pyarrow.ipc.new_stream(folder / name, table.schema) as stream:
      stream.write_table(table, max_chunksize=1)
  state = {"_data_files": [{"filename": name} for name in names]} | state
  (folder / "state.json").write_text(json.dumps(state))
  (folder / "dataset_info.json").write_text("{}")


def error_of(path, **kwargs):
  with pytest.raises(ValueError, match="expected") as error:
    readers.read_preferences(path, **kwargs)
  (line,) = str(error.value).splitlines()
  return line


def test_csv_cells_hold_commas_quotes_and_line_breaks(tmp_path):
  path = tmp_path / "rows.csv"
  path.write_bytes(
    b'\xef\xbb\xbfchosen,prompt,rejected\r\n"a, ""b""\r\nc",ask,d\r\n\r\n'
    b'" \xc3\xa9",ask,"\n\n e"\r\n'
  )
  reading = readers.read_preferences(path, on_bad="fatal")
  place = {"prompt": "ask", "file": "rows.csv"}
  assert reading.records == [
    place | {"chosen": 'a, "b"\r\nc', "rejected": "d", "line": 2},
    place | {"chosen": " é", "rejected": "\n\n e", "line": 5},
  ]
  assert reading.blank_lines == 1


@pytest.mark.parametrize(
  ("raw", "reason"),
  [
    (b"a,b", "expected 3 cells, got 2"),
    (b"a,b,c,d", "expected 3 cells, got 4"),
    (b"a,\xff,c", "chosen: not UTF-8: byte 0xff at position 0"),
    (b'a,"b"x,c', "not CSV"),
    (b"a,,c", "chosen: empty"),
    (b"a,b\0,c", "chosen: holds a NUL"),
  ],
)
def test_a_bad_csv_row_is_lost_alone(tmp_path, raw, reason):
  path = tmp_path / "rows.csv"
  path.write_bytes(b"prompt,chosen,rejected\nask,b,c\n" + raw + b"\nask,b,c\n")
  reading = readers.read_preferences(path, on_bad="skip")
  assert [record["line"] for record in reading.records] == [2, 4]
  (bad,) = reading.bad_rows
  assert bad.line == 3 and reason in bad.reason


@pytest.mark.parametrize("quoted", [(200,), (200, 700)])
def test_all_rows_that_a_stray_quote_swallows_count_as_lost(tmp_path, quoted):
  path = tmp_path / "rows.csv"
  rows = [f"ask {n},yes,no" for n in range(1000)]
  for n in quoted:
    rows[n] = f'"ask {n},yes,no'
  path.write_text("\n".join(["prompt,chosen,rejected", *rows]))
  with pytest.raises(ValueError, match="(800|501) of 1000") as error:
    readers.read_preferences(path)
  last = 1001 if len(quoted) == 1 else 702
  assert f"quoted from line 202 to {last}" in str(error.value)
  reading = readers.read_preferences(path, on_bad="skip")
  assert reading.rows_read == 1000
  assert [row.line for row in reading.bad_rows] == list(range(202, last + 1))


def test_numbers_in_csv_are_read_as_numbers(tmp_path):
  path = tmp_path / "rows.csv"
  path.write_text("text,rating\nfine film,3.5\ndull film,-2\n")
  (record,) = readers.read_preferences(path).records
  assert (record["chosen_score"], record["rejected_score"]) == (3.5, -2.0)


def test_a_csv_header_with_a_name_twice_is_an_error(tmp_path):
  path = tmp_path / "rows.csv"
  path.write_text("prompt,prompt\na,b\n")
  assert "header of distinct names" in error_of(path)


def test_a_csv_cell_may_be_longer_than_the_modules_own_limit(tmp_path):
  path = tmp_path / "rows.csv"
  long = "long " * 50_000
  path.write_text(f"prompt,chosen,rejected\n{long},b,c\n")
  assert prompts_of(path) == [long]


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_file_of_another_format_is_an_error(tmp_path, ending):
  path = write_lines(tmp_path / f"rows{ending}", [GOOD])
  assert str(path) in error_of(path)


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_file_broken_in_the_midst_is_named(tmp_path, ending):
  path = tmp_path / f"rows{ending}"
  rows = rows_of("ask", 5000)
  if ending == ".parquet":
    write_parquet(path, rows)
  else:
    write_saved(tmp_path / "saved", rows, num_files=1)
    (tmp_path / "saved" / "data-00000-of-00001.arrow").rename(path)
  whole = path.read_bytes()
  middle = len(whole) // 3
  damaged = {
    ".parquet": whole[:200] + b"\xff" * middle + whole[200 + middle :],
    ".arrow": whole[:middle],
  }
  path.write_bytes(damaged[ending])
  with pytest.raises(ValueError, match=f"{path}: (broken|expected)"):
    readers.read_preferences(path)


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_dates_that_python_does_not_have_are_left_out(tmp_path, unit):
  dates = pyarrow.array([2**62] * 2, pyarrow.timestamp(unit))
  table = pyarrow.Table.from_pylist(rows_of("ask")).append_column("t", dates)
  pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
  assert prompts_of(tmp_path / "rows.parquet") == ["ask 0", "ask 1"]


def test_json_that_is_one_list_is_an_error(tmp_path):
  path = tmp_path / "train.json"
  path.write_text(json.dumps([GOOD], indent=1))
  assert "expected one object a line, got one list" in error_of(path)
  path.write_text(json.dumps(GOOD))
  assert prompts_of(path) == ["ask"]


def test_a_saved_data_set_is_read_in_its_own_order(tmp_path):
  turns = [{"role": "user", "content": "ask"}]
  rows = [*rows_of("x", 4), GOOD | {"prompt": "last"}]
  write_saved(tmp_path / "saved", rows)
  reading = readers.read_preferences(tmp_path / "saved")
  assert [(r["file"], r["line"]) for r in reading.records] == [
    ("data-00000-of-00002.arrow", 1),
    ("data-00000-of-00002.arrow", 2),
    ("data-00000-of-00002.arrow", 3),
    ("data-00001-of-00002.arrow", 1),
    ("data-00001-of-00002.arrow", 2),
  ]
  assert prompts_of(tmp_path / "saved") == [row["prompt"] for row in rows]
  write_saved(tmp_path / "chat", [GOOD | {"prompt": turns}], num_files=1)
  assert prompts_of(tmp_path / "chat") == [turns]


def test_a_selection_by_index_is_refused(tmp_path):
  indices = [{"filename": "indices.arrow"}]
  write_saved(tmp_path / "saved", rows_of("x"), _indices_files=indices)
  assert "flatten_indices" in error_of(tmp_path / "saved")


def test_a_saved_dict_has_its_splits(tmp_path):
  for name in ("train", "test"):
    write_saved(tmp_path / name, rows_of(name))
  splits = json.dumps({"splits": ["train", "test"]})
  (tmp_path / "dataset_dict.json").write_text(splits)
  assert prompts_of(tmp_path, split="test") == ["test 0", "test 1"]
  line = error_of(tmp_path)
  assert "data.split: expected one of train, test" in line
  assert "--config.data.split=NAME" in line


def test_files_of_a_folder_are_splits_and_shards(tmp_path):
  for shard in (1, 0):
    name = f"train_prefs-{shard:05}-of-00002.parquet"
    write_parquet(tmp_path / "data" / name, rows_of(f"prefs {shard}"))
  write_lines(tmp_path / "data" / "train_sft.jsonl", rows_of("sft"))
  (tmp_path / "README.md").write_text("about")
  (tmp_path / ".cache").mkdir()
  write_lines(tmp_path / ".cache" / "other.jsonl", rows_of("hidden"))
  assert prompts_of(tmp_path, split="train_prefs") == [
    "prefs 0 0",
    "prefs 0 1",
    "prefs 1 0",
    "prefs 1 1",
  ]
  assert prompts_of(tmp_path, split="train_sft") == ["sft 0", "sft 1"]
  line = error_of(tmp_path, split="train")
  assert "expected one of train_prefs, train_sft" in line
  assert "got 'train'" in line


def test_shards_of_the_hubs_older_converter_are_one_split(tmp_path):
  for split, digits in (("train", "3cb"), ("train", "834"), ("test", "ec7")):
    shard = int(digits == "834")
    name = f"{split}-{shard:05}-of-00002-{digits}d295cedeecf91.parquet"
    write_parquet(tmp_path / "data" / name, rows_of(f"{split} {shard}", 1))
  (tmp_path / "dataset_infos.json").write_text("{}")
  assert prompts_of(tmp_path, split="train") == ["train 0 0", "train 1 0"]
  assert prompts_of(tmp_path, split="test") == ["test 0 0"]


@pytest.mark.parametrize(
  "twin", ["train.jsonl.gz", "data/train.jsonl", "train-00000-of-00001.csv"]
)
def test_rows_that_stand_in_a_folder_twice_are_not_read_twice(tmp_path, twin):
  write_lines(tmp_path / "train.jsonl", rows_of("a"))
  write_lines(tmp_path / "test.jsonl", rows_of("b"))
  (tmp_path / twin).parent.mkdir(exist_ok=True)
  (tmp_path / twin).write_bytes(gzip.compress(b"{}"))
  line = error_of(tmp_path, split="train")
  assert "rows of 'train' once" in line
  assert f"{tmp_path / 'train.jsonl'}" in line and f"{tmp_path / twin}" in line
  assert prompts_of(tmp_path, split="test") == ["b 0", "b 1"]


def test_one_split_needs_no_name_and_folders_of_one_are_read_together(tmp_path):
  for name in ("a", "b"):
    (tmp_path / name).mkdir()
    for split in ("train", "test"):
      text = "\n".join(map(json.dumps, rows_of(f"{name} {split}", 1)))
      path = tmp_path / name / f"{split}.jsonl.gz"
      path.write_bytes(gzip.compress(text.encode()))
  assert prompts_of(tmp_path, split="a/test") == ["a test 0"]
  assert prompts_of(tmp_path, split="train") == ["a train 0", "b train 0"]
  (tmp_path / "a" / "train.jsonl.gz").unlink()
  assert prompts_of(tmp_path / "a") == ["a test 0"]


def test_files_that_are_numbered_belong_to_their_folders_split(tmp_path):
  for number in range(2):
    path = tmp_path / "default" / "train" / f"{number:04}.parquet"
    write_parquet(path, rows_of(str(number), 1))
  assert prompts_of(tmp_path, split="default/train") == ["0 0", "1 0"]


def test_demonstrations_and_prompts_of_a_folder_are_those_to_train_on(tmp_path):
  for split in ("train", "test"):
    write_lines(tmp_path / f"{split}.jsonl", rows_of(split))
  for read in (readers.read_demonstrations, readers.read_prompts):
    prompts = [record["prompt"] for record in read(tmp_path).records]
    assert prompts == ["train 0", "train 1"]
  (tmp_path / "train.jsonl").rename(tmp_path / "other.jsonl")
  with pytest.raises(ValueError, match="expected one of other, test"):
    readers.read_prompts(tmp_path)


def test_paths_without_rows_are_named(tmp_path):
  assert "got none" in error_of(tmp_path)
  assert "no such path" in error_of(tmp_path / "rows.jsonl")
  other = tmp_path / "rows.txt"
  other.write_text("text")
  assert "another file" in error_of(other)
  path = write_lines(tmp_path / "rows.jsonl", [GOOD])
  assert "expected none for a file, got 'train'" in error_of(
    path, split="train"
  )


def test_a_folders_rows_come_back_from_its_data_set(tmp_path):
  folder = tmp_path / "rows"
  folder.mkdir()
  for shard in range(2):  # Lines of two files have the same numbers.
    name = f"train-{shard:05}-of-00002.jsonl"
    write_lines(folder / name, rows_of(f"shard {shard}", 3))
  how = {"validation_fraction": 0, "test_fraction": 0}

  def build():
    return preferences.build_preferences(
      folder, data_dir=tmp_path / "data", **how
    )

  records = preferences.read_split(build(), "train")
  assert records == readers.read_preferences(folder).records
  assert len(records) == 6
  first = build().data_dir
  write_lines(folder / "train-00001-of-00002.jsonl", rows_of("changed"))
  assert build().data_dir != first


@pytest.fixture
def offline_cache(tmp_path, monkeypatch):
  """An empty hub cache, and no network."""
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
  return tmp_path / "hub"


def test_a_hub_name_is_found_in_the_cache(offline_cache, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  commit = "0123456789" * 4
  repo = offline_cache / "datasets--someone--birds"
  (repo / "refs").mkdir(parents=True)
  (repo / "refs" / "main").write_text(commit)
  folder = repo / "snapshots" / commit / "data"
  write_parquet(folder / "train-00000-of-00001.parquet", rows_of("train"))
  write_parquet(folder / "test-00000-of-00001.parquet", rows_of("test"))
  assert prompts_of("someone/birds", split="test") == ["test 0", "test 1"]
  assert "expected one of test, train" in error_of("someone/birds")
  builder = preferences.build_preferences(
    "someone/birds", split="train", data_dir=tmp_path / "data"
  )
  found = [preferences.read_split(builder, s) for s in preferences.SPLITS]
  assert sorted(r["prompt"] for rows in found for r in rows) == [
    "train 0",
    "train 1",
  ]


def test_a_hub_name_that_is_nowhere_is_one_line(offline_cache, monkeypatch):
  monkeypatch.chdir(offline_cache.parent)
  line = error_of("someone/birds")
  assert "'someone/birds'" in line and "no such path; the hub says" in line


@pytest.mark.parametrize("path", ["./birds", "../birds", "someone/birds.git"])
def test_a_mistyped_path_that_no_hub_name_can_be_is_one_line(path):
  line = error_of(path)
  assert path in line and "no such path" in line


def test_a_folder_goes_before_the_hub(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folder = pathlib.Path("someone/birds")
  folder.mkdir(parents=True)
  write_lines(folder / "rows.jsonl", rows_of("here"))
  assert formats.resolve("someone/birds") == folder
  assert prompts_of("someone/birds") == ["here 0", "here 1"]
