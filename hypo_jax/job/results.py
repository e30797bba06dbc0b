# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Measurements of every policy on held-out prompts, and the report."""

import dataclasses
import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from hypo_jax import diagnostics, evaluate, report, statistics, train
from hypo_jax.checkpoint import best_step, json_values, write_json
from hypo_jax.data import tasks
from hypo_jax.job import speed
from hypo_jax.job.optimum import with_recovered
from hypo_jax.job.setup import Job
from hypo_jax.job.steps import abstract_state
from hypo_jax.job.training import (
  best_field,
  preference_checkpoints,
)

# Most prompts of the training pairs that `kl_train_prompts` is measured on, and
# no more than the split has.
_NUM_TRAIN_PROMPTS = 64
# Prompts and completions of each that samples.jsonl shows.
_NUM_SHOWN_PROMPTS, _NUM_SHOWN = 32, 2
_REWARD_EDGES = np.linspace(-1.0, 1.0, 21)
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
_JUDGES = ("vaderSentiment",)  # Where they were asked.
_INTERNAL = ("wins", "by_prompt", "by_pair", "pair_fit")
LearnedRewards = Callable[..., np.ndarray]


def make_evaluator(
  job: Job,
  reference: Any,
  tables: dict[str, dict[str, np.ndarray]],
  split: str,
  learned_rewards: LearnedRewards | None = None,
) -> tuple[evaluate.Evaluator, evaluate.Split]:
  """Returns what measures policies, and what it measures them on.

  Args:
    job: the job.
    reference: the reference policy's parameters.
    tables: pairs by split, as `score_reference` gives them.
    split: "validation" or "test".
    learned_rewards: of `rewards.make_learned_rewards`.
  """
  evaluator = evaluate.Evaluator(
    sampler=job.samplers[split],
    pair_scorer=job.pair_scorer,
    reference=reference,
    judge=job.task.judge,
    tokenizer=job.tokens.tokenizer,
    completion_length=job.tokens.completion_length,
    eos_token_ids=job.eos_token_ids,
    beta=job.config.preference.beta,
    learned_rewards=learned_rewards,
  )
  prompts, pairs = job.task.prompts[split], tables[split]
  num_seen = min(_NUM_TRAIN_PROMPTS, len(prompts))
  seen = {
    name: tables["train"][name][:num_seen]
    for name in ("prompt_tokens", "prompt_mask")
  }
  rows = job.tokens.prompts(prompts)
  samples = evaluator.sample(reference, rows, _reference_key(job, split))
  ref_log_probs = [pairs[f"ref_{s}_log_probs"] for s in ("chosen", "rejected")]
  return evaluator, evaluate.Split(
    prompts=prompts,
    prompt_rows=rows,
    train_prompt_rows=seen,
    pairs=pairs,
    ref_pair_log_probs=np.stack(ref_log_probs, axis=1),
    ref_judged=evaluator.judged(prompts, samples),
    covered=diagnostics.covered(
      tables["train"], samples.cut(job.tokens.completion_length)
    ),
  )


def _reference_key(job: Job, split: str):
  # Another key than the policies': they are compared with independent samples.
  return job.key("evaluate", "reference", split)


def measure_all(
  job: Job,
  reference: Any,
  histories: dict[str, list[dict[str, Any]]],
  evaluator: evaluate.Evaluator,
  split: evaluate.Split,
) -> dict[str, dict[str, Any]]:
  """Measures reference, final, best and best-pair-loss policies on a split.

  Each measurement is written when it is done, and read where it already is.

  Args:
    job: the job.
    reference: the reference policy's parameters.
    histories: by method.
    evaluator: of `make_evaluator`.
    split: likewise, of the test prompts.

  Returns:
    By policy ("reference", "dpo", "dpo best", "dpo best_pair_loss", ...) the
    entry with "wins", "reward_histogram", "coverage" and "shown" samples.
  """

  def measured(
    name: str, params: Any, step: int, key, evaluator=evaluator
  ) -> dict[str, Any]:
    path = job.workdir / "evaluations" / f"{name.replace(' ', '_')}.json"
    exists = path.exists()
    job.barrier(f"look-{name}")
    if exists:
      return json.loads(path.read_text())
    entry, samples, judged = evaluator.measure(params(), split, key)
    result = {"step": step} | entry
    result |= _extras(job, samples, judged, split.covered.offline)
    result = json_values(result)
    if job.leader:
      path.parent.mkdir(exist_ok=True)
      write_json(path, result)
    job.say(f"measured {name} (step {step}) on {len(split.prompts)} prompts")
    return result

  reference_key = _reference_key(job, "test")
  results = {
    "reference": measured("reference", lambda: reference, 0, reference_key)
  }
  if job.task.judge is not None:
    # Against itself: half of the comparisons, by symmetry, without error.
    own = {"win_rate": 0.5, "win_rate_stderr": 0.0}
    results["reference"] |= own | {"win_rate_length_matched": 0.5}
  for method, history in histories.items():
    checkpoints = preference_checkpoints(job, method, reference)
    own = dataclasses.replace(evaluator, beta=job.methods[method]["beta"])
    steps = {
      method: history[-1]["step"],
      f"{method} best": best_step(history, best_field(job)),
      # What a user without a judge would pick.
      f"{method} best_pair_loss": best_step(history, "pair_fit"),
    }
    for name, step in steps.items():

      def params(step=step, method=method, checkpoints=checkpoints):
        target = abstract_state(job, job.methods[method], reference)
        state, _ = checkpoints.restore(target, step)
        return train.policy_params(state.trainable, reference, job.adapters)

      same = [n for n, s in steps.items() if s == step and n in results]
      if same:
        results[name] = results[same[0]]
        continue
      key = job.key("evaluate", "test")
      results[name] = measured(name, params, step, key, own)
    checkpoints.close()
  return results


