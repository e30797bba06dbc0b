# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One mesh, and where every array lies on it.

Mesh axes: `data` repeats the weights and cuts the batch, `fsdp` cuts both,
`tensor` cuts heads, feed-forward and vocabulary. A rule is a path pattern and a
partition of the array's trailing axes; the first that matches is taken, and a
mesh axis that does not divide an array's axis is left out (that array is
repeated instead), so that any mesh runs any model.

Training and rollouts lay the weights out differently. In training each layer's
weights are gathered once per pass, which many tokens share. A decoding step
has one token a row, so there the weights stay where they are, cut along heads,
feed-forward and vocabulary, and the small activations move. Heads can be cut
only so often: the devices of `fsdp` are split in groups that hold the weights
once each, no larger than the key-value heads allow, and the groups share the
rows (`rollout_mesh`: `group` counts groups, `fsdp` the devices of one).
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
ROLLOUT_AXES = ("data", "group", "fsdp", "tensor")
_ROWS = ("data", "fsdp")
_WIDE = ("fsdp", "tensor")

Rules = Sequence[tuple[str, PartitionSpec]]

# Stacked weights have a leading layer axis, which is never cut: it is scanned.
# Weights in int8 hold two arrays under their name; of the scales, axes of one
# element stay whole.
_INT8 = r"(/qvalue|/scale)?$"
TRAIN_RULES: Rules = (
  (r"(^|/)embedding$", PartitionSpec("tensor", "fsdp")),
  # Adapters are thin: A [L, inputs, R] is cut over fsdp, B [L, R, ...] is not.
  (r"(^|/)a$", PartitionSpec(None, "fsdp")),
  (r"(^|/)head$", PartitionSpec("fsdp", "tensor")),
  (
    rf"(^|/)(query|key|value){_INT8}",
    PartitionSpec(None, "fsdp", "tensor", None),
  ),
  (rf"(^|/)output{_INT8}", PartitionSpec(None, "tensor", None, "fsdp")),
  (rf"(^|/)(gate|up){_INT8}", PartitionSpec(None, "fsdp", "tensor")),
  (rf"(^|/)down{_INT8}", PartitionSpec(None, "tensor", "fsdp")),
  (r".*", PartitionSpec()),
)
ROLLOUT_RULES: Rules = (
  (r"(^|/)embedding$", PartitionSpec(_WIDE, None)),
  (r"(^|/)head$", PartitionSpec(None, _WIDE)),
  (rf"(^|/)(query|key|value){_INT8}", PartitionSpec(None, None, _WIDE, None)),
  (rf"(^|/)output{_INT8}", PartitionSpec(None, _WIDE, None, None)),
  (rf"(^|/)(gate|up){_INT8}", PartitionSpec(None, None, _WIDE)),
  (rf"(^|/)down{_INT8}", PartitionSpec(None, _WIDE, None)),
  (r".*", PartitionSpec()),
)


