# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What can be done with a trained checkpoint: evaluate, sample, export."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from hypo_jax import evaluate, hub, models, report, sharding, train
from hypo_jax.checkpoint import best_step
from hypo_jax.data import hh
from hypo_jax.job import rewards
from hypo_jax.job.pairs import get_pairs, score_reference
from hypo_jax.job.results import make_evaluator
from hypo_jax.job.setup import Job
from hypo_jax.job.steps import abstract_state
from hypo_jax.job.training import (
  best_field,
  preference_checkpoints,
  restore_reference,
)


def load_policy(
  job: Job, checkpoint: str, reference: Any
) -> tuple[models.Policy, int, list[dict[str, Any]]]:
  """Returns the main method's policy at a checkpoint, its step and history.

  Args:
    job: a job whose training has begun.
    checkpoint: "last", "best" or a step.
    reference: the reference policy's parameters.

  Raises:
    ValueError: if there is no such checkpoint.
  """
  method = job.config.preference.method
  with contextlib.closing(
    preference_checkpoints(job, method, reference, read_only=True)
  ) as checkpoints:
    steps = checkpoints.steps()
    if not steps:
      raise ValueError(
        f"workdir: expected checkpoints in {checkpoints.directory}, found "
        "none; run --mode=train first"
      )
    target = abstract_state(job, job.methods[method], reference)
    state, history = checkpoints.restore(target, steps[-1])
    step = steps[-1]
    if checkpoint == "best":
      step = best_step(history, best_field(job))
    elif checkpoint != "last":
      step = int(checkpoint) if checkpoint.isdecimal() else -1
    if step not in steps:
      raise ValueError(
        f"checkpoint: expected last, best or one of {steps}, got {checkpoint}"
      )
    if step != steps[-1]:
      state, history = checkpoints.restore(target, step)
  policy = models.Policy(
    job.model.apply,
    train.policy_params(state.trainable, reference, job.adapters),
    job.model.config,
    job.tokens.tokenizer,
    job.model,
  )
  return policy, step, history


def evaluate_checkpoint(job: Job, checkpoint: str) -> dict[str, Any]:
  """Measures a checkpoint on the test; fields as in report.json."""
  reference = restore_reference(job)
  policy, step, _ = load_policy(job, checkpoint, reference)
  tables = score_reference(job, reference, get_pairs(job, reference))
  learned = rewards.make_learned_rewards(job, reference, tables)
  evaluator, split = make_evaluator(job, reference, tables, "test", learned)
  key = job.key("evaluate", "test")
  entry, _, _ = evaluator.measure(policy.params, split, key)
  del entry["wins"], entry["by_prompt"], entry["by_pair"]
  return {"step": step} | entry


def sample_checkpoint(
  job: Job, checkpoint: str, prompts: Sequence[str | list[dict[str, str]]]
) -> list[list[str]]:
  """Returns completions of each prompt, at temperature 1.

  Args:
    job: the job.
    checkpoint: see `load_policy`.
    prompts: texts or messages, as the task's tokenizer takes them. Where the
      job's pairs have messages for prompts, a text becomes such: the turns of
      a dialogue "\\n\\nHuman: ...", else one user's turn.
  """
  pairs = job.task.pairs
  if pairs and not isinstance(pairs["train"][0]["prompt"], str):
    prompts = [hh.as_messages(p) if isinstance(p, str) else p for p in prompts]
  reference = restore_reference(job)
  policy, _, _ = load_policy(job, checkpoint, reference)
  rows = job.tokens.prompts(list(prompts))
  samples = job.completers["test"](
    policy.params, rows["prompt_tokens"], rows["prompt_mask"], job.key("sample")
  )
  return evaluate.decode(job.tokens.tokenizer, samples)


def export_checkpoint(
  job: Job, checkpoint: str, *, adapter: bool = False
) -> pathlib.Path:
  """Writes a checkpoint as a Hugging Face folder; returns the folder.

  Args:
    job: the job.
    checkpoint: see `load_policy`.
    adapter: write the adapter alone, as a folder of the PEFT library; where
      that can't load the base, because fine-tuning changed it or because it
      comes from a file or a package, the base is written beside it.

  Raises:
    ValueError: if there is no such checkpoint, or no adapter.
  """
  config = job.config
  if adapter and not job.adapters:
    raise ValueError(
      "--adapter: expected a job with lora.rank > 0, got one that trains all "
      "weights; export without it"
    )
  reference = restore_reference(job)
  policy, step, history = load_policy(job, checkpoint, reference)
  folder = (
    job.workdir / "export" / (f"{step}-adapter" if adapter else f"{step}")
  )
  base = config.model.path
  tuned = config.sft.num_steps > 0
  if adapter and (tuned or not _loads_in_peft(base)):
    if base and not tuned and config.model.param_dtype == "int8":
      # No file holds our int8 weights; the adapter goes over what they were
      # made of, as it does where PEFT itself loads the base.
      reference = models.load(
        base,
        dtype="bfloat16",
        shardings=partial(sharding.tree_shardings, job.mesh),
      ).params
    base = str((job.workdir / "export" / "reference").resolve())
    start = dataclasses.replace(
      policy, params=reference, config=job.model.config
    )
    models.save(start, base)
  results, measured_on = _measured(job, step, history)
  card = report.model_card(
    base=config.model.path,
    data=config.data.path,
    adapter_base=base if adapter else None,
    step=step,
    settings=_settings(job),
    results=results,
    measured_on=measured_on,
  )
  if adapter:
    models.save_adapter(policy, folder, base=base, card=card)
  else:
    models.save(policy, folder, card=card)
  return folder


def _loads_in_peft(base: str) -> bool:
  """Whether a base is a Hugging Face folder, or a name on the hub."""
  return bool(base) and (pathlib.Path(base).is_dir() or hub.is_name(base))


def _measured(job: Job, step: int, history: list[dict[str, Any]]):
  """Returns a checkpoint's results, and which prompts they are of."""
  method = job.config.preference.method
  path = job.workdir / "report.json"
  if path.exists():
    policies = json.loads(path.read_text())["policies"]
    for entry in (policies[method], policies[method].get("best", {})):
      if entry.get("step") == step:
        found = {"reference": policies["reference"], method: entry}
        return found, "the test prompts, which training never saw"
  for entry in history:
    if entry["step"] == step:
      return {method: entry}, "the validation prompts"
  return None, ""


def _settings(job: Job) -> dict[str, Any]:
  config = job.config
  lengths = ("prompt_length", "completion_length")
  settings = {
    "preference": job.methods[config.preference.method],
    "data": {name: config.data[name] for name in lengths},
    "rollout": {**config.rollout, "max_new_tokens": job.max_new_tokens},
    "sft": config.sft if config.sft.num_steps else {"num_steps": 0},
    "lora": config.lora if job.adapters else {"rank": 0},
    "model": {
      name: config.model[name] for name in ("compute_dtype", "param_dtype")
    },
  }
  return {"seed": config.seed} | {k: dict(v) for k, v in settings.items()}
