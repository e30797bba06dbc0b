# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One point of `benchmarks.scaling`, compiled and timed in this process.

    python -m benchmarks.scaling.point --point='{"prompt": 512}' --form=shared

The model is that of the tiny cases, with the point's vocabulary; policy and
reference differ, so that the KL term has a gradient; rows are full. Two forms
of one update on the same rollouts:

    shared      the library's train step on prefix-shared rows
    separate    chosen, rejected and rollouts as sequences of their own, each
                with its prompt, scored by the same layers and the same losses

Both print their loss, KL and gradient norm. Rollouts are drawn alike in both,
by a program of its own, so that each is timed; where all rows are one batch
`train.make_fused_step` saves the prefill that this costs.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from functools import partial
from importlib import metadata
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import cases, full_rows, measure
from benchmarks.scaling import separate
from benchmarks.scaling.axes import FORMS, Point
from hypo_jax import models, objective, rollout, sharding, train
from hypo_jax.batch import PreferenceBatch

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Programs:
  """The jitted functions of an update, and shapes of what they take.

  Attributes:
    rollout: as `rollout.make_rollout_step` returns it.
    update: as `train.make_train_step` returns it.
    rollout_args: abstract arrays, laid on the mesh.
    update_args: the same: state, reference, batch, rollouts.
  """

  rollout: Any
  update: Any
  rollout_args: tuple[Any, ...]
  update_args: tuple[Any, ...]


def make_model(point: Point, size: cases.Size | None = None) -> models.Model:
  """Returns a model with the point's vocabulary and lengths.

  Args:
    point: sizes of a step.
    size: the rest of the model's; by default the tiny cases'.
  """
  size = size or cases.SIZES["tiny"]
  config = models.TransformerConfig(
    vocab_size=point.vocabulary,
    num_layers=size.num_layers,
    width=size.width,
    num_heads=size.num_heads,
    num_kv_heads=size.num_kv_heads,
    head_dim=size.head_dim,
    mlp_width=size.mlp_width,
    max_positions=point.prompt + point.completion,
    rope=models.Rope(cases.ROPE_THETA),
    norm_eps=cases.NORM_EPS,
  )
  return models.Model(config)


def make_programs(model: models.Model, point: Point, form: str) -> Programs:
  """Returns the point's programs; nothing is compiled, nothing allocated.

  Args:
    model: as `make_model` gives it.
    point: sizes.
    form: of FORMS.
  """
  mesh = sharding.make_mesh(fsdp=point.devices)
  rows = sharding.row_sharding(mesh)
  optimizer = _optimizer()
  draw = rollout.make_rollout_step(
    model,
    samples_per_prompt=point.rollouts,
    max_new_tokens=point.completion,
    # Outside the vocabulary: every rollout runs to its length.
    eos_token_id=point.vocabulary,
    pad_token_id=0,
    mesh=mesh,
  )
  if form == "shared":
    loss = objective.PreferenceLoss(
      model.with_rows(rows),
      beta=cases.BETA,
      kl_coef=cases.KL_COEF,
      estimator=separate.ESTIMATOR,
      samples_per_prompt=point.rollouts,
    )
    update = train.make_train_step(loss, optimizer)
  else:
    update = separate.make_step(
      model, optimizer, samples_per_prompt=point.rollouts
    )

  def laid(tree):
    return _abstract(tree, sharding.tree_shardings(mesh, tree))

  def cut(tree):
    return _abstract(tree, jax.tree.map(lambda _: rows, tree))

  make_state = partial(train.new_state, optimizer)
  state = laid(jax.eval_shape(make_state, model.abstract_params))
  batch, keys = cut(make_batch(point)), cut(row_keys(point, 0))
  rollout_args = state.trainable, batch.prompt_tokens, batch.prompt_mask, keys
  drawn = cut(jax.eval_shape(draw, *rollout_args))
  update_args = state, laid(model.abstract_params), batch, drawn
  return Programs(draw, update, rollout_args, update_args)


def make_batch(point: Point) -> PreferenceBatch:
  """Returns full rows of random tokens."""
  rng = np.random.default_rng(0)

  def tokens(length: int) -> np.ndarray:
    shape = point.batch, length
    return rng.integers(1, point.vocabulary, size=shape, dtype=np.int32)

  return full_rows.pairs(
    tokens(point.prompt), tokens(point.completion), tokens(point.completion)
  )


