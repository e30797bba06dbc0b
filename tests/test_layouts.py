# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Layouts: what rows mean, how they are recognised, what doesn't fit."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_readers import fields, read_one_bad, shared_file, write_lines

from hypo_jax.data import layouts, rated, readers, rows

USER = {"role": "user", "content": "Which bird?"}
CHOSEN, REJECTED = (
  {"role": "assistant", "content": text} for text in ("A wren.", "A stone.")
)
TURNS = {"chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]}
CUT = {"prompt": [USER], "chosen": "A wren.", "rejected": "A stone."}

EXPLICIT = {"prompt": "ask", "chosen": " yes", "rejected": " no"}
IMPLICIT = {"chosen": "Q: bird?\nA: a wren", "rejected": "Q: bird?\nA: a stone"}
ULTRAFEEDBACK = TURNS | {
  "prompt": USER["content"],
  "prompt_id": "x",
  "score_chosen": 8.5,
  "score_rejected": 3,
}
HH_PROMPT = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: So?\n\nAssistant:"
HH = {"chosen": f"{HH_PROMPT} Well.", "rejected": f"{HH_PROMPT} No."}
HH_TURNS = [
  {"role": "user", "content": "Hi"},
  {"role": "assistant", "content": "Yes?"},
  {"role": "user", "content": "So?"},
]
POST = {"subreddit": "birds", "title": "A wren", "post": "It sang.\n\nLong."}
POST_PROMPT = (
  "SUBREDDIT: r/birds\n\nTITLE: A wren\n\nPOST: It sang.\n\nLong.\n\nTL;DR:"
)
TLDR = {
  "info": POST | {"id": "x"},
  "summaries": [{"text": " Long song."}, {"text": "Wren sang."}],
  "choice": 1,
  "worker": "w",
}
SHP = {
  "post_id": "x",
  "history": "Why do wrens sing?",
  "human_ref_A": "No idea.",
  "human_ref_B": "To be heard.",
  "labels": 0,
  "score_A": 2,
  "score_B": 30,
}


@pytest.mark.parametrize(
  ("name", "row", "record"),
  [
    ("explicit", EXPLICIT | {"source": "x"}, EXPLICIT),
    (
      "explicit",
      {"prompt": [USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
      CUT,
    ),
    (
      "explicit",
      EXPLICIT | {"score_chosen": "2.5", "score_rejected": 1},
      EXPLICIT | {"chosen_score": 2.5, "rejected_score": 1.0},
    ),
    (
      "implicit",
      IMPLICIT,
      {"prompt": "Q: bird?\nA: a", "chosen": " wren", "rejected": " stone"},
    ),
    ("implicit", TURNS, CUT),
    (
      "ultrafeedback",
      ULTRAFEEDBACK,
      CUT | {"chosen_score": 8.5, "rejected_score": 3.0},
    ),
    ("hh", HH, {"prompt": HH_PROMPT, "chosen": " Well.", "rejected": " No."}),
    (
      "hh",
      {"prompt": HH_PROMPT, "chosen": " Well.", "rejected": " No."},
      {"prompt": HH_PROMPT, "chosen": " Well.", "rejected": " No."},
    ),
    (
      "tldr",
      TLDR,
      {
        "prompt": POST_PROMPT,
        "chosen": " Wren sang.",
        "rejected": " Long song.",
      },
    ),
    (
      "shp",
      SHP,
      {
        "prompt": "POST: Why do wrens sing?\n\nRESPONSE:",
        "chosen": " To be heard.",
        "rejected": " No idea.",
        "chosen_score": 30.0,
        "rejected_score": 2.0,
      },
    ),
  ],
)
def test_a_layout_is_recognised_and_read(tmp_path, name, row, record):
  path = write_lines(tmp_path / "rows.jsonl", [row, row])
  for asked in ("auto", name):
    reading = readers.read_preferences(path, layout=asked, on_bad="fatal")
    assert reading.layout == name
    assert [fields(r) for r in reading.records] == [record, record]
    assert [r["line"] for r in reading.records] == [1, 2]
    assert (reading.rows_read, reading.unpaired) == (2, 0)
  assert readers.recognise_layout(path) == name


@pytest.mark.parametrize(
  ("row", "record"),
  [
    (HH, {"prompt": HH_TURNS, "chosen": "Well.", "rejected": "No."}),
    (
      {"prompt": HH_PROMPT, "chosen": " Well.", "rejected": "\nNo. "},
      {"prompt": HH_TURNS, "chosen": "Well.", "rejected": "No. "},
    ),
    (
      {"prompt": HH_TURNS, "chosen": " Well.", "rejected": " No."},
      {"prompt": HH_TURNS, "chosen": " Well.", "rejected": " No."},
    ),
    (
      {"prompt": "Why?\n", "chosen": " So.", "rejected": "No."},
      {
        "prompt": [{"role": "user", "content": "Why?\n"}],
        "chosen": "So.",
        "rejected": "No.",
      },
    ),
    (
      TLDR,
      {
        "prompt": [{"role": "user", "content": POST_PROMPT}],
        "chosen": "Wren sang.",
        "rejected": "Long song.",
      },
    ),
    (
      SHP | {"labels": 1},
      {
        "prompt": [{"role": "user", "content": SHP["history"]}],
        "chosen": "No idea.",
        "rejected": "To be heard.",
        "chosen_score": 2.0,
        "rejected_score": 30.0,
      },
    ),
    (TURNS, CUT),
  ],
)
def test_chat_models_get_messages(tmp_path, row, record):
  path = write_lines(tmp_path / "rows.jsonl", [row])
  (found,) = readers.read_preferences(path, as_messages=True).records
  assert fields(found) == record


@pytest.mark.parametrize(
  ("good", "change", "reason"),
  [
    (IMPLICIT, {"chosen": "none alike"}, "begin with the same words"),
    (IMPLICIT, {"rejected": IMPLICIT["chosen"]}, "identical"),
    (IMPLICIT, {"chosen": [USER, CHOSEN]}, "rejected: expected text or a list"),
    (TURNS, {"chosen": [CHOSEN]}, "same turns (the prompt), got none"),
    (TURNS, {"chosen": [USER]}, "one assistant turn after the prompt"),
    (TURNS, {"chosen": [USER, CHOSEN, USER, CHOSEN]}, "got roles"),
    (ULTRAFEEDBACK, {"prompt": "Which fish?"}, "what chosen has before"),
    (
      ULTRAFEEDBACK,
      {"score_chosen": "high"},
      "score_chosen: expected a number",
    ),
    (ULTRAFEEDBACK, {"score_chosen": float("nan")}, "a finite number, got nan"),
    (
      HH,
      {"chosen": HH["chosen"] + "\n\nHuman: Go on"},
      "dialogue that goes on",
    ),
    (HH, {"chosen": "\n\nHuman: Ho\n\nAssistant: A"}, "that begin alike"),
    (
      {"prompt": HH_PROMPT, "chosen": " Well.", "rejected": " No."},
      {"chosen": " Well.\n\nHuman: Go on"},
      "dialogue that goes on",
    ),
    (
      {"prompt": HH_PROMPT, "chosen": " Well.", "rejected": " No."},
      {"rejected": HH["rejected"]},
      "rejected: expected the one answer",
    ),
    (
      IMPLICIT,
      {k: t[2:] for k, t in HH.items()},
      "from its first character on",
    ),
    (
      IMPLICIT,
      {k: t.replace("\n", "\r\n") for k, t in HH.items()},
      "from its first character on",
    ),
    (HH, {"chosen": HH_PROMPT}, "chosen: empty"),
    (TLDR, {"choice": 2}, "choice: expected 0 or 1, got 2"),
    (TLDR, {"choice": True}, "choice: expected a number, got True"),
    (TLDR, {"info": POST | {"post": None}}, "post: expected text, got null"),
    (TLDR, {"summaries": [{"text": "a"}]}, "a list of two, got list of 1"),
    (TLDR, {"summaries": [{"text": "a"}, {}]}, "summaries[1].text: expected"),
    (SHP, {"labels": None}, "labels: expected a number, got null"),
    (SHP, {"human_ref_A": " To be heard."}, "identical"),
  ],
)
def test_a_bad_row_of_any_layout_is_lost_alone(tmp_path, good, change, reason):
  path = write_lines(tmp_path / "rows.jsonl", [good, good | change, good])
  reading = readers.read_preferences(path, on_bad="skip")
  assert [record["line"] for record in reading.records] == [1, 3]
  (bad,) = reading.bad_rows
  assert bad.line == 2 and reason in bad.reason
  assert reading.rows_read == 3


def test_another_layout_in_the_midst_is_a_bad_row(tmp_path):
  assert "prompt: missing" in read_one_bad(tmp_path, SHP)


def error_of(path, **kwargs):
  with pytest.raises(ValueError, match="expected") as error:
    readers.read_preferences(path, **kwargs)
  (line,) = str(error.value).splitlines()
  return line


@pytest.mark.parametrize("name", ["auto", "implicit"])
def test_a_question_under_another_name_is_not_dropped(tmp_path, name):
  row = {"system": "", "question": "Why?", "chosen": "I do", "rejected": "I am"}
  path = write_lines(tmp_path / "rows.jsonl", [row] * 3)
  line = error_of(path, layout=name)
  assert "what is asked seems to stand under 'question'" in line


@pytest.mark.parametrize(
  ("row", "reason"),
  [
    (IMPLICIT, "prompt: expected it apart"),
    (EXPLICIT | {"prompt": HH_PROMPT[2:]}, "expected '\\n\\nHuman:' at the st"),
  ],
)
def test_what_can_be_no_messages_is_no_good_row(tmp_path, row, reason):
  path = write_lines(tmp_path / "rows.jsonl", [row])
  with pytest.raises(ValueError, match="no good row among 1") as error:
    readers.read_preferences(path, as_messages=True)
  assert reason in str(error.value)


def test_a_score_that_is_null_is_none(tmp_path):
  path = write_lines(tmp_path / "rows.jsonl", [SHP | {"score_A": None}])
  (record,) = readers.read_preferences(path).records
  assert "chosen_score" not in record


def test_a_layout_that_does_not_fit_is_named_with_the_one_that_does(tmp_path):
  path = write_lines(tmp_path / "rows.jsonl", [EXPLICIT] * 3)
  line = error_of(path, layout="shp")
  assert 'rows of layout "shp"' in line and str(path) in line
  assert "got rows with chosen, prompt, rejected;" in line
  assert 'it looks like "explicit"' in line
  for layout in layouts.PAIRS:
    assert f"{layout.name} ({', '.join(layout.keys)})" in line


def test_rows_of_no_layout_are_named_with_the_nearest(tmp_path):
  row = {"prompt": "a", "chosen": "b", "worse": "c"}
  line = error_of(write_lines(tmp_path / "rows.jsonl", [row]))
  assert "got rows with chosen, prompt, worse;" in line
  assert 'looks most like "explicit", without rejected' in line
  line = error_of(write_lines(tmp_path / "rows.jsonl", [{"a": 1}]))
  assert "no layout has any of these keys" in line


@pytest.mark.parametrize(
  "row", [POST | {"summary": "Sang."}, {"prompt": "a", "completion": "b"}]
)
def test_demonstrations_in_place_of_pairs_are_told_apart(tmp_path, row):
  line = error_of(write_lines(tmp_path / "rows.jsonl", [row]))
  assert "demonstrations: data.demonstration_path takes them" in line


def test_an_unknown_layout_is_named(tmp_path):
  path = write_lines(tmp_path / "rows.jsonl", [EXPLICIT])
  assert "got 'sharegpt'" in error_of(path, layout="sharegpt")


def test_the_layout_is_that_of_most_first_rows(tmp_path):
  path = write_lines(tmp_path / "rows.jsonl", [SHP, [], EXPLICIT, EXPLICIT])
  reading = readers.read_preferences(path, on_bad="skip")
  assert reading.layout == "explicit"
  assert [bad.line for bad in reading.bad_rows] == [1, 2]


def test_what_both_texts_begin_with_is_cut_between_words():
  cases = {
    ("ask me yes", "ask me no"): "ask me",
    ("ask yesterday", "ask yes"): "ask",  # Not in the midst of a word.
    ("ask\n\n yes", "ask\n\nno"): "ask",  # Nor in the midst of white space.
    ("ask yes", "ask yes sir"): "ask",  # Each side keeps something.
    ("ask a  ", "ask a  b"): "ask",  # White space alone is nothing.
    ("ask yes", "ask\tno"): "ask",
    (" ask", " no"): None,  # The prompt would be blank.
    ("yes", "no"): None,
    ("ask", "ask more"): None,
  }
  for texts, prompt in cases.items():
    for first, second in (texts, texts[::-1]):
      place = layouts.rows.last_common_boundary(first, second)
      assert (first[:place] if place else None) == prompt, texts


words = st.text(st.sampled_from("ab \n\té"), max_size=12)


@given(words, words, words)
def test_cutting_an_implied_prompt_off_loses_nothing(start, one, two):
  row = {"chosen": start + one, "rejected": start + two}
  try:
    record = rows.implicit(row)
  except ValueError:
    # Rightly so only where there is no place to cut at.
    if row["chosen"] != row["rejected"]:
      assert not any(cuttable(row, k) for k in range(len(start) + 13))
    return
  for name in ("chosen", "rejected"):
    assert record["prompt"] + record[name] == row[name]
    assert record[name][0].isspace() and record[name].strip()
  assert not record["prompt"][-1].isspace()
  later = range(len(record["prompt"]) + 1, len(start) + 13)
  assert not any(cuttable(row, k) for k in later)


def cuttable(row, place):
  """Whether both texts can be cut here, written out."""
  first, second = row["chosen"], row["rejected"]
  return (
    first[:place] == second[:place]
    and len(first[:place]) == place
    and first[:place] != ""
    and not first[place - 1].isspace()
    and first[place:].strip() != ""
    and second[place:].strip() != ""
    and first[place].isspace()
    and second[place].isspace()
  )


turns = st.lists(
  st.sampled_from([USER, CHOSEN, REJECTED, {"role": "user", "content": "Go"}]),
  max_size=4,
)


@given(turns, st.sampled_from([CHOSEN, REJECTED]), turns)
def test_cutting_shared_turns_off_loses_nothing(start, last, other):
  row = {"chosen": [*start, last], "rejected": [*start, *other]}
  try:
    record = rows.implicit(row)
  except ValueError:
    return
  for name in ("chosen", "rejected"):
    answer = {"role": "assistant", "content": record[name]}
    assert [*record["prompt"], answer] == row[name]


def test_rated_texts_are_paired_by_length_and_rating(tmp_path):
  texts = [("bad day", -2), ("so so", 0), ("fine day", 3), ("ok then", 1)]
  rated_rows = [{"text": t, "rating": r, "n": 9} for t, r in texts]
  rated_rows.insert(1, {"text": "one two three", "rating": 4})  # No partner.
  path = write_lines(tmp_path / "rows.jsonl", rated_rows)
  reading = readers.read_preferences(path)
  # By rating: bad day, so so | ok then, fine day.
  prompt = "Length in words: 2\nReview:"
  assert reading.records == [
    {
      "prompt": prompt,
      "chosen": " fine day",
      "rejected": " so so",
      "chosen_score": 3.0,
      "rejected_score": 0.0,
      "file": path.name,
      "line": 4,
    },
    {
      "prompt": prompt,
      "chosen": " ok then",
      "rejected": " bad day",
      "chosen_score": 1.0,
      "rejected_score": -2.0,
      "file": path.name,
      "line": 5,
    },
  ]
  assert (reading.layout, reading.rows_read, reading.unpaired) == (
    "rated",
    5,
    1,
  )
  (first, _) = readers.read_preferences(path, as_messages=True).records
  assert first["prompt"] == [{"role": "user", "content": prompt}]
  assert first["chosen"] == "fine day"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 2))))
