# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Every statistic of an inspection, on rows that can be counted by hand.

`Words` gives one token a word; a completion of n words is n + 1 tokens long.
"""

import json
import math
import types

import numpy as np
import pytest

from hypo_jax.data import examples, inspection, pair_quality, reviews, tokenize

EOS, PAD = 1, 0


class Words:
  """A token a word; "<eos>" spells EOS. Counts what it encodes."""

  eos_token_id, pad_token_id = EOS, PAD

  def __init__(self, chat_template=None):
    self.words, self.encoded = ["<pad>", "<eos>"], 0
    self.chat_template = chat_template

  def encode_prompt(self, prompt):
    if not isinstance(prompt, str):
      prompt = " ".join(message["content"] for message in prompt)
    return self.encode_completion(prompt)

  def encode_completion(self, text):
    self.encoded += 1
    for word in text.split():
      if word == "unknown":
        raise ValueError("text: expected known words, got 'unknown'")
      if word not in self.words:
        self.words.append(word)
    return [self.words.index(word) for word in text.split()]

  def token_text(self, token_id):
    return self.words[token_id]


def pair(prompt, chosen, rejected, **more):
  return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


def words(number, word="w"):
  """Text of so many tokens as a prompt, one more as a completion."""
  return " ".join([word] * number)


def stage(num_steps, batch_size):
  return {"num_steps": num_steps, "batch_size": batch_size}


def inspect(records, *, limits=(4, 4, 4), tokenizer=None, **kwargs):
  if isinstance(records, list):
    records = {"train": records}
  return inspection.inspect_records(
    records,
    tokenizer or Words(),
    inspection.Limits(*limits),
    **{"stages": {"preference": stage(1, 1)}} | kwargs,
  )


# Prompts of 2, 5 and 4 tokens; completions of (2, 3), (4, 6) and (5, 2).
ROWS = [
  pair("a b", "x", "y y"),
  pair("a b c d e", "x x x", "y y y y y"),
  pair("a b c d", "x x x x", "y"),
]


def test_lengths_are_told_before_cutting_with_eos():
  lengths = inspect(ROWS)["lengths"]
  assert [lengths[n]["mean"] for n in ("prompt", "chosen", "rejected")] == [
    pytest.approx(total / 3) for total in (2 + 5 + 4, 2 + 4 + 5, 3 + 6 + 2)
  ]
  assert (lengths["prompt"]["min"], lengths["prompt"]["max"]) == (2, 5)
  assert lengths["chosen"]["quantiles"]["50"] == 4
  assert lengths["completion"]["quantiles"]["99"] == 6
  assert [lengths[n]["over"] for n in ("prompt", "chosen", "rejected")] == [
    1,  # the 5
    1,  # the 5; 4 fits
    1,  # the 6
  ]


def test_cuts_are_those_of_tokenisation():
  result = inspect(ROWS)
  cuts = result["cuts"]
  assert cuts == {
    "rows": 3,
    "prompts": 1,
    "completions": 2,
    "empty": 0,
    "chosen": 1,
    "rejected": 1,
    "chosen_only": 1,
    "rejected_only": 1,
    "same_scored": 0,
  }
  _, counts = tokenize.stack_rows(
    tokenize.tokenize_pair(r, Words(), prompt_length=4, completion_length=4)
    for r in ROWS
  )
  assert tokenize.TokenCounts(**result["tokens"]) == counts
  assert counts.truncated_prompts == cuts["prompts"]
  assert counts.truncated_completions == cuts["chosen"] + cuts["rejected"]


def test_padding_is_the_share_of_positions_without_a_token():
  # Of 3 x (4 + 4 + 4): prompts 2 + 4 + 4, chosen 2 + 4 + 4, rejected 3 + 4 + 2.
  assert inspect(ROWS)["padding"] == pytest.approx(1 - 29 / 36)


def test_each_text_is_encoded_once():
  tokenizer = Words()
  records = [pair(f"p{i}", f"c{i}", f"r{i}") for i in range(20)]
  inspect(records, tokenizer=tokenizer)
  # Three texts a row, and three rows again that are shown.
  assert tokenizer.encoded == 20 * 3 + 3 * 3


def test_an_encoder_remembers_by_method_and_knows_the_longest():
  class Turns(Words):
    def encode_turn(self, text):
      return self.encode_completion(text + " <end> of turn")

  tokenizer = Turns()
  once = examples.EncodeOnce(tokenizer)
  messages = [{"role": "user", "content": "a b c d e"}]
  for _ in range(2):
    assert len(once.encode_prompt(messages)) == once.longest_prompt == 5
    assert len(once.encode_completion("x")) == 1
    assert len(once.encode_turn("x")) == once.longest_completion == 4
  assert tokenizer.encoded == 3


def test_splits_are_counted_apart():
  records = {"train": ROWS[:2] + ROWS[:1], "test": ROWS[2:]}
  assert inspect(records)["rows"] == {
    "train": {
      "rows": 3,
      "prompts": 2,
      "cut_prompts": 1,
      "cut_completions": 1,
    },
    "test": {"rows": 1, "prompts": 1, "cut_prompts": 0, "cut_completions": 1},
  }


@pytest.mark.parametrize(
  ("limit", "values", "edges"),
  [
    (4, [1, 2], [0, 1, 2, 3, 4, 5]),
    (15, [1], list(range(17))),
    (16, [1], list(range(0, 19, 2))),
    (4, [99] * 99, list(range(0, 101, 10))),
    (96, [10], list(range(0, 101, 10))),
    (4, [20] * 9 + [79], list(range(0, 81, 5))),
    (4, [20] * 9 + [9999], list(range(0, 91, 10))),
  ],
)
def test_a_histogram_reaches_beyond_the_limit_and_most_values(
  limit, values, edges
):
  assert inspection.histogram_edges(np.array(values), limit) == edges


def test_histograms_count_every_row_once():
  rows = [pair("a", words(n), "y") for n in range(1, 100)] * 2
  rows.append(pair("a", words(5000), "y"))
  histogram = inspect(rows)["lengths"]["chosen"]["histogram"]
  # Both sides' 99% quantile is 98 of 2 to 100: edges to 100, bars of ten.
  assert histogram["edges"] == list(range(0, 101, 10))
  # Lengths 2 to 9, 10 to 19, ..., 90 to 99, twice each.
  assert histogram["counts"] == [16] + [20] * 9
  assert histogram["beyond"] == 2 + 1


def test_duplicates_contradictions_and_identical_sides_are_counted():
  rows = [
    pair("p", "a", "b"),
    pair(" p\n", "a", " b"),  # The same but for white space.
    pair("p", "b", "a"),  # Contradicts both.
    pair("q", "a", "b"),
    pair("q", "a", "c"),
    pair("r", "a", "a "),
    pair("r", "a", "a"),  # Repeats; contradicts nothing.
  ]
  assert pair_quality.duplicates(rows) == {
    "prompts": 3,
    "shared_prompt": 7,
    "repeated": 2,
    "contradictory": 3,
    "identical": 2,
    "repeat_prompt": 0,
  }


def test_messages_are_the_same_by_role_and_text():
  user = [{"role": "user", "content": "Hi"}]
  other = [{"role": "system", "content": "Hi"}]
  rows = [pair(prompt, "a", "b") for prompt in (user, user, other)]
  counts = pair_quality.duplicates(rows)
  assert (counts["prompts"], counts["repeated"]) == (2, 1)


def test_sides_that_differ_beyond_the_limit_alone_are_the_same_to_the_loss():
  rows = [
    pair("p", "a a a a b", "a a a a c"),  # Cut to a a a a.
    pair("p", "a a a b", "a a a"),  # EOS against b.
    pair("p", "a", "a"),
    pair("p", "", ""),  # Empty, and counted as that.
  ]
  cuts = inspect(rows)["cuts"]
  assert (cuts["same_scored"], cuts["empty"]) == (2, 1)


def test_length_bias_counts_pairs_and_compares_differences():
  bias = pair_quality.length_bias(
    np.array([5, 3, 2, 7]), np.array([2, 3, 3, 1])
  )
  # Differences 3, 0, -1, 6: mean 2, squared deviations 1 + 4 + 9 + 16 = 30.
  assert (bias["longer"], bias["shorter"], bias["equal"]) == (2, 1, 1)
  assert bias["share_longer"] == pytest.approx(2 / 3)
  assert (bias["mean"], bias["median"]) == (2.0, 1.5)
  assert bias["mean_stderr"] == pytest.approx(math.sqrt(30 / 3 / 4))
  assert bias["p"] == 1.0


def test_length_bias_of_the_scored_tokens_is_told_apart():
  bias = inspect([pair("p", words(9), words(5))] * 2)["length_bias"]
  assert (bias["text"]["longer"], bias["scored"]["longer"]) == (2, 0)
  assert bias["scored"]["share_longer"] is None


@pytest.mark.parametrize(
  ("more", "fewer", "p"),
  [
    (0, 0, 1.0),
    (3, 3, 1.0),
    (5, 0, 2 / 2**5),
    (0, 5, 2 / 2**5),
    (4, 1, 2 * (5 + 1) / 2**5),
    (9, 1, 2 * (10 + 1) / 2**10),
  ],
)
def test_a_split_of_lengths_is_held_to_chance(more, fewer, p):
  """Exact p; the interval's ends are z = 1.96 of theirs from the share."""
  difference = np.array([1] * more + [-1] * fewer + [0])
  bias = pair_quality.length_bias(difference + 2, np.full(len(difference), 2))
  assert bias["p"] == pytest.approx(p, rel=1e-9)
  total = more + fewer
  if not total:
    assert [bias[k] for k in ("share_longer", "low", "high")] == [None] * 3
    return
  assert bias["share_longer"] == more / total
  for end in (bias["low"], bias["high"]):
    z = abs(more / total - end) / math.sqrt(max(end * (1 - end), 1e-12) / total)
    # An end at 0 or 1 is the share itself.
    assert z == pytest.approx(1.96, abs=1e-3) or end == more / total


