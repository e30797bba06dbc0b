# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What will hurt, said with numbers and with the key to change.

A finding is {"level", "text", "advice", "key"}: "stop" where training would be
refused or learn something else than the pairs say, "warning" where it would
work, but worse than it could. All thresholds are below, and our choice.
"""

from typing import Any

Inspection = dict[str, Any]
Finding = dict[str, str]

# Cuts: above the first share a warning. Above half, most rows are not what
# their authors wrote, and a policy that never sees an EOS never learns to end.
_CUT_PROMPTS = 0.05
_CUT_COMPLETIONS = 0.10
_MOST = 0.5
# Rows whose sides are the same to the loss train nothing.
_SAME_SCORED = 0.01
# An epoch's worth of repetition; and labels that must be wrong on one side.
_REPEATED = 0.05
_CONTRADICTORY = 0.01
# Length: a policy that only ever preferred the longer (or the shorter) side
# would already order this share of the unequal pairs rightly; and that must be
# no chance. DPO finds this direction first, since it is the easiest one.
_LENGTH_SHARE = 0.60
_CHANCE = 0.01
# One side cut without the other: the loss then trades EOS against no EOS.
_ONE_SIDE_CUT = 0.05
_WRONG_LABELS = 0.10
# As readers.read_preferences refuses by itself.
_BAD_ROWS = 0.01
# A filter that drops more has taken over what the data is.
_FILTERED = 0.5
# A limit this many times what 99% of the texts need only costs time.
_ROOMY = 2


def find(inspection: Inspection) -> list[Finding]:
  """Returns the findings, those that stop first.

  Args:
    inspection: what `inspection.inspect_records` measured.
  """
  found = [
    *_reading(inspection),
    *_amount(inspection),
    *_positions(inspection),
    *_prompts(inspection),
    *_completions(inspection),
    *_rollouts(inspection),
  ]
  if inspection["kind"] == "pairs":
    found += [
      *_duplicates(inspection),
      *_repeated_prompts(inspection),
      *_length_bias(inspection),
      *_labels(inspection),
    ]
  return sorted(found, key=lambda finding: finding["level"] != "stop")


def verdict(found: list[Finding]) -> dict[str, Any]:
  """Returns {"ok", "text", "keys"}: keys to change before training, in order.

  Args:
    found: of `find`.
  """
  stops = [f for f in found if f["level"] == "stop"]
  keys = list(dict.fromkeys(f["key"] for f in stops if f["key"]))
  if not stops:
    text = "OK to train"
    if found:
      text += f", with {_count(len(found), 'warning')}"
  elif keys:
    text = f"Change before training: {', '.join(keys)}"
  else:
    text = "Mend the data before training"
  return {"ok": not stops, "text": text, "keys": keys}


def _finding(level: str, text: str, advice: str, key: str = "") -> Finding:
  return {"level": level, "text": text, "advice": advice, "key": key}


def _reading(inspection: Inspection):
  reading = inspection["reading"]
  for file in (reading, *reading.get("others", ())):
    yield from _bad_rows(file, reading.get("on_bad"))
  for step in reading.get("filters") or []:
    before, after = step["before"], step["after"]
    if before and 1 - after / before > _FILTERED:
      yield _finding(
        "warning",
        f"the filter {step['name']} drops {before - after:,} of {before:,} "
        f"rows ({_percent(1 - after / before)})",
        "check that it is the filter that was meant",
      )
  if leaked := reading.get("leaked_prompts", 0):
    yield _finding(
      "warning",
      f"{_count(leaked, 'prompt')} in more than one split: held-out numbers "
      "will look better than they are",
      "leave them out of training",
    )


def _bad_rows(file: dict[str, Any], on_bad: str | None):
  bad, rows = file.get("bad_rows", 0), file.get("rows_read", 0)
  share = bad / max(rows, 1)
  place = f" of {file['key']}" if "key" in file else ""
  refusing = {"fatal": 0.0, "auto": _BAD_ROWS}
  if share > refusing.get(on_bad, 1.0):
    yield _finding(
      "stop",
      f"{bad:,} of {rows:,} rows{place} are bad ({_percent(share)}), and "
      f'training refuses that: data.on_bad_rows is "{on_bad}"',
      'mend the rows, or set data.on_bad_rows to "skip"',
      "data.on_bad_rows",
    )
  elif share > _BAD_ROWS:
    yield _finding(
      "warning",
      f"{bad:,} of {rows:,} rows{place} are bad ({_percent(share)}) and "
      "skipped",
      "see their reasons: a whole kind of row may be missing",
    )


def _amount(inspection: Inspection):
  rows = inspection["rows"].get("train", {}).get("rows", 0)
  noun = inspection["kind"].removesuffix("s")
  for stage, settings in inspection["stages"].items():
    if inspection["kind"] != "pairs" and stage == "preference":
      continue  # Its pairs are yet to come.
    size = settings["batch_size"]
    if rows < size:
      yield _finding(
        "stop",
        f"{_count(rows, noun)} to train on, fewer than a batch of {size}",
        f"set {stage}.batch_size to at most {rows}, or add {noun}s",
        f"{stage}.batch_size",
      )
  cuts = inspection["cuts"]
  if empty := cuts["empty"]:
    everything = empty == cuts["rows"]
    yield _finding(
      "stop" if everything else "warning",
      f"{_count(empty, 'row')} with a completion of no tokens: of no weight in "
      "the loss",
      "leave them out",
    )
  if ended := inspection["tokens"]["cut_at_eos"]:
    yield _finding(
      "warning",
      f"{_count(ended, 'completion')} with the tokenizer's EOS written out in "
      "the text: what follows it is dropped",
      "remove such markers from the text",
    )


def _positions(inspection: Inspection):
  limits, most = inspection["limits"], inspection["max_positions"]
  # Evaluation samples completions twice as long as training's.
  evaluated, drawn = 2 * limits["completion"], limits["rollout"]
  longest = limits["prompt"] + max(evaluated, drawn)
  if most is not None and longest > most:
    second = "rollout.max_new_tokens"
    advice = "lower it: rollouts need not be longer than completions"
    if evaluated >= drawn:
      second = "2 data.completion_length"
      advice = "lower data.prompt_length: it cuts what lies furthest back"
    yield _finding(
      "stop",
      f"data.prompt_length + {second} = {longest}, more than the {most} "
      "positions of the model, and training refuses that",
      advice,
      "data.prompt_length" if evaluated >= drawn else second,
    )


def _prompts(inspection: Inspection):
  cuts, rows = inspection["cuts"], inspection["cuts"]["rows"]
  limit = inspection["limits"]["prompt"]
  holding = _holding(inspection, "prompt")
  share = cuts["prompts"] / rows
  if share > _CUT_PROMPTS:
    yield _finding(
      "stop" if share > _MOST else "warning",
      f"{_percent(share)} of the prompts are longer than data.prompt_length = "
      f"{limit} and lose their beginning",
      _enough(inspection, "prompt"),
      "data.prompt_length",
    )
  yield from _roomy("data.prompt_length", limit, holding, "prompts")
  # Texts that are to be continued are none to answer.
  if inspection["reading"].get("layout") == "text":
    return
  if texts := inspection["prompts_as_text"]:
    yield _finding(
      "warning",
      f"{_count(texts, 'prompt')} in plain text, though the tokenizer has a "
      "chat template",
      "set data.as_messages to True for an instruction-tuned model",
      "data.as_messages",
    )


def _completions(inspection: Inspection):
  cuts, rows = inspection["cuts"], inspection["cuts"]["rows"]
  limit = inspection["limits"]["completion"]
  holding = _holding(inspection, "completion")
  advice = _enough(inspection, "completion")
  shares = {s: cuts[s] / rows for s in ("chosen", "rejected") if s in cuts}
  if max(shares.values()) > _CUT_COMPLETIONS:
    said = ", ".join(f"{_percent(v)} {name}" for name, v in shares.items())
    yield _finding(
      "stop" if max(shares.values()) > _MOST else "warning",
      f"completions longer than data.completion_length = {limit} are cut and "
      f"lose their EOS: {said}",
      advice,
      "data.completion_length",
    )
  yield from _roomy("data.completion_length", limit, holding, "completions")
  if len(shares) < 2:
    return
  more, fewer = cuts["chosen_only"], cuts["rejected_only"]
  if abs(more - fewer) / rows > _ONE_SIDE_CUT:
    which, other = "chosen", "rejected"
    if fewer > more:
      which, other = other, which
    learns = "not to end" if which == "chosen" else "to end early"
    yield _finding(
      "warning",
      f"the {which} side alone is cut in {_percent(max(more, fewer) / rows)} "
      f"of the pairs, the {other} alone in {_percent(min(more, fewer) / rows)}"
      f": the missing EOS teaches the policy {learns}",
      advice,
      "data.completion_length",
    )
  share = cuts["same_scored"] / rows
  if share > _SAME_SCORED:
    identical = inspection["duplicates"]["identical"]
    yield _finding(
      "stop" if share > _MOST else "warning",
      f"{_percent(share)} of the pairs have two sides of the same scored "
      f"tokens and train nothing ({identical:,} are the same text, the others "
      "differ only beyond the limit)",
      advice if identical < cuts["same_scored"] else "leave them out",
      "data.completion_length" if identical < cuts["same_scored"] else "",
    )


def _roomy(key: str, limit: int, holding: int, what: str):
  if limit >= _ROOMY * holding:
    yield _finding(
      "warning",
      f"{key} = {limit}, while 99% of the {what} fit in {holding}: the rest is "
      "padding that costs time and memory",
      f"{key} = {holding} is enough",
      key,
    )


def _rollouts(inspection: Inspection):
  limits = inspection["limits"]
  if limits["rollout"] != limits["completion"]:
    yield _finding(
      "warning",
      f"rollouts end after {limits['rollout']} tokens, completions of pairs "
      f"after {limits['completion']}: the two terms of the loss see different "
      "completions",
      "set rollout.max_new_tokens to 0, which makes them equal",
      "rollout.max_new_tokens",
    )
  rollouts = inspection["rollouts"]
  if not rollouts:
    return
  size = inspection["stages"].get("preference", {}).get("batch_size", 0)
  if rollouts["prompts"] < size:
    yield _finding(
      "stop",
      f"{_count(rollouts['prompts'], 'prompt')} of rollouts, fewer than a "
      f"batch of {size}",
      f"set preference.batch_size to at most {rollouts['prompts']}, or add "
      "prompts to data.rollout_path",
      "data.rollout_path",
    )
  share = rollouts["cut"] / rollouts["prompts"]
  if share > _CUT_PROMPTS:
    yield _finding(
      "warning",
      f"{_percent(share)} of the rollouts' prompts are longer than "
      f"data.prompt_length = {limits['prompt']} and lose their beginning",
      "raise data.prompt_length",
      "data.prompt_length",
    )
  if held_out := rollouts["held_out"]:
    yield _finding(
      "warning",
      f"{_count(held_out, 'prompt')} of rollouts also held out for evaluation: "
      "its numbers will look better than they are",
      "leave them out of data.rollout_path",
      "data.rollout_path",
    )


def _duplicates(inspection: Inspection):
  counts, rows = inspection["duplicates"], inspection["cuts"]["rows"]
  if counts["repeated"] / rows > _REPEATED:
    yield _finding(
      "warning",
      f"{_percent(counts['repeated'] / rows)} of the pairs repeat another one: "
      "they count double, and are over-fitted first",
      "leave repetitions out",
    )
  if counts["contradictory"] / rows > _CONTRADICTORY:
    yield _finding(
      "warning",
      f"{counts['contradictory']:,} pairs "
      f"({_percent(counts['contradictory'] / rows)}) also stand there with "
      "their sides swapped: one of the two labels is wrong",
      "leave both out, or set preference.label_smoothing",
      "preference.label_smoothing",
    )


def _repeated_prompts(inspection: Inspection):
  rows = inspection["cuts"]["rows"]
  share = inspection["duplicates"]["repeat_prompt"] / rows
  if share > _REPEATED:
    yield _finding(
      "stop" if share > _MOST else "warning",
      f"both completions begin with their whole prompt in {_percent(share)} of "
      "the pairs: the policy would learn to repeat it",
      "leave the prompt out of chosen and rejected, or the key prompt out",
    )


def _length_bias(inspection: Inspection):
  bias = inspection["length_bias"]["scored"]
  share = bias["share_longer"]
  if share is None or bias["p"] >= _CHANCE:
    return
  longer = share > 0.5
  if max(share, 1 - share) >= _LENGTH_SHARE:
    yield _finding(
      "warning",
      f"the chosen side is the {'longer' if longer else 'shorter'} one in "
      f"{_percent(share if longer else 1 - share)} of the pairs of unequal "
      f"length (mean difference {_signed(bias['mean'])} tokens): DPO will "
      f"learn to be {'long' if longer else 'brief'}, whatever else it learns",
      "read win rates at equal length, or balance the pairs by length",
    )


def _labels(inspection: Inspection):
  labels = inspection["labels"]
  if labels is None:
    return
  wrong = labels["negative"] + labels["zero"]
  share = wrong / labels["rows"]
  if share <= _WRONG_LABELS:
    return
  says = "judge" if labels["by"] == "judge" else "score"
  swapped = labels["negative"] / labels["rows"] > _MOST
  # A tie is as often the one way as the other.
  flipped = (labels["negative"] + labels["zero"] / 2) / labels["rows"]
  advice = f"preference.label_smoothing = {flipped:.2f} assumes that many flips"
  yield _finding(
    "stop" if swapped else "warning",
    f"by the {says}, the chosen side is no better in {_percent(share)} of "
    f"{labels['rows']:,} pairs"
    + (", and mostly worse: the sides look swapped" if swapped else ""),
    "swap chosen and rejected" if swapped else advice,
    "" if swapped else "preference.label_smoothing",
  )


def _enough(inspection: Inspection, kind: str) -> str:
  """Says what limits hold nearly all texts, and whether the model can too."""
  most = inspection["max_positions"]
  text = (
    f"data.{kind}_length = {_holding(inspection, kind, '95')} holds 95% of "
    f"them whole, {_holding(inspection, kind, '99')} holds 99%"
  )
  needed = _holding(inspection, "prompt") + 2 * _holding(
    inspection, "completion"
  )
  if most is not None and needed > most:
    text += (
      f"; the model has {most} positions for data.prompt_length + "
      "2 data.completion_length"
    )
  return text


def _holding(inspection: Inspection, kind: str, percent: str = "99") -> int:
  """Returns the multiple of 8 that so many of the texts fit in."""
  value = inspection["lengths"][kind]["quantiles"][percent]
  return -(-int(value) // 8) * 8


def _percent(share: float) -> str:
  """Returns a share with one digit more where it is small."""
  return f"{100 * share:.{1 if share < 0.1 else 0}f}%"


def _signed(value: float) -> str:
  return f"{value:+.1f}".replace("-", "−")


def _count(number: int, noun: str) -> str:
  return f"{number:,} {noun}" + ("" if number == 1 else "s")
