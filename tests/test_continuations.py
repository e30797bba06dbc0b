# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Texts that are gone on from, and the judges of what comes out."""

import json
import math
import sys

import numpy as np
import pytest

from configs import hypo
from hypo_jax.data import continuations, judges, labels, reviews
from hypo_jax.job import setup


def count_good(prompts, completions):
  return [float(text.count("good")) for text in completions]


JUDGE = judges.text_judge(count_good)


@pytest.mark.parametrize(
  ("text", "words", "prompt", "chosen"),
  [
    ("one two three", 2, "one two", " three"),
    ("one two\n three", 1, "one", " two\n three"),
    (" one  two three \n", 2, "one  two", " three"),
  ],
)
def test_a_text_is_cut_after_its_first_words(text, words, prompt, chosen):
  cut = continuations.cut_text(text, words)
  assert cut == {"prompt": prompt, "chosen": chosen}
  assert cut["prompt"] + cut["chosen"] == text.strip()


@pytest.mark.parametrize("text", ["", "one", "one two", "one two "])
def test_a_text_of_no_more_words_is_left_out(text):
  assert continuations.cut_text(text, 2) is None


def write_texts(path, count=600):
  """Every text twice, and a short one."""
  rows = [{"text": f"film {n} was good", "rating": 1} for n in range(count)]
  rows += [{"text": f"film {n} was so bad"} for n in range(count)]
  rows.append({"text": "film"})
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def make_task(path, **changes):
  settings = {
    "prompt_words": 2,
    "num_pairs": 40,
    "num_prompts": {"validation": 20, "test": 30},
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
    "on_bad": "fatal",
    "judge": JUDGE,
  }
  return continuations.continuation_task(str(path), **(settings | changes))


def test_no_prompt_has_two_purposes(tmp_path):
  task = make_task(write_texts(tmp_path / "texts.jsonl"))
  trained = {record["prompt"] for record in task.demonstrations}
  sets = [trained, *map(set, task.prompts.values())]
  sets += [set(task.pair_prompts[split]) for split in ("validation", "test")]
  assert sum(map(len, sets)) == len(set().union(*sets))
  assert set(task.pair_prompts["train"]) < trained
  assert len(set(task.pair_prompts["train"])) == 60  # Half to spare.
  sizes = {split: len(prompts) for split, prompts in task.prompts.items()}
  assert sizes == {"validation": 20, "test": 30}
  # 600 prompts of two texts each, three fifths of them for training.
  assert 2 * 310 < len(task.demonstrations) == 2 * len(trained) < 2 * 410
  assert task.pairs is None
  assert "1200 texts of more than 2 words, 1 left out" in task.notes[0]
  assert task.counts["rows_read"] == 1201 and task.counts["layout"] == "text"


def test_the_order_of_lines_changes_no_prompt(tmp_path):
  path = write_texts(tmp_path / "texts.jsonl")
  first = make_task(path)
  lines = path.read_text().splitlines(keepends=True)
  path.write_text("".join(reversed(lines)))
  other = make_task(path)
  assert other.prompts == first.prompts
  assert other.pair_prompts == first.pair_prompts


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"prompt_words": 0}, "data.prompt_words: expected at least 1, got 0"),
    ({"num_pairs": 500}, "data.num_pairs: expected at most the 3.. different"),
    (
      {"num_prompts": {"validation": 20, "test": 600}},
      "expected more prompts in test than are evaluated on, got none",
    ),
  ],
)
def test_too_few_texts_are_refused(tmp_path, changes, message):
  path = write_texts(tmp_path / "texts.jsonl")
  with pytest.raises(ValueError, match=message):
    make_task(path, **changes)


def texts_config(path):
  config = hypo.get_config()
  config.data.path, config.data.layout = str(path), "text"
  config.data.prompt_words = 2
  config.data.num_pairs = 40
  config.data.judge = "tests.test_continuations:count_good"
  config.evaluate.num_prompts = config.evaluate.num_validation_prompts = 8
  return config


