# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenisation: one truncation rule, one EOS, empty sides without weight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypo_jax import losses
from hypo_jax.data import tokenize

PAD, EOS, BOS = 0, 1, 2


@dataclasses.dataclass
class Letters:
  """Code points as tokens, with a BOS; "$" is EOS written as text."""

  eos_token_id: int | tuple[int, ...] = EOS
  pad_token_id: int = PAD

  def encode_prompt(self, prompt):
    if not isinstance(prompt, str):
      prompt = "".join(f"<{m['role']}>{m['content']}" for m in prompt)
    return [BOS] + [ord(letter) for letter in prompt]

  def encode_completion(self, text):
    return [EOS if letter == "$" else ord(letter) for letter in text]

  def encode_turn(self, text):
    return self.encode_completion(f"<assistant>{text}$\n") if text else []


def pair(prompt="ab", chosen="cd", rejected="e"):
  return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def tokenize_pair(record, tokenizer=None, prompt_length=4, completion_length=4):
  return tokenize.tokenize_pair(
    record,
    tokenizer or Letters(),
    prompt_length=prompt_length,
    completion_length=completion_length,
  )


def test_prompts_are_left_padded_and_completions_right_padded():
  arrays, counts = tokenize_pair(pair())
  a, b, c, d, e = map(ord, "abcde")
  expected = {
    "prompt_tokens": [PAD, BOS, a, b],
    "prompt_mask": [False, True, True, True],
    "chosen_tokens": [c, d, EOS, PAD],
    "chosen_mask": [True, True, True, False],
    "rejected_tokens": [e, EOS, PAD, PAD],
    "rejected_mask": [True, True, False, False],
    "pair_mask": True,
  }
  assert {name: x.tolist() for name, x in arrays.items()} == expected
  for name, array in arrays.items():
    assert array.dtype == (np.int32 if name.endswith("tokens") else bool)
  assert counts == tokenize.TokenCounts(rows=1)


def test_messages_reach_the_tokenizer_as_messages():
  record = pair(prompt=[{"role": "user", "content": "hi"}])
  arrays, counts = tokenize_pair(record, prompt_length=9, completion_length=14)
  assert arrays["prompt_tokens"].tolist() == [BOS] + list(map(ord, "<user>hi"))
  # Answers to messages are turns, and end where those do.
  chosen = arrays["chosen_tokens"][arrays["chosen_mask"]].tolist()
  assert chosen == [*map(ord, "<assistant>cd"), EOS]
  assert counts.truncated_completions == 0
  empty, counts = tokenize_pair(record | {"chosen": ""}, prompt_length=9)
  assert not empty["chosen_mask"].any() and counts.empty_rows == 1


def test_nothing_is_stripped_from_completions():
  arrays, _ = tokenize_pair(pair(chosen=" a\n", rejected=" "))
  assert arrays["chosen_tokens"].tolist() == [*map(ord, " a\n"), EOS]
  # White space alone is text: somebody wrote it.
  assert arrays["rejected_tokens"].tolist()[:2] == [ord(" "), EOS]
  assert arrays["pair_mask"]


def test_a_tokenizer_without_eos_is_refused_once_a_completion_ends():
  tokenizer = Letters(eos_token_id=None)
  tokenize.tokenize_prompt(pair(), tokenizer, prompt_length=4)
  with pytest.raises(ValueError, match="eos_token_id: expected a token .* set"):
    tokenize_pair(pair(), tokenizer)


def test_a_completion_has_one_eos_whether_the_text_writes_it_or_not():
  plain, _ = tokenize_pair(pair(chosen="cd"))
  written, counts = tokenize_pair(pair(chosen="cd$"))
  np.testing.assert_array_equal(
    plain["chosen_tokens"], written["chosen_tokens"]
  )
  assert counts.cut_at_eos == 0
  cut, counts = tokenize_pair(pair(chosen="cd$x$"))
  np.testing.assert_array_equal(plain["chosen_tokens"], cut["chosen_tokens"])
  assert counts.cut_at_eos == 1 and counts.truncated_completions == 0


def test_the_first_of_several_eos_ids_is_appended_and_any_ends_the_text():
  tokenizer = Letters(eos_token_id=(ord("z"), EOS))
  arrays, _ = tokenize_pair(pair(chosen="cd", rejected="e$"), tokenizer)
  assert arrays["chosen_tokens"].tolist() == [*map(ord, "cdz"), PAD]
  assert arrays["rejected_tokens"].tolist() == [ord("e"), EOS, PAD, PAD]


def test_a_pad_token_that_is_the_eos_token_leaves_the_masks_alone():
  arrays, _ = tokenize_pair(pair(), Letters(pad_token_id=EOS))
  assert arrays["chosen_mask"].tolist() == [True, True, True, False]