def scored(*margins):
  return [
    pair("p", "a", "b", chosen_score=m, rejected_score=0) for m in margins
  ]


def test_labels_are_held_against_scores():
  labels = pair_quality.label_noise(
    [*scored(2, 0, -1, 0.5), pair("p", "a", "b"), *scored(math.nan)], None
  )
  assert labels["by"] == "score"
  assert (labels["rows"], labels["negative"], labels["zero"]) == (4, 1, 1)
  assert labels["quantiles"]["50"] == 0.0
  assert labels["quantiles"]["99"] == 2.0


def test_labels_are_held_against_the_judge_where_there_are_no_scores():
  rewards = {"good": 1.0, "bad": -1.0}

  def judge(prompt, completion):
    assert prompt == "p"
    return types.SimpleNamespace(reward=rewards[completion])

  rows = [pair("p", "good", "bad"), pair("p", "bad", "good")]
  labels = pair_quality.label_noise(rows, judge)
  assert labels["by"] == "judge"
  assert (labels["rows"], labels["negative"], labels["zero"]) == (2, 1, 0)
  assert pair_quality.label_noise(rows, None) is None


def texts(result, row, name):
  """Kinds and words of a shown row."""
  return [
    (s["kind"], " ".join(t["text"] for t in s["tokens"]), s["more"])
    for s in result["examples"][row][name]["segments"]
  ]


