# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""TPU chips and slices, and how long a program takes on them at best.

    busy    = sum over instructions of max(operations / peak, bytes / bandwidth)
    seconds = max(busy, all bytes / bandwidth, overlapped collectives)
              + collectives that stop the work

where copies that run while others work count in all bytes alone.

A collective takes its bytes over the links of its group, and a microsecond a
hop, which is what decoding's many small ones cost. Nothing here has been
measured: products run at the chip's peak and memory at its full rate, so a real
step is slower, by how much only the chip tells.
"""

import dataclasses
import math
import re
from collections.abc import Iterable

from hypo_jax.aot.compiled import Collective, Program, Work

_HOP_SECONDS = 1e-6


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip.

  Attributes:
    name: as --topology has it.
    flops: bfloat16 operations a second at the peak.
    hbm: bytes of main memory.
    hbm_bandwidth: bytes a second.
    link: bytes a second that one link sends.
    axes: of the torus; two links a chip along each.
    closes: an axis whose size is a multiple of this is a ring, else a line.
  """

  name: str
  flops: float
  hbm: float
  hbm_bandwidth: float
  link: float
  axes: int
  closes: int


_GIB = 2**30
# From the pages of cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}: peak compute,
# memory, inter-chip bandwidth of a chip (2400, 1600, 4800 Gbit/s out of six,
# four, six links; v6e 800 GB/s in both directions over four). When an axis is
# a ring is from the same pages: with a side of 16 in v5e and v6e, and with
# multiples of 4 in v4 and v5p.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip("v4", 275e12, 32 * _GIB, 1228e9, 50e9, 3, 4),
    Chip("v5e", 197e12, 16 * _GIB, 819e9, 50e9, 2, 16),
    Chip("v5p", 459e12, 95 * _GIB, 2765e9, 100e9, 3, 4),
    Chip("v6e", 918e12, 32 * _GIB, 1640e9, 100e9, 2, 16),
  )
}

# Peak bfloat16 operations a second of a device, by what its `device_kind`
# begins with; the first that fits counts. GPUs: NVIDIA's data sheets, dense.
_PEAKS = {
  "TPU v4 lite": None,
  "TPU v4": CHIPS["v4"].flops,
  "TPU v5 lite": CHIPS["v5e"].flops,
  "TPU v5e": CHIPS["v5e"].flops,
  "TPU v5": CHIPS["v5p"].flops,
  "TPU v6 lite": CHIPS["v6e"].flops,
  "TPU v6e": CHIPS["v6e"].flops,
  "NVIDIA A100": 312e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H100 NVL": 835e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200 NVL": 835e12,
  "NVIDIA H200": 989e12,
}


def peak_flops(device_kind: str) -> float | None:
  """Returns a device's peak in bfloat16, or None where it isn't known."""
  for kind, peak in _PEAKS.items():
    if device_kind.startswith(kind):
      return peak
  return None


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips joined in a torus.

  Attributes:
    chip: their kind.
    sides: chips along each axis.
    devices_per_chip: 2 where each core is a device of its own (v4), else 1.
  """

  chip: Chip
  sides: tuple[int, ...]
  devices_per_chip: int = 1

  @property
  def num_chips(self) -> int:
    return math.prod(self.sides)

  @property
  def num_devices(self) -> int:
    return self.num_chips * self.devices_per_chip

  @property
  def flops(self) -> float:
    """Peak of one device; the other figures of a device are alike."""
    return self.chip.flops / self.devices_per_chip

  @property
  def hbm(self) -> float:
    return self.chip.hbm / self.devices_per_chip

  @property
  def usable_hbm(self) -> float:
    """What the compiler gives to programs: 15.75 of v5e's 16 GiB, it says."""
    return self.hbm * 63 / 64

  @property
  def hbm_bandwidth(self) -> float:
    return self.chip.hbm_bandwidth / self.devices_per_chip


