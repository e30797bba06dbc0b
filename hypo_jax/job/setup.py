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
from functools import partial, reduce
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from hypo_jax import (
  evaluate,
  keys,
  models,
  rewards,
  rollout,
  sharding,
  statistics,
)
from hypo_jax.checkpoint import write_json
from hypo_jax.data import continuations, filters, judges, reviews, tasks
from hypo_jax.job.methods import of_config, replaced_baseline
from hypo_jax.job.out_of_memory import Watch

# Completions drawn of a prompt, of which two make a pair: the first two that
# end and differ.
_SAMPLES_A_PAIR = 4


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
  # By split, and "pairs", which are made of completions: these score nothing.
  completers: dict[str, Callable[..., evaluate.Completed]]
  pair_scorer: Callable[..., np.ndarray]
  # What was started last, should memory run out.
  watch: Watch = dataclasses.field(default_factory=Watch)

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
    found = []
    if replaced := replaced_baseline(self.config):
      found.append(replaced)
    if self.max_new_tokens != self.tokens.completion_length:
      found.append(
        f"rollout.max_new_tokens is {self.max_new_tokens}, "
        f"data.completion_length {self.tokens.completion_length}: pairs and "
        "rollouts end at different lengths, so the two terms of the loss see "
        "different completions"
      )
    if "vocab_size" in self.config.model.architecture:
      described, real = architecture(self.config), self.model.config
      for field in dataclasses.fields(real):
        said, is_so = (getattr(x, field.name) for x in (described, real))
        if said != is_so:
          found.append(
            f"model.architecture describes another model than {real.family} "
            f"from {self.config.model.path}: {field.name} {said}, not {is_so}; "
            "the model's own is used"
          )
          break
    return tuple(found)

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
    return of_config(self.config)

  def say(self, text: str) -> None:
    if self.leader:
      print(text, file=sys.stderr, flush=True)

  def key(self, *names: str | int) -> jax.Array:
    return keys.named_key(self.config.seed, *names)

  @contextlib.contextmanager
  def clock(self, stage: str):
    """Adds a stage's seconds to wall_seconds.json, restarts included."""
    self.watch.running = f"stage {stage}"
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
  """Builds mesh, model, start parameters and task.

  Raises:
    ValueError: naming the key, for settings that can't be meant.
  """
  check_values(config)
  mesh = sharding.make_mesh(**config.mesh)
  check_batches(config, mesh)
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
  size = config.evaluate.batch_size or config.preference.batch_size
  limit, common = tokens.completion_length, {"batch_size": size, "mesh": mesh}
  draw = partial(
    rollout.make_rollout_step,
    model,
    eos_token_id=tokenizer.eos_token_id,
    pad_token_id=tokenizer.pad_token_id,
    mesh=mesh,
  )
  samples_per_prompt = {
    "validation": config.evaluate.validation_samples_per_prompt,
    "test": config.evaluate.samples_per_prompt,
  }
  samplers = {
    split: evaluate.make_sampler(
      model,
      draw(samples_per_prompt=count, max_new_tokens=2 * limit),
      **common,
    )
    for split, count in samples_per_prompt.items()
  }
  completers = {
    name: evaluate.make_completer(
      draw(samples_per_prompt=count, max_new_tokens=limit), **common
    )
    for name, count in (samples_per_prompt | {"pairs": _SAMPLES_A_PAIR}).items()
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
    completers=completers,
    pair_scorer=evaluate.make_pair_scorer(model, batch_size=size, mesh=mesh),
  )


# What is refused before anything is read, by key.
_RANGES = {
  "seed": (0, "at least 0"),
  "data.prompt_length": (1, "at least 1 token"),
  "data.completion_length": (1, "at least 1 token"),
  "sft.num_steps": (0, "at least 0, for no fine-tuning"),
  "sft.batch_size": (1, "at least 1"),
  "rollout.samples_per_prompt": (1, "at least 1"),
  "rollout.max_new_tokens": (0, "at least 0, for data.completion_length"),
  "checkpoint.every_steps": (1, "at least 1"),
  "checkpoint.keep": (1, "at least 1"),
  "evaluate.every_steps": (1, "at least 1"),
  "evaluate.num_prompts": (1, "at least 1"),
  "evaluate.num_validation_prompts": (1, "at least 1"),
  "evaluate.samples_per_prompt": (1, "at least 1"),
  "evaluate.validation_samples_per_prompt": (1, "at least 1"),
}
_COMPUTE_DTYPES = ("float32", "bfloat16", "float16")


