# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded world: its judge, prompts, demonstrations, labels, tokenizer."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypo_jax.data import reviews

PROMPT = "film: Amber Tide ; aspects: plot , music , ending"
SHORT = "film: Amber Tide ; aspects: plot , music"


@pytest.fixture(scope="module")
def tokenizer():
  return reviews.WordTokenizer()


@pytest.fixture(scope="module")
def records():
  return reviews.demonstrations(5000, seed=3)


@pytest.mark.parametrize(
  "completion, sentiments",
  [
    ("Amber Tide : the plot was superb .", [0.8]),
    ("Amber Tide : the plot was utterly superb .", [1.0]),
    ("Amber Tide : the music was utterly dreadful .", [-1.0]),
    (
      "Amber Tide : the plot was truly gripping and the music was dull . "
      "overall worth seeing",
      [0.9 * 0.75, 0.8 * -0.75],
    ),
    (
      "Amber Tide : the ending was slightly weak , the plot was rather moving "
      "but the music was plain .",
      [0.4 * -0.5, 0.6 * 0.75, 0.8 * -0.25],
    ),
  ],
)
def test_the_reward_is_the_mean_sentiment_of_the_clauses(
  completion, sentiments
):
  result = reviews.judge(PROMPT, completion)
  assert result.valid
  assert result.num_clauses == len(sentiments)
  assert math.isclose(result.reward, np.mean(sentiments), abs_tol=1e-12)


def test_connectives_and_verdict_change_no_reward():
  rewards = {
    reviews.judge(
      PROMPT,
      f"Amber Tide : the plot was dull {joint} the music was weak .{verdict}",
    )
    for joint in ("and", "but", ",")
    for verdict in ("", *(f" overall {v}" for v in reviews.VERDICTS))
  }
  assert rewards == {reviews.Judgement(0.8 * (-0.75 - 0.5) / 2, True, 2)}


@pytest.mark.parametrize(
  "completion",
  [
    pytest.param("", id="empty"),
    pytest.param("Open Water : the plot was superb .", id="another film"),
    pytest.param("Amber Water : the plot was superb .", id="no film"),
    pytest.param("the plot was superb .", id="film missing"),
    pytest.param("Amber Tide : .", id="no clause"),
    pytest.param("Amber Tide : overall worth seeing", id="only a verdict"),
    pytest.param("Amber Tide : the pacing was superb .", id="aspect not asked"),
    pytest.param("Amber Tide : the film was superb .", id="no aspect"),
    pytest.param(
      "Amber Tide : the plot was superb and the plot was superb .",
      id="aspect twice",
    ),
    pytest.param("Amber Tide : the plot was superb", id="no full stop"),
    pytest.param("Amber Tide : the plot was truly .", id="no adjective"),
    pytest.param("Amber Tide : the plot was superb superb .", id="two"),
    pytest.param(
      "Amber Tide : the plot was truly truly superb .", id="adverbs"
    ),
    pytest.param("Amber Tide : the plot was  superb .", id="two spaces"),
    pytest.param(" Amber Tide : the plot was superb .", id="space before"),
    pytest.param("Amber Tide : the plot was superb .\n", id="newline after"),
    pytest.param("amber tide : the plot was superb .", id="lower case"),
    pytest.param("Amber Tide : plot was superb .", id="no article"),
    pytest.param(
      "Amber Tide : the plot was superb the music was superb .",
      id="no connective",
    ),
    pytest.param("Amber Tide : the plot was superb and .", id="cut"),
    pytest.param(
      "Amber Tide : the plot was superb . overall", id="cut verdict"
    ),
    pytest.param(
      "Amber Tide : the plot was superb . worth seeing", id="verdict alone"
    ),
    pytest.param("Amber Tide : the plot was superb . <pad>", id="pad"),
    pytest.param("Amber Tide : the plot <eos> was superb .", id="eos inside"),
    pytest.param(PROMPT, id="the prompt"),
  ],
)
def test_what_is_not_a_review_of_what_was_asked_gets_minus_one(completion):
  assert reviews.judge(PROMPT, completion) == (-1.0, False, 0)


def test_an_aspect_asked_in_another_prompt_only_is_invalid():
  text = "Amber Tide : the ending was superb ."
  assert reviews.judge(PROMPT, text).valid
  assert not reviews.judge(SHORT, text).valid


