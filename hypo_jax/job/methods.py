# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Which settings a method has, their defaults, and what is refused."""

import difflib
import math
from functools import partial
from typing import Any

from hypo_jax import losses, train
from hypo_jax.objective import METHODS

# Settings of `config.online` by method, with their defaults. PPO's are those of
# the summarize-from-feedback recipe (Huang et al. 2024, arXiv 2403.17031) but
# for two. The temperature is 0.7 there: at 1 the penalised KL is the policies'
# own. A completion without EOS has reward -1 there, for whatever its own was:
# where rewards go below -1, that would pay for not ending. (Its AdamW has eps
# 1e-5; here that is `preference.adam_eps`, 1e-8 unless set.)
DEFAULTS: dict[str, dict[str, Any]] = {
  "ppo": {
    "epochs": 4,
    "num_minibatches": 1,
    "clip_range": 0.2,
    "value_clip_range": 0.2,
    "value_coef": 0.1,
    "gae_lambda": 0.95,
    "discount": 1.0,
    "whiten_rewards": False,
    "whiten_advantages": True,
    "temperature": 1.0,
    "no_eos_reward": None,
  },
  "rloo": {"no_eos_reward": None},
  # Shao et al. 2024 (arXiv 2402.03300).
  "grpo": {
    "scale_by_std": True,
    "scale_by_length": True,
    "no_eos_reward": None,
  },
  "online_dpo": {"no_eos_reward": None},
}
ONLINE = tuple(DEFAULTS)
# Of `config.preference`, what these have no use for, and what says so.
_UNUSED = {
  "sft_coef": 0.0,
  "offline_kl_coef": 0.0,
  "max_margin": None,
  "target_margin": None,
}
_NO_PAIRS = {"label_smoothing": 0.0} | _UNUSED

_AT_LEAST_0 = "a number >= 0", lambda x: 0 <= x < math.inf
_ABOVE_0 = "a number > 0", lambda x: 0 < x < math.inf
_AT_MOST_1 = "a number in [0, 1]", lambda x: 0 <= x <= 1
_BELOW_HALF = "a number in [0, 0.5)", lambda x: 0 <= x < 0.5
_COUNT = "at least 1", lambda x: x >= 1
# By section of the config. Steps refuse the same, but late.
_RANGES = {
  "preference": {
    "learning_rate": _ABOVE_0,
    "beta": _ABOVE_0,
    "kl_coef": _AT_LEAST_0,
    "sft_coef": _AT_LEAST_0,
    "offline_kl_coef": _AT_LEAST_0,
    "label_smoothing": _BELOW_HALF,
    "max_margin": _ABOVE_0,
    "num_steps": _COUNT,
    "warmup_steps": _AT_LEAST_0,
    "max_grad_norm": _ABOVE_0,
    "weight_decay": _AT_LEAST_0,
    "adam_eps": _ABOVE_0,
    "kl_gain": ("a number in (0, 5)", lambda x: 0 < x < 5),
    "target_margin": _AT_LEAST_0,
  },
  "online": {
    "epochs": _COUNT,
    "clip_range": _ABOVE_0,
    "value_clip_range": _ABOVE_0,
    "value_coef": _AT_LEAST_0,
    "gae_lambda": _AT_MOST_1,
    "discount": _AT_MOST_1,
    "temperature": _ABOVE_0,
    "no_eos_reward": ("a finite number", math.isfinite),
  },
}


def of_config(config: Any) -> dict[str, dict[str, Any]]:
  """Returns the settings of each method, the config's own last.

  A baseline has the main method's settings, those left out that it has no use
  for and does not name itself.

  Raises:
    ValueError: for a setting that a method does not have, or that nobody has.
  """
  main = config.preference.to_dict() | config.online.to_dict()
  every = {}
  for name, overrides in config.baselines.items():
    own = overrides.to_dict() | {"method": name}
    for key in own.keys() - main.keys():
      near = difflib.get_close_matches(key, main, n=1) or sorted(main)
      raise ValueError(
        f"baselines.{name}.{key}: expected a key of preference or online, as "
        f"{near[0]}; there is none of this name"
      )
    every[name] = main | _foreign(main | own) | own
  every |= {main["method"]: main}
  return {name: resolved(settings) for name, settings in every.items()}