def test_a_shown_row_is_what_the_loss_sees_and_what_it_does_not():
  result = inspect([pair("a b c d e f", "x y", words(40, "z"))])
  assert texts(result, 0, "prompt") == [
    ("cut", "a b", 0),
    ("context", "c d e f", 0),
  ]
  assert texts(result, 0, "chosen") == [
    ("scored", "x y", 0),
    ("eos", "<eos>", 0),
  ]
  # 40 words and EOS: 4 scored, 37 cut of which 24 are listed.
  assert texts(result, 0, "rejected") == [
    ("scored", words(4, "z"), 0),
    ("cut", words(24, "z"), 13),
  ]
  (row,) = result["examples"]
  assert row["place"] == "row 1"
  padding = [row[n]["padding"] for n in ("prompt", "chosen", "rejected")]
  assert padding == [0, 1, 0]


def test_of_a_long_cut_the_tokens_next_to_what_stays_are_shown():
  prompt = " ".join(f"p{i}" for i in range(40))
  result = inspect([pair(prompt, "x", "y")])
  # 40 less the 4 that stay are cut, of which 24 are listed.
  assert texts(result, 0, "prompt") == [
    ("cut", " ".join(f"p{i}" for i in range(12, 36)), 12),
    ("context", "p36 p37 p38 p39", 0),
  ]


