# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One method trained in the embedded world, measured on validation prompts.

What tuning and comparing estimators have in common. A seed's fine-tuning and
pairs are made once, by the job's own functions, and kept; a trial leaves its
history as a file, so that a stopped benchmark goes on where it was.
"""

import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from configs import hypo
from hypo_jax import timing, train
from hypo_jax.checkpoint import json_values, write_json
from hypo_jax.job import (
  batches,
  methods,
  pairs,
  results,
  setup,
  steps,
  training,
)

ROOT = pathlib.Path(__file__).parents[1]
# A trial ends early when it has fallen this far below its best win rate. In ten
# whole runs of DPO none came back within 0.19 of its best after such a fall.
_FALLEN = 0.15


class World:
  """A seed's start: reference policy, pairs, and what they are measured on.

  Args:
    seed: of everything.
    folder: where fine-tuning, pairs and histories are kept.
    changes: of the default's configuration, by dotted key.
    reference: parameters of the reference policy, where another world of the
      seed has fine-tuned it.
  """

  def __init__(
    self,
    seed: int,
    folder: pathlib.Path,
    changes: dict[str, Any],
    reference: Any = None,
  ):
    config = hypo.get_config()
    config.update_from_flattened_dict(changes | {"seed": seed})
    self.folder = folder
    folder.mkdir(parents=True, exist_ok=True)
    self.job = setup.set_up(config, folder)
    if reference is None:
      reference = training.fine_tune(self.job)
    self.reference = reference
    made = pairs.get_pairs(self.job, self.reference)
    self.tables = pairs.score_reference(self.job, self.reference, made)
    self.evaluator, self.split = results.make_evaluator(
      self.job, self.reference, self.tables, "validation"
    )

  def trial(
    self, name: str, overrides: dict[str, Any], *, baseline: bool = True
  ) -> list[dict[str, Any]]:
    """Trains from the reference; returns the history, one entry a measurement.

    Args:
      name: of the file that keeps the history.
      overrides: of the config's `preference`.
      baseline: as of `measurements`.
    """
    path = self.folder / "trials" / f"{name}.json"
    if path.exists():
      return json.loads(path.read_text())
    history: list[dict[str, Any]] = []
    for entry in self.measurements(overrides, baseline=baseline):
      history.append(entry)
      if best(history)["win_rate"] - entry["win_rate"] > _FALLEN:
        break
    path.parent.mkdir(exist_ok=True)
    write_json(path, json_values(history))
    print(f"{name}: {describe(history)}", flush=True)
    return history

  def measurements(
    self, overrides: dict[str, Any], *, baseline: bool = True
  ) -> Iterator[dict[str, Any]]:
    """Trains from the reference; yields each measurement when it is made.

    Args:
      overrides: of the config's `preference`.
      baseline: as of `states`.
    """
    num_steps = self.settings(overrides)["num_steps"]
    due = training.evaluation_steps(self.job, num_steps)
    key = self.job.key("evaluate", "validation")
    for step, state in enumerate(self.states(overrides, baseline=baseline)):
      if step in due:
        yield {"step": step} | self._measured(state.trainable, key)

  def states(
    self, overrides: dict[str, Any], *, baseline: bool = True
  ) -> Iterator[train.TrainState]:
    """Trains from the reference; yields the state after 0, 1, ... updates.

    A state's arrays are gone once the next one is asked for.

    Args:
      overrides: of the config's `preference`.
      baseline: False takes a prompt's rollouts as unrelated, so that none of
        them serves as the others' baseline.
    """
    job, settings = self.job, self.settings(overrides)
    optimizer = steps.make_optimizer(settings)
    step_fn = steps.make_train_step(
      job, settings, optimizer, baseline_over=None if baseline else 1
    )
    stage = batches.of_pairs(job, settings, self.tables["train"])
    update = steps.make_update(job, settings, step_fn, self.reference, stage)
    state = train.init_state(self.reference, optimizer, job.mesh)
    timer = timing.StepTimer()
    yield state
    for step in range(settings["num_steps"]):
      state, _ = update(state, step, timer)
      yield state

  def _measured(self, params: Any, key: Any) -> dict[str, Any]:
    """What an evaluation of a job measures, but for the training prompts."""
    evaluator, split = self.evaluator, self.split
    samples = evaluator.sample(params, split.prompt_rows, key)
    judged = evaluator.judged(split.prompts, samples)
    return evaluator.describe(params, split, samples, judged)

  def settings(self, overrides: dict[str, Any]) -> dict[str, Any]:
    """Returns the config's `preference` with overrides, resolved."""
    config = self.job.config
    every = config.preference.to_dict() | config.online.to_dict()
    return methods.resolved(every | overrides)


def run(
  name: str,
  seeds: Sequence[str],
  samples_per_prompt: int,
  trials: dict[str, dict[str, Any]],
) -> dict[str, list[list[dict[str, Any]]]]:
  """Runs trials on every seed; returns their histories, one a seed, by name.

  Args:
    name: of the benchmark; its files lie in runs/<name>/<seed>.
    seeds: numbers, as flags give them.
    samples_per_prompt: rollouts a prompt.
    trials: by name, the arguments of `World.trial`.
  """
  logging.set_verbosity(logging.WARNING)  # Orbax tells every save.
  histories: dict[str, list[list[dict[str, Any]]]] = {t: [] for t in trials}
  for seed in seeds:
    world = World(
      int(seed),
      ROOT / "runs" / name / seed,
      {"rollout.samples_per_prompt": samples_per_prompt},
    )
    for trial, arguments in trials.items():
      histories[trial].append(
        world.trial(trial.replace(", ", "_"), **arguments)
      )
  return histories


def publish(name: str, seeds: Sequence[str], text: str) -> None:
  """Prints a page; with several seeds it goes to docs/results/<name>.md too."""
  if len(seeds) > 1:
    _page(name).write_text(text)
  print(text)


def publish_section(name: str, section: str) -> None:
  """Prints a section; puts it into docs/results/<name>.md, over its like.

  Args:
    name: of the page, which exists.
    section: begins with its heading, "## ..."; one of the same heading gives
      way to it.
  """
  path = _page(name)
  path.write_text(with_section(path.read_text(), section))
  print(section)


def with_section(page: str, section: str) -> str:
  """Returns a page with a section in place of its like, or at the end."""
  heading = section.split("\n")[0]
  parts = [part.strip() for part in re.split(r"^(?=## )", page, flags=re.M)]
  places = [i for i, p in enumerate(parts) if p.split("\n")[0] == heading]
  at = places[0] if places else len(parts)
  parts[at : at + 1] = [section.strip()]
  return "\n\n".join(filter(None, parts)) + "\n"


def _page(name: str) -> pathlib.Path:
  path = ROOT / "docs" / "results" / f"{name}.md"
  path.parent.mkdir(parents=True, exist_ok=True)
  return path


def best(history: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns the measurement with the highest win rate."""
  return max(history, key=lambda entry: entry["win_rate"])


def describe(history: list[dict[str, Any]]) -> str:
  """Returns best and last measurement in a line."""
  return "; ".join(
    f"{word} step {e['step']}: win rate {e['win_rate']:.3f}, KL "
    f"{e['kl_rao_blackwell']:.2f}, invalid {e['invalid_rate']:.1%}"
    for word, e in (("best", best(history)), ("last", history[-1]))
  )


def values(entries: list[dict[str, Any]], field: str, form: str) -> str:
  """Returns a field of several measurements, formatted, for a table's cell."""
  return ", ".join(f"{entry[field]:{form}}" for entry in entries)
