# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Lowers full-size configurations on virtual devices; prints JSON.

python -m tests.configs_trial FILE@DEVICES[,key=value...]...
"""

import json
import runpy
import sys

import jax
import numpy as np

from hypo_jax import sharding
from hypo_jax.job import lowering


def trial(text: str) -> dict[str, object]:
  place, *changes = text.split(",")
  path, num_devices = place.split("@")
  config = runpy.run_path(path)["get_config"]()
  for change in changes:
    key, value = change.split("=")
    if value.lstrip("-").isdecimal():
      value = int(value)
    config.update_from_flattened_dict({key: value})
  mesh = sharding.make_mesh(
    **config.mesh, devices=jax.devices()[: int(num_devices)]
  )
  try:
    lowered = lowering.lower(config, mesh)
  except ValueError as error:
    return {"error": str(error)}
  trained = jax.tree.leaves(lowered.state.trainable)
  state, frozen = lowered.state, lowered.frozen
  return {
    "trained": sum(int(np.prod(x.shape)) for x in trained),
    "trained_dtypes": sorted({str(x.dtype) for x in trained}),
    "state_bytes": sum(x.nbytes for x in map(_Bytes, jax.tree.leaves(state))),
    "frozen_bytes": sum(x.nbytes for x in map(_Bytes, jax.tree.leaves(frozen))),
    "state_bytes_per_device": lowering.bytes_per_device(state),
    "frozen_bytes_per_device": lowering.bytes_per_device(frozen),
    "rollout_tokens": lowered.rollout_step.out_info.rows.slot_tokens.shape,
  }


class _Bytes:
  def __init__(self, x):
    self.nbytes = int(np.prod(x.shape)) * x.dtype.itemsize


if __name__ == "__main__":
  print(json.dumps({text: trial(text) for text in sys.argv[1:]}))