def test_rows_to_show_are_chosen_by_length_and_by_cuts():
  sizes = np.array([9, 1, 5, 3, 7])
  cut = np.array([True, False, False, False, True])
  assert examples.choose(sizes, cut) == [
    ("median length", 2),
    ("cut", 4),
    ("longest", 0),
  ]
  assert examples.choose(sizes, np.zeros(5, bool)) == [
    ("median length", 2),
    ("shortest", 1),
    ("longest", 0),
  ]


def test_no_row_is_shown_twice():
  assert examples.choose(np.array([4]), np.array([True])) == [
    ("median length", 0)
  ]
  everything = examples.choose(np.array([4, 4]), np.array([True, True]))
  assert sorted(row for _, row in everything) == [0, 1]


def test_an_inspection_is_json_and_says_the_same_twice():
  records = {"train": ROWS, "test": scored(1, -1)}
  first, second = inspect(records), inspect(records)
  text = json.dumps(first, allow_nan=False)
  assert json.loads(text) == first == second


def test_demonstrations_are_inspected_without_what_needs_pairs():
  rows = [{"prompt": "a b c d e", "chosen": words(5)}]
  result = inspect(rows)
  assert result["kind"] == "demonstrations"
  for name in ("duplicates", "length_bias", "labels"):
    assert result[name] is None
  assert result["cuts"]["chosen"] == 1 and "rejected" not in result["cuts"]


def test_a_row_that_the_tokenizer_refuses_is_named():
  rows = [pair("p", "a", "b"), pair("p", "unknown", "b", file="f", line=7)]
  with pytest.raises(ValueError, match="^f:7: text: expected known words"):
    inspect(rows)
  with pytest.raises(ValueError, match="records: expected at least one"):
    inspect({"train": []})


# What will hurt: each finding is silent at its threshold and speaks beyond it.

GOOD = [pair(f"p{i}", f"a{i}", f"b{i}") for i in range(100)]
# A row, the i-th of its kind, that isn't good.
BAD = {
  "long prompt": lambda i: pair(f"p{i} a b c d", f"a{i}", f"b{i}"),
  "long sides": lambda i: pair(f"p{i}", words(9), words(9, "z")),
  "long chosen": lambda i: pair(f"p{i}", words(9), f"b{i}"),
  "long rejected": lambda i: pair(f"p{i}", f"a{i}", words(9)),
  "longer chosen": lambda i: pair(f"p{i}", words(3), f"b{i}"),
  "longer rejected": lambda i: pair(f"p{i}", f"a{i}", words(3)),
  "same sides": lambda i: pair(f"p{i}", "a", "a "),
  "same start": lambda i: pair(f"p{i}", words(4) + " a", words(4) + " b"),
  "repeated": lambda i: pair("p", "a", "b"),
  "swapped": lambda i: pair("p", *(("a", "b") if i % 2 else ("b", "a"))),
  "wrong label": lambda i: scored(-1)[0] | {"prompt": f"p{i}"},
  "tied label": lambda i: scored(0)[0] | {"prompt": f"p{i}"},
  "empty": lambda i: pair(f"p{i}", "", f"b{i}"),
  "text after EOS": lambda i: pair(f"p{i}", f"a{i} <eos> a", f"b{i}"),
}