def check_values(config: Any) -> None:
  """Raises ValueError, naming the key, for values that no job can have."""
  for key, (least, expected) in _RANGES.items():
    value = reduce(lambda found, name: found[name], key.split("."), config)
    if value < least:
      raise ValueError(f"{key}: expected {expected}, got {value}")
  if config.sft.num_steps and not config.sft.learning_rate > 0:
    rate = config.sft.learning_rate
    raise ValueError(f"sft.learning_rate: expected a number > 0, got {rate}")
  model = config.model
  dtypes = {"compute_dtype": _COMPUTE_DTYPES}
  dtypes["param_dtype"] = (*_COMPUTE_DTYPES, "int8")
  if not model.path:
    dtypes["param_dtype"] = ("float32",)  # What is trained from scratch.
  for name, known in dtypes.items():
    if model[name] not in known:
      raise ValueError(
        f"model.{name}: expected {' or '.join(known)}"
        f"{'' if model.path else ' for a model from scratch'}, got "
        f"{model[name]!r}"
      )


def make_task(config: Any, workdir: pathlib.Path) -> tasks.Task:
  """Reads the data that the configuration names; builds its dataset."""
  data = config.data
  num_prompts = {
    "validation": config.evaluate.num_validation_prompts,
    "test": config.evaluate.num_prompts,
  }
  if not 0 <= data.uniform_share <= (data.path == "reviews"):
    raise ValueError(
      "data.uniform_share: expected a share in [0, 1], and 0 where data.path "
      f'is not "reviews", got {data.uniform_share} with {data.path!r}'
    )
  if data.path == "reviews":
    _check_unused(
      config,
      'data.path is "reviews"',
      ("data.judge", "data.split", "data.demonstration_path"),
      layout=data.layout if data.layout != "auto" else "",
    )
    return tasks.reviews_task(
      num_demonstrations=data.num_demonstrations,
      num_pairs=data.num_pairs,
      num_prompts=num_prompts,
      seed=config.seed,
      rollout_path=data.rollout_path,
    )
  if not data.path:
    raise ValueError(
      "data.path: expected a file or folder of pairs (.jsonl, .jsonl.gz, "
      ".parquet, .csv, .arrow) or a hub name; pass --config.data.path=PATH"
    )
  common = {
    "num_prompts": num_prompts,
    "validation_fraction": data.validation_fraction,
    "test_fraction": data.test_fraction,
    "on_bad": data.on_bad_rows,
    "judge": judges.text_judge(rewards.load(data.judge))
    if data.judge
    else None,
  }
  if data.layout == "text":
    if not data.judge:
      raise ValueError(
        'data.judge: expected module:function where data.layout is "text", to '
        "label the pairs, got none"
      )
    _check_unused(
      config,
      'data.layout is "text"',
      ("data.split", "data.rollout_path", "data.demonstration_path"),
    )
    return continuations.continuation_task(
      data.path,
      prompt_words=data.prompt_words,
      num_pairs=data.num_pairs,
      **common,
    )
  return tasks.preference_file_task(
    data.path,
    data_dir=workdir / "data",
    as_messages=data.as_messages,
    rollout_path=data.rollout_path,
    demonstration_path=data.demonstration_path,
    layout=data.layout,
    split=data.split,
    filters=filters.Filters(**data.filter),
    reward_model_share=config.evaluate.reward_model_share,
    **common,
  )


def _check_unused(
  config: Any, where: str, names: tuple[str, ...], layout: str = ""
) -> None:
  """Refuses settings of pairs' files where pairs are sampled."""
  data = config.data
  used = {name: data[name.removeprefix("data.")] for name in names}
  used |= {
    "data.layout": layout,
    "data.as_messages": data.as_messages,
    "evaluate.reward_model_share": config.evaluate.reward_model_share,
  }
  used |= {f"data.filter.{k}": value for k, value in data.filter.items()}
  for name, value in used.items():
    if value:
      raise ValueError(f"{name}: expected none where {where}, got {value!r}")


