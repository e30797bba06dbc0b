# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: W x becomes W x + (alpha / rank) * B A x in each layer.

An adapter is a nested dict of its own, {"layers": {name: {"a", "b"}}}, and a
policy that has one holds it as params["adapters"] beside the base's weights:

    policy    = attach(base, adapter)    the base's arrays, shared
    reference = base                     the adapter off

so no second copy of the base exists, and nothing is merged until it is
exported. B starts at zero: at step 0 policy and reference are equal.

Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1. Only the layers'
matrices can have adapters.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from hypo_jax.models import quantized
from hypo_jax.models.layers import LINEAR

Params = dict[str, Any]


def target_names(params: Params, targets: str) -> list[str]:
  """Returns the matrices of `params` whose name the pattern matches whole.

  Args:
    params: the base's parameters, or their shapes.
    targets: regular expression, as "query|value" or ".*".

  Raises:
    ValueError: if it isn't a regular expression, or matches none.
  """
  names = [name for name in LINEAR if name in params["layers"]]
  try:
    found = [name for name in names if re.fullmatch(targets, name)]
  except re.error as error:
    raise ValueError(
      f"lora.targets: expected a regular expression, got {targets!r}: {error}"
    ) from error
  if not found:
    raise ValueError(
      f"lora.targets: expected a pattern that matches some of {names}, got "
      f"{targets!r}"
    )
  return found


def init(
  params: Params, key: jax.Array, *, rank: int, targets: str = ".*"
) -> Params:
  """Returns a new adapter, float32, whose product is zero.

  Args:
    params: the base's parameters, or their shapes.
    key: of A's entries, normal with variance 1 / inputs.
    rank: R, at least 1.
    targets: see `target_names`.

  Returns:
    {"layers": {name: {"a": [L, inputs, R], "b": [L, R, outputs]}}}.

  Raises:
    ValueError: for a rank below 1, or targets that match nothing.
  """
  if rank < 1:
    raise ValueError(f"lora.rank: expected at least 1, got {rank}")
  layers = {}
  for name in target_names(params, targets):
    num_layers, *axes = params["layers"][name].shape
    count = len(LINEAR[name][0])
    inputs, outputs = axes[:count], axes[count:]
    fan_in = 1
    for size in inputs:
      fan_in *= size
    name_key = jax.random.fold_in(key, list(LINEAR).index(name))
    noise = jax.random.normal(name_key, (num_layers, *inputs, rank))
    layers[name] = {
      "a": noise * fan_in**-0.5,
      "b": jnp.zeros((num_layers, rank, *outputs)),
    }
  return {"layers": layers}


def attach(params: Params, adapter: Params) -> Params:
  """Returns the policy: the base's own arrays, and the adapter."""
  return params | {"adapters": adapter}


def merged(params: Params, scale: float) -> Params:
  """Returns weights that say the same without an adapter, if there is one.

  Sums are taken in float32 and rounded to the base's dtype, which loses what
  lies below its precision.

  Raises:
    ValueError: where an adapter lies over an int8 matrix.
  """
  if "adapters" not in params:
    return params
  layers = dict(params["layers"])
  for name, adapter in params["adapters"]["layers"].items():
    if isinstance(layers[name], quantized.QArray):
      raise ValueError(
        f"{name}: expected floating-point weights to merge an adapter into, "
        "got int8; save the adapter alone"
      )
    layers[name] = _add(layers[name], adapter, name, scale)
  rest = {k: v for k, v in params.items() if k != "adapters"}
  return rest | {"layers": layers}


def _add(matrix, adapter, name: str, scale: float):
  inputs, outputs = LINEAR[name]
  product = jnp.einsum(
    f"l{inputs}r,lr{outputs}->l{inputs}{outputs}",
    adapter["a"],
    adapter["b"],
    precision="highest",
  )
  return (matrix.astype(jnp.float32) + scale * product).astype(matrix.dtype)
