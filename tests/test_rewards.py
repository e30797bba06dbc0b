# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A user's reward function: found by name, its failures named by row."""

import math

import numpy as np
import pytest

from hypo_jax import rewards

PROMPTS = [f"prompt {i}" for i in range(7)]
COMPLETIONS = ["a" * i for i in range(7)]


def length(prompts, completions):
  return [len(c) / 10 for c in completions]


def broken_at(row, how):
  """Fails whenever it is asked about one row, wherever that stands."""

  def function(prompts, completions):
    values = length(prompts, completions)
    if f"prompt {row}" in prompts:
      return how(values, prompts.index(f"prompt {row}"))
    return values

  return function


def raises(values, at):
  raise ZeroDivisionError("division by zero")


def not_a_number(values, at):
  return [math.nan if i == at else v for i, v in enumerate(values)]


def no_float(values, at):
  return ["good" if i == at else v for i, v in enumerate(values)]


def one_too_few(values, at):
  return values[:at] + values[at + 1 :]


def test_rewards_come_in_the_order_of_the_rows():
  found = rewards.call(length, PROMPTS, COMPLETIONS)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, np.arange(7) / 10)


@pytest.mark.parametrize("row", [0, 3, 6])
@pytest.mark.parametrize(
  ("how", "what"),
  [
    (raises, "ZeroDivisionError: division by zero"),
    (not_a_number, "nan"),
    (no_float, "what is no array of floats"),
    (one_too_few, r"shape \(6,\), and shape \(0,\)"),
  ],
)
def test_a_failure_names_its_row(how, what, row):
  message = f"7 finite floats, after 1 call got {what}.*, in row {row} "
  with pytest.raises(ValueError, match=message) as caught:
    rewards.call(broken_at(row, how), PROMPTS, COMPLETIONS)
  assert f"'prompt {row}'" in str(caught.value)


def test_a_batch_that_fails_only_as_a_whole_is_said_to():
  def function(prompts, completions):
    if len(prompts) > 4:
      raise MemoryError("too many")
    return length(prompts, completions)

  with pytest.raises(ValueError, match="too many, and no row fails by itself"):
    rewards.call(function, PROMPTS, COMPLETIONS)


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_as_many_failures_as_retries_are_forgiven(failures):
  left = [failures]

  def function(prompts, completions):
    if left[0]:
      left[0] -= 1
      raise TimeoutError("no answer")
    return length(prompts, completions)

  if failures <= 2:
    found = rewards.call(function, PROMPTS, COMPLETIONS, retries=2)
    np.testing.assert_allclose(found, np.arange(7) / 10)
  else:
    with pytest.raises(ValueError, match="after 3 calls got TimeoutError"):
      rewards.call(function, PROMPTS, COMPLETIONS, retries=2)


def test_a_function_cannot_change_the_batch():
  def function(prompts, completions):
    prompts.clear()
    return length(prompts, completions)

  prompts = list(PROMPTS)
  rewards.call(function, prompts, COMPLETIONS)
  assert prompts == PROMPTS


def test_long_texts_are_shortened():
  with pytest.raises(ValueError) as caught:
    rewards.call(broken_at(0, raises), ["prompt 0"], ["x" * 5000])
  assert len(str(caught.value)) < 400


def test_a_function_is_found_by_name():
  assert rewards.load("statistics:fmean")([1.0, 2.0]) == 1.5


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("math.sqrt", "reward: expected module:function, got 'math.sqrt'"),
    (":f", "reward: expected module:function"),
    ("no_such_module_here:f", "raised ModuleNotFoundError"),
    ("sys:nope", "expected a function 'nope' in 'sys'"),
    ("statistics:no_such", "expected a function 'no_such' in 'statistics'"),
  ],
)
def test_a_wrong_name_is_refused(name, message):
  with pytest.raises(ValueError, match=message):
    rewards.load(name)
