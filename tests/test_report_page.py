# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""report.html stands alone, shows every part, and escapes what it is given."""

import copy
import html.parser
import json
import math
import re
import xml.etree.ElementTree

import pytest
from fake_report import (
  CONFIG,
  make_report,
  make_samples,
  with_matched,
  with_reward_model,
  without_judge,
)

from hypo_jax import report as reporting
from hypo_jax.report import page, plots, style


def write(path, report, samples=None, config=CONFIG):
  """Writes a report; returns its page."""
  samples = make_samples() if samples is None else samples
  reporting.write_report(path, report, samples, config)
  return (path / "report.html").read_text()


def words_of(report, samples=None, config=CONFIG):
  """Returns the page without its plots, which take most of the time."""
  samples = make_samples() if samples is None else samples
  return page.make_page(report, samples, config, [])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """The folder of the whole report, and its page."""
  folder = tmp_path_factory.mktemp("report")
  return folder, write(folder, make_report())


class Checker(html.parser.HTMLParser):
  """Collects tags, ids and addresses, and whether tags close in order."""

  VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.ids, self.addresses = [], [], [], []
    self.labels = []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    for name, value in attributes:
      if name == "id":
        self.ids.append(value)
      if name in ("src", "href", "xlink:href"):
        self.addresses.append(value)
      if name == "aria-label":
        self.labels.append(value)
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def parse(text):
  checker = Checker()
  checker.feed(text)
  checker.close()
  assert not checker.open
  return checker


def test_the_page_is_whole_and_needs_nothing_from_outside(written):
  text = written[1]
  checker = parse(text)
  assert not set(checker.tags) & {"script", "link", "iframe", "img", "object"}
  assert all(a.startswith("#") for a in checker.addresses)
  assert "http" not in text and "@import" not in text
  assert not re.search(r"url\((?!#)", text)
  assert len(checker.ids) == len(set(checker.ids))
  assert {a[1:] for a in checker.addresses} <= set(checker.ids)


def test_the_page_shows_every_part(written):
  checker = parse(text := written[1])
  parts = {"frontier", "kl", "signs", "rewards", "coverage", "policies"}
  assert "matched" in checker.ids and "reliability" not in checker.ids
  assert parts | {"samples", "speed", "run"} <= set(checker.ids)
  assert "HyPO is ahead at a KL of 2 nats" in text
  assert "DPO: coverage is being lost since step 40: raise kl_coef" in text
  assert "HyPO: coverage is kept up to step 400." in text
  assert "4 more prompts" in text
  assert "preference.learning_rate" in text
  assert "jax 0.10.2" in text
  assert "5 min 18 s" in text


