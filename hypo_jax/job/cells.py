# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One cell of a study: a job of one method, from a start that others share.

    <seed>/start/            fine-tuning, pairs, reward model: made once a seed
    <seed>/<cell>/           config.json, checkpoints, metrics.jsonl, log.txt
    <seed>/<cell>/cell.json  what came out; a finished cell is known by it

A cell is trained by the job's own functions and resumes as a job does. Cells of
one start run in turn in one process, so that what measures them is compiled
once. There is no page of its own: a study has one for all.
"""

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hypo_jax import evaluate, timing
from hypo_jax.checkpoint import best_step, json_values, write_json
from hypo_jax.data import tasks
from hypo_jax.job import rewards, speed
from hypo_jax.job.methods import ONLINE, draws, updates_per_step
from hypo_jax.job.modes import load_policy
from hypo_jax.job.optimum import measure_optimum
from hypo_jax.job.out_of_memory import explained
from hypo_jax.job.pairs import get_pairs, score_reference
from hypo_jax.job.results import make_evaluator, versions
from hypo_jax.job.setup import Job, set_up
from hypo_jax.job.training import (
  best_field,
  check,
  fine_tune,
  train_method,
)
from hypo_jax.loop import Stopped
from hypo_jax.report.formatting import number, percent
from hypo_jax.study.plan import OPTIMUM_BETA

DONE, FAILED, LOG = "cell.json", "failed.txt", "log.txt"
_REWARD_MODEL = "reward_model"


@dataclasses.dataclass(frozen=True)
class Start:
  """What cells of one seed and one set of pairs have in common.

  Attributes:
    job: set up in the start's own folder.
    reference: the fine-tuned policy's parameters.
    pairs: records by split.
    tables: the same as arrays, with the reference's log-probs.
    validation: what measures policies while they train, and on what.
    test: the same for a cell's last and best checkpoint.
    made: what gives rewards, by the name that a config has for it; made when a
      cell first asks.
  """

  job: Job
  reference: Any
  pairs: dict[str, tasks.Records]
  tables: dict[str, dict[str, np.ndarray]]
  validation: tuple[evaluate.Evaluator, evaluate.Split]
  test: tuple[evaluate.Evaluator, evaluate.Split]

  made: dict[str, Any] = dataclasses.field(default_factory=dict)

  def rewards_of(self, name: str):
    """Returns what gives rollouts the rewards that a config names, or None."""
    if name and name not in self.made:
      config = self.job.config.copy_and_resolve_references()
      config.reward = name
      job = dataclasses.replace(self.job, config=config)
      with _locked(job.workdir), job.clock("rewards"):
        self.made[name] = rewards.make_rewards(
          job,
          self.reference,
          self.tables,
          rewards.rollout_prompts(job, self.pairs),
        )
    return self.made.get(name)


def begin(
  config: Any,
  data: Mapping[str, Any],
  folder: pathlib.Path,
  fine_tuned: pathlib.Path,
) -> Start:
  """Makes a start, or reads it where it is made.

  Args:
    config: of `cell_config`, with the seed alone.
    data: settings of the start's pairs; none for those that most cells have.
    folder: of the start.
    fine_tuned: of the seed's fine-tuning, which all its starts share; the
      folder of the start without `data`.

  Raises:
    ValueError: where a folder is that of other settings.
  """
  own = config.copy_and_resolve_references()
  own.update_from_flattened_dict(dict(data))
  for path in (folder, fine_tuned):
    path.mkdir(parents=True, exist_ok=True)
  with _said_to(folder):
    with _locked(fine_tuned):
      _claim(fine_tuned, config)
      job = set_up(own, folder)
      tuning = dataclasses.replace(job, config=config, workdir=fine_tuned)
      with tuning.clock("sft"):
        reference = fine_tune(tuning)
    with _locked(folder):
      _claim(folder, own)
      return _begin(job, reference, folder == fine_tuned)


def _begin(job: Job, reference: Any, optimum: bool) -> Start:
  with job.clock("pairs"):
    pairs = get_pairs(job, reference)
    tables = score_reference(job, reference, pairs)
  measures = []
  for name in ("validation", "test"):
    evaluator, split = make_evaluator(job, reference, tables, name)
    # A third of an evaluation's draws would go to prompts of training.
    split = dataclasses.replace(split, train_prompt_rows=None)
    measures.append((evaluator, split))
  if optimum:
    (job.workdir / "evaluations").mkdir(exist_ok=True)
    with job.clock("optimum"):
      measure_optimum(_pricing(job), reference, measures[1][1])
  return Start(job, reference, pairs, tables, *measures)


def _pricing(job: Job) -> Job:
  """Returns the job with the objective whose optimum is wanted."""
  config = job.config.copy_and_resolve_references()
  config.preference.method, config.reward = "rloo", "judge"
  config.preference.kl_coef = OPTIMUM_BETA
  return dataclasses.replace(job, config=config)


@contextlib.contextmanager
def _said_to(folder: pathlib.Path) -> Iterator[None]:
  """Keeps what is said in the folder's log."""
  with (folder / LOG).open("a", buffering=1) as log:
    with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
      yield


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
  """Waits until no other process works in the folder; none may after a kill."""
  with (folder / "lock").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def cell_config(config: Any, seed: int, settings: Mapping[str, Any]) -> Any:
  """Returns a cell's configuration: the study's, with the cell's settings."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    del config.study
  config.seed = seed
  config.update_from_flattened_dict(dict(settings))
  return config


def run_cell(
  start: Start, config: Any, folder: pathlib.Path, *, test: bool
) -> str:
  """Trains and measures one cell; what it says goes to log.txt.

  Args:
    start: of the cell's seed and pairs.
    config: of `cell_config`.
    folder: the cell's.
    test: measure the last and the best checkpoint on the test prompts too.

  Returns:
    "" where the cell is done, else the error in a line; the whole of it is in
    failed.txt.

  Raises:
    loop.Stopped: after a stop signal, when all is saved.
  """
  folder.mkdir(parents=True, exist_ok=True)
  (folder / FAILED).unlink(missing_ok=True)
  try:
    with _said_to(folder), explained(config, folder) as watch:
      _claim(folder, config)
      job = dataclasses.replace(
        start.job, config=config, workdir=folder, watch=watch
      )
      write_json(folder / DONE, _run(job, start, test=test))
  except Stopped:
    raise
  except Exception as error:
    return mark_failed(folder, error)
  return ""


def mark_failed(folder: pathlib.Path, error: Exception) -> str:
  """Keeps an error in the cell's folder; returns it in a line."""
  folder.mkdir(parents=True, exist_ok=True)
  lines = traceback.format_exception(error)
  (folder / FAILED).write_text("".join(lines))
  return lines[-1].strip().splitlines()[0]


