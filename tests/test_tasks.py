# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Tasks: what a job gets from a file, and what it is told about it."""

import json

import pytest

from hypo_jax.data import preferences, readers, tasks
from hypo_jax.data.filters import Filters

KEYS = {
  "layout",
  "rows_read",
  "bad_rows",
  "blank_lines",
  "filters",
  "leaked_prompts",
  "others",
}


def write_rows(path, num_rows=60, extra=()):
  rows = [
    {"prompt": f"ask {n}", "chosen": f"yes {n}", "rejected": "no"}
    for n in range(num_rows)
  ]
  lines = [json.dumps(row) for row in rows] + list(extra)
  path.write_text("\n".join(lines) + "\n")
  return path


def make_task(path, tmp_path, **changes):
  settings = {
    "num_prompts": {"validation": 5, "test": 5},
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
    "as_messages": False,
    "on_bad": "skip",
    "rollout_path": "",
  }
  return tasks.preference_file_task(
    str(path), data_dir=tmp_path / "data", **(settings | changes)
  )


def test_a_task_counts_what_its_file_held(tmp_path):
  path = write_rows(tmp_path / "rows.jsonl", extra=["", "{", "[]"])
  task = make_task(path, tmp_path)
  assert task.counts.keys() == KEYS
  assert task.counts["layout"] == "explicit"
  assert task.counts["rows_read"] == 62
  assert task.counts["bad_rows"] == 2
  assert task.counts["blank_lines"] == 1
  assert task.counts["leaked_prompts"] == 0
  assert task.counts["filters"] == []
  assert sum(map(len, task.pairs.values())) == 60
  json.dumps(task.counts)  # Plain numbers and text.


def test_files_beside_the_pairs_are_counted_too(tmp_path):
  path = write_rows(tmp_path / "rows.jsonl")
  others = {
    f"{name}_path": str(
      write_rows(tmp_path / name, 3, ["{"]).rename(tmp_path / f"{name}.jsonl")
    )
    for name in ("rollout", "demonstration")
  }
  task = make_task(path, tmp_path, **others)
  assert task.counts["others"] == [
    {"key": f"data.{name}", "rows_read": 4, "bad_rows": 1} for name in others
  ]


def test_held_out_prompts_written_as_messages_are_no_demonstrations(tmp_path):
  """UltraFeedback's prompts are messages, a file's beside it often text."""
  prompts = [f"ask {n}" for n in range(60)]
  asked = [{"role": "user", "content": prompt} for prompt in prompts]
  sides = {
    side: [[turn, {"role": "assistant", "content": side}] for turn in asked]
    for side in ("chosen", "rejected")
  }
  rows = [
    {"prompt": p, "chosen": c, "rejected": r}
    for p, c, r in zip(prompts, *sides.values(), strict=True)
  ]
  path, others = tmp_path / "pairs.jsonl", tmp_path / "others.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  task = make_task(path, tmp_path, demonstration_path=str(write_rows(others)))
  assert task.counts["layout"] == "ultrafeedback"
  taught = {row["prompt"] for row in task.demonstrations}
  held_out = {
    row["prompt"][0]["content"]
    for split in ("validation", "test")
    for row in task.pairs[split]
  }
  assert held_out and taught == set(prompts) - held_out


def test_the_embedded_world_has_the_same_counts():
  task = tasks.reviews_task(
    num_demonstrations=1,
    num_pairs=4,
    num_prompts={"validation": 1, "test": 1},
    seed=0,
  )
  assert task.counts.keys() == KEYS
  assert task.counts["layout"] == "reviews"