@pytest.mark.parametrize(
  "prompt",
  [
    "",
    "film: Amber Tide ; aspects: plot",
    "film: Amber Tide ; aspects: plot , plot",
    "film: Amber Tide ; aspects: plot , music , ending , acting",
    "film: Amber ; aspects: plot , music",
    SHORT + " ",
  ],
)
def test_a_prompt_of_another_world_is_refused(prompt):
  with pytest.raises(ValueError, match="prompt: expected 'film: FILM"):
    reviews.judge(prompt, "")


def test_the_splits_hold_every_prompt_exactly_once():
  films, aspects = len(reviews.FILMS), len(reviews.ASPECTS)
  every = [
    prompt
    for split, size in reviews.SPLIT_SIZES.items()
    for prompt in reviews.prompts(split, size, seed=0)
  ]
  expected = films * (math.perm(aspects, 2) + math.perm(aspects, 3))
  assert len(every) == len(set(every)) == expected


@given(
  st.permutations(list(reviews.SPLIT_SIZES)),
  st.integers(0, 2**32),
  st.integers(0, 2**32),
  st.integers(0, 352),
)
def test_no_prompt_is_in_two_splits_whatever_the_seeds(
  splits, seed, other_seed, count
):
  one = reviews.prompts(splits[0], count, seed=seed)
  other = reviews.prompts(splits[1], count, seed=other_seed)
  assert len(set(one)) == len(set(other)) == count
  assert not set(one) & set(other)


def test_prompts_depend_on_the_seed_alone_and_a_larger_count_only_adds():
  first = reviews.prompts("test", 100, seed=5)
  assert first == reviews.prompts("test", 500, seed=5)[:100]
  assert first != reviews.prompts("test", 100, seed=6)


def test_what_a_split_cannot_give_is_refused():
  assert reviews.prompts("test", 0, seed=0) == []
  for count in (-1, reviews.SPLIT_SIZES["test"] + 1):
    with pytest.raises(ValueError, match="count: expected 0 to 1024"):
      reviews.prompts("test", count, seed=0)
  with pytest.raises(ValueError, match="split: expected one of sft, pairs"):
    reviews.prompts("train", 1, seed=0)


def test_every_demonstration_is_valid_and_answers_a_prompt_of_sft(records):
  assert all(reviews.judge(r["prompt"], r["chosen"]).valid for r in records)
  sft = reviews.prompts("sft", reviews.SPLIT_SIZES["sft"], seed=0)
  assert {r["prompt"] for r in records[: len(sft)]} == set(sft)
  assert {r["prompt"] for r in records} == set(sft)


def test_demonstrations_are_balanced(records):
  judged = [reviews.judge(r["prompt"], r["chosen"]) for r in records]
  assert abs(np.mean([j.reward for j in judged])) < 0.1
  words = [word for r in records for word in r["chosen"].split()]
  clauses = sum(j.num_clauses for j in judged)
  for adjective in reviews.ADJECTIVES:
    share = words.count(adjective) / clauses
    # Five standard errors of a share of 1/16.
    assert abs(share - 1 / 16) < 5 * math.sqrt(15 / 256 / clauses)
  assert {j.num_clauses for j in judged} == {1, 2, 3}
  assert set(words) >= {a for a in reviews.ADVERBS if a}


def test_neighbouring_clauses_have_independent_sentiments(records):
  pairs = []
  for record in records:
    said = [
      reviews.ADJECTIVES[word]
      for word in record["chosen"].split()
      if word in reviews.ADJECTIVES
    ]
    pairs += itertools.pairwise(said)
  correlation = np.corrcoef(np.transpose(pairs))[0, 1]
  assert abs(correlation) < 5 / math.sqrt(len(pairs))


def test_demonstrations_depend_on_the_seed_alone(records):
  assert reviews.demonstrations(200, seed=3) == records[:200]
  assert reviews.demonstrations(200, seed=4) != records[:200]
  with pytest.raises(ValueError, match="count: expected at least 0, got -1"):
    reviews.demonstrations(-1, seed=0)


def test_labels_follow_bradley_terry():
  good = "Amber Tide : the plot was decent ."  # 0.2
  bad = "Amber Tide : the plot was plain ."  # -0.2
  chance = 1 / (1 + math.exp(-(0.2 + 0.2) / 0.25))
  draws = np.random.default_rng(0).random(4000)
  for first, second, expected in ((good, bad, chance), (bad, good, 1 - chance)):
    labels = [
      reviews.label_pair(SHORT, first, second, uniform=u) for u in draws
    ]
    wins = np.mean([label["chosen"] == first for label in labels])
    stderr = math.sqrt(expected * (1 - expected) / len(draws))
    assert abs(wins - expected) < 4 * stderr