def find(result):
  return [(f["level"], f["key"]) for f in result["findings"]]


@pytest.mark.parametrize(
  ("name", "silent", "level", "key"),
  [
    ("long prompt", 5, "warning", "data.prompt_length"),
    ("long sides", 10, "warning", "data.completion_length"),
    ("long chosen", 5, "warning", "data.completion_length"),
    ("long rejected", 5, "warning", "data.completion_length"),
    ("longer chosen", 7, "warning", ""),
    ("longer rejected", 7, "warning", ""),
    ("same sides", 1, "warning", ""),
    ("same start", 1, "warning", "data.completion_length"),
    ("repeated", 6, "warning", ""),  # The first of them repeats nothing.
    ("swapped", 1, "warning", "preference.label_smoothing"),
    ("empty", 0, "warning", ""),
    ("text after EOS", 0, "warning", ""),
  ],
)
def test_a_finding_speaks_beyond_its_threshold(name, silent, level, key):
  def rows(number):
    return [BAD[name](i) for i in range(number)] + GOOD[number:]

  assert find(inspect(rows(silent))) == []
  result = inspect(rows(silent + 1))
  assert find(result) == [(level, key)]
  assert result["verdict"]["ok"] is True
  assert result["verdict"]["text"] == "OK to train, with 1 warning"


def test_text_beside_a_chat_template_is_found_where_it_asks_for_an_answer():
  tokenizer = Words(chat_template="a template")
  result = inspect(GOOD, tokenizer=tokenizer)
  assert find(result) == [("warning", "data.as_messages")]
  reading = {"layout": "text"}
  assert find(inspect(GOOD, tokenizer=tokenizer, reading=reading)) == []


@pytest.mark.parametrize(
  ("name", "key"),
  [
    ("long prompt", "data.prompt_length"),
    ("long sides", "data.completion_length"),
    ("same start", "data.completion_length"),
  ],
)
def test_what_most_rows_suffer_from_stops(name, key):
  def levels(number):
    rows = [BAD[name](i) for i in range(number)] + GOOD[number:]
    return dict(map(reversed, find(inspect(rows))))

  assert "stop" not in levels(50).values()
  assert levels(51)[key] == "stop"


@pytest.mark.parametrize(
  ("wrong", "tied", "levels"),
  [
    (5, 5, []),
    (6, 5, ["warning"]),
    (50, 0, ["warning"]),
    (51, 0, ["stop"]),
    (0, 100, ["warning"]),
  ],
)
def test_labels_that_scores_contradict_are_found(wrong, tied, levels):
  rows = [BAD["wrong label"](i) for i in range(wrong)]
  rows += [BAD["tied label"](i + wrong) for i in range(tied)]
  rows += [r | {"prompt": f"q{i}"} for i, r in enumerate(scored(*[1] * 100))]
  result = inspect(rows[:100])
  assert [f["level"] for f in result["findings"]] == levels
  if levels == ["warning"]:
    flipped = f"{(wrong + tied / 2) / 100:.2f}"
    assert flipped in result["findings"][0]["advice"]
  if levels == ["stop"]:
    assert result["verdict"]["text"] == "Mend the data before training"


@pytest.mark.parametrize(("longer", "number"), [(599, 0), (600, 1)])
def test_length_bias_must_be_large_and_not_only_sure(longer, number):
  rows = [BAD["longer chosen"](i) for i in range(longer)]
  rows += [BAD["longer rejected"](i) for i in range(longer, 1000)]
  result = inspect(rows)
  assert result["length_bias"]["scored"]["p"] < 1e-6
  assert len(result["findings"]) == number
  if number:
    text = result["findings"][0]["text"]
    assert "60% of the pairs of unequal length" in text and "be long" in text
    # 600 times 4 - 2 tokens, 400 times 2 - 4.
    assert "+0.4 tokens" in text