def describe(folder: pathlib.Path) -> str:
  """Returns a finished cell's last evaluation in a line."""
  last = json.loads((folder / DONE).read_text())["history"][-1]
  return (
    f"step {last['step']}, win rate {number(last['win_rate'], 3)}, KL "
    f"{number(last['kl_rao_blackwell'], 2)}, invalid "
    f"{percent(last['invalid_rate'])}"
  )


def _claim(folder: pathlib.Path, config: Any) -> None:
  """Raises ValueError where the folder is that of other settings."""
  path = folder / "config.json"
  if not path.exists():
    write_json(path, json.loads(config.to_json_best_effort()))
  check_claimed(folder, config)


def check_claimed(folder: pathlib.Path, config: Any) -> None:
  """Raises ValueError unless the folder is that of these settings.

  A key without a value counts as a missing one, so that a new key, as long as
  it has none, leaves the folders of before it as they are.
  """
  path = folder / "config.json"
  wanted = json.loads(config.to_json_best_effort())
  names = sorted(_differing(wanted, json.loads(path.read_text())))
  if names:
    raise ValueError(
      f"{path}: expected these settings, found others of {', '.join(names)}; "
      "remove the folder, or take the settings back"
    )


def _differing(wanted: Any, found: Any, name: str = "") -> list[str]:
  """Returns the keys, with dots, at which two configurations differ."""
  if isinstance(wanted, dict) and isinstance(found, dict):
    return [
      deeper
      for key in wanted.keys() | found.keys()
      for deeper in _differing(
        wanted.get(key), found.get(key), f"{name}.{key}" if name else key
      )
    ]
  return [] if wanted == found else [name]