def _extras(job: Job, samples, judged, offline) -> dict[str, Any]:
  """What the report shows beyond the entry."""
  short = samples.cut(job.tokens.completion_length)
  valid = None if judged is None else judged.valid
  extras = {"coverage": diagnostics.seen_shares(short, valid, offline)}
  first = statistics.PolicySamples(*(x[:_NUM_SHOWN_PROMPTS] for x in short))
  texts = evaluate.decode(job.tokens.tokenizer, first)
  extras["shown"] = {"completions": [row[:_NUM_SHOWN] for row in texts]}
  if judged is not None:
    counts, _ = np.histogram(judged.rewards, _REWARD_EDGES)
    extras["reward_histogram"] = {
      "edges": _REWARD_EDGES.round(6).tolist(),
      "counts": counts.tolist(),
    }
    shown = judged.rewards[:_NUM_SHOWN_PROMPTS, :_NUM_SHOWN]
    extras["shown"]["rewards"] = shown.tolist()
  return extras


def write_report(
  job: Job,
  measured: dict[str, dict[str, Any]],
  histories: dict[str, list[dict[str, Any]]],
  optimum: dict[str, Any] | None,
) -> dict[str, Any]:
  """Writes report.json, samples.jsonl, plots and report.html."""
  at_step = {m: {e["step"]: e for e in h} for m, h in histories.items()}
  policies = {"reference": _public(measured["reference"]) | {"tokens": 0}}
  policies["reference"]["history"] = [dict(policies["reference"])]
  policies["reference"]["best"] = dict(policies["reference"]["history"][0])
  for method, history in histories.items():

    def entry(name, method=method):
      tokens = at_step[method][measured[name]["step"]]["tokens"]
      return _public(measured[name]) | {"tokens": tokens}

    policies[method] = entry(method) | {
      "history": [_public(e) for e in history],
      "best": entry(f"{method} best"),
      "best_pair_loss": entry(f"{method} best_pair_loss"),
      **diagnostics.coverage_verdict(history),
    }
  result = {
    "policies": policies,
    "matched_kl": [],
    "comparisons": _comparisons(job, measured, histories),
    "versions": versions(),
    "seed": job.config.seed,
    "warnings": list(job.warnings),
  }
  if job.task.judge is not None:
    result["matched_kl"] = statistics.matched_kl(histories)
  if job.config.reward == "model" or job.config.evaluate.reward_model_share:
    path = job.workdir / "evaluations" / "reward_model.json"
    result["reward_model"] = json.loads(path.read_text())
  if optimum is not None:
    result["optimum"] = with_recovered(optimum, measured, job.methods)
  result = json_values(result)
  if job.leader:
    samples = _shown_samples(job, measured, histories)
    tasks.write_records(job.workdir / "samples.jsonl", samples)
    clock = job.workdir / "wall_seconds.json"
    result["wall_seconds"] = json.loads(clock.read_text())
    rows = (job.workdir / "metrics.jsonl").read_text().splitlines()
    result["speed"] = speed.summarise(list(map(json.loads, rows)))
    report.write_report(job.workdir, result, samples, job.config.to_dict())
    # Last, since a finished job is known by it.
    write_json(job.workdir / "report.json", result)
  job.barrier("report")
  return result


def versions() -> dict[str, str]:
  """Returns the versions of the packages that results depend on."""
  loaded = [p for p in _JUDGES if p in sys.modules]
  return {p: importlib.metadata.version(p) for p in (*_PACKAGES, *loaded)}


def _public(entry: dict[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in entry.items() if k not in (*_INTERNAL, "shown")}


def _comparisons(job: Job, measured, histories) -> dict[str, Any]:
  """Win rate of the main method, final, minus the baselines', by prompt."""
  if job.task.judge is None:
    return {}
  main = job.config.preference.method
  mine = np.array(measured[main]["wins"])
  result = {}
  for name, other in measured.items():
    if name.split()[0] not in (main, "reference"):
      difference, stderr = statistics.mean_and_stderr(
        mine - np.array(other["wins"])
      )
      result[f"{main} - {name}"] = {
        "difference": difference,
        "stderr": stderr,
        "kl": measured[main]["kl_rao_blackwell"],
        "other_kl": other["kl_rao_blackwell"],
        "other_step": other["step"],
      }
  return result


def _shown_samples(job: Job, measured, histories) -> tasks.Records:
  """Prompts with completions and rewards of the reference and each method."""
  names = ("reference", *histories)
  prompts = job.task.prompts["test"][:_NUM_SHOWN_PROMPTS]
  rows = []
  for i, prompt in enumerate(prompts):
    shown = {n: measured[n]["shown"] for n in names}
    completions = {n: s["completions"][i] for n, s in shown.items()}
    nothing = [None] * _NUM_SHOWN
    rewards = {
      n: s["rewards"][i] if "rewards" in s else nothing
      for n, s in shown.items()
    }
    text = prompt if isinstance(prompt, str) else _as_text(prompt)
    rows.append(
      {"prompt": text, "completions": completions, "rewards": rewards}
    )
  return rows


def _as_text(messages: list[dict[str, str]]) -> str:
  return "\n".join(f"{m['role']}: {m['content']}" for m in messages)