def test_the_side_that_is_cut_alone_decides_what_no_eos_teaches():
  for name, words_ in (
    ("long chosen", "not to end"),
    ("long rejected", "early"),
  ):
    rows = [BAD[name](i) for i in range(6)] + GOOD[6:]
    assert words_ in inspect(rows)["findings"][0]["text"]


def test_advised_limits_hold_the_texts_whole():
  rows = [BAD["long prompt"](i) for i in range(60)] + GOOD[60:]
  # With EOS: 4 giants of 101 tokens, 56 sides of 11, the others of 2.
  chosen = [words(100)] * 4 + [words(10)] * 56 + [words(1)] * 40
  rows = [r | {"chosen": c} for r, c in zip(rows, chosen, strict=True)]
  result = inspect(rows)
  advice = {f["key"]: f["advice"] for f in result["findings"]}
  assert advice["data.prompt_length"] == (
    "data.prompt_length = 8 holds 95% of them whole, 8 holds 99%"
  )
  # Of 200 sides, up to a multiple of 8.
  assert advice["data.completion_length"] == (
    "data.completion_length = 16 holds 95% of them whole, 104 holds 99%"
  )
  assert result["verdict"]["keys"] == [
    "data.prompt_length",
    "data.completion_length",
  ]
  # Together 8 + 2 x 104 = 216.
  for positions, said in ((216, False), (215, True)):
    advice = inspect(rows, max_positions=positions)["findings"][0]["advice"]
    assert (f"the model has {positions} positions" in advice) == said
  better = inspect(rows, limits=(8, 16, 16))
  assert better["cuts"]["prompts"] == 0 and better["cuts"]["completions"] == 4
  assert better["verdict"]["ok"]


def test_limits_far_above_what_texts_need_are_found():
  assert find(inspect(GOOD, limits=(15, 15, 15))) == []
  result = inspect(GOOD, limits=(16, 16, 16))
  assert [f["key"] for f in result["findings"]] == [
    "data.prompt_length",
    "data.completion_length",
  ]
  assert "fit in 8" in result["findings"][0]["text"]


def test_rollouts_of_another_length_than_pairs_are_found():
  result = inspect(GOOD, limits=(4, 4, 3))
  assert find(result) == [("warning", "rollout.max_new_tokens")]


def test_rollout_prompts_that_are_cut_or_held_out_are_found():
  records = {"train": GOOD[:99], "test": GOOD[99:]}
  prompts = [f"q{i}" for i in range(18)] + ["a b c d e", "p99 "]
  prompts += ["p97", "p98"]
  result = inspect(records, rollout_prompts=prompts)
  assert result["rollouts"] == {"prompts": 22, "cut": 1, "held_out": 1}
  assert find(result) == [("warning", "data.rollout_path")]
  result = inspect(records, rollout_prompts=prompts[:18] + ["a b c d e"])
  assert find(result) == [("warning", "data.prompt_length")]


@pytest.mark.parametrize("name", ["sft", "preference"])
def test_fewer_pairs_than_a_batch_stop(name):
  records = {"train": GOOD[:7], "test": GOOD[7:]}
  assert find(inspect(records, stages={name: stage(1, 7)})) == []
  result = inspect(records, stages={name: stage(1, 8)})
  assert find(result) == [("stop", f"{name}.batch_size")]
  assert result["verdict"]["text"] == (
    f"Change before training: {name}.batch_size"
  )


def test_demonstrations_need_be_no_batch_of_pairs():
  rows = [{"prompt": f"p{i}", "chosen": f"a{i}"} for i in range(7)]
  stages = {"sft": stage(1, 7), "preference": stage(1, 8)}
  assert find(inspect(rows, stages=stages)) == []
  stages = {"sft": stage(1, 8), "preference": stage(1, 7)}
  assert find(inspect(rows, stages=stages)) == [("stop", "sft.batch_size")]


