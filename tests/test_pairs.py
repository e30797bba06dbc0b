# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The reference's log-probs of the pairs that a job trains on."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from configs import hypo
from hypo_jax import models
from hypo_jax.data import pipeline
from hypo_jax.job import pairs, setup

ROWS = 50
BASE = {"w": jnp.arange(3.0)}


def fake_job(folder, *sizes_and_steps):
  """A job whose reference says minus the row's number of each pair."""

  def scorer(reference, table):
    return np.stack([-table["number"], -table["number"]], axis=1)

  def as_arrays(records):
    number = np.array([record["number"] for record in records])
    return {"number": number, "pair_mask": np.ones(len(number), bool)}, None

  data = types.SimpleNamespace(reference_cache="")
  return types.SimpleNamespace(
    config=types.SimpleNamespace(seed=3, data=data),
    model=types.SimpleNamespace(config="two layers"),
    workdir=folder,
    leader=True,
    methods={
      str(i): {"batch_size": size, "num_steps": steps}
      for i, (size, steps) in enumerate(sizes_and_steps)
    },
    tokens=types.SimpleNamespace(
      pairs=as_arrays,
      tokenizer=types.SimpleNamespace(fingerprint=lambda: "words"),
      prompt_length=4,
      completion_length=5,
    ),
    pair_scorer=scorer,
    barrier=lambda name: None,
    say=lambda text: None,
  )


def make_records(count):
  text = {"prompt": "p", "chosen": "c", "rejected": "r"}
  return [text | {"number": i} for i in range(count)]


def batch_rows(size, steps):
  batch_at = pipeline.make_batches(
    {"x": np.zeros(ROWS)}, batch_size=size, seed=3, stage="preference"
  )
  return {row for step in range(steps) for row in batch_at(step)["row"]}


@pytest.mark.parametrize("trials", [[(4, 3)], [(4, 3), (8, 2)], [(8, 7)]])
def test_every_pair_that_training_comes_to_is_scored_and_no_other(
  tmp_path, trials
):
  records = {
    "train": make_records(ROWS),
    "test": make_records(7),
  }
  tables = pairs.score_reference(fake_job(tmp_path, *trials), BASE, records)
  for name in ("ref_chosen_log_probs", "ref_rejected_log_probs"):
    np.testing.assert_array_equal(tables["test"][name], -np.arange(7))
    scored = np.flatnonzero(~np.isnan(tables["train"][name]))
    np.testing.assert_array_equal(tables["train"][name][scored], -scored)
    visited = set().union(*(batch_rows(*trial) for trial in trials))
    if all(size * steps < ROWS for size, steps in trials):
      assert set(scored) == visited
    else:
      assert len(scored) == ROWS


class Counted:
  """A job's scorer that counts the pairs it is asked for."""

  def __init__(self, job):
    self.rows = 0
    self.said = []
    scorer = job.pair_scorer

    def counting(reference, table):
      self.rows += len(table["number"])
      return scorer(reference, table)

    job.pair_scorer = counting
    job.say = self.said.append


def score(folder, trials=((4, 3),), base=BASE, change=None, cache=""):
  """Returns the tables, and what was scored and said."""
  job = fake_job(folder, *trials)
  job.config.data.reference_cache = cache
  records = {"train": make_records(ROWS), "test": make_records(7)}
  if change:
    change(job, records)
  counted = Counted(job)
  return pairs.score_reference(job, base, records), counted


def test_demand_12_a_second_run_reuses_what_the_first_scored(tmp_path):
  cache = str(tmp_path / "shared")
  first, counted = score(tmp_path / "a", cache=cache)
  assert counted.rows == 12 + 7
  again, counted = score(tmp_path / "b", cache=cache)
  assert counted.rows == 0 and not any("again" in s for s in counted.said)
  for split, table in first.items():
    for name in ("ref_chosen_log_probs", "ref_rejected_log_probs"):
      got = again[split][name]
      assert isinstance(got.base, np.memmap) or isinstance(got, np.memmap)
      assert got.tobytes() == np.asarray(table[name]).tobytes()


