# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Seconds from operations, bytes and collectives, by hand on round numbers."""

import pytest

from hypo_jax.aot import chips
from hypo_jax.aot.chips import CHIPS, Chip, Slice
from hypo_jax.aot.compiled import Collective, Work

# 100 operations, 10 bytes of memory, a byte over each link a second.
ROUND = Chip("round", 100.0, 1e9, 10.0, 1.0, axes=2, closes=16)
SMALL, LARGE = Slice(ROUND, (4, 4)), Slice(ROUND, (16, 16))
HOP = 1e-6


def gather(devices, *, size=8.0, overlaps=False, kind="all-gather", trips=1):
  return Collective(kind, size, devices, trips, overlaps, "")


def test_an_instruction_takes_the_longer_of_its_two_times():
  work = (Work(flops=100, bytes=5, trips=2), Work(flops=10, bytes=20, trips=3))
  found = chips.estimate_parts(work, (), SMALL)
  assert found.compute == pytest.approx(2 * 1.0 + 3 * 0.1)
  assert found.hbm == pytest.approx(2 * 0.5 + 3 * 2.0)
  assert found.step == pytest.approx(2 * 1.0 + 3 * 2.0)
  assert found.bound_by == "hbm"


@pytest.mark.parametrize(("size", "seconds"), [(5, 1.0), (20, 2.0)])
def test_a_copy_beside_the_work_costs_where_memory_is_what_lasts(size, seconds):
  work = (Work(100, 0, 1), Work(0, size, 1, overlaps=True))
  found = chips.estimate_parts(work, (), SMALL)
  assert found.step == pytest.approx(seconds)
  assert found.hbm == pytest.approx(size / 10)


def test_all_devices_use_every_link_and_open_sides_half():
  # Two axes: a link each where a line ends, two where it closes to a ring.
  open_sides = chips.collective_seconds(gather(16), SMALL)
  assert open_sides == pytest.approx(8 / 2 + 6 * HOP)
  closed = chips.collective_seconds(gather(256), LARGE)
  assert closed == pytest.approx(8 / 4 + 16 * HOP)


def test_a_smaller_group_is_a_block_with_open_sides():
  found = chips.collective_seconds(gather(16), LARGE)
  assert found == pytest.approx(8 / 2 + 2 * 3 * HOP)


def test_an_all_reduce_walks_twice():
  reduce = gather(16, kind="all-reduce")
  found = chips.collective_seconds(reduce, SMALL)
  assert found == pytest.approx(8 / 2 + 2 * 6 * HOP)


@pytest.mark.parametrize(
  ("overlaps", "seconds"), [(False, 1 + 4), (True, 4)], ids=["stops", "runs on"]
)
def test_a_collective_adds_what_the_work_does_not_cover(overlaps, seconds):
  work = (Work(flops=100, bytes=0, trips=1),)
  found = chips.estimate_parts(work, (gather(16, overlaps=overlaps),), SMALL)
  assert found.step == pytest.approx(seconds, rel=1e-4)
  assert found.interconnect == pytest.approx(4, rel=1e-4)


def test_overlapped_collectives_cost_nothing_under_enough_work():
  work = (Work(flops=900, bytes=0, trips=1),)
  found = chips.estimate_parts(work, (gather(16, overlaps=True),), SMALL)
  assert found.step == pytest.approx(9)
  assert found.bound_by == "compute"


def test_two_devices_a_chip_share_it():
  shared = Slice(ROUND, (4, 4), devices_per_chip=2)
  assert (shared.num_chips, shared.num_devices) == (16, 32)
  assert shared.flops == 50
  work = (Work(flops=100, bytes=0, trips=1),)
  assert chips.estimate_parts(work, (), shared).step == 2


def test_topologies_are_parsed():
  assert chips.parse_topology("v5e:8x8") == (CHIPS["v5e"], (8, 8))
  assert chips.parse_topology("v5p:4x4x8") == (CHIPS["v5p"], (4, 4, 8))


@pytest.mark.parametrize("text", ["v5e", "v9:2x2", "v5e-64", "v5e:8", "v4:2x2"])
def test_other_topologies_are_refused(text):
  with pytest.raises(ValueError, match="--topology: expected"):
    chips.parse_topology(text)


@pytest.mark.parametrize(
  ("chip", "sides", "name"),
  [
    ("v6e", (8, 8), "v5e:8x8"),
    ("v5p", (4, 4, 8), "v5e:8x16"),
    ("v5p", (2, 2, 1), "v5e:2x2"),
    ("v5p", (8, 8, 8), None),  # More than the largest v5e.
    ("v5e", (8, 8), None),
  ],
)
def test_a_stand_in_has_as_many_devices(chip, sides, name):
  assert chips.stand_in(Slice(CHIPS[chip], sides)) == name
