# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What is in the data, and will it train? Texts and a tokenizer, no model.

Every text is encoded once, and through `tokenize`, so that what is counted is
what training will see. All splits count together, since a split is a draw of
prompts; "rows" has each apart.

Lengths are tokens, a completion's EOS included, before anything is cut. What
the loss sees of a completion is called scored.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hypo_jax.data import examples, findings, pair_quality, tokenize

Records = list[dict[str, Any]]
Inspection = dict[str, Any]

# Bars of a histogram, the one of what lies beyond not counted.
_MOST_BINS = 16


@dataclasses.dataclass(frozen=True)
class Limits:
  """Tokens: of a prompt, of a pair's completions and of a rollout."""

  prompt: int
  completion: int
  rollout: int


@dataclasses.dataclass(frozen=True)
class _Measured:
  """All rows of all splits, in order.

  Attributes:
    splits: by row, the split's name.
    records: by row.
    prompts: by row, `pair_quality.identity`.
    lengths: by "prompt" and side, int [R], before cutting.
    scored: by side, int [R], after cutting.
    same_scored: bool [R], whether both sides are the same to the loss.
    counts: of all rows.
  """

  splits: list[str]
  records: Records
  prompts: list[bytes]
  lengths: dict[str, np.ndarray]
  scored: dict[str, np.ndarray]
  same_scored: np.ndarray
  counts: tokenize.TokenCounts

  @property
  def sides(self) -> list[str]:
    return list(self.scored)

  def cut(self, name: str, limits: Limits) -> np.ndarray:
    """Whether a row's prompt or side is cut, bool [R]."""
    limit = limits.prompt if name == "prompt" else limits.completion
    return self.lengths[name] > limit

  def any_side_cut(self, limits: Limits) -> np.ndarray:
    return np.any([self.cut(side, limits) for side in self.sides], axis=0)


def inspect_records(
  records: dict[str, Records],
  tokenizer: Any,
  limits: Limits,
  *,
  stages: dict[str, dict[str, int]],
  max_positions: int | None = None,
  rollout_prompts: Sequence[Any] = (),
  judge: Callable[[str, str], Any] | None = None,
  reading: dict[str, Any] | None = None,
) -> Inspection:
  """Measures pairs, or demonstrations where there are no pairs yet.

  Args:
    records: by split, all {"prompt", "chosen", "rejected"}, or all without
      "rejected". Labels are held against "chosen_score" and "rejected_score"
      where records bring them, else against the judge.
    tokenizer: as `tokenize` describes, with `token_text(id)`.
    limits: of training.
    stages: "preference" and, where there is fine-tuning, "sft": each
      {"num_steps": updates, "batch_size": rows an update}.
    max_positions: the model's longest sequence, None for no limit.
    rollout_prompts: prompts without pairs, where rollouts answer such.
    judge: (prompt, completion) -> something with a `reward`.
    reading: what was counted while reading, as far as it is known: the keys of
      `tasks.Task.counts`, and "on_bad", what training does about bad rows.

  Returns:
    What JSON can hold: kind ("pairs" or "demonstrations"), limits, stages,
    max_positions, reading, rows (by split), tokens (a `TokenCounts`), lengths,
    cuts, padding, prompts_as_text, duplicates, length_bias, labels, rollouts,
    examples, findings, verdict. What doesn't apply is None.

  Raises:
    ValueError: if there is no record, or for one that the tokenizer refuses,
      naming its place.
  """
  measured = _measure(records, tokenizer, limits)
  lengths, scored = measured.lengths, measured.scored
  rows = len(measured.records)
  real = np.minimum(lengths["prompt"], limits.prompt) + sum(scored.values())
  positions = limits.prompt + len(scored) * limits.completion
  inspection = {
    "kind": "pairs" if len(scored) == 2 else "demonstrations",
    "limits": dataclasses.asdict(limits),
    "stages": stages,
    "max_positions": max_positions,
    "reading": dict(reading or {}),
    "rows": _by_split(measured, limits),
    "tokens": dataclasses.asdict(measured.counts),
    "lengths": _lengths(measured, limits),
    "cuts": _cuts(measured, limits),
    "padding": 1 - float(real.sum()) / (rows * positions),
    "prompts_as_text": _prompts_as_text(measured.records, tokenizer),
    "duplicates": None,
    "length_bias": None,
    "labels": None,
    "rollouts": _rollouts(rollout_prompts, measured, tokenizer, limits),
  }
  if len(scored) == 2:
    inspection |= {
      "duplicates": pair_quality.duplicates(measured.records),
      "length_bias": {
        "text": pair_quality.length_bias(
          lengths["chosen"], lengths["rejected"]
        ),
        "scored": pair_quality.length_bias(
          scored["chosen"], scored["rejected"]
        ),
      },
      "labels": pair_quality.label_noise(measured.records, judge),
    }
  inspection["examples"] = _examples(measured, tokenizer, limits)
  inspection["findings"] = findings.find(inspection)
  inspection["verdict"] = findings.verdict(inspection["findings"])
  return inspection