def test_sequences_beyond_the_models_positions_stop():
  # Four tokens of prompt and twice four of a completion.
  assert find(inspect(GOOD, max_positions=12)) == []
  result = inspect(GOOD, max_positions=11)
  assert find(result) == [("stop", "data.prompt_length")]
  assert "= 12, more than the 11 positions" in result["findings"][0]["text"]


def test_rollouts_beyond_the_models_positions_stop():
  limits = (4, 4, 9)
  result = inspect(GOOD, limits=limits, max_positions=13)
  assert "rollout.max_new_tokens" not in result["verdict"]["keys"]
  result = inspect(GOOD, limits=limits, max_positions=12)
  assert result["verdict"]["keys"] == ["rollout.max_new_tokens"]


def test_fewer_prompts_of_rollouts_than_a_batch_stop():
  stages = {"preference": stage(1, 3)}
  prompts = ["p0", "p1", "p2"]
  result = inspect(GOOD, stages=stages, rollout_prompts=prompts)
  assert result["verdict"]["ok"]
  result = inspect(GOOD, stages=stages, rollout_prompts=prompts[:2])
  assert result["verdict"]["keys"] == ["data.rollout_path"]


@pytest.mark.parametrize(("share", "level"), [(0.5, "warning"), (1, "stop")])
def test_completions_that_begin_with_their_prompt_are_found(share, level):
  count = int(share * len(GOOD))
  rows = [
    row | {s: f"{row['prompt']} {row[s]}" for s in ("chosen", "rejected")}
    for row in GOOD[:count]
  ] + GOOD[count:]
  texts = {f["text"]: f["level"] for f in inspect(rows)["findings"]}
  (text,) = [text for text in texts if "whole prompt" in text]
  assert texts[text] == level


def test_pairs_of_which_none_has_weight_stop():
  result = inspect([BAD["empty"](i) for i in range(3)])
  assert not result["verdict"]["ok"]


@pytest.mark.parametrize(
  ("reading", "found"),
  [
    ({}, []),
    ({"rows_read": 100, "bad_rows": 1, "on_bad": "auto"}, []),
    (
      {"rows_read": 100, "bad_rows": 2, "on_bad": "auto"},
      [("stop", "data.on_bad_rows")],
    ),
    (
      {"rows_read": 100, "bad_rows": 1, "on_bad": "fatal"},
      [("stop", "data.on_bad_rows")],
    ),
    ({"rows_read": 100, "bad_rows": 2, "on_bad": "skip"}, [("warning", "")]),
    ({"rows_read": 100, "bad_rows": 0, "on_bad": "fatal"}, []),
    (
      {"others": [{"key": "k", "rows_read": 9, "bad_rows": 1}]},
      [("warning", "")],
    ),
    (
      {
        "on_bad": "auto",
        "others": [{"key": "k", "rows_read": 9, "bad_rows": 1}],
      },
      [("stop", "data.on_bad_rows")],
    ),
    ({"filters": [{"name": "f", "before": 100, "after": 50}]}, []),
    (
      {"filters": [{"name": "f", "before": 100, "after": 49}]},
      [("warning", "")],
    ),
    ({"leaked_prompts": 0}, []),
    ({"leaked_prompts": 1}, [("warning", "")]),
  ],
)
def test_findings_about_reading(reading, found):
  assert find(inspect(GOOD, reading=reading)) == found


def test_the_embedded_worlds_words_are_shown_by_name():
  tokenizer = reviews.WordTokenizer()
  (record,) = reviews.demonstrations(1, seed=0)
  result = inspection.inspect_records(
    {"train": [record]},
    tokenizer,
    inspection.Limits(12, 28, 28),
    stages={},
  )
  prompt, chosen = (texts(result, 0, name) for name in ("prompt", "chosen"))
  assert prompt == [("context", f"{record['prompt']} <sep>", 0)]
  assert chosen == [("scored", record["chosen"], 0), ("eos", "<eos>", 0)]
