# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Rewards from a user's Python function: found by name, called, checked.

    def reward(prompts: list, completions: list[str]) -> list[float]

Prompts are texts, or lists of messages where the data has those; completions
are texts without special tokens' names. One call serves a whole batch.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RewardFunction = Callable[[list[Any], list[str]], Sequence[float]]

# Characters of a prompt or completion that an error shows.
_SHOWN = 80


def load(name: str) -> RewardFunction:
  """Returns the function called "module:function".

  Raises:
    ValueError: if the name is none, the module can't be imported, or holds no
      such function.
  """
  module_name, colon, function_name = name.partition(":")
  if not (module_name and colon and function_name):
    raise ValueError(f"reward: expected module:function, got {name!r}")
  try:
    module = importlib.import_module(module_name)
  except Exception as error:
    raise ValueError(
      f"reward: expected a module that imports, {module_name!r} raised "
      f"{type(error).__name__}: {error}"
    ) from error
  function = getattr(module, function_name, None)
  if not callable(function):
    place = getattr(module, "__file__", "built in")
    raise ValueError(
      f"reward: expected a function {function_name!r} in {module_name!r} "
      f"({place}), found {type(function).__name__}"
    )
  return function


def call(
  function: RewardFunction,
  prompts: Sequence[Any],
  completions: Sequence[str],
  *,
  retries: int = 0,
) -> np.ndarray:
  """Calls a reward function and checks what it returns.

  Args:
    function: (prompts, completions) -> floats, all of one length.
    prompts: N.
    completions: N.
    retries: calls after a failed one (it raised, or returned what is no N
      finite floats) before the failure is fatal.

  Returns:
    float32 [N].

  Raises:
    ValueError: when every call failed, with what came back. The first row that
      fails by itself is named with its texts, and with its own failure where
      that is another; it is found with about log2(N) further calls.
  """
  prompts, completions = list(prompts), list(completions)
  for _ in range(retries + 1):
    try:
      return _checked(function, prompts, completions)
    except Exception as error:
      failure = error
  row = _failing_row(function, prompts, completions)
  where = "and no row fails by itself"
  if row is not None:
    where = (
      f"in row {row} (prompt {_shown(prompts[row])}, completion "
      f"{_shown(completions[row])})"
    )
    try:
      _checked(function, prompts[row : row + 1], completions[row : row + 1])
    except Exception as error:
      if _described(error) != _described(failure):
        where = f"and {_described(error)} asked alone, {where}"
  name = getattr(function, "__name__", repr(function))
  calls = f"{retries + 1} call{'s' if retries else ''}"
  raise ValueError(
    f"reward function {name}: expected {len(prompts)} finite floats, after "
    f"{calls} got {_described(failure)}, {where}"
  ) from failure


def _checked(function, prompts, completions) -> np.ndarray:
  # Copies, so that a function which changes its lists changes nothing here.
  rewards = function(list(prompts), list(completions))
  try:
    rewards = np.asarray(rewards, np.float32)
  except (TypeError, ValueError) as error:
    raise _BadRewardsError(f"what is no array of floats ({error})") from error
  if rewards.shape != (len(prompts),):
    raise _BadRewardsError(f"shape {rewards.shape}")
  if len(bad := np.flatnonzero(~np.isfinite(rewards))):
    raise _BadRewardsError(f"{rewards[bad[0]]}")
  return rewards


class _BadRewardsError(Exception):
  """What a function returned; the message says what it is."""


def _failing_row(function, prompts, completions) -> int | None:
  """Returns a row that fails by itself, halving what must hold one."""

  def fails(low: int, high: int) -> bool:
    try:
      _checked(function, prompts[low:high], completions[low:high])
    except Exception:
      return True
    return False

  low, high = 0, len(prompts)
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if fails(low, middle) else (middle, high)
  return low if prompts and fails(low, high) else None


def _described(failure: Exception) -> str:
  if isinstance(failure, _BadRewardsError):
    return str(failure)
  return f"{type(failure).__name__}: {failure}"


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