def test_plots_are_written_as_png_and_nothing_is_left_aside(written):
  folder, _ = written
  names = sorted(p.relative_to(folder) for p in folder.rglob("*.*"))
  plots = ("coverage", "frontier", "kl", "rewards", "signs")
  assert list(map(str, names)) == [
    *(f"plots/{name}.png" for name in plots),
    "report.html",
  ]
  for name in plots:
    content = (folder / f"plots/{name}.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 5000


def test_a_failed_write_leaves_the_report_before(tmp_path, monkeypatch):
  least = {"policies": {"dpo": {"step": 9, "kl": 0.1}}}
  before = write(tmp_path, least)

  def fail(*unused):
    raise OSError("killed")

  monkeypatch.setattr("os.replace", fail)
  with pytest.raises(OSError, match="killed"):
    write(tmp_path, least | {"seed": 1})
  assert (tmp_path / "report.html").read_text() == before


def test_the_same_report_gives_the_same_bytes(tmp_path, written):
  """Also where it comes from JSON, as for a run that is finished."""
  again = json.loads(json.dumps(make_report(), allow_nan=False))
  assert write(tmp_path, again) == written[1]
  summary = reporting.terminal_summary(again)
  assert summary == reporting.terminal_summary(make_report())


def test_every_plot_has_words_for_who_cannot_see_it(written):
  checker = parse(written[1])
  words = " ".join(checker.labels)
  assert "DPO ends at 0.28 and KL 15.00" in words
  assert "DPO ends at 15.00 nats" in words
  assert "reference mean −0.05" in words
  invalid = make_report()["policies"]["dpo"]["invalid_rate"]
  assert f"{100 * invalid:.0f}% invalid; DPO best pair loss" in words
  assert "DPO ends with tokens outside the pairs 29%" in words
  assert "lost since step 40" in words and "lost since step 400" not in words
  # Five plots, each in two drawings.
  assert sum("DPO" in label for label in checker.labels) == 10


def test_plots_follow_the_page_in_light_and_dark(written):
  text = written[1]
  drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
  assert len(drawings) == 10  # five plots, wide and narrow
  for drawing in drawings:
    fixed = set(re.findall(r"#[0-9a-fA-F]{6}\b", drawing))
    assert not fixed & {light for light, _ in style.PALETTE.values()}
    assert "var(--ink)" in drawing and "var(--muted)" in drawing
    xml.etree.ElementTree.fromstring(drawing.replace("xlink:", ""))
  assert "prefers-color-scheme: dark" in text


def test_colours_of_the_palette_are_all_different():
  for column in zip(*style.PALETTE.values(), strict=True):
    assert len(set(column)) == len(column)


def luminance(colour):
  """Relative luminance as WCAG 2 defines it."""
  parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [
    c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
  ]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("column", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
  ("name", "least"),
  [("ink", 7.0), ("muted", 4.5), ("hypo", 3.0), ("dpo", 3.0), ("other1", 3.0)],
)
def test_text_and_lines_stand_out_from_the_page(name, least, column):
  paper = luminance(style.PALETTE["paper"][column])
  other = luminance(style.PALETTE[name][column])
  ratio = (max(paper, other) + 0.05) / (min(paper, other) + 0.05)
  assert ratio >= least


def test_text_from_data_is_escaped_wherever_it_stands(tmp_path):
  attack = "<script>alert('x')</script>\"&"
  report = make_report()
  report["policies"][attack] = copy.deepcopy(report["policies"]["dpo"])
  report["versions"][attack] = attack
  report["wall_seconds"][attack] = 1.0
  report["seed"] = attack
  texts = {attack: [attack, attack]}
  samples = [{"prompt": attack, "completions": texts, "rewards": {attack: []}}]
  config = {attack: {attack: attack}, "list": [attack]}
  text = write(tmp_path, report, samples, config)
  assert "<script" not in text
  assert text.count("&lt;script&gt;") > 10
  assert "script" not in parse(text).tags


def test_names_with_signs_of_formulas_are_drawn_as_they_are():
  report = make_report()
  report["policies"] = {"dpo_$1^{x": report["policies"]["dpo"]}
  drawings = plots.make_plots(report)
  assert len(drawings) == 5
  assert all("dpo_$1^{x" in plot.wide for plot in drawings)


def test_a_learned_rewards_calibration_is_drawn_and_said():
  report = with_reward_model()
  held_out = report["reward_model"]["held_out"]
  plot = plots.make_plots(report)[-1]
  assert plot.name == "reliability"
  error = held_out["calibration_error"]
  assert error > 2 * held_out["calibration_error_by_chance"]
  for text in (plot.alt, plot.reading):
    assert "of 512 held-out pairs" in text
    assert f"expected calibration error is {error:.3f}" in text
  # Each bin's point in words.
  filled = [b for b in held_out["bins"] if b["count"]]
  assert plot.alt.count(": right ") == len(filled) == 10


def test_bins_without_pairs_and_numbers_that_are_missing_are_left_out():
  report = with_reward_model()
  bins = report["reward_model"]["held_out"]["bins"]
  bins[3].update(certainty=None, accuracy=None, interval=None, count=0)
  bins[5]["accuracy"] = math.nan
  plot = plots.make_plots(report)[-1]
  assert plot.alt.count(": right ") == 8
  bins.clear()
  assert plots.make_plots(report)[-1].name == "coverage"


def test_a_prompt_with_a_lone_surrogate_is_written(tmp_path):
  samples = make_samples(1)
  samples[0]["prompt"] = "half \ud83d of a sign"
  least = {"policies": {"dpo": {"step": 9, "kl": 0.1}}}
  assert "half ? of a sign" in write(tmp_path, least, samples)


def test_without_a_judge_the_page_speaks_of_pairs_and_kl(tmp_path):
  samples = make_samples(3)
  for row in samples:
    row["rewards"] = {name: [None, None] for name in row["completions"]}
  text = write(tmp_path, without_judge(), samples)
  assert {"frontier", "kl", "coverage"} <= set(parse(text).ids)
  assert "Pair accuracy against distance" in text
  assert "n/a" not in text and "nan" not in text
  for word in ("win rate", "Win rate", "reward", "Reward"):
    assert word not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_the_page_is_written_when_no_kl_was_matched():
  rows = [(kl, None, None, None, None) for kl in (1.0, 2.0, 3.0, 4.0)]
  text = words_of(with_matched(*rows))
  assert "No comparison at equal KL" in text
  assert text.count("not reached") == 8


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_numbers_that_are_not_finite_read_not_available(tmp_path, value):
  report = make_report()
  dpo = report["policies"]["dpo"]
  for key in ("win_rate", "kl_rao_blackwell", "kl", "reward_mean"):
    dpo[key] = dpo["history"][3][key] = value
  dpo["kl_stderr"] = dpo["coverage"]["seen"] = value
  dpo["reward_histogram"]["counts"][0] = value
  report["matched_kl"][0].update(difference=value, stderr=value)
  text = write(tmp_path, report, config={"rate": value})
  assert "n/a" in text
  body = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
  assert not re.search(r"\b(nan|inf|infinity)\b", body, flags=re.IGNORECASE)


def test_a_report_with_the_least_fields_is_written(tmp_path):
  policies = {"reference": {"step": 0}, "dpo": {"step": 9, "kl": -0.01}}
  text = write(tmp_path, {"policies": policies}, samples=[], config={})
  assert "KL −0.01 nats" in text
  assert not list((tmp_path / "plots").iterdir())


def test_a_report_without_policies_is_refused(tmp_path):
  with pytest.raises(ValueError, match="policies"):
    reporting.write_report(tmp_path, {"seed": 0}, [], {})


def test_a_history_that_never_leaves_the_reference_is_drawn():
  report = make_report()
  for name in ("dpo", "hypo"):
    for e in report["policies"][name]["history"]:
      e.update(kl=0.0, kl_rao_blackwell=0.0, kl_stderr=0.0)
      e.update(kl_rao_blackwell_stderr=0.0, win_rate=0.5)
  assert plots.make_plots(report)[0].name == "frontier"


def test_plots_leave_the_settings_of_the_caller_as_they_were():
  import matplotlib

  before = dict(matplotlib.rcParams)
  plots.make_plots({"policies": {"dpo": make_report()["policies"]["dpo"]}})
  assert dict(matplotlib.rcParams) == before


def test_only_the_samples_beyond_eight_prompts_are_folded():
  text = words_of(make_report(), make_samples(9))
  opened = text[text.index('id="samples"') :].split("<details>")[0]
  assert opened.count('class="sample"') == 8
  assert "1 more prompt<" in text


def test_a_page_of_one_method_has_no_table_at_equal_kl():
  report = make_report() | {"comparisons": {}}
  assert 'id="matched"' in words_of(report)
  del report["policies"]["hypo"]
  assert 'id="matched"' not in words_of(report)
