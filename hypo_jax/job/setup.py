# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What all stages share: mesh, model, start parameters, task, configuration."""

import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from hypo_jax import evaluate, keys, models, sharding, statistics
from hypo_jax.checkpoint import write_json
from hypo_jax.data import reviews, tasks


@dataclasses.dataclass(frozen=True)
class Job:
  """What all stages share."""

  config: Any
  workdir: pathlib.Path
  mesh: Mesh
  model: models.Model
  params: Any
  task: tasks.Task
  tokens: tasks.Tokens
  # Compiled functions that several stages share, so that each compiles once.
  samplers: dict[str, Callable[..., statistics.PolicySamples]]
  pair_scorer: Callable[..., np.ndarray]

  @property
  def leader(self) -> bool:
    """Whether this process writes files and speaks."""
    return jax.process_index() == 0

  @property
  def eos_token_ids(self) -> tuple[int, ...]:
    ids = self.tokens.tokenizer.eos_token_id
    return ids if isinstance(ids, tuple) else (ids,)

  @property
  def max_new_tokens(self) -> int:
    """Longest rollout: as long as the pairs' completions, if not set."""
    return self.config.rollout.max_new_tokens or self.tokens.completion_length

  @property
  def warnings(self) -> tuple[str, ...]:
    """What the configuration asks for and may not be meant."""
    if self.max_new_tokens == self.tokens.completion_length:
      return ()
    return (
      f"rollout.max_new_tokens is {self.max_new_tokens}, "
      f"data.completion_length {self.tokens.completion_length}: pairs and "
      "rollouts end at different lengths, so the two terms of the loss see "
      "different completions",
    )

  @property
  def adapters(self) -> bool:
    """Whether an adapter is trained, over frozen weights."""
    return self.config.lora.rank > 0

  @property
  def sft_adapters(self) -> bool:
    """Whether fine-tuning trains one too: not over random weights."""
    return self.adapters and bool(self.config.model.path)

  @property
  def methods(self) -> dict[str, dict[str, Any]]:
    """The settings of each method, the config's own last."""
    main = self.config.preference.to_dict()
    baselines = {
      name: main | overrides.to_dict() | {"method": name}
      for name, overrides in self.config.baselines.items()
    }
    return baselines | {main["method"]: main}

  def say(self, text: str) -> None:
    if self.leader:
      print(text, file=sys.stderr, flush=True)

  def key(self, *names: str | int) -> jax.Array:
    return keys.named_key(self.config.seed, *names)

  @contextlib.contextmanager
  def clock(self, stage: str):
    """Adds a stage's seconds to wall_seconds.json, restarts included."""
    start = time.monotonic()
    try:
      yield
    finally:
      if self.leader:
        path = self.workdir / "wall_seconds.json"
        seconds = json.loads(path.read_text()) if path.exists() else {}
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - start
        write_json(path, seconds)

  def barrier(self, name: str) -> None:
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(name)


def set_up(config: Any, workdir: pathlib.Path) -> Job:
  """Builds mesh, model, start parameters and task."""
  mesh = sharding.make_mesh(**config.mesh)
  if jax.process_index() == 0:
    task = make_task(config, workdir)
    for note in task.notes:
      print(note, file=sys.stderr, flush=True)
  if jax.process_count() > 1:
    # The first process builds the dataset, the others find it built.
    multihost_utils.sync_global_devices("task")
    task = make_task(config, workdir)
  model, params, tokenizer = _make_model(config, mesh)
  lengths = (config.data.prompt_length, config.data.completion_length)
  tokens = tasks.Tokens(tokenizer, *lengths)
  size = config.preference.batch_size
  samples_per_prompt = {
    "validation": config.evaluate.validation_samples_per_prompt,
    "test": config.evaluate.samples_per_prompt,
  }
  samplers = {
    split: evaluate.make_sampler(
      model,
      samples_per_prompt=count,
      max_new_tokens=2 * tokens.completion_length,
      eos_token_id=tokenizer.eos_token_id,
      pad_token_id=tokenizer.pad_token_id,
      batch_size=size,
      mesh=mesh,
    )
    for split, count in samples_per_prompt.items()
  }
  return Job(
    config=config,
    workdir=workdir,
    mesh=mesh,
    model=model,
    params=params,
    task=task,
    tokens=tokens,
    samplers=samplers,
    pair_scorer=evaluate.make_pair_scorer(model, batch_size=size, mesh=mesh),
  )


def make_task(config: Any, workdir: pathlib.Path) -> tasks.Task:
  """Reads the data that the configuration names; builds its dataset."""
  data = config.data
  num_prompts = {
    "validation": config.evaluate.num_validation_prompts,
    "test": config.evaluate.num_prompts,
  }
  if data.path == "reviews":
    return tasks.reviews_task(
      num_demonstrations=data.num_demonstrations,
      num_prompts=num_prompts,
      seed=config.seed,
      rollout_path=data.rollout_path,
    )
  if not data.path:
    raise ValueError(
      "data.path: expected a file of pairs (.jsonl, .jsonl.gz, .parquet); pass "
      "--config.data.path=FILE"
    )
  return tasks.preference_file_task(
    data.path,
    data_dir=workdir / "data",
    num_prompts=num_prompts,
    validation_fraction=data.validation_fraction,
    test_fraction=data.test_fraction,
    as_messages=data.as_messages,
    on_bad=data.on_bad_rows,
    rollout_path=data.rollout_path,
  )


def _make_model(config, mesh: Mesh):
  """Returns the model, its start parameters (sharded) and the tokenizer."""
  settings, data = config.model, config.data
  longest = data.prompt_length + 2 * data.completion_length
  adapter = config.lora
  how = {"compute_dtype": settings.compute_dtype, "remat": settings.remat}
  if adapter.rank:
    how["adapter_scale"] = adapter.alpha / adapter.rank
  if settings.path:
    if settings.param_dtype == "int8" and not adapter.rank:
      raise ValueError(
        "model.param_dtype: expected a floating-point dtype where all weights "
        "are trained, got 'int8'; set lora.rank for an adapter over int8"
      )
    policy = models.load(
      settings.path,
      dtype=settings.param_dtype,
      shardings=partial(sharding.tree_shardings, mesh),
    )
    model = models.Model(dataclasses.replace(policy.config, **how))
    if longest > policy.config.max_positions:
      raise ValueError(
        f"data.prompt_length + 2 data.completion_length: expected at most "
        f"{policy.config.max_positions} positions, got {longest}"
      )
    return model, policy.params, policy.tokenizer
  tokenizer = reviews.WordTokenizer()
  model = models.Model(
    models.TransformerConfig(
      vocab_size=tokenizer.vocab_size,
      num_layers=settings.num_layers,
      width=settings.width,
      num_heads=settings.num_heads,
      num_kv_heads=settings.num_kv_heads,
      head_dim=settings.width // settings.num_heads,
      mlp_width=settings.mlp_width,
      max_positions=longest,
      **how,
    )
  )
  laid = sharding.tree_shardings(mesh, model.abstract_params)
  key = keys.named_key(config.seed, "init")
  return model, jax.jit(model.init, out_shardings=laid)(key), tokenizer
