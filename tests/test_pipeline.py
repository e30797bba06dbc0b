# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk, and batches as a function of the step."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypo_jax.data import pipeline, preferences, readers

MESSAGES = [{"role": "user", "content": "é?"}]


def write_pairs(path, num_rows=40, extra=()):
  rows = [
    {"prompt": f"ask {n % 30}", "chosen": f" é{n}", "rejected": f" no{n}"}
    for n in range(num_rows)
  ]
  rows.append({"prompt": MESSAGES, "chosen": "a", "rejected": "b"})
  lines = [json.dumps(row, ensure_ascii=False) for row in rows] + list(extra)
  path.write_text("\n".join(lines), encoding="utf-8")
  return path


def build(path, tmp_path, **kwargs):
  return preferences.build_preferences(
    path, data_dir=tmp_path / "data", **kwargs
  )


def read_all(builder):
  return {k: preferences.read_split(builder, k) for k in preferences.SPLITS}


def run_python(code, *args):
  root = pathlib.Path(preferences.__file__).parents[2]
  return subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
    env=os.environ | {"PYTHONPATH": str(root)},
    capture_output=True,
    text=True,
    check=False,
  )


def test_a_built_data_set_gives_back_every_record_in_one_split(tmp_path, capfd):
  path = write_pairs(tmp_path / "rows.jsonl", extra=["", "{"])
  builder = build(
    path, tmp_path, validation_fraction=0.3, test_fraction=0.3, on_bad="skip"
  )
  splits = read_all(builder)
  records = readers.read_preferences(path, on_bad="skip").records
  assert all(splits.values())
  for name, rows in splits.items():
    assert rows == [
      record
      for record in records
      if preferences.split_of(
        record["prompt"], validation_fraction=0.3, test_fraction=0.3
      )
      == name
    ]
  assert sum(map(len, splits.values())) == len(records) == 41
  assert MESSAGES in [r["prompt"] for rows in splits.values() for r in rows]
  metadata = dict(builder.info.metadata)
  (bad,) = metadata.pop("first_bad_rows")
  assert bad.startswith(f"{path}:43: not JSON")
  assert metadata == {
    "layout": "explicit",
    "good_rows": 41,
    "bad_rows": 1,
    "blank_lines": 1,
    "unpaired_rows": 0,
    "filters": [],
    "leaked_prompts": 0,
  }
  assert capfd.readouterr().out == ""  # Standard output is for results.


def test_no_prompt_stands_in_two_splits_and_leaks_would_be_counted():
  records = [{"prompt": f"ask {n % 50}\n"} for n in range(100)]
  records += [{"prompt": f" ask  {n}"} for n in range(50)]
  splits = {name: [] for name in preferences.SPLITS}
  for record in records:
    name = preferences.split_of(
      record["prompt"], validation_fraction=0.3, test_fraction=0.3
    )
    splits[name].append(record)
  assert min(map(len, splits.values())) > 0
  assert preferences.count_leaked_prompts(splits) == 0
  splits["train"] += splits["test"][:1]
  assert preferences.count_leaked_prompts(splits) == 1


def test_white_space_does_not_tell_prompts_apart():
  for n in range(50):
    names = {
      preferences.split_of(prompt, validation_fraction=0.3, test_fraction=0.3)
      for prompt in (f"ask {n}", f" ask  {n}", f"ask\n{n}\n")
    }
    assert len(names) == 1


def test_split_shares_are_near_their_fractions():
  names = [
    preferences.split_of(str(n), validation_fraction=0.1, test_fraction=0.2)
    for n in range(5_000)
  ]
  # Four standard deviations of a binomial with 5,000 draws are below 0.023.
  assert names.count("validation") / 5_000 == pytest.approx(0.1, abs=0.023)
  assert names.count("test") / 5_000 == pytest.approx(0.2, abs=0.023)


def test_a_split_may_be_empty_and_an_unknown_one_is_named(tmp_path):
  path = write_pairs(tmp_path / "rows.jsonl", 3)
  builder = build(path, tmp_path, validation_fraction=0, test_fraction=0)
  assert preferences.read_split(builder, "test") == []
  assert len(preferences.read_split(builder, "train")) == 4
  with pytest.raises(ValueError, match="split: .*'valid'"):
    preferences.read_split(builder, "valid")
  with pytest.raises(ValueError, match="test_fraction: .*0.5 and 0.5"):
    build(path, tmp_path, validation_fraction=0.5, test_fraction=0.5)


def test_only_a_change_of_content_or_settings_builds_again(tmp_path):
  path = write_pairs(tmp_path / "rows.jsonl")
  first = build(path, tmp_path)
  info = pathlib.Path(first.data_dir) / "dataset_info.json"
  written = info.stat().st_mtime_ns
  os.utime(path)  # Touched, but the same.
  again = build(path, tmp_path)
  assert again.data_dir == first.data_dir
  assert info.stat().st_mtime_ns == written
  assert read_all(again) == read_all(first)
  assert dict(again.info.metadata) == dict(first.info.metadata)
  other = build(path, tmp_path, test_fraction=0.2)
  assert other.data_dir != first.data_dir
  write_pairs(path, 41)
  changed = build(path, tmp_path)
  assert changed.data_dir not in (first.data_dir, other.data_dir)
  assert sum(map(len, read_all(changed).values())) == 42