def row_keys(point: Point, step: int) -> jax.Array:
  """Returns keys [B] of a step's rollouts."""
  return jax.random.split(jax.random.key(step), point.batch)


def run(
  point: Point, form: str, *, steps: int, warmup: int, size=None
) -> dict[str, Any]:
  """Compiles a point's programs and times them.

  Args:
    point: sizes.
    form: of FORMS.
    steps: timed ones; 0 to compile alone.
    warmup: untimed ones after the first.
    size: see `make_model`.

  Returns:
    bytes of temporaries and of arguments a device by program; with steps, the
    figures of `measure.Clock` by program, and the first step's check.
  """
  model = make_model(point, size)
  programs = make_programs(model, point, form)
  draw = programs.rollout.lower(*programs.rollout_args).compile()
  update = programs.update.lower(*programs.update_args).compile()
  planned = {
    "rollout": draw.memory_analysis(),
    "update": update.memory_analysis(),
  }
  found: dict[str, Any] = {
    "temporaries": {k: v.temp_size_in_bytes for k, v in planned.items()},
    "arguments": {k: v.argument_size_in_bytes for k, v in planned.items()},
  }
  if steps:
    clocks = {
      name: measure.Clock(steps=steps, warmup=warmup) for name in planned
    }
    _drive(model, point, draw, update, clocks)
    found |= {name: clock.figures() for name, clock in clocks.items()}
    found["check"] = found["update"].pop("check")
  return found


def _drive(model, point: Point, draw, update, clocks) -> None:
  """Runs updates until the clocks are done."""
  mesh = sharding.make_mesh(fsdp=point.devices)
  init = jax.jit(
    model.init,
    out_shardings=sharding.tree_shardings(mesh, model.abstract_params),
  )
  state = train.init_state(init(jax.random.key(0)), _optimizer(), mesh)
  reference = init(jax.random.key(1))
  batch = sharding.put_rows(mesh, make_batch(point))
  rows = sharding.row_sharding(mesh)
  calls = 0
  while not clocks["update"].done:
    keys = jax.device_put(row_keys(point, calls), rows)
    jax.block_until_ready((state, reference, batch, keys))
    clocks["rollout"].begin()
    drawn = jax.block_until_ready(
      draw(state.trainable, batch.prompt_tokens, batch.prompt_mask, keys)
    )
    clocks["rollout"].end()
    clocks["update"].begin()
    state, metrics = jax.block_until_ready(
      update(state, reference, batch, drawn)
    )
    clocks["update"].end(
      {k: float(metrics[k]) for k in ("loss", "kl_rao_blackwell", "grad_norm")}
    )
    calls += 1


def _optimizer() -> optax.GradientTransformation:
  return train.make_optimizer(
    learning_rate=cases.LEARNING_RATE,
    num_steps=1,
    max_grad_norm=cases.MAX_GRAD_NORM,
  )


def _abstract(tree: Any, shardings: Any) -> Any:
  """Returns shapes and dtypes of a tree, laid as `shardings` says."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )


def main() -> None:
  parser = argparse.ArgumentParser(prog="benchmarks.scaling.point")
  parser.add_argument("--point", default="{}", help="What differs, in JSON.")
  parser.add_argument("--form", default=FORMS[0], choices=FORMS)
  parser.add_argument("--steps", type=int, default=3, help="0 only compiles.")
  parser.add_argument("--warmup", type=int, default=1)
  parser.add_argument("--threads", type=int, default=2)
  asked = parser.parse_args()
  measure.use_threads(asked.threads)
  point = Point(**json.loads(asked.point))
  # Progress and logs belong to the libraries; the line alone is ours.
  with contextlib.redirect_stdout(sys.stderr):
    found = run(point, asked.form, steps=asked.steps, warmup=asked.warmup)
  line = {"point": dataclasses.asdict(point), "form": asked.form} | found
  line["versions"] = {name: metadata.version(name) for name in _PACKAGES}
  print(json.dumps(line), flush=True)


if __name__ == "__main__":
  main()