def test_demand_12_a_longer_run_scores_only_what_is_new(tmp_path):
  score(tmp_path)
  tables, counted = score(tmp_path, trials=((4, 5),))
  new = batch_rows(4, 5) - batch_rows(4, 3)
  assert counted.rows == len(new)
  scored = np.flatnonzero(~np.isnan(tables["train"]["ref_chosen_log_probs"]))
  assert set(scored) == batch_rows(4, 5)


def other_tokenizer(job, records):
  job.tokens.tokenizer.fingerprint = lambda: "bytes"


def other_data(job, records):
  records["test"][0] = records["test"][0] | {"chosen": "d"}


def other_lengths(job, records):
  job.tokens.completion_length = 6


def other_precision(job, records):
  job.model.config = "two layers in bfloat16"


def other_tokens(job, records):
  records["test"][0] = records["test"][0] | {"number": 99}


@pytest.mark.parametrize(
  "change, reason",
  [
    (other_tokenizer, "the tokenizer"),
    (other_data, "the data"),
    (other_lengths, "prompt_length or completion_length"),
    (other_precision, "the model"),
    (other_tokens, "the way text becomes tokens"),
  ],
)
def test_demand_12_says_what_differs_when_it_computes_again(
  tmp_path, change, reason
):
  score(tmp_path)
  _, counted = score(tmp_path, change=change)
  assert counted.rows == 12 + 7
  (said,) = [s for s in counted.said if "computed again" in s]
  assert said.endswith(reason)
  # The first run's are still there.
  assert score(tmp_path)[1].rows == 0


def test_demand_12_another_weight_is_another_model(tmp_path):
  score(tmp_path)
  _, counted = score(tmp_path, base={"w": BASE["w"].at[1].add(1e-6)})
  assert counted.rows == 12 + 7
  assert any(s.endswith("the model") for s in counted.said)


def test_what_a_kill_leaves_of_the_cache_is_not_read(tmp_path):
  score(tmp_path)
  folder = tmp_path / "data" / "reference_log_probs"
  (entry,) = folder.iterdir()
  # Killed between the entry and its arrays, and while writing one.
  for path in entry.glob("*.npy"):
    path.rename(path.with_name("train.1.aside"))
  (folder / "aside.1").mkdir()
  tables, counted = score(tmp_path)
  assert counted.rows == 12 + 7
  np.testing.assert_array_equal(
    tables["test"]["ref_chosen_log_probs"], -np.arange(7)
  )


@pytest.mark.parametrize("limit, length", [(0, 5), (5, 5), (3, 3), (9, 9)])
def test_demand_21_rollouts_are_as_long_as_completions_or_warned_about(
  tmp_path, limit, length
):
  config = hypo.get_config()
  config.rollout.max_new_tokens = limit
  tokens = types.SimpleNamespace(completion_length=5)
  names = [field.name for field in dataclasses.fields(setup.Job)]
  job = setup.Job(**dict.fromkeys(names) | {"config": config, "tokens": tokens})
  assert job.max_new_tokens == length
  assert len(job.warnings) == (length != 5)
  for warning in job.warnings:
    assert f"rollout.max_new_tokens is {length}" in warning
    assert "data.completion_length 5" in warning


def test_numbers_of_another_model_are_warned_about():
  """A configuration that describes one model, with the path of another."""
  config = hypo.get_config()
  sizes = {"vocab_size": 50, "max_position_embeddings": 64}
  config.model.architecture.update(sizes)
  names = [field.name for field in dataclasses.fields(setup.Job)]
  job = setup.Job(
    **dict.fromkeys(names)
    | {
      "config": config,
      "tokens": types.SimpleNamespace(completion_length=28),
      "model": models.Model(setup.architecture(config)),
    }
  )
  assert job.warnings == ()
  config.model.architecture.num_hidden_layers = 3
  (warning,) = job.warnings
  assert "num_layers 3, not 2" in warning