def run_settings(config: Any) -> dict[str, Any]:
  """Returns how a model is run, as fields of TransformerConfig."""
  settings, adapter = config.model, config.lora
  how = {"compute_dtype": settings.compute_dtype, "remat": settings.remat}
  if adapter.rank:
    how["adapter_scale"] = adapter.alpha / adapter.rank
  elif settings.param_dtype == "int8":
    raise ValueError(
      "model.param_dtype: expected a floating-point dtype where all weights "
      "are trained, got 'int8'; set lora.rank for an adapter over int8"
    )
  return how


def architecture(config: Any, **sizes: int) -> models.TransformerConfig:
  """Returns what model.architecture describes.

  Args:
    config: the job's.
    **sizes: config.json keys that model.architecture leaves to the data.

  Raises:
    ValueError: naming the key of model.architecture.
  """
  values = config.model.architecture.to_dict()
  try:
    described = models.parse_config(sizes | values)
  except ValueError as error:
    raise ValueError(f"model.architecture.{error}") from None
  return dataclasses.replace(described, **run_settings(config))


def longest_sequence(config: Any) -> int:
  """Returns the most tokens in a sequence: evaluation samples twice as long."""
  data, drawn = config.data, config.rollout.max_new_tokens
  return data.prompt_length + max(2 * data.completion_length, drawn)


def check_length(config: Any, max_positions: int) -> None:
  """Raises ValueError where sequences are longer than the model takes."""
  if (longest := longest_sequence(config)) > max_positions:
    raise ValueError(
      "data.prompt_length + the larger of 2 data.completion_length and "
      f"rollout.max_new_tokens: expected at most {max_positions} positions, "
      f"got {longest}"
    )


def check_batches(config: Any, mesh: Mesh) -> None:
  """Raises ValueError where a batch can't be cut as the mesh cuts rows."""
  ways = mesh.shape["data"] * mesh.shape["fsdp"]
  sizes = {"preference.batch_size": config.preference.batch_size}
  micro = "preference.micro_batch_size"
  sizes[micro] = config.preference.micro_batch_size
  if config.sft.num_steps:
    sizes["sft.batch_size"] = config.sft.batch_size
  fitted = "reward_model.batch_size"
  if config.reward == "model" or config.evaluate.reward_model_share:
    sizes[fitted] = config.reward_model.batch_size
  if config.evaluate.batch_size:
    sizes["evaluate.batch_size"] = config.evaluate.batch_size
  for name, size in sizes.items():
    if size < 1 or size % ways:
      raise ValueError(
        f"{name}: expected a multiple of mesh.data x mesh.fsdp = {ways} "
        f"devices, which the rows are cut over, got {size}"
      )
  if sizes["preference.batch_size"] % sizes[micro]:
    raise ValueError(
      f"{micro}: expected a divisor of preference.batch_size = "
      f"{sizes['preference.batch_size']}, got {sizes[micro]}"
    )
  if fitted in sizes and sizes[fitted] % min(sizes[fitted], sizes[micro]):
    raise ValueError(
      f"{fitted}: expected a multiple of {micro} = {sizes[micro]}, or at most "
      f"that, got {sizes[fitted]}"
    )


def _make_model(config, mesh: Mesh):
  """Returns the model, its start parameters (sharded) and the tokenizer."""
  settings, how = config.model, run_settings(config)
  if settings.path:
    policy = models.load(
      settings.path,
      dtype=settings.param_dtype,
      shardings=partial(sharding.tree_shardings, mesh),
    )
    model = models.Model(dataclasses.replace(policy.config, **how))
    check_length(config, model.config.max_positions)
    tokenizer = models.needed_tokenizer(settings.path, policy.tokenizer)
    if tokenizer.eos_token_id is None:
      raise ValueError(
        f"{settings.path}: expected a token that ends completions, none; name "
        "it as eos_token in tokenizer_config.json or as eos_token_id in "
        "generation_config.json"
      )
    return model, policy.params, tokenizer
  tokenizer = reviews.WordTokenizer()
  model = models.Model(
    architecture(
      config,
      vocab_size=tokenizer.vocab_size,
      max_position_embeddings=longest_sequence(config),
    )
  )
  check_length(config, model.config.max_positions)
  laid = sharding.tree_shardings(mesh, model.abstract_params)
  key = keys.named_key(config.seed, "init")
  return model, jax.jit(model.init, out_shardings=laid)(key), tokenizer