def test_the_label_turns_exactly_at_the_probability():
  first = "Amber Tide : the plot was utterly superb ."  # 1
  second = "no review"  # -1
  chance = 1 / (1 + math.exp(-2 / 0.5))
  for uniform, chosen in ((chance - 1e-9, first), (chance + 1e-9, second)):
    label = reviews.label_pair(
      SHORT, first, second, uniform=uniform, temperature=0.5
    )
    assert label["prompt"] == SHORT
    assert label["chosen"] == chosen
    assert {label["chosen"], label["rejected"]} == {first, second}


def test_a_tiny_temperature_labels_exactly_and_ties_are_fair():
  first = "Amber Tide : the plot was superb ."
  second = "Amber Tide : the plot was dull ."
  for pair in ((first, second), (second, first)):
    label = reviews.label_pair(SHORT, *pair, uniform=0.7, temperature=1e-300)
    assert label["chosen"] == first
  tie = (first, "Amber Tide : the music was dazzling .")
  assert reviews.label_pair(SHORT, *tie, uniform=0.499)["chosen"] == tie[0]
  assert reviews.label_pair(SHORT, *tie, uniform=0.5)["chosen"] == tie[1]
  with pytest.raises(ValueError, match="temperature: expected above 0, got 0"):
    reviews.label_pair(SHORT, *tie, uniform=0.5, temperature=0)


def test_identical_completions_have_no_label():
  assert reviews.label_pair(SHORT, "same", "same", uniform=0.5) is None


def test_demonstrations_survive_the_tokenizer(tokenizer, records):
  for record in records[:500]:
    ids = tokenizer.encode_completion(record["chosen"])
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == record["chosen"]
    ended = np.array([*ids, tokenizer.eos_token_id])
    assert tokenizer.decode(ended) == record["chosen"]
    assert tokenizer.spells(record["chosen"])
    prompt_ids = tokenizer.encode_prompt(record["prompt"])
    assert tokenizer.decode(prompt_ids) == record["prompt"] + " <sep>"


@given(st.data())
def test_any_words_survive_the_tokenizer(data):
  tokenizer = reviews.WordTokenizer()
  ids = data.draw(st.lists(st.integers(3, tokenizer.vocab_size - 1)))
  text = tokenizer.decode(ids)
  assert tokenizer.encode_completion(text) == ids
  assert tokenizer.spells(text) == bool(ids)


def test_special_tokens_of_a_policy_stay_visible(tokenizer):
  pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
  assert (pad, eos) == (0, 1)
  review = "Amber Tide : the plot was superb ."
  ids = tokenizer.encode_completion(review)
  separator = tokenizer.encode_prompt("film:")[-1]
  for special in (pad, eos, separator):
    for place in range(len(ids) + 1):
      text = tokenizer.decode([*ids[:place], special, *ids[place:], eos])
      assert not reviews.judge(SHORT, text).valid
      assert not tokenizer.spells(text)
  assert tokenizer.decode([*ids, pad]) == review + " <pad>"
  assert tokenizer.decode([eos]) == tokenizer.decode([]) == ""


def test_an_unknown_word_is_named(tokenizer):
  for unknown in ("zebra", "<pad>", "<eos>", "amber"):
    with pytest.raises(ValueError, match=f"text: .* got '{unknown}'"):
      tokenizer.encode_completion(f"the plot was {unknown}")
    assert not tokenizer.spells(f"the plot was {unknown}")
  with pytest.raises(ValueError, match="prompt: .* got 'zebra'"):
    tokenizer.encode_prompt("film: zebra")
  with pytest.raises(ValueError, match="prompt: expected text, .* got list"):
    tokenizer.encode_prompt([{"role": "user", "content": SHORT}])


def test_the_longest_texts_fit_into_16_and_32_tokens(tokenizer):
  clauses = [f"the {a} was utterly superb" for a in ("plot", "music", "ending")]
  text = f"Amber Tide : {' and '.join(clauses)} . overall a mixed bag"
  assert reviews.judge(PROMPT, text) == (1.0, True, 3)
  assert len(tokenizer.encode_prompt(PROMPT)) == 11
  assert len(tokenizer.encode_completion(text)) + 1 == 26
  assert 80 <= tokenizer.vocab_size <= 110
