# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""An inspection's text and page say what was measured, and nothing acts."""

import re
import xml.etree.ElementTree

import pytest
from test_inspection import Words, inspect, pair, scored, stage, words
from test_report_page import parse

from hypo_jax import report
from hypo_jax.report import inspection_tables as tables
from hypo_jax.report import style
from hypo_jax.report.inspection_page import make_inspection_page
from hypo_jax.report.lengths import lengths_plot

ATTACK = "<script>alert('x')</script>\"&"


@pytest.fixture(scope="module")
def inspection():
  """Every part of an inspection: pairs with all that can be wrong."""
  rows = [pair(f"p{i} a b c d", words(9), f"b{i}") for i in range(20)]
  rows += scored(1, -1, 0)
  reading = {
    "layout": "pairs",
    "rows_read": 30,
    "bad_rows": 7,
    "blank_lines": 1,
    "filters": [{"name": "short", "before": 2300, "after": 23}],
    "leaked_prompts": 1,
    "on_bad": "auto",
  }
  result = inspect(
    {"train": rows[:19], "test": rows[19:]},
    reading=reading,
    rollout_prompts=["q", "a b c d e"],
    stages={"sft": stage(1, 1), "preference": stage(19, 2)},
  )
  return result | {
    "source": "file.jsonl",
    "notes": ["file.jsonl:3: chosen: empty"],
    "settings": {"data": {"prompt_length": 4}},
  }


@pytest.fixture(scope="module")
def page(inspection):
  return make_inspection_page(inspection)


def test_the_page_is_whole_and_needs_nothing_from_outside(page):
  checker = parse(page)
  assert not set(checker.tags) & {"script", "link", "iframe", "img", "object"}
  assert all(a.startswith("#") for a in checker.addresses)
  assert "http" not in page and "@import" not in page
  assert not re.search(r"url\((?!#)", page)
  assert len(checker.ids) == len(set(checker.ids))
  parts = {"findings", "rows", "lengths", "cuts", "duplicates", "length-bias"}
  assert parts | {"labels", "examples", "settings"} <= set(checker.ids)


def test_verdict_and_findings_stand_in_page_and_text(inspection, page):
  text = " ".join(report.inspection_summary(inspection).split())
  assert len(inspection["findings"]) > 4
  for said in [inspection["verdict"]["text"]] + [
    finding[key]
    for finding in inspection["findings"]
    for key in ("text", "advice")
  ]:
    assert said in text
    assert said.replace("'", "&#x27;").replace('"', "&quot;") in page
  assert text.count("STOP: ") == page.count("<strong>Stop:</strong>") == 3


def test_numbers_stand_in_the_text(inspection):
  lines = report.inspection_summary(inspection).splitlines()
  rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
  assert lines[0].startswith("23 pairs from file.jsonl. 19 updates of 2 see")
  # 38 of 19.
  assert "see 38: 2 epochs of the 19 in train" in lines[0]
  assert ["train", "19", "19", "19 (100%)", "19 (100%)"] in rows
  assert ["filter short", "2,300 → 23"] in rows
  assert ["of them cut", "1"] in rows
  assert "file.jsonl:3: chosen: empty" in lines
  # 20 prompts of 5 tokens, of 23; 20 chosen sides of 10.
  assert ["chosen alone cut", "20", "87%"] in rows
  assert ["below zero", "1 (33%)"] in rows
  assert ["longer, of the unequal", "100%", "100%"] in rows


def test_text_is_at_most_100_columns_wide_and_coloured_only_if_asked(
  inspection,
):
  plain = report.inspection_summary(inspection)
  assert max(map(len, plain.splitlines())) <= 100
  assert "\x1b" not in plain
  coloured = report.inspection_summary(inspection, colour=True)
  assert "\x1b[1;32m<eos>|\x1b[0m" in coloured
  assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_bars_count_every_row_and_mark_the_limit():
  rows = [pair("a", words(n), "y") for n in (1, 1, 1, 6)]
  lines = report.inspection_summary(inspect(rows)).splitlines()
  start = lines.index(
    next(line for line in lines if line.startswith("tokens  chosen"))
  )
  cells = [
    tuple(re.sub(r"[█ ]+", " ", line).split())
    for line in lines[start + 1 :][:9]
  ]
  # Lengths with EOS: 2, 2, 2, 7 against 2, 2, 2, 2; limit 4.
  assert cells[2] == ("2", "3", "4")
  assert cells[4] == ("4", "0", "0", "←", "limit", "4")
  assert cells[7] == ("7", "1", "0")
  assert cells[8] == ("8+", "0", "0")


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("a b é", "a b é"),
    ("\n\t\r", "↵⇥␍"),
    ("\x1b[31m", "\\x1b[31m"),
    ("\x07", "\\x07"),
    ("\u202e", "\\x202e"),  # Turns the line round.
  ],
)
def test_control_characters_are_seen_and_do_nothing(text, shown):
  assert tables.visible(text) == shown