def _measure(
  records: dict[str, Records], tokenizer: Any, limits: Limits
) -> _Measured:
  flat = [(s, record) for s, rows in records.items() for record in rows]
  if not flat:
    raise ValueError("records: expected at least one, got none")
  sides = [side for side in examples.SIDES if side in flat[0][1]]
  rows, total = [], tokenize.TokenCounts()
  for number, (_, record) in enumerate(flat):
    once = examples.EncodeOnce(tokenizer)
    whole = tokenize.with_place(record, number, examples.tokenize_whole, once)
    arrays, counts = examples.tokenize_within(
      record,
      once,
      prompt_length=limits.prompt,
      completion_length=limits.completion,
    )
    total += counts
    kept = [arrays[f"{s}_tokens"][arrays[f"{s}_mask"]] for s in sides]
    same = len(sides) == 2 and np.array_equal(*kept)
    names = ("prompt", *sides)
    sizes = [int(whole[f"{name}_mask"].sum()) for name in names]
    rows.append((*sizes, *map(len, kept), same))
  columns = np.array(rows).T
  lengths = dict(zip(("prompt", *sides), columns, strict=False))
  return _Measured(
    splits=[split for split, _ in flat],
    records=[record for _, record in flat],
    prompts=[pair_quality.identity(record["prompt"]) for _, record in flat],
    lengths=lengths,
    scored=dict(zip(sides, columns[len(lengths) :], strict=False)),
    same_scored=columns[-1].astype(bool),
    counts=total,
  )


def _by_split(measured: _Measured, limits: Limits) -> dict[str, Any]:
  splits = np.array(measured.splits)
  cut_prompt = measured.cut("prompt", limits)
  cut_side = measured.any_side_cut(limits)
  result = {}
  for split in dict.fromkeys(measured.splits):
    mine = splits == split
    prompts = {measured.prompts[row] for row in np.flatnonzero(mine)}
    result[split] = {
      "rows": int(mine.sum()),
      "prompts": len(prompts),
      "cut_prompts": int((mine & cut_prompt).sum()),
      "cut_completions": int((mine & cut_side).sum()),
    }
  return result


def _lengths(measured: _Measured, limits: Limits) -> dict[str, Any]:
  """Lengths by "prompt" and side; both sides have one set of edges."""
  together = {
    "prompt": measured.lengths["prompt"],
    "completion": np.concatenate([measured.lengths[s] for s in measured.sides]),
  }
  result = {}
  for name, values in measured.lengths.items():
    kind = "prompt" if name == "prompt" else "completion"
    limit = getattr(limits, kind)
    edges = histogram_edges(together[kind], limit)
    counts, _ = np.histogram(values[values < edges[-1]], edges)
    result[name] = {
      "limit": limit,
      "mean": float(values.mean()),
      "min": int(values.min()),
      "max": int(values.max()),
      "quantiles": pair_quality.quantiles(values),
      "over": int((values > limit).sum()),
      "histogram": {
        "edges": edges,
        "counts": counts.tolist(),
        "beyond": int((values >= edges[-1]).sum()),
      },
    }
  result["completion"] = {"quantiles": pair_quality.quantiles(together[kind])}
  return result


def histogram_edges(values: np.ndarray, limit: int) -> list[int]:
  """Returns edges from 0 to beyond the limit and nearly all values.

  To 99% of the values, unless those lie beyond four times what 75% need: then
  a few giants would leave one bar for all others. What is longer than the last
  edge is for the caller to count. Bars are half-open, 1, 2 or 5 times a power
  of ten wide, at most 16.
  """
  percents = pair_quality.quantiles(values)
  nearly_all = min(int(percents["99"]), 4 * int(percents["75"]))
  top = max(limit, nearly_all) + 1
  steps = (step * 10**power for power in range(12) for step in (1, 2, 5))
  width = next(w for w in steps if w * _MOST_BINS >= top)
  return list(range(0, top + width, width))


def _cuts(measured: _Measured, limits: Limits) -> dict[str, int]:
  """Counts rows by what is cut of them; *_only where the other side isn't."""
  cut = {side: measured.cut(side, limits) for side in measured.sides}
  empty = np.any([n == 0 for n in measured.scored.values()], axis=0)
  result = {
    "rows": len(measured.records),
    "prompts": int(measured.cut("prompt", limits).sum()),
    "completions": int(measured.any_side_cut(limits).sum()),
    "empty": int(empty.sum()),
  } | {side: int(values.sum()) for side, values in cut.items()}
  if len(cut) == 2:
    chosen, rejected = cut["chosen"], cut["rejected"]
    same = measured.same_scored & ~empty
    result |= {
      "chosen_only": int((chosen & ~rejected).sum()),
      "rejected_only": int((rejected & ~chosen).sum()),
      "same_scored": int(same.sum()),
    }
  return result


def _prompts_as_text(records: Records, tokenizer: Any) -> int:
  """Counts prompts that a chat template would be there for."""
  if not getattr(tokenizer, "chat_template", None):
    return 0
  return sum(isinstance(record["prompt"], str) for record in records)


def _rollouts(
  prompts: Sequence[Any],
  measured: _Measured,
  tokenizer: Any,
  limits: Limits,
) -> dict[str, int] | None:
  """Counts prompts of rollouts: those cut, and those held out elsewhere."""
  if not prompts:
    return None
  held_out = {
    prompt
    for prompt, split in zip(measured.prompts, measured.splits, strict=True)
    if split != "train"
  }
  lengths = [len(tokenizer.encode_prompt(prompt)) for prompt in prompts]
  return {
    "prompts": len(prompts),
    "cut": sum(length > limits.prompt for length in lengths),
    "held_out": sum(pair_quality.identity(p) in held_out for p in prompts),
  }


def _examples(
  measured: _Measured, tokenizer: Any, limits: Limits
) -> list[dict[str, Any]]:
  sizes = np.sum(list(measured.lengths.values()), axis=0)
  cut = measured.cut("prompt", limits) | measured.any_side_cut(limits)
  result = []
  for why, row in examples.choose(sizes, cut):
    record, split = measured.records[row], measured.splits[row]
    shown = examples.show(
      record,
      tokenizer,
      prompt_length=limits.prompt,
      completion_length=limits.completion,
    )
    about = {"why": why, "split": split, "place": tokenize.place(record, row)}
    result.append(about | shown)
  return result
