# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers as text, and which number of an entry is meant.

A value has as many decimals as its standard error deserves: one digit of the
error, two where that digit is 1 (0.685 ± 0.012, 0.84 ± 0.03). A column keeps
the decimals of its smallest error. What is missing or not finite is "n/a".
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

NOT_AVAILABLE = "n/a"
_NAMES = {
  "hypo": "HyPO",
  "dpo": "DPO",
  "ipo": "IPO",
  "chi_po": "chi-PO",
  "simpo": "SimPO",
  "robust_dpo": "robust DPO",
  "ppo": "PPO",
  "rloo": "RLOO",
  "grpo": "GRPO",
  "online_dpo": "online DPO",
}


def finite(value: Any) -> float | None:
  """Returns the value as a float, or None if it is no finite number."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  return float(value) if math.isfinite(value) else None


def places(errors: Iterable[Any]) -> int:
  """Returns the decimals that the smallest error deserves, from 1 to 4."""
  positive = [e for e in map(finite, errors) if e is not None and e > 0]
  if not positive:
    return 2
  # "1.2e-02": the error's first digit, and its power of ten.
  digits, power = f"{min(positive):.1e}".split("e")
  wanted = -int(power) + (digits[0] == "1")
  return min(max(wanted, 1), 4)


def number(value: Any, decimals: int, *, signed: bool = False) -> str:
  """Returns a value with a true minus sign, never "-0.00"."""
  value = finite(value)
  if value is None:
    return NOT_AVAILABLE
  text = f"{abs(value):,.{decimals}f}"
  if float(text.replace(",", "")) == 0:
    return text
  return ("−" if value < 0 else "+" if signed else "") + text


def with_error(
  value: Any, error: Any, decimals: int, *, signed: bool = False
) -> str:
  """Returns "0.71 ± 0.02", or the value alone where there is no error."""
  text = number(value, decimals, signed=signed)
  if text == NOT_AVAILABLE or finite(error) is None:
    return text
  return f"{text} ± {number(error, decimals)}"


def percent(value: Any) -> str:
  value = finite(value)
  if value is None:
    return NOT_AVAILABLE
  digits = 1 if 0 < value < 0.1 else 0
  return f"{100 * value:.{digits}f}%"


def whole(value: Any) -> str:
  value = finite(value)
  return NOT_AVAILABLE if value is None else f"{value:,.0f}"


def nats(kl: float) -> str:
  return f"{kl:g} nat" + ("" if kl == 1 else "s")


def duration(seconds: Any) -> str:
  """Returns "3.2 s", "4 min 5 s" or "1 h 2 min"."""
  seconds = finite(seconds)
  if seconds is None:
    return NOT_AVAILABLE
  if seconds < 59.95:
    return f"{seconds:.1f} s"
  minutes, left = divmod(round(seconds), 60)
  if minutes < 60:
    return f"{minutes} min {left} s"
  return f"{minutes // 60} h {minutes % 60} min"


def step_seconds(total: float, parts: Mapping[str, float]) -> str:
  """Returns "84 ms a step (rollout 40, train 43)".

  Args:
    total: seconds of a step.
    parts: seconds of its parts; those below a hundredth of it are left out.
  """
  unit, scale = ("s", 1.0) if total >= 1 else ("ms", 1e3)

  def short(seconds: float) -> str:
    value = scale * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

  shown = [
    f"{name} {short(seconds)}"
    for name, seconds in parts.items()
    if seconds >= 0.01 * total
  ]
  text = f"{short(total)} {unit} a step"
  return f"{text} ({', '.join(shown)})" if shown else text


def size(num_bytes: float) -> str:
  """Returns "310 MiB" or "1.2 GiB"."""
  mebibytes = num_bytes / 2**20
  if mebibytes < 1000:
    return f"{mebibytes:.0f} MiB"
  return f"{mebibytes / 1024:.1f} GiB"


def policy_name(name: str) -> str:
  return _NAMES.get(name, name)


def kl_of(entry: dict[str, Any]) -> tuple[float | None, float | None]:
  """Returns an entry's KL and its standard error, nats a sequence.

  The Rao-Blackwell estimate where there is one, since it varies less and equal
  KL is defined by it; else the mean log-ratio of the samples.
  """
  key = "kl_rao_blackwell"
  if finite(entry.get(key)) is None:
    key = "kl"
  return finite(entry.get(key)), finite(entry.get(f"{key}_stderr"))
