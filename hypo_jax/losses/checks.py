# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What the losses refuse: wrong shapes, dtypes, ranges and counts."""

import math
import numbers

import jax
import jax.numpy as jnp

Scalar = float | jax.Array


def check_log_probs(**log_probs: jax.Array) -> None:
  """Refuses anything but float32 (or float64) arrays of one shape [B]."""
  shape = None
  for name, values in log_probs.items():
    values = jnp.asarray(values)
    shape = values.shape if shape is None else shape
    if values.ndim != 1 or values.shape != shape:
      expected = "shape [B]" if len(shape) != 1 else f"shape {shape}"
      refuse(name, expected, f"shape {values.shape}")
    if values.dtype not in (jnp.float32, jnp.float64):
      refuse(name, "float32 (sum token log-probs in it)", values.dtype)


def check_mask(
  mask: jax.Array, name: str = "completion_mask", shape: tuple | None = None
) -> tuple[int, ...]:
  """Returns the mask's shape, which is [N, C] unless given."""
  mask = jnp.asarray(mask)
  if mask.dtype != jnp.bool_:
    refuse(name, "dtype bool", mask.dtype)
  if mask.shape != shape and (shape is not None or mask.ndim != 2):
    refuse(name, f"shape {shape or '[N, C]'}", f"shape {mask.shape}")
  return mask.shape


def check_samples(rows: int, samples_per_prompt: int, least: int) -> None:
  is_count = isinstance(samples_per_prompt, numbers.Integral)
  if not is_count or samples_per_prompt < least:
    refuse("samples_per_prompt", f"an int >= {least}", samples_per_prompt)
  if rows % samples_per_prompt:
    expected = f"a divisor of the {rows} rows"
    refuse("samples_per_prompt", expected, samples_per_prompt)


def check_positive(name: str, value: Scalar) -> None:
  check_scalar(name, value, "> 0 and finite", math.ulp(0.0), math.inf)


def check_scalar(
  name: str, value: Scalar, expected: str, least: float, below: float
) -> None:
  """Checks the shape always, the range where the value is known at trace."""
  if jnp.ndim(value):
    refuse(name, "a scalar", f"shape {jnp.shape(value)}")
  if isinstance(value, numbers.Real) and not least <= value < below:
    refuse(name, expected, value)


def is_zero(value: Scalar) -> bool:
  """Whether a scalar is known at trace to be 0."""
  return isinstance(value, numbers.Real) and value == 0


def refuse(name: str, expected: str, actual: object) -> None:
  raise ValueError(f"{name}: expected {expected}, got {actual}")
