# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The optimum of a job's objective, where a judge gives exact rewards."""

import json
from typing import Any

import numpy as np

from hypo_jax import evaluate, optimum
from hypo_jax.checkpoint import write_json
from hypo_jax.job.methods import ONLINE
from hypo_jax.job.setup import Job

# With their own reward, as J has it; online DPO's beta is no price on the KL.
_OBJECTIVE = tuple(m for m in ONLINE if m != "online_dpo")
_FIELDS = ("beta", "reward", "reward_stderr", "kl", "kl_stderr", "win_rate")
_FIELDS += ("win_rate_stderr", "effective_samples", "value", "value_stderr")
# The reference is the optimum where its KL has no price.
_START = {"kl": 0.0, "kl_stderr": 0.0, "win_rate": 0.5, "win_rate_stderr": 0.0}


def measure_optimum(
  job: Job, reference: Any, split: evaluate.Split
) -> dict[str, Any] | None:
  """Returns the optimum over the test prompts; see `hypo_jax.optimum`.

  Written to evaluations/optimum.json, and read where it already is. The
  reference's completions that policies are compared with count among the
  samples.

  Returns:
    "samples", "prompts", "least_effective_samples", "frontier" and "values",
    J* at each kl_coef of the methods that learn from rewards; None without a
    judge, where no samples are wanted, or for one prompt, which has no error.
  """
  wanted = job.config.evaluate.optimum_samples
  if split.ref_judged is None or not wanted or len(split.prompts) < 2:
    return None
  path = job.workdir / "evaluations" / "optimum.json"
  exists = path.exists()
  job.barrier("look-optimum")
  if exists:
    return json.loads(path.read_text())
  rewards = [split.ref_judged.rewards]
  while sum(r.size for r in rewards) < wanted or len(rewards[0][0]) < 2:
    samples = job.completers["test"](
      reference,
      split.prompt_rows["prompt_tokens"],
      split.prompt_rows["prompt_mask"],
      job.key("evaluate", "optimum", len(rewards)),
    )
    judged = evaluate.judge_samples(
      job.task.judge, job.tokens.tokenizer, split.prompts, samples
    )
    rewards.append(judged.rewards)
  result = describe(np.concatenate(rewards, axis=1), _coefficients(job))
  if job.leader:
    write_json(path, result)
  job.say(_told(result))
  return result


def _coefficients(job: Job) -> list[float]:
  found = {
    settings["kl_coef"]
    for settings in job.methods.values()
    if _has_objective(settings)
  }
  return sorted(found)


def _has_objective(settings: dict[str, Any]) -> bool:
  """Whether a method maximises J with one beta all along, of what is judged.

  At another temperature it maximises the J of other distributions.
  """
  fixed = settings["kl_coef"] and settings["kl_target"] is None
  as_judged = settings.get("temperature") in (None, 1.0)
  return settings["method"] in _OBJECTIVE and fixed and as_judged


def describe(rewards: np.ndarray, betas: list[float]) -> dict[str, Any]:
  """Returns what report.json holds of the optimum, without any policy.

  Args:
    rewards: float [n prompts, m samples], of the reference's completions.
    betas: where J* is wanted.
  """
  by_prompt = rewards.mean(axis=1)
  stderr = by_prompt.std(ddof=1) / np.sqrt(len(by_prompt))
  start = {"reward": float(rewards.mean()), "reward_stderr": float(stderr)}
  first = dict.fromkeys(_FIELDS) | start | _START
  first["effective_samples"] = float(rewards.size)
  points = [point._asdict() for point in optimum.frontier(rewards)]
  values = []
  for beta in betas:
    best = optimum.tilted(rewards, beta=beta)
    row = {"beta": beta, "value": best.value, "value_stderr": best.value_stderr}
    row |= {"excess": best.excess, "reference": start["reward"]}
    row |= {"reference_stderr": start["reward_stderr"]}
    row |= {"effective_samples": best.effective_samples}
    values.append(row | {"reliable": best.reliable})
  return {
    "samples": rewards.size,
    "prompts": len(rewards),
    "least_effective_samples": optimum.LEAST_EFFECTIVE,
    "frontier": [first, *({k: p[k] for k in _FIELDS} for p in points)],
    "values": values,
  }


def with_recovered(
  found: dict[str, Any],
  measured: dict[str, dict[str, Any]],
  methods: dict[str, dict[str, Any]],
) -> dict[str, Any]:
  """Adds to each value the share of J* - J(reference) that methods recover.

  Args:
    found: of `measure_optimum`.
    measured: by method, its final policy's "reward_mean" and
      "kl_rao_blackwell" on the same prompts.
    methods: settings by method.
  """

  def recovered(row: dict[str, Any]) -> dict[str, float | None]:
    shares = {}
    for name, settings in methods.items():
      if _has_objective(settings) and settings["kl_coef"] == row["beta"]:
        policy = measured[name]
        kl = policy["kl_rao_blackwell"]
        if kl is None:  # It diverged.
          shares[name] = None
          continue
        shares[name] = optimum.recovered(
          policy["reward_mean"] - row["beta"] * kl,
          row["reference"],
          optimum=row["value"],
        )
    return shares

  values = [row | {"recovered": recovered(row)} for row in found["values"]]
  return found | {"values": values}


def _told(found: dict[str, Any]) -> str:
  last = found["frontier"][-1]
  return (
    f"optimum: from {found['samples']} samples of the reference, seen up to a "
    f"KL of {last['kl']:.2f} nats, where it has reward {last['reward']:.3f} "
    f"and wins {last['win_rate']:.3f}"
  )