def _run(job: Job, start: Start, *, test: bool) -> dict[str, Any]:
  check(job)
  rewards_of = start.rewards_of(job.config.reward)
  (name, settings) = next(iter(job.methods.items()))
  evaluator, split = start.validation
  with job.clock(name):
    history = train_method(
      job,
      name,
      settings,
      start.reference,
      start.tables,
      dataclasses.replace(evaluator, beta=settings["beta"]),
      split,
      rewards_of,
    )
  result = {
    "seed": job.config.seed,
    "history": history,
    "test": _tested(job, start, history, settings["beta"]) if test else {},
    "costs": _costs(job, settings, history, start),
    "versions": versions(),
  }
  return json_values(result)


def _tested(
  job: Job, start: Start, history: list[dict], beta: float
) -> dict[str, dict[str, Any]]:
  """Measures three checkpoints on the test prompts."""
  evaluator, split = start.test
  evaluator = dataclasses.replace(evaluator, beta=beta)
  steps = {
    "last": history[-1]["step"],
    "best": best_step(history, best_field(job)),
    "best_pair_loss": best_step(history, "pair_fit"),
  }
  by_step: dict[int, dict[str, Any]] = {}
  for step in set(steps.values()):
    policy, _, _ = load_policy(job, str(step), start.reference)
    key = job.key("evaluate", "test")
    entry, _, _ = evaluator.measure(policy.params, split, key)
    by_step[step] = {"step": step} | entry
  return {which: by_step[step] for which, step in steps.items()}


def _costs(
  job: Job, settings: dict[str, Any], history: list[dict], start: Start
) -> dict[str, float]:
  """What a cell took; a learned reward's own fitting counts.

  Returns:
    "updates" of the optimizer; "tokens_trained", positions that went forward
    and backward, padding and PPO's epochs included; "tokens_sampled", real
    ones, from the mean length of the evaluations' completions; "labels",
    different pairs labelled, or completions judged; "seconds" of the steps,
    evaluations and checkpoints left out.
  """
  method, num_steps = settings["method"], settings["num_steps"]
  updates = num_steps * updates_per_step(settings)
  trained = history[-1]["tokens"] * (settings["epochs"] or 1)
  drawn = 0
  if draws(settings):
    drawn = settings["batch_size"] * job.config.rollout.samples_per_prompt
  steps, lengths = ([e[k] for e in history] for k in ("step", "length_mean"))
  sampled = drawn * float(np.trapezoid(lengths, steps))
  if job.config.rollout.source == "reference":  # Drawn once, at its lengths.
    samples = job.config.rollout.samples_per_prompt
    sampled = len(start.pairs["train"]) * samples * lengths[0]
  labels = len(start.pairs["train"])
  seconds = _step_seconds(job.workdir, method) * num_steps
  if job.config.reward == "judge" and method in ONLINE:
    labels = drawn * num_steps
  elif job.config.reward == "model":
    fitted = job.config.reward_model
    length = job.tokens.prompt_length + 2 * job.tokens.completion_length
    updates += fitted.num_steps
    trained += fitted.num_steps * fitted.batch_size * length
    path = start.job.workdir
    seconds += _step_seconds(path, _REWARD_MODEL) * fitted.num_steps
  return {
    "updates": updates,
    "tokens_trained": trained,
    "tokens_sampled": sampled,
    "labels": labels,
    "seconds": seconds,
  }


def _step_seconds(workdir: pathlib.Path, stage: str) -> float:
  """Returns a stage's mean seconds a step, from its logged rows."""
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [r for r in map(json.loads, lines) if r["stage"] == stage]
  parts = speed.summarise(rows)[stage]["seconds"]
  return sum(s for p, s in parts.items() if p not in timing.BETWEEN)
