# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A configuration's real steps, lowered from shapes alone.

No weight, tokenizer or data set is needed: model.architecture has the model's
numbers and token ids, and every array is a shape with its place on the mesh.
A configuration too large for this machine is so checked as far as the compiler.

Rows are as long as they may be. A job's split step holds a branch for each
shorter length of its data besides, which isn't known here.
"""

import dataclasses
import pathlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from hypo_jax import models, sharding, train
from hypo_jax.batch import PreferenceBatch, Rollouts
from hypo_jax.data import reviews, tasks
from hypo_jax.job import setup, steps
from hypo_jax.job.methods import ONLINE, reads_reference
from hypo_jax.models import quantized


@dataclasses.dataclass(frozen=True)
class TokenIds:
  """All of a tokenizer that a step knows."""

  eos_token_id: int | tuple[int, ...]
  pad_token_id: int


@dataclasses.dataclass(frozen=True)
class Lowered:
  """The main method's steps of one configuration on one mesh.

  Attributes:
    train_step: of pairs and rollouts, as `train.make_train_step` returns it;
      where `fused`, as `train.make_fused_step` does, and rollouts are drawn
      inside it.
    rollout_step: as `rollout.make_rollout_step` returns it; None where the
      method draws no rollouts. Where `fused`, a job runs it only to time it.
    fused: see `steps.fuses`.
    state: shapes and shardings of the TrainState.
    frozen: those of the reference policy's parameters.
    batch: those of the pairs.
    rollouts: those of what rollout_step returns, or None.
    train_jaxpr: of train_step, before it was lowered.
    rollout_jaxpr: of rollout_step, or None.
    job: with shapes for parameters, and no data.
  """

  train_step: jax.stages.Lowered
  rollout_step: jax.stages.Lowered | None
  fused: bool
  state: train.TrainState
  frozen: Any
  batch: PreferenceBatch
  rollouts: Rollouts | None
  train_jaxpr: Any
  rollout_jaxpr: Any
  job: setup.Job


def bytes_per_device(tree: Any) -> int:
  """Returns what a tree of arrays or shapes takes on the fullest device."""
  return sum(
    x.dtype.itemsize * int(np.prod(x.sharding.shard_shape(x.shape)))
    for x in jax.tree.leaves(tree)
  )


def lower(config: Any, mesh: Mesh) -> Lowered:
  """Lowers the main method's train step and rollout.

  Args:
    config: a job's configuration.
    mesh: of any devices; nothing is put on them.

  Raises:
    ValueError: for whatever the job itself would refuse.
  """
  job = _abstract_job(config, mesh)
  settings = job.methods[config.preference.method]
  if settings["method"] in ONLINE:
    raise ValueError(
      "preference.method: expected one that learns from pairs, as --mode=aot "
      f"lowers no other yet, got {settings['method']!r}"
    )
  if config.rollout.source != "policy":
    raise ValueError(
      "rollout.source: expected 'policy', as --mode=aot counts rollouts in "
      f"every step, got {config.rollout.source!r}"
    )
  optimizer = steps.make_optimizer(settings)
  state = steps.abstract_state(job, settings, job.params)
  rows = sharding.row_sharding(mesh)
  batch = _batch(job, settings["batch_size"], rows)
  params = train.policy_params(state.trainable, job.params, job.adapters)
  keys = _keys(batch, rows)
  rollout_step = rollout_jaxpr = rollouts = None
  if settings["kl_coef"]:
    draw = steps.make_rollout_step(job)
    prompt = (batch.prompt_tokens, batch.prompt_mask, keys)
    traced = draw.trace(params, *prompt)
    rollout_step, rollout_jaxpr = traced.lower(), traced.jaxpr
    rollouts = _laid(rows, jax.eval_shape(draw, params, *prompt))
  fused = steps.fuses(job, settings)
  if fused:
    step = steps.make_fused_step(job, settings, optimizer)
    traced = step.trace(state, job.params, batch, keys)
  else:
    reads = reads_reference(settings) or job.adapters
    frozen = job.params if reads else None
    step = steps.make_train_step(job, settings, optimizer)
    traced = step.trace(state, frozen, batch, rollouts)
  return Lowered(
    train_step=traced.lower(),
    rollout_step=rollout_step,
    fused=fused,
    state=state,
    frozen=job.params,
    batch=batch,
    rollouts=rollouts,
    train_jaxpr=traced.jaxpr,
    rollout_jaxpr=rollout_jaxpr,
    job=job,
  )


def _abstract_job(config: Any, mesh: Mesh) -> setup.Job:
  """Returns a job whose parameters are shapes, and which has no data."""
  ids, described = model_of(config)
  model = models.Model(described)
  setup.check_length(config, described.max_positions)
  setup.check_batches(config, mesh)
  params = jax.eval_shape(
    partial(_stored, dtype=config.model.param_dtype), model.abstract_params
  )
  lengths = (config.data.prompt_length, config.data.completion_length)
  return setup.Job(
    config=config,
    workdir=pathlib.Path(),
    mesh=mesh,
    model=model,
    params=_laid(sharding.tree_shardings(mesh, params), params),
    task=None,
    tokens=tasks.Tokens(ids, *lengths),
    samplers={},
    completers={},
    pair_scorer=None,
  )


def model_of(config: Any) -> tuple[TokenIds, models.TransformerConfig]:
  """Returns the ids that end completions, and the model that is lowered.

  It is that of model.path where such a folder or file is on this machine, else
  what model.architecture describes.
  """
  path = config.model.path
  if path and pathlib.Path(path).exists():
    tokenizer = models.load_tokenizer(path)
    ids = TokenIds(tokenizer.eos_token_id, tokenizer.pad_token_id)
    described = models.load_config(path)
    return ids, dataclasses.replace(described, **setup.run_settings(config))
  values = config.model.architecture
  if "vocab_size" in values:
    if "eos_token_id" not in values:
      raise ValueError(
        "model.architecture.eos_token_id: expected beside vocab_size, missing"
      )
    ends = values.eos_token_id
    ends = tuple(ends) if isinstance(ends, list | tuple) else ends
    last = ends[0] if isinstance(ends, tuple) else ends
    pad = values.get("pad_token_id")
    ids = TokenIds(ends, last if pad is None else pad)
    return ids, setup.architecture(config)
  tokenizer = reviews.WordTokenizer()
  ids = TokenIds(tokenizer.eos_token_id, tokenizer.pad_token_id)
  return ids, setup.architecture(
    config,
    vocab_size=tokenizer.vocab_size,
    max_position_embeddings=setup.longest_sequence(config),
  )


def _stored(params: Any, *, dtype: str) -> Any:
  """Returns the parameters as `models.load` stores them in `dtype`."""

  def store(path, leaf):
    name = path[-1].key
    if dtype == "int8" and name in quantized.MATRICES:
      return quantized.quantize_matrix(leaf, name)
    return leaf.astype(jnp.bfloat16 if dtype == "int8" else dtype)

  return jax.tree_util.tree_map_with_path(store, params)


def _laid(shardings: Any, shapes: Any) -> Any:
  if isinstance(shardings, NamedSharding):
    shardings = jax.tree.map(lambda _: shardings, shapes)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )


def _batch(job: setup.Job, size: int, rows: NamedSharding) -> PreferenceBatch:
  prompt, completion = job.tokens.prompt_length, job.tokens.completion_length

  def shape(dtype, *axes):
    return jax.ShapeDtypeStruct((size, *axes), dtype, sharding=rows)

  return PreferenceBatch(
    prompt_tokens=shape(jnp.int32, prompt),
    prompt_mask=shape(jnp.bool, prompt),
    chosen_tokens=shape(jnp.int32, completion),
    chosen_mask=shape(jnp.bool, completion),
    rejected_tokens=shape(jnp.int32, completion),
    rejected_mask=shape(jnp.bool, completion),
    ref_chosen_log_probs=shape(jnp.float32),
    ref_rejected_log_probs=shape(jnp.float32),
    pair_mask=shape(jnp.bool),
    row=shape(jnp.int32),
  )


def _keys(batch: PreferenceBatch, rows: NamedSharding) -> jax.ShapeDtypeStruct:
  made = jax.eval_shape(
    lambda: jax.random.split(jax.random.key(0), batch.row.shape[0])
  )
  return jax.ShapeDtypeStruct(made.shape, made.dtype, sharding=rows)
