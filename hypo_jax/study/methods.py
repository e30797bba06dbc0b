# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The methods of the study, and the nine settings that each is tuned over.

Every method has three learning rates (a third, one and three times its base)
by three values of one coefficient. Base rates and the middle values come from
docs/results/tuning.md for dpo, ipo, hinge and hypo; for the others they were
set by the scale of their losses, before any of them was run.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Keys of the configuration, with dots, and their values.
Settings = Mapping[str, Any]

RATE = "preference.learning_rate"
_FACTORS = (1 / 3, 1.0, 3.0)
_BETA, _KL_COEF = "preference.beta", "preference.kl_coef"


class Method(NamedTuple):
  """A method and its grid.

  Attributes:
    title: as tables name it.
    rate: the base learning rate.
    coefficient: the main coefficient's key.
    values: three of them.
    rest: what is the same in all nine settings.
  """

  title: str
  rate: float
  coefficient: str
  values: tuple[float, float, float]
  rest: Settings


def _offline(method: str, **rest: float) -> Settings:
  own = {f"preference.{name}": value for name, value in rest.items()}
  return {"preference.method": method, _KL_COEF: 0.0} | own


def _hypo(estimator: str, samples_per_prompt: int) -> Settings:
  return {
    "preference.method": "hypo",
    _BETA: 0.1,
    "preference.estimator": estimator,
    "rollout.samples_per_prompt": samples_per_prompt,
  }


def _online(
  reward: str, kl_coefs: tuple[float, float, float], title: str
) -> dict[str, Method]:
  """The methods that learn from rewards of their rollouts.

  Args:
    reward: "model" or "judge".
    kl_coefs: of those whose objective is reward - kl_coef KL.
    title: goes behind each method's own.
  """

  def rest(method: str, samples_per_prompt: int) -> Settings:
    return {
      "preference.method": method,
      "reward": reward,
      "rollout.samples_per_prompt": samples_per_prompt,
    }

  found = {
    method: Method(
      f"{method.upper()}{title}", rate, _KL_COEF, kl_coefs, rest(method, count)
    )
    for method, rate, count in (
      ("ppo", 3e-4, 2),
      ("rloo", 1e-3, 4),
      ("grpo", 1e-3, 4),
    )
  }
  found["online_dpo"] = Method(
    f"online DPO{title}",
    3e-4,
    _BETA,
    (0.15, 0.5, 1.5),
    rest("online_dpo", 4) | {_KL_COEF: 0.0},
  )
  return found


# A reward model's unit is a nat of preference, four times the judge's (labels
# have temperature 0.25), so coefficients of rewards are about four times, too.
METHODS = {
  "hypo": Method(
    "HyPO, Rao-Blackwell",
    1e-3,
    _KL_COEF,
    (0.0075, 0.015, 0.03),
    _hypo("rao_blackwell", 2),
  ),
  "hypo_sequence": Method(
    "HyPO, sequence",
    1e-3,
    _KL_COEF,
    (0.0075, 0.015, 0.03),
    _hypo("sequence", 1),
  ),
  "dpo": Method("DPO", 3e-4, _BETA, (0.15, 0.5, 1.5), _offline("dpo")),
  "ipo": Method("IPO", 3e-4, _BETA, (0.05, 0.15, 0.5), _offline("ipo")),
  "hinge": Method("hinge", 3e-4, _BETA, (0.15, 0.5, 1.5), _offline("hinge")),
  # The slope of phi(z) = z + log z is 2 at the reference, twice DPO's. Rewards
  # lie within 4 nats of preference either way, so no true margin beyond 8; the
  # source would clip at 16, where as little gradient is left.
  "chi_po": Method(
    "chi-PO",
    3e-4,
    _BETA,
    (0.075, 0.25, 0.75),
    _offline("chi_po", max_margin=8.0),
  ),
  "dpo_sft": Method(
    "DPO + SFT",
    3e-4,
    "preference.sft_coef",
    (0.3, 1.0, 3.0),
    _offline("dpo", beta=0.5),
  ),
  **_online("model", (0.1, 0.3, 1.0), ""),
  **{
    f"{name}_judge": method
    for name, method in _online(
      "judge", (0.03, 0.1, 0.3), ", exact judge"
    ).items()
  },
}
# Every method is held against this one.
MAIN = "hypo"
JUDGED = tuple(name for name in METHODS if name.endswith("_judge"))
# Of the main table: 512 labelled pairs are all that they learn from.
FROM_PAIRS = tuple(name for name in METHODS if name not in JUDGED)


def grid(name: str) -> dict[str, Settings]:
  """Returns a method's nine settings, by a name that can be a folder's."""
  method = METHODS[name]
  key = method.coefficient.split(".")[-1]
  return {
    f"{name}-rate-{method.rate * factor:.1e}-{key}-{value:g}": dict(method.rest)
    | {RATE: method.rate * factor, method.coefficient: value}
    for factor in _FACTORS
    for value in method.values
  }


def base(name: str) -> Settings:
  """Returns the settings in the middle of a method's grid."""
  return list(grid(name).values())[4]