def parse_topology(text: str) -> tuple[Chip, tuple[int, ...]]:
  """Parses a slice's name, as v5e:8x8 or v5p:4x4x4.

  Raises:
    ValueError: for another form, an unknown chip, or a wrong number of sides.
  """
  found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
  if not found or found[1] not in CHIPS:
    raise ValueError(
      f"--topology: expected a chip of {', '.join(CHIPS)} and its sides, as "
      f"v5e:8x8 or v5p:4x4x4, got {text!r}"
    )
  chip = CHIPS[found[1]]
  sides = tuple(int(n) for n in found[2].split("x"))
  if len(sides) != chip.axes:
    raise ValueError(
      f"--topology: expected {chip.axes} sides for {chip.name}, got {text!r}"
    )
  return chip, sides


def stand_in(place: Slice) -> str | None:
  """Returns a v5e slice of as many devices, as square as can be, or None.

  For programs that can't be read as compiled for their own chips. v5e's sides
  are even, up to 16.
  """
  if place.chip.name == "v5e":
    return None
  count = place.num_devices
  sides = [
    (a, count // a)
    for a in range(2, 17, 2)
    if count % (2 * a) == 0 and a <= count // a <= 16
  ]
  return f"v5e:{sides[-1][0]}x{sides[-1][1]}" if sides else None


def collective_seconds(collective: Collective, place: Slice) -> float:
  """Returns how long a collective takes, each time it runs.

  A group of all devices uses every link, a closed axis at twice the rate of an
  open one (the ends of a line have one neighbour). A smaller group is taken as
  a block of the torus, open on all sides.
  """
  chip, devices = place.chip, collective.devices
  if devices >= place.num_devices:
    sides = place.sides
    closed = [side % chip.closes == 0 for side in sides]
  else:
    side = max(devices / place.devices_per_chip, 1) ** (1 / chip.axes)
    sides, closed = (side,) * chip.axes, (False,) * chip.axes
  ends = zip(sides, closed, strict=True)
  links = sum(2 if ring else 1 for ring in closed)
  hops = sum(side / 2 if ring else side - 1 for side, ring in ends)
  rounds = 2 if collective.kind == "all-reduce" else 1
  rate = links * chip.link / place.devices_per_chip
  return collective.bytes / rate + rounds * hops * _HOP_SECONDS


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Seconds on one device.

  Attributes:
    compute: operations at the peak.
    hbm: bytes of main memory at its full rate.
    interconnect: all collectives one after another.
    step: the prediction; see the module docstring.
  """

  compute: float
  hbm: float
  interconnect: float
  step: float

  def __add__(self, other: "Estimate") -> "Estimate":
    return Estimate(
      *(
        a + b
        for a, b in zip(
          dataclasses.astuple(self), dataclasses.astuple(other), strict=True
        )
      )
    )

  @property
  def bound_by(self) -> str:
    """The largest of compute, hbm and interconnect."""
    names = ("compute", "hbm", "interconnect")
    return max(names, key=lambda name: getattr(self, name))


def estimate(program: Program, place: Slice) -> Estimate:
  """Returns how long a program takes on one device of a slice."""
  return estimate_parts(program.work, program.collectives, place)


def estimate_parts(
  work: Iterable[Work], collectives: Iterable[Collective], place: Slice
) -> Estimate:
  """Returns the estimate of work and collectives; see `estimate`."""
  compute = hbm = busy = 0.0
  for w in work:
    flops, moved = w.flops / place.flops, w.bytes / place.hbm_bandwidth
    compute += w.trips * flops
    hbm += w.trips * moved
    busy += 0.0 if w.overlaps else w.trips * max(flops, moved)
  waits = {True: 0.0, False: 0.0}
  for c in collectives:
    waits[c.overlaps] += c.trips * collective_seconds(c, place)
  return Estimate(
    compute=compute,
    hbm=hbm,
    interconnect=sum(waits.values()),
    step=max(busy, hbm, waits[True]) + waits[False],
  )