def test_a_completion_that_exactly_fits_keeps_its_eos():
  arrays, counts = tokenize_pair(pair(chosen="cde"))
  assert arrays["chosen_tokens"].tolist() == [*map(ord, "cde"), EOS]
  assert counts.truncated_completions == 0


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_demand_05_an_empty_side_gives_the_pair_zero_weight(side):
  arrays, counts = tokenize.stack_rows(
    tokenize_pair(record) for record in (pair(), pair(**{side: ""}))
  )
  assert arrays["pair_mask"].tolist() == [True, False]
  assert not arrays[f"{side}_mask"][1].any()  # No bare EOS is scored.
  assert counts.empty_rows == 1

  def loss(log_probs):  # [2] by side, from token log-probs that are nan on pads
    sums = {
      name: jnp.where(arrays[f"{name}_mask"], log_probs[name], 0.0).sum(-1)
      for name in log_probs
    }
    per_pair = losses.dpo_loss(
      sums["chosen"],
      sums["rejected"],
      jnp.zeros(2),
      jnp.zeros(2),
      beta=0.1,
    )
    weight = arrays["pair_mask"]
    return jnp.where(weight, per_pair, 0.0).sum() / weight.sum()

  log_probs = {
    name: jnp.where(arrays[f"{name}_mask"], -1.0, jnp.nan)
    for name in ("chosen", "rejected")
  }
  value, gradient = jax.value_and_grad(loss)(log_probs)
  assert np.isfinite(value)
  for name, slope in gradient.items():
    assert np.isfinite(slope).all(), name
    assert (slope[1] == 0).all(), name
    assert (slope[0] != 0).any(), name


def test_demand_05_an_empty_demonstration_is_counted():
  arrays, counts = tokenize.tokenize_demonstration(
    pair(chosen=""), Letters(), prompt_length=4, completion_length=4
  )
  assert not arrays["chosen_mask"].any() and counts.empty_rows == 1


text = st.text("abcdefg", max_size=12)
limit = st.integers(1, 12)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(text, text, text), min_size=1), limit, limit)
def test_demand_06_one_truncation_rule_at_every_length(rows, p, c):
  tokenizer = Letters()
  long_prompts = long_completions = empty = 0
  for prompt, chosen, rejected in rows:
    record = pair(prompt, chosen, rejected)
    arrays, _ = tokenize_pair(record, tokenizer, p, c)
    ids = [BOS] + [ord(x) for x in prompt]
    # The prompt keeps its end.
    kept = arrays["prompt_tokens"][arrays["prompt_mask"]].tolist()
    assert kept == ids[max(0, len(ids) - p) :]
    assert arrays["prompt_mask"][-1]
    long_prompts += len(prompt) + 1 > p
    # It is the same prompt whatever the completions are.
    alone, _ = tokenize.tokenize_prompt(record, tokenizer, prompt_length=p)
    other, _ = tokenize_pair(pair(prompt, "x" * 99, ""), tokenizer, p, c)
    for name in ("prompt_tokens", "prompt_mask"):
      np.testing.assert_array_equal(arrays[name], alone[name])
      np.testing.assert_array_equal(arrays[name], other[name])
    # Completions keep their beginning, and EOS only where they are whole.
    for side in ("chosen", "rejected"):
      whole = [ord(x) for x in record[side]] + [EOS] if record[side] else []
      mask = arrays[f"{side}_mask"]
      assert arrays[f"{side}_tokens"][mask].tolist() == whole[:c]
      assert mask.tolist() == sorted(mask.tolist(), reverse=True)
      long_completions += len(whole) > c
    assert arrays["pair_mask"] == bool(chosen and rejected)
    empty += not (chosen and rejected)
  arrays, counts = tokenize.stack_rows(
    tokenize_pair(pair(*row), tokenizer, p, c) for row in rows
  )
  assert arrays["prompt_tokens"].shape == (len(rows), p)
  assert arrays["chosen_tokens"].shape == (len(rows), c)
  assert counts == tokenize.TokenCounts(
    rows=len(rows),
    truncated_prompts=long_prompts,
    truncated_completions=long_completions,
    empty_rows=empty,
  )


def test_a_demonstration_is_the_chosen_half_of_a_pair():
  whole, _ = tokenize_pair(pair("abcdef", "cdefgh"))
  half, counts = tokenize.tokenize_demonstration(
    {"prompt": "abcdef", "chosen": "cdefgh"},
    Letters(),
    prompt_length=4,
    completion_length=4,
  )
  assert set(half) == {name for name in whole if "rej" not in name} - {
    "pair_mask"
  }
  for name, array in half.items():
    np.testing.assert_array_equal(array, whole[name])
  assert (counts.truncated_prompts, counts.truncated_completions) == (1, 1)


def test_wrong_limits_and_prompts_without_tokens_are_named():
  with pytest.raises(ValueError, match="completion_length: .*got 0"):
    tokenize_pair(pair(), completion_length=0)
  with pytest.raises(ValueError, match="prompt_length: .*got 0"):
    tokenize_pair(pair(), prompt_length=0)
  tokenizer = Letters()
  tokenizer.encode_prompt = lambda prompt: []
  with pytest.raises(ValueError, match="prompt: .*at least one token"):
    tokenize_pair(pair(), tokenizer)
  with pytest.raises(ValueError, match="tokenized: .*got none"):
    tokenize.stack_rows([])


def test_counts_say_what_is_not_zero():
  assert str(tokenize.TokenCounts(rows=5)) == "5 rows"
  counts = tokenize.TokenCounts(rows=5, truncated_prompts=2, empty_rows=1)
  assert str(counts) == "5 rows, 2 truncated prompts, 1 empty rows"