def replaced_baseline(config: Any) -> str | None:
  """Says where the main method stands among the baselines as something else."""
  main, name = config.preference.to_dict(), config.preference.method
  own = config.baselines.get(name, {})
  main |= config.online.to_dict()
  differs = [
    f"{key} {main.get(key)} for {value}"
    for key, value in own.items()
    if main.get(key) != value
  ]
  if not differs:
    return None
  return (
    f"preference.method {name!r} takes the place of baselines.{name}, with "
    f"preference's settings: {', '.join(differs)}"
  )


def _foreign(settings: dict[str, Any]) -> dict[str, Any]:
  """Returns what a method has no use for, with the values that say so."""
  method = settings["method"]
  takers = {
    "label_smoothing": ("dpo", "robust_dpo", "hypo", "online_dpo"),
    "max_margin": ("chi_po",),
    "target_margin": ("simpo",),
  }
  names = {n for defaults in DEFAULTS.values() for n in defaults}
  found = dict.fromkeys(names - set(DEFAULTS.get(method, {})))
  found |= {n: _NO_PAIRS[n] for n in takers if method not in takers[n]}
  found |= _unused(method)
  if (settings | found)["kl_coef"]:
    found |= {"offline_kl_coef": 0.0}
  else:
    found |= {"kl_target": None}
  if (settings | found)["kl_target"] is None:
    found |= {"kl_gain": None}
  return found


def _unused(method: str) -> dict[str, Any]:
  """Returns what of `config.preference` a method of rewards has no use for."""
  if method == "online_dpo":
    return _UNUSED | {"kl_coef": 0.0}
  return _NO_PAIRS if method in ONLINE else {}


def resolved(settings: dict[str, Any]) -> dict[str, Any]:
  """Returns a method's settings, its own defaults in place of None.

  Args:
    settings: `config.preference` and `config.online` in one, with the method's
      overrides.

  Raises:
    ValueError: for a setting that the method does not have.
  """
  method = settings["method"]
  if method not in (*METHODS, *ONLINE):
    raise ValueError(
      f"preference.method: expected one of {', '.join((*METHODS, *ONLINE))}, "
      f"got {method!r}"
    )
  own = DEFAULTS.get(method, {})
  for name in {n for defaults in DEFAULTS.values() for n in defaults}:
    if name not in own and settings[name] is not None:
      takers = [m for m, defaults in DEFAULTS.items() if name in defaults]
      raise ValueError(
        f"online.{name}: expected no value for {method!r}, it is a setting of "
        f"{', '.join(takers)}, got {settings[name]}"
      )
  _check_preference(settings)
  chosen = {n: v for n, v in settings.items() if n in own and v is not None}
  found = settings | own | chosen
  for section, ranges in _RANGES.items():
    for name, (expected, within) in ranges.items():
      if found[name] is not None and not within(found[name]):
        raise ValueError(
          f"{section}.{name}: expected {expected} for {method!r}, got "
          f"{found[name]}"
        )
  return found


def _check_preference(settings: dict[str, Any]) -> None:
  method, kl_coef = settings["method"], settings["kl_coef"]
  for name, nothing in _unused(method).items():
    if settings[name] != nothing:
      raise ValueError(
        f"preference.{name}: expected {nothing} for {method!r}, got "
        f"{settings[name]}"
      )
  target = settings["kl_target"]
  if target is not None and not (0 < target < math.inf and kl_coef > 0):
    raise ValueError(
      "preference.kl_target: expected a number > 0 and a kl_coef > 0 to begin "
      f"with, got {target} and kl_coef {kl_coef} for {method!r}"
    )
  if target is None and settings["kl_gain"] is not None:
    raise ValueError(
      f"preference.kl_gain: expected no value without a kl_target, got "
      f"{settings['kl_gain']} for {method!r}"
    )


def initial_kl_coef(settings: dict[str, Any]) -> float | None:
  """Returns the KL's first weight where it adapts to a target, else None."""
  return None if settings["kl_target"] is None else settings["kl_coef"]


def kl_controller(settings: dict[str, Any]) -> train.KLController | None:
  """Returns what moves the KL's weight where it adapts to a target, or None."""
  target, gain = settings["kl_target"], settings["kl_gain"]
  if target is None:
    return None
  own = {} if gain is None else {"gain": gain}
  return partial(losses.adapted_kl_coef, target=target, **own)


def draws(settings: dict[str, Any]) -> bool:
  """Whether a method takes rollouts."""
  return bool(settings["kl_coef"]) or settings["method"] in ONLINE


def draw_every(config: Any, settings: dict[str, Any]) -> int:
  """Returns the updates that share one draw of rollouts; 1 without any."""
  return config.rollout.every_steps if settings["kl_coef"] else 1