def test_a_rated_text_stands_in_one_pair_and_the_better_is_chosen(texts):
  records = [
    {"text": text, "rating": float(rating), "file": "f", "line": line}
    for line, (text, rating) in enumerate(texts, 1)
  ]
  pairs, unpaired = rated.join(records, False)
  assert 2 * len(pairs) + unpaired == len(texts)
  used = [pair["chosen"].strip() for pair in pairs]
  used += [pair["rejected"].strip() for pair in pairs]
  for text in "abc":
    assert used.count(text) <= [t for t, _ in texts].count(text)
  for pair in pairs:
    assert pair["chosen_score"] > pair["rejected_score"]
    assert pair["chosen"] != pair["rejected"]


def test_demonstrations_and_prompts_come_from_every_layout(tmp_path):
  post = POST | {"summary": "Wren sang."}
  tldr = {"prompt": POST_PROMPT, "chosen": " Wren sang."}
  first = {"prompt": [USER], "chosen": "A wren."}
  for row, record in [
    (post, tldr),
    (TLDR, tldr),
    (ULTRAFEEDBACK, first),
    (TURNS, first),
    (HH, {"prompt": HH_PROMPT, "chosen": " Well."}),
    (EXPLICIT, {"prompt": "ask", "chosen": " yes"}),
  ]:
    path = write_lines(tmp_path / "rows.jsonl", [row])
    (found,) = readers.read_demonstrations(path).records
    assert fields(found) == record
    (found,) = readers.read_prompts(path).records
    assert fields(found) == {"prompt": record["prompt"]}


def test_real_dialogues_joined_again_are_cut_where_they_were():
  path = shared_file("hh_harmless.jsonl.gz")
  with gzip.open(path, "rt", encoding="utf-8") as file:
    pairs = [json.loads(line) for line in file]
  for pair in pairs:
    names = ("chosen", "rejected")
    whole = {name: pair["prompt"] + pair[name] for name in names}
    record = rows.dialogue(whole)
    assert record == {name: pair[name] for name in ("prompt", *names)}


def test_real_rated_texts_leave_few_unpaired():
  for name in ("movie_reviews_rated.jsonl.gz", "amazon_reviews_rated.jsonl.gz"):
    reading = readers.read_preferences(shared_file(name), on_bad="fatal")
    assert reading.layout == "rated"
    assert reading.unpaired < 0.05 * reading.rows_read
    prompts = {record["prompt"] for record in reading.records}
    assert len(prompts) > 20
