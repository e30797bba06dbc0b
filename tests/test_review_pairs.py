# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of the embedded world: as many as wanted, and an even share of them."""

import collections
import types

import jax
import numpy as np
import pytest

from configs import hypo
from hypo_jax import evaluate, keys
from hypo_jax.data import pipeline, review_pairs, reviews, tasks
from hypo_jax.job import pairs, setup

SEED = 4
TOKENIZER = reviews.WordTokenizer()


def fake_job(num_pairs, *, share=0.0, agree=0.02):
  """A job whose reference writes valid reviews; some prompts get one text."""
  config = hypo.get_config()
  config.seed = SEED
  config.data.num_pairs = num_pairs
  config.data.uniform_share = share

  def completer(params, prompt_tokens, prompt_mask, key):
    number = int(jax.random.bits(key))
    tokens = np.zeros((len(prompt_tokens), 2, 28), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for i, (row, real) in enumerate(
      zip(prompt_tokens, prompt_mask, strict=True)
    ):
      prompt = TOKENIZER.decode(row[real][:-1])
      rng = np.random.default_rng([number, i])
      texts = [reviews.write_review(prompt, rng) for _ in range(2)]
      if rng.random() < agree:
        texts[1] = texts[0]
      for j, text in enumerate(texts):
        ids = [*TOKENIZER.encode_completion(text), TOKENIZER.eos_token_id]
        tokens[i, j, : len(ids)] = ids
        mask[i, j, : len(ids)] = True
    return evaluate.Completed(tokens, mask)

  task = tasks.reviews_task(
    num_demonstrations=0,
    num_pairs=num_pairs,
    num_prompts={},
    seed=SEED,
  )
  return types.SimpleNamespace(
    config=config,
    task=task,
    tokens=tasks.Tokens(TOKENIZER, 12, 28),
    completers={"pairs": completer},
    key=lambda *names: keys.named_key(SEED, *names),
    eos_token_ids=(TOKENIZER.eos_token_id,),
  )


def sample(num_pairs, split="train", **settings):
  return pairs._sample_pairs(fake_job(num_pairs, **settings), None, split)


def test_a_larger_number_of_pairs_only_adds_some():
  many = sample(8192)
  assert len(many) == 8192
  for number in (1, 512, 2048):
    assert sample(number) == many[:number]
  # The 2,048 prompts are asked in turn; none gets a fifth pair but for those
  # that had none in a turn.
  asked = collections.Counter(pair["prompt"] for pair in many)
  assert len(asked) == reviews.SPLIT_SIZES["pairs"]
  assert min(asked.values()) >= 2 and max(asked.values()) <= 5
  assert all(pair["chosen"] != pair["rejected"] for pair in many)
  # Asked again, a prompt gets other completions.
  texts = [(p["prompt"], *sorted((p["chosen"], p["rejected"]))) for p in many]
  assert len(set(texts)) > 0.98 * len(texts)
  # And labels have their noise in every turn.
  for turn in range(4):
    part = many[turn * 1900 : (turn + 1) * 1900]
    right = np.mean([gain(pair) > 0 for pair in part])
    assert 0.75 < right < 0.98


def gain(pair):
  chosen, rejected = (
    reviews.judge(pair["prompt"], pair[side]).reward
    for side in ("chosen", "rejected")
  )
  return chosen - rejected


def test_8192_pairs_are_one_epoch_of_128_steps():
  rows_at = pipeline.make_order(
    8192, batch_size=64, seed=SEED, stage="preference"
  )
  rows = np.concatenate([rows_at(step) for step in range(128)])
  np.testing.assert_array_equal(np.sort(rows), np.arange(8192))


def test_held_out_pairs_are_the_references_whatever_the_share():
  for split in ("validation", "test"):
    held_out = sample(64, split)
    assert len(held_out) == 256
    assert sample(64, split, share=1.0) == held_out


def test_a_reference_that_repeats_itself_is_told():
  with pytest.raises(
    ValueError,
    match=r"data.num_pairs: expected 512 prompts of train with two different "
    r"completions that end, got \d+ of 640",
  ):
    sample(512, agree=0.5)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_share_of_the_pairs_is_replaced_in_place(share):
  plain, mixed = sample(512), sample(512, share=share)
  assert [p["prompt"] for p in mixed] == [p["prompt"] for p in plain]
  changed = [i for i in range(512) if mixed[i] != plain[i]]
  assert len(changed) == round(share * 512)
  # A larger share adds to a smaller one's, and the same seed gives the same.
  assert sample(512, share=share) == mixed
  everything = sample(512, share=1.0)
  assert all(mixed[i] == everything[i] for i in changed)


def test_even_completions_are_half_reviews_and_half_strings_of_any_length():
  prompts = reviews.prompts("pairs", 1000, seed=0)
  pair = {"chosen": "a", "rejected": "b"}
  records = review_pairs.with_even_share(
    [{"prompt": p} | pair for p in prompts], share=1.0, max_words=9, seed=0
  )
  texts = [(r["prompt"], r[s]) for r in records for s in pair]
  valid = np.array([reviews.judge(*text).valid for text in texts])
  assert abs(valid.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
  strings = [t.split() for (_, t), v in zip(texts, valid, strict=True) if not v]
  lengths = np.bincount([len(words) for words in strings], minlength=10)
  expected = len(strings) / 9
  assert lengths[0] == 0 and len(lengths) == 10
  assert np.abs(lengths[1:] - expected).max() < 5 * np.sqrt(expected)
  words = collections.Counter(w for string in strings for w in string)
  assert set(words) == set(TOKENIZER.words)
  expected = sum(words.values()) / len(TOKENIZER.words)
  assert max(words.values()) < expected + 5 * np.sqrt(expected)
  # A judge with noise prefers the review to the string, and tosses a coin
  # between two strings.
  gains = np.array([gain(record) for record in records])
  assert 0.8 < (gains[gains != 0] > 0).mean() < 0.95
  assert (gains == 0).sum() > 200
  assert all(TOKENIZER.spells(text) for _, text in texts)


def test_labels_of_equal_strings_are_a_coin():
  records = [
    {"prompt": p, "chosen": "x", "rejected": "y"}
    for p in reviews.prompts("pairs", 2000, seed=0)
  ]
  even = review_pairs.with_even_share(records, share=1.0, max_words=9, seed=1)
  longer = [
    len(r["chosen"].split()) > len(r["rejected"].split())
    for r in even
    if gain(r) == 0 and len(r["chosen"].split()) != len(r["rejected"].split())
  ]
  assert abs(np.mean(longer) - 0.5) < 4 * 0.5 / np.sqrt(len(longer))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_named(share):
  config = hypo.get_config()
  config.data.uniform_share = share
  with pytest.raises(ValueError, match="data.uniform_share: expected a share"):
    setup.make_task(config, None)
  with pytest.raises(ValueError, match="data.uniform_share: expected a share"):
    review_pairs.with_even_share([], share=share, max_words=9, seed=0)


def test_a_share_of_a_files_pairs_is_refused(tmp_path):
  config = hypo.get_config()
  config.data.path = str(tmp_path / "pairs.jsonl")
  config.data.uniform_share = 0.1
  with pytest.raises(ValueError, match='0 where data.path is not "reviews"'):
    setup.make_task(config, tmp_path)