def test_tokens_cannot_write_to_the_terminal():
  rows = [pair("p\x1b[2J", "a\x07", "b", file="f\x1b", line=1)]
  result = inspect(rows) | {"source": "s\x1b", "notes": ["n\x1b"]}
  text = report.inspection_summary(result)
  assert not set("\x1b\x07") & set(text)
  assert "p\\x1b[2J|" in text and "f\\x1b:1" in text


def test_text_from_data_is_escaped_wherever_it_stands(inspection):
  rows = [pair(ATTACK, ATTACK, ATTACK + "b", file=ATTACK, line=1)]
  reading = {
    "layout": ATTACK,
    "rows_read": 9,
    "filters": [{"name": ATTACK, "before": 9, "after": 1}],
  }
  result = inspect({ATTACK: rows}, reading=reading)
  result |= {"source": ATTACK, "notes": [ATTACK], "settings": {ATTACK: ATTACK}}
  text = make_inspection_page(result)
  assert "<script" not in text
  # Source, split, two of reading, finding, note, three sides, place, settings.
  assert text.count("&lt;script&gt;") >= 11
  assert "script" not in parse(text).tags


def test_tokens_are_marked_by_what_the_loss_does_with_them():
  result = inspect([pair("a b c d e", "x", words(6))])
  text = make_inspection_page(result)
  shown = text[text.index('class="sample"') :]
  tokens = re.findall(r'class="token ([^"]*)"[^>]*>([^<]*)<', shown)
  assert tokens == [
    ("cut", "a"),
    *(("context", word) for word in "bcde"),
    ("scored", "x"),
    ("eos", "&lt;eos&gt;"),
    ("padding", "2 × padding"),
    *[("scored", "w")] * 4,
    *[("cut", "w")] * 2,
    ("cut", "&lt;eos&gt;"),
  ]


def test_demonstrations_and_pairs_without_findings_have_a_page():
  rows = [{"prompt": f"p{i}", "chosen": f"a{i}"} for i in range(4)]
  result = inspect(rows)
  checker = parse(text := make_inspection_page(result))
  assert "Nothing that was looked for" in text and "OK to train" in text
  assert not {"labels", "duplicates", "length-bias"} & set(checker.ids)
  assert report.inspection_summary(result).endswith("Verdict: OK to train.")


def test_the_plot_follows_the_page_and_has_words_for_who_cannot_see_it(
  inspection,
):
  plot = lengths_plot(inspection)
  # Of 23 prompts, 20 have 5 tokens; "p" has one.
  assert "prompt: median 5, 99% within 5, 87% above the limit of 4" in plot.alt
  assert "chosen: median 10" in plot.alt
  for drawing in (plot.wide, plot.narrow):
    assert "limit 4" in drawing
    fixed = set(re.findall(r"#[0-9a-fA-F]{6}\b", drawing))
    assert not fixed & {light for light, _ in style.PALETTE.values()}
    xml.etree.ElementTree.fromstring(drawing.replace("xlink:", ""))


def test_the_page_is_written_whole_or_not_at_all(
  inspection, tmp_path, monkeypatch
):
  report.write_inspection(tmp_path / "new", inspection)
  (path,) = (tmp_path / "new").iterdir()
  before = path.read_text("utf-8")
  assert path.name == "inspect.html" and before.endswith("</html>\n")

  def fail(*unused):
    raise OSError("killed")

  monkeypatch.setattr("os.replace", fail)
  with pytest.raises(OSError, match="killed"):
    report.write_inspection(tmp_path / "new", inspect([pair("p", "a", "b")]))
  assert path.read_text("utf-8") == before


def test_spaces_in_tokens_are_kept():
  class Spaced(Words):
    def token_text(self, token_id):
      return f" {super().token_text(token_id)}"

  result = inspect([pair("p", "a", "b")], tokenizer=Spaced())
  assert "> a</span>" in make_inspection_page(result)
  assert " a| <eos>|" in report.inspection_summary(result)