def scored_rows(path, num_rows=60):
  rows = [
    {
      "history": f"Why {n}?",
      "human_ref_A": f"Because {n}.",
      "human_ref_B": "No idea.",
      "labels": 1,
      "score_A": n,
      "score_B": 10,
    }
    for n in range(num_rows)
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def test_filters_and_layout_are_told_and_counted(tmp_path):
  path = scored_rows(tmp_path / "rows.jsonl")
  task = make_task(path, tmp_path, filters=Filters(min_margin=5))
  # Scores run from 0 to 59, and those of 15 and more are five above 10.
  entry = {"name": "min_margin", "before": 60, "after": 45}
  assert task.counts["filters"] == [entry]
  assert task.counts["layout"] == "shp"
  pairs = [pair for split in tasks.SPLITS for pair in task.pairs[split]]
  assert sorted(p["chosen_score"] for p in pairs) == list(range(15, 60))
  assert {p["rejected_score"] for p in pairs} == {10.0}
  assert "layout shp" in task.notes[0]
  assert "data.filter.min_margin: 45 of 60 pairs left" in task.notes[1]


def test_a_configuration_reaches_the_data(tmp_path):
  from configs import hypo
  from hypo_jax.job import setup

  config = hypo.get_config()
  config.data.path = str(scored_rows(tmp_path / "rows.jsonl"))
  config.data.filter.min_margin = 5.0
  config.data.as_messages = True
  task = setup.make_task(config, tmp_path)
  assert task.counts["layout"] == "shp"
  assert task.counts["filters"][0]["after"] == 45
  assert isinstance(task.pairs["train"][0]["prompt"], list)
  config.data.layout = "tldr"
  with pytest.raises(ValueError, match='expected rows of layout "tldr"'):
    setup.make_task(config, tmp_path)
  (tmp_path / "folder").mkdir()
  scored_rows(tmp_path / "folder" / "train.jsonl")
  config.data.path = str(tmp_path / "folder")
  config.data.layout = "auto"
  config.data.split = "other"
  with pytest.raises(ValueError, match="data.split: expected one of train"):
    setup.make_task(config, tmp_path)


def test_layout_filters_and_split_build_data_sets_of_their_own(tmp_path):
  path = tmp_path / "rows.jsonl"
  rows = [
    {
      "prompt": f"\n\nHuman: {n}\n\nAssistant:",
      "chosen": f" {n}",
      "rejected": " no",
    }
    for n in range(20)
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  built = [
    preferences.build_preferences(path, data_dir=tmp_path / "data", **how)
    for how in (
      {},
      {"layout": "hh"},
      {"layout": "explicit"},
      {"filters": Filters(max_pairs_per_prompt=1)},
    )
  ]
  folders = [builder.data_dir for builder in built]
  assert [type(b) for b in built[1:3]] == [preferences.HH, preferences.Explicit]
  assert folders[0] == folders[1]  # It is what "auto" finds.
  assert len(set(folders)) == 3


@pytest.mark.parametrize("name", sorted(preferences.BUILDERS))
def test_every_layout_has_a_builder_that_stands_alone(tmp_path, name):
  samples = {
    "explicit": {"prompt": "ask", "chosen": " yes", "rejected": " no"},
    "implicit": {"chosen": "ask yes", "rejected": "ask no"},
    "ultrafeedback": {
      "prompt": "ask",
      **{
        key: [
          {"role": "user", "content": "ask"},
          {"role": "assistant", "content": key},
        ]
        for key in ("chosen", "rejected")
      },
      "score_chosen": 2.5,
      "score_rejected": 1,
    },
    "hh": {
      key: f"\n\nHuman: ask\n\nAssistant: {key}"
      for key in ("chosen", "rejected")
    },
    "tldr": {
      "info": {"subreddit": "a", "title": "b", "post": "c"},
      "summaries": [{"text": "d"}, {"text": "e"}],
      "choice": 0,
    },
    "shp": {
      "history": "ask",
      "human_ref_A": "yes",
      "human_ref_B": "no",
      "labels": 1,
      "score_A": 3,
      "score_B": 1,
    },
    "rated": {"text": "good film", "rating": 3},
  }
  path = tmp_path / "rows.jsonl"
  rows = [samples[name]]
  if name == "rated":
    rows.append({"text": "bad film", "rating": -3})
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  builder = preferences.BUILDERS[name](
    path=path,
    data_dir=tmp_path / "data",
    validation_fraction=0,
    test_fraction=0,
  )
  builder.download_and_prepare(file_format="array_record")
  records = preferences.read_split(builder, "train")
  assert records == readers.read_preferences(path, layout=name).records
  assert len(records) == 1


def test_demonstrations_of_their_own_keep_clear_of_the_evaluations(tmp_path):
  pairs = write_rows(tmp_path / "rows.jsonl")
  rows = [{"prompt": f"ask {n}", "completion": f"so {n}"} for n in range(80)]
  path = tmp_path / "demonstrations.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  task = make_task(pairs, tmp_path, demonstration_path=str(path))
  assert {r["chosen"][:2] for r in task.demonstrations} == {"so"}
  asked = {record["prompt"] for record in task.demonstrations}
  held_out = {
    pair["prompt"] for s in ("validation", "test") for pair in task.pairs[s]
  }
  assert held_out and not asked & held_out
  assert asked > {pair["prompt"] for pair in task.pairs["train"]}
  left_out = 80 - len(task.demonstrations)
  assert f"{left_out} left out" in task.notes[-1]


def test_a_split_without_pairs_is_an_error_that_says_how_many_prompts(tmp_path):
  path = write_rows(tmp_path / "rows.jsonl", 3)
  with pytest.raises(
    ValueError, match="none in validation of 3 distinct.*frac"
  ):
    make_task(path, tmp_path, validation_fraction=0.0)


def test_rated_texts_fill_every_split(tmp_path):
  path = tmp_path / "rows.jsonl"
  rows = [
    {"text": " ".join(["word"] * (n // 4 + 1) + [str(n)]), "rating": n % 4}
    for n in range(160)
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  task = make_task(path, tmp_path)
  assert sum(map(len, task.pairs.values())) == 80
  assert all(task.pairs.values())


def test_a_split_of_pairs_leaves_files_whole_and_other_folders_to_train(
  tmp_path,
):
  """Pairs in a file, demonstrations and rollout prompts in a folder."""
  pairs = tmp_path / "pairs.jsonl"
  rows = [
    {"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(60)
  ]
  pairs.write_text("\n".join(map(json.dumps, rows)))
  folder = tmp_path / "more"
  folder.mkdir()
  for split, prompt in (("train", "mine"), ("test", "other")):
    row = {"prompt": prompt, "completion": "c"}
    (folder / f"{split}.jsonl").write_text(json.dumps(row))
  task = tasks.preference_file_task(
    str(pairs),
    data_dir=tmp_path / "data",
    num_prompts={"validation": 5, "test": 5},
    validation_fraction=0.2,
    test_fraction=0.2,
    as_messages=False,
    on_bad="auto",
    rollout_path=str(folder),
    demonstration_path=str(folder),
    split="train_prefs",
  )
  assert sum(map(len, task.pairs.values())) == 60
  assert task.prompts["rollout"] == ["mine"]
  assert {row["prompt"] for row in task.demonstrations} <= {"mine"}


def test_pairs_of_a_reward_model_are_of_other_prompts(tmp_path):
  path = write_rows(tmp_path / "rows.jsonl", num_rows=200)
  plain = make_task(path, tmp_path)
  task = make_task(path, tmp_path, reward_model_share=0.5)
  prompts = {
    split: {pair["prompt"] for pair in pairs}
    for split, pairs in task.pairs.items()
  }
  apart, train = prompts["reward_model"], prompts["train"]
  assert not apart & train
  assert apart | train == {pair["prompt"] for pair in plain.pairs["train"]}
  assert 0.35 < len(apart) / len(apart | train) < 0.65
  for split in ("validation", "test"):
    assert task.pairs[split] == plain.pairs[split]
  # Neither is fine-tuned on what the reward model sees.
  assert {r["prompt"] for r in task.demonstrations} == train
  assert f"{len(apart)} for the reward model" in task.notes[0]
  with pytest.raises(ValueError, match="reward_model_share: expected 0 or"):
    make_task(path, tmp_path, reward_model_share=1.0)
  with pytest.raises(ValueError, match="none under reward_model"):
    make_task(path, tmp_path, reward_model_share=1e-9)