def test_a_configuration_reaches_texts_and_judge(tmp_path):
  config = texts_config(write_texts(tmp_path / "texts.jsonl"))
  task = setup.make_task(config, tmp_path)
  assert task.judge("", " was good, good") == (2.0, True, 3)
  assert len(task.prompts["test"]) == 8


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("data.judge", "", "data.judge: expected module:function where"),
    ("data.judge", "tests.test_continuations:none", "expected a function"),
    ("data.as_messages", True, "data.as_messages: expected none where"),
    ("data.rollout_path", "x", "data.rollout_path: expected none where"),
    ("data.filter.min_margin", 1.0, "filter.min_margin: expected none where"),
    ("evaluate.reward_model_share", 0.5, "reward_model_share: expected none"),
  ],
)
def test_what_texts_have_no_use_for_is_refused(tmp_path, key, value, message):
  config = texts_config(write_texts(tmp_path / "texts.jsonl"))
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=message):
    setup.make_task(config, tmp_path)


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("data.judge", "hypo_jax.data.judges:vader"),
    ("data.demonstration_path", "x"),
    ("data.layout", "shp"),
    ("data.filter.min_margin", 5.0),
    ("data.as_messages", True),
    ("evaluate.reward_model_share", 0.5),
  ],
)
def test_what_the_embedded_world_has_no_use_for_is_refused(
  tmp_path, key, value
):
  config = hypo.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=f"{key}: expected none where"):
    setup.make_task(config, tmp_path)


def test_a_judge_sees_text_and_counts_words():
  assert JUDGE("good", "no") == reviews.Judgement(0.0, True, 1)
  assert JUDGE("", " good  good\n") == reviews.Judgement(2.0, True, 2)
  assert JUDGE("", " \n") == reviews.Judgement(0.0, False, 0)


def test_a_judge_that_fails_names_the_completion():
  judge = judges.text_judge(lambda prompts, completions: [math.nan])
  with pytest.raises(ValueError, match="completion ' fine'"):
    judge("It was", " fine")


def test_labels_follow_the_judge_with_noise():
  """One "good" more is preferred with probability sigmoid(1 / 0.25)."""
  prompts = [f"film {n}" for n in range(4000)]
  pairs = labels.label_pairs(
    prompts,
    [[" bad", " good"]] * len(prompts),
    judge=JUDGE,
    num_pairs=len(prompts),
    least=len(prompts),
    seed=0,
    split="train",
  )
  share = np.mean([pair["chosen"] == " good" for pair in pairs])
  expected = 1 / (1 + math.exp(-4))
  assert abs(share - expected) < 4 * math.sqrt(expected * 0.018 / 4000)


def test_vader_scores_the_completion_alone():
  pytest.importorskip("vaderSentiment")
  texts = [" a wonderful film", " a dreadful film", " a film"]
  good, bad, none = judges.vader(["awful"] * 3, texts)
  assert good > 0.5 and bad < -0.3 and none == 0.0
  more = judges.vader([""], [" a wonderful, wonderful film"])[0]
  assert good < more < 1.0


def test_vader_without_its_package_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "vaderSentiment", None)
  judges._analyzer.cache_clear()
  with pytest.raises(ValueError, match="pip install vaderSentiment"):
    judges.text_judge(judges.vader)("", "fine")


def test_what_no_file_of_pairs_may_hold_is_passed_over():
  texts = [" \n", " good\0", " bad", " good"]
  (pair,) = labels.label_pairs(
    ["a"], [texts], judge=JUDGE, num_pairs=1, least=1, seed=0, split="train"
  )
  assert {pair["chosen"], pair["rejected"]} == {" bad", " good"}


def test_too_few_pairs_are_refused_where_they_are_needed():
  prompts, completions = ["a", "b"], [[" good", " bad"], [" good"]]
  settings = {"judge": JUDGE, "num_pairs": 2, "seed": 0}
  pairs = labels.label_pairs(
    prompts, completions, least=1, split="test", **settings
  )
  assert [pair["prompt"] for pair in pairs] == ["a"]
  with pytest.raises(ValueError, match="expected 2 prompts of train .* got 1"):
    labels.label_pairs(prompts, completions, least=2, split="train", **settings)