def test_a_build_killed_half_way_is_never_taken_as_whole(tmp_path):
  path = write_pairs(tmp_path / "rows.jsonl")
  killed = run_python(
    """
    import os, signal, sys
    from hypo_jax.data import preferences
    generate = preferences.Preferences._generate_examples
    def half(self, records):
      for number, example in enumerate(generate(self, records)):
        yield example
        if number == 10:
          os.kill(os.getpid(), signal.SIGKILL)
    preferences.Preferences._generate_examples = half
    preferences.build_preferences(sys.argv[1], data_dir=sys.argv[2])
    """,
    path,
    tmp_path / "data",
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert list((tmp_path / "data").rglob("incomplete*"))
  assert not list((tmp_path / "data").rglob("dataset_info.json"))
  splits = read_all(build(path, tmp_path))
  assert sum(map(len, splits.values())) == 41


def test_building_and_reading_never_import_tensorflow(tmp_path):
  path = write_pairs(tmp_path / "rows.jsonl")
  result = run_python(
    """
    import sys, warnings
    warnings.simplefilter("error")
    from hypo_jax.data import pipeline, preferences, readers, tokenize
    builder = preferences.build_preferences(sys.argv[1], data_dir=sys.argv[2])
    print(sum(len(preferences.read_split(builder, k))
              for k in preferences.SPLITS))
    assert "tensorflow" not in sys.modules
    """,
    path,
    tmp_path / "data",
  )
  assert (result.returncode, result.stdout) == (0, "41\n"), result.stderr
  assert result.stderr == ""


def table(num_rows):
  return {
    "tokens": np.arange(num_rows * 3).reshape(num_rows, 3),
    "pair_mask": np.arange(num_rows) % 2 == 0,
  }


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**40))
def test_every_epoch_sees_each_row_at_most_once(num_rows, batch_size, seed):
  batch_size = min(batch_size, num_rows)
  batch_at = pipeline.make_batches(
    table(num_rows), batch_size=batch_size, seed=seed, stage="preference"
  )
  steps = num_rows // batch_size
  for epoch in range(3):
    seen = np.concatenate(
      [batch_at(epoch * steps + step)["row"] for step in range(steps)]
    )
    assert len(set(seen)) == len(seen) == steps * batch_size
    if num_rows % batch_size == 0:
      assert sorted(seen) == list(range(num_rows))


def test_a_batch_holds_the_rows_that_it_names():
  rows = table(20)
  batch = pipeline.make_batches(rows, batch_size=8, seed=0, stage="sft")(3)
  assert batch["row"].dtype == np.int32
  for name, array in rows.items():
    np.testing.assert_array_equal(batch[name], array[batch["row"]])


def rows_at(step, *, seed=0, stage="preference"):
  batch_at = pipeline.make_batches(
    table(64), batch_size=32, seed=seed, stage=stage
  )
  return batch_at(step)["row"].tolist()


def test_a_batch_depends_on_seed_stage_and_step_alone():
  batch_at = pipeline.make_batches(
    table(64), batch_size=32, seed=0, stage="preference"
  )
  forwards = [batch_at(step)["row"].tolist() for step in range(6)]
  # A new function, and steps in another order, give the same.
  for step in reversed(range(6)):
    assert rows_at(step) == forwards[step]
  assert batch_at(np.int64(5))["row"].tolist() == forwards[5]
  # Two shuffles of 64 rows agree in a half with probability below 1e-50.
  assert rows_at(0, seed=1) != forwards[0]
  assert rows_at(0, stage="sft") != forwards[0]
  assert forwards[0] != forwards[2]  # The next epoch's first.


def test_the_order_is_the_same_in_every_process():
  code = """
    import numpy as np
    from hypo_jax.data import pipeline
    batch_at = pipeline.make_batches(
      {"x": np.zeros(64)}, batch_size=32, seed=0, stage="preference")
    print(batch_at(7)["row"].tolist())
  """
  result = run_python(code)
  assert result.stdout == f"{rows_at(7)}\n", result.stderr


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_shares_of_all_hosts_make_up_one_hosts_batch(process_count):
  kwargs = dict(batch_size=8, seed=3, stage="preference")
  whole = pipeline.make_batches(table(20), **kwargs)
  shares = [
    pipeline.make_batches(
      table(20), process_index=i, process_count=process_count, **kwargs
    )
    for i in range(process_count)
  ]
  for step in range(5):
    parts = [share(step) for share in shares]
    for name, array in whole(step).items():
      np.testing.assert_array_equal(
        np.concatenate([part[name] for part in parts]), array
      )


def test_wrong_sizes_are_named():
  def make(rows, batch_size=4, **kwargs):
    return pipeline.make_batches(
      rows, batch_size=batch_size, seed=0, stage="sft", **kwargs
    )

  with pytest.raises(ValueError, match="batch_size: expected 1 to 20.*got 21"):
    make(table(20), batch_size=21)
  with pytest.raises(ValueError, match="batch_size: .*got 0"):
    make(table(20), batch_size=0)
  with pytest.raises(ValueError, match="process_count: .*got 3"):
    make(table(20), process_count=3)
  with pytest.raises(ValueError, match="process_index: .*got 2"):
    make(table(20), process_count=2, process_index=2)
  with pytest.raises(ValueError, match="rows: .*'tokens': 20"):
    make(table(20) | {"other": np.zeros(3)})
  with pytest.raises(ValueError, match='rows: "row"'):
    make({"row": np.zeros(9)})
  with pytest.raises(ValueError, match="step: .*got -1"):
    make(table(20))(-1)
