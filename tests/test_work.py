# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A step's operations, and its seconds at the devices' peak."""

import copy
import dataclasses
import pathlib
import runpy
import types

import jax
import numpy as np
import pytest

from hypo_jax import sharding
from hypo_jax.aot import chips, flops
from hypo_jax.job import aot, lowering, work

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def lowered():
  config = runpy.run_path(str(ROOT / "configs" / "hypo.py"))["get_config"]()
  config.preference.batch_size = config.preference.micro_batch_size = 16
  config.rollout.samples_per_prompt = 2
  config.sft.batch_size = 32
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return lowering.lower(config, mesh)


def method_flops(lowered, method):
  job = lowered.job
  return work.method_flops(job, job.methods[method])


def test_a_run_counts_the_same_operations_as_the_plan_for_a_slice(lowered):
  assert method_flops(lowered, "hypo") == sum(aot.model_flops(lowered))


def test_sampling_counts_what_the_rollouts_program_does(lowered):
  drawn, job = lowered.rollouts.rows, lowered.job
  program = flops.count(
    lowered.rollout_jaxpr, while_trips=work.decode_trips(job)
  )
  assert work.sampling_flops(job, drawn) == program.flops


def test_a_rollout_of_one_token_has_no_loop(lowered):
  config = lowered.job.config.copy_and_resolve_references()
  config.rollout.max_new_tokens = 1
  job = dataclasses.replace(lowered.job, config=config)
  assert work.decode_trips(job) == ()
  assert work.method_flops(job, job.methods["hypo"]) > 0


def test_a_method_without_rollouts_counts_its_pairs_alone(lowered):
  pairs = aot.pair_rows_of(lowered)
  forward = work.forward_flops(lowered.job.model, pairs)
  assert method_flops(lowered, "dpo") == 3 * forward


def test_controls_count_what_they_score_and_draw(lowered):
  """The reference's forward of pairs; no draw where all was drawn before."""
  job = lowered.job
  pairs = aot.pair_rows_of(lowered)
  forward = work.forward_flops(job.model, pairs)
  settings = job.methods["dpo"] | {"offline_kl_coef": 0.1}
  offline = work.method_flops(job, settings)
  assert offline == 4 * forward
  config = copy.deepcopy(job.config)
  config.rollout.source = "reference"
  kept = dataclasses.replace(job, config=config)
  learning, drawing = aot.model_flops(lowered)
  found = work.method_flops(kept, job.methods["hypo"])
  assert found == learning and drawing > 0


def test_fine_tuning_counts_one_slot_a_row(lowered):
  job = lowered.job
  forward = work.forward_flops(job.model, work.row_shapes(job, 1, slots=1))
  assert work.sft_flops(job) == 3 * 32 * forward


def test_mfu_is_counted_where_the_peak_is_known_and_nowhere_else(lowered):
  def never():
    raise AssertionError("counted")

  assert work.seconds_at_peak(lowered.job, never) is None
  device = types.SimpleNamespace(device_kind="TPU v5 lite")
  mesh = types.SimpleNamespace(devices=np.array([[device, device]]))
  job = dataclasses.replace(lowered.job, mesh=mesh)
  assert work.seconds_at_peak(job, lambda: 788e12) == 2.0


@pytest.mark.parametrize(
  ("kind", "peak"),
  [
    ("TPU v4", 275e12),
    ("TPU v4 lite", None),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5p", 459e12),
    ("TPU v5", 459e12),
    ("TPU v6 lite", 918e12),
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA A100-SXM4-40GB", 312e12),
    ("NVIDIA GeForce GTX 1080", None),
    ("cpu", None),
  ],
)
def test_a_device_has_the_peak_of_its_kind(kind, peak):
  assert chips.peak_flops(kind) == peak