def make_mesh(
  *,
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Builds the mesh; one size may be -1, for the devices that are left.

  Raises:
    ValueError: if the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [data, fsdp, tensor]
  text = f"mesh: data={data}, fsdp={fsdp}, tensor={tensor}"
  if any(s < 1 and s != -1 for s in sizes) or sizes.count(-1) > 1:
    raise ValueError(f"{text}: expected positive sizes, at most one of them -1")
  if -1 in sizes:
    known = -math.prod(sizes)
    sizes[sizes.index(-1)] = max(len(devices) // known, 1)
  if math.prod(sizes) != len(devices):
    raise ValueError(
      f"{text}: expected a product of {len(devices)}, the number of devices"
    )
  # Auto axes: the compiler places what the rules leave open.
  return Mesh(
    np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3
  )


def row_sharding(mesh: Mesh) -> NamedSharding:
  """Arrays with a leading batch axis: rows cut over data x fsdp."""
  return NamedSharding(mesh, PartitionSpec(_ROWS))


def rollout_mesh(mesh: Mesh, num_heads: int | None) -> Mesh:
  """Returns the same devices in the same order, `fsdp` split in two axes.

  Args:
    mesh: of `make_mesh`.
    num_heads: key-value heads, which fsdp x tensor must divide in the result;
      None where nothing is known of the model: one group.
  """
  data, fsdp, tensor = (mesh.shape[name] for name in AXES)
  ways = fsdp
  if num_heads is not None:
    fitting = [n for n in range(1, fsdp + 1) if fsdp % n == 0]
    ways = max(n for n in fitting if n == 1 or num_heads % (n * tensor) == 0)
  return Mesh(
    mesh.devices.reshape(data, fsdp // ways, ways, tensor),
    ROLLOUT_AXES,
    axis_types=(AxisType.Auto,) * 4,
  )


def rollout_row_sharding(mesh: Mesh) -> NamedSharding:
  """Rows while decoding: fsdp cuts the weights there, the groups the rows."""
  return NamedSharding(mesh, PartitionSpec(("data", "group")))


def lay_for_rollouts(mesh: Mesh, params: Any) -> Any:
  """Re-lays weights from training's layout to that of decoding; under jit.

  In two steps, each of one collective: within a group, the cut moves from the
  width to heads, feed-forward and vocabulary, by all-to-all; then the groups
  gather what is left of the cut in the width. In one step the compiler may
  gather whole arrays on every device first.

  Args:
    mesh: of `rollout_mesh`.
    params: nested dict of arrays, as `TRAIN_RULES` lays them.
  """
  before = tree_shardings(mesh, params, TRAIN_RULES)
  after = tree_shardings(mesh, params, ROLLOUT_RULES)

  def between(x, trained, rolled):
    pairs = zip(_padded(trained, x.ndim), _padded(rolled, x.ndim), strict=True)
    # "fsdp" in a training rule stands for group x fsdp here.
    spec = PartitionSpec(
      *(w or (("group",) if "fsdp" in (t or ()) else None) for t, w in pairs)
    )
    return NamedSharding(mesh, _fitting(mesh, spec, x.shape))

  halfway = jax.tree.map(between, params, before, after)
  params = jax.lax.with_sharding_constraint(params, halfway)
  return jax.lax.with_sharding_constraint(params, after)


def lay_keys_values(mesh: Mesh, decoding: Mesh, keys_values: Any) -> Any:
  """Re-lays keys and values of prompts, for decoding; under jit.

  Args:
    mesh: of `make_mesh`.
    decoding: of `rollout_mesh`.
    keys_values: arrays [L, B, K, P, E], rows cut as in training.
  """
  before = PartitionSpec(None, _ROWS, "tensor")
  after = PartitionSpec(None, ("data", "group"), _WIDE)
  # Held as they are made, too: else the layers make them as decoding has them.
  for place, spec in ((mesh, before), (decoding, after)):
    keys_values = jax.tree.map(
      lambda x, place=place, spec=spec: jax.lax.with_sharding_constraint(
        x, NamedSharding(place, _fitting(place, spec, x.shape))
      ),
      keys_values,
    )
  return keys_values


def _padded(sharding: NamedSharding, ndim: int) -> tuple:
  return (*sharding.spec, *(None,) * (ndim - len(sharding.spec)))


def by_rows(
  rows: NamedSharding | None,
  function: Callable[..., Any],
  whole: Any,
  *arrays: jax.Array,
) -> Any:
  """Returns function(whole, *arrays), each device doing the rows it holds.

  A gradient with respect to `whole` is added up over devices once, at the end.

  Args:
    rows: `row_sharding`, or None for no more than the plain call; which it also
      is where the arrays can't be cut evenly.
    function: whose results' rows are those of its arrays, each for itself.
    whole: arrays that every device uses whole.
    *arrays: [B, ...].
  """
  axes = rows.spec[0] if rows is not None else ()
  count = math.prod(rows.mesh.shape[name] for name in axes)
  if count == 1 or arrays[0].shape[0] % count:
    return function(whole, *arrays)
  cut = PartitionSpec(axes)
  mapped = jax.shard_map(
    function,
    mesh=rows.mesh,
    in_specs=(PartitionSpec(), *(cut for _ in arrays)),
    out_specs=cut,
    axis_names=set(axes),
    check_vma=False,
  )
  return mapped(whole, *arrays)


def replicated(mesh: Mesh) -> NamedSharding:
  """Arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def tree_shardings(mesh: Mesh, tree: Any, rules: Rules = TRAIN_RULES) -> Any:
  """Returns a NamedSharding for each leaf by its path and shape.

  Also right for an optimizer state: its moments end in the parameters' paths.
  """

  def leaf_sharding(path, leaf) -> NamedSharding:
    name = "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)
    spec = next(spec for pattern, spec in rules if re.search(pattern, name))
    return NamedSharding(mesh, _fitting(mesh, spec, leaf.shape))

  return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def _fitting(mesh: Mesh, spec: PartitionSpec, shape: Sequence[int]):
  """Drops, from the back, the mesh axes that do not divide the array's."""
  if len(spec) > len(shape):
    return PartitionSpec()
  fitting = []
  for size, names in zip(shape, tuple(spec), strict=False):
    names = (names,) if isinstance(names, str) else tuple(names or ())
    while names and size % math.prod(mesh.shape[n] for n in names):
      names = names[:-1]
    fitting.append(names or None)
  return PartitionSpec(*fitting)


def global_rows(mesh: Mesh, tree: Any, sharding: NamedSharding | None = None):
  """Joins every process's share of a batch into global arrays.

  Args:
    mesh: the mesh.
    tree: host arrays, each this process's rows [B / processes, ...], in the
      order of `process_index`.
    sharding: defaults to `row_sharding(mesh)`.
  """
  sharding = sharding or row_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
    tree,
  )


def put_rows(mesh: Mesh, tree: Any):
  """Places host arrays that every process holds whole, cut by rows."""
  sharding = row_sharding(mesh)

  def put(x):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])

  return jax.tree.map(put, tree)


def gather(tree: Any):
  """Returns whole host arrays on every process; a collective call."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)