def reads_reference(settings: dict[str, Any]) -> bool:
  """Whether a method's step scores with the reference policy's parameters."""
  return draws(settings) or bool(settings["offline_kl_coef"])


def updates_per_step(settings: dict[str, Any]) -> int:
  """Returns the optimizer's updates in one step of the method."""
  if settings["method"] != "ppo":
    return 1
  return settings["epochs"] * settings["num_minibatches"]


def check_job(config: Any, methods: dict[str, dict[str, Any]]) -> None:
  """Refuses what the methods of a job can't do with its other settings.

  Args:
    config: the job's.
    methods: resolved settings by method.

  Raises:
    ValueError: naming the setting.
  """
  learners = [m for m, s in methods.items() if s["method"] in ONLINE]
  if bool(learners) != bool(config.reward):
    expected = "judge, model or module:function" if learners else "no value"
    who = ", ".join(learners) or "methods that learn from no rewards"
    raise ValueError(
      f"reward: expected {expected} for {who}, got {config.reward!r}"
    )
  if config.reward_retries < 0:
    raise ValueError(
      f"reward_retries: expected at least 0, got {config.reward_retries}"
    )
  _check_rollouts(config.rollout, methods, learners)
  for settings in methods.values():
    if settings["method"] == "ppo":
      _check_minibatches(settings)


def _check_rollouts(
  rollout: Any, methods: dict[str, dict[str, Any]], learners: list[str]
) -> None:
  every, source = rollout.every_steps, rollout.source
  if every < 1:
    raise ValueError(f"rollout.every_steps: expected at least 1, got {every}")
  if learners and every != 1:
    raise ValueError(
      f"rollout.every_steps: expected 1 for {', '.join(learners)}, which learn "
      f"from what they drew themselves, got {every}"
    )
  for name, settings in methods.items():
    if settings["kl_target"] is not None and every != 1:
      raise ValueError(
        f"rollout.every_steps: expected 1 for {name}, whose kl_coef adapts to "
        f"the KL of the policy as it is, got {every}"
      )
    estimates = settings["kl_coef"] and settings["method"] not in ONLINE
    alone = estimates and rollout.samples_per_prompt < 2
    if alone and settings["estimator"] == "leave_one_out":
      raise ValueError(
        "rollout.samples_per_prompt: expected at least 2 for "
        f"preference.estimator 'leave_one_out' of {name}, where a prompt's "
        "other samples are the baseline, got "
        f"{rollout.samples_per_prompt}"
      )
  if source not in ("policy", "reference"):
    raise ValueError(
      f"rollout.source: expected 'policy' or 'reference', got {source!r}"
    )
  most = rollout.max_importance_weight
  if source == "policy":
    if most is not None:
      raise ValueError(
        "rollout.max_importance_weight: expected no value with rollout.source "
        f"'policy', whose rollouts have no weights, got {most}"
      )
    return
  if most is None or not most > 0:
    raise ValueError(
      "rollout.max_importance_weight: expected a number > 0 with "
      f"rollout.source 'reference', got {most}"
    )
  _check_kept(every, methods, learners)


def _check_kept(
  every: int, methods: dict[str, dict[str, Any]], learners: list[str]
) -> None:
  """Refuses what rollouts of the reference, drawn once, can't serve."""
  if every != 1:
    raise ValueError(
      "rollout.every_steps: expected 1 with rollout.source 'reference', whose "
      f"rollouts are never refreshed, got {every}"
    )
  if learners:
    raise ValueError(
      f"rollout.source: expected 'policy' for {', '.join(learners)}, which "
      "learn from what they drew themselves, got 'reference'"
    )
  for name, settings in methods.items():
    if settings["kl_target"] is not None:
      raise ValueError(
        "preference.kl_target: expected no value with rollout.source "
        "'reference', whose rollouts don't tell the policy's KL, got "
        f"{settings['kl_target']} for {name}"
      )


def _check_minibatches(settings: dict[str, Any]) -> None:
  parts, size = settings["num_minibatches"], settings["batch_size"]
  if parts < 1 or size % parts:
    raise ValueError(
      f"online.num_minibatches: expected a divisor of preference.batch_size = "
      f"{size}, got {parts}"
    )
  micro = min(settings["micro_batch_size"], size // parts)
  if (size // parts) % micro:
    raise ValueError(
      f"preference.micro_batch_size: expected a divisor of a minibatch's "
      f"{size // parts} prompts, got {micro}"
    )
