# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Reads GGUF files of the llama architecture, quantised or not.

Tensors come out as float32 under their Hugging Face names and in that layout:

    out[h, (j, i)] = in[h, (i, j)],   i < E/2, j < 2, for every query and key

since GGUF keeps the rows of each head as pairs to be rotated together, where
Hugging Face splits the head into halves. Other architectures, and keys that say
anything beyond a plain llama, are refused by name.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from hypo_jax.models import tokenizer as tokenizer_lib
from hypo_jax.models.transformer import TransformerConfig

_TOP_NAMES = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_COUNTS = {
  "num_layers": "block_count",
  "width": "embedding_length",
  "num_heads": "attention.head_count",
  "mlp_width": "feed_forward_length",
  "max_positions": "context_length",
}
_KNOWN_KEYS = {
  *_COUNTS.values(),
  "attention.head_count_kv",
  "attention.key_length",
  "attention.value_length",
  "attention.layer_norm_rms_epsilon",
  "rope.dimension_count",
  "rope.freq_base",
  "vocab_size",
}


class GGUFFile:
  """One open file.

  Attributes:
    config: the architecture.
    tokenizer: built from the file's metadata.
    names: the tensors' Hugging Face names.
  """

  def __init__(self, path: str | os.PathLike):
    """Opens `path`; weights are read later, one tensor at a time.

    Raises:
      ValueError: for a file that is cut short, or isn't a plain llama.
    """
    import gguf  # Slow to import, and seldom needed.

    class Reader(gguf.GGUFReader):
      """Slices a plain view: 250,000 slices of a memory map take seconds."""

      @property
      def data(self) -> np.ndarray:
        return self._view

      @data.setter
      def data(self, mapped: np.memmap):
        self._view = mapped.view(np.ndarray)

    self._path = path
    self._dequantize = gguf.quants.dequantize
    try:
      reader = Reader(path)
      metadata = {k: field.contents() for k, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError) as error:
      raise ValueError(
        f"{path}: not a readable GGUF file (cut short?): {error}"
      ) from error
    # A view into the file for each of the vocabulary's tokens: 50 MB.
    reader.fields.clear()
    self._tensors = {_hf_name(tensor.name): tensor for tensor in reader.tensors}
    self.config = _parse(metadata, self._tensors)
    self.tokenizer = tokenizer_lib.from_gguf(metadata)
    self.names = set(self._tensors)

  def read(self, name: str) -> np.ndarray:
    """Returns the tensor of a Hugging Face name as float32 [out, in]."""
    tensor = self._tensors[name]
    try:
      array = self._dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
      raise ValueError(
        f"{self._path}: {tensor.name}: can't read type "
        f"{tensor.tensor_type.name}"
      ) from error
    if name.endswith("q_proj.weight"):
      return _halves(array, self.config.num_heads)
    if name.endswith("k_proj.weight"):
      return _halves(array, self.config.num_kv_heads)
    return array


def _hf_name(name: str) -> str:
  """Returns the Hugging Face name; an unknown name comes back as it is."""
  parts = name.split(".")
  if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER_NAMES:
    return f"model.layers.{parts[1]}.{_LAYER_NAMES[parts[2]]}.{parts[3]}"
  return _TOP_NAMES.get(name, name)


def _halves(array: np.ndarray, num_heads: int) -> np.ndarray:
  """Rows of each head from pairs (E/2, 2) to halves (2, E/2)."""
  pairs = array.reshape(num_heads, -1, 2, array.shape[-1])
  return pairs.swapaxes(1, 2).reshape(array.shape)


def _parse(
  metadata: dict[str, Any], tensors: dict[str, Any]
) -> TransformerConfig:
  for key, allowed in (
    ("general.architecture", ("llama",)),
    ("split.count", (None, 0, 1)),
  ):
    if (value := metadata.get(key)) not in allowed:
      raise ValueError(f"{key}: expected {allowed[-1]}, got {value}")
  values = {
    key.removeprefix("llama."): value
    for key, value in metadata.items()
    if key.startswith("llama.")
  }
  if unknown := sorted(set(values) - _KNOWN_KEYS):
    raise ValueError(
      f"llama.{unknown[0]}: expected a plain llama, can't honour the value "
      f"{values[unknown[0]]}"
    )
  required = {*_COUNTS.values(), "attention.layer_norm_rms_epsilon"}
  for key in sorted(required - set(values)):
    raise ValueError(f"llama.{key}: expected in the file, missing")
  values.setdefault("attention.head_count_kv", values["attention.head_count"])
  for key in (*_COUNTS.values(), "attention.head_count_kv"):
    if not isinstance(values[key], int) or values[key] < 1:
      raise ValueError(
        f"llama.{key}: expected a positive integer for all layers, got "
        f"{values[key]}"
      )
  counts = {ours: values[key] for ours, key in _COUNTS.items()}
  embedding = tensors.get("model.embed_tokens.weight")
  if embedding is None:
    raise ValueError("token_embd.weight: expected in the file, missing")
  return TransformerConfig(
    **counts,
    vocab_size=int(embedding.shape[-1]),  # GGUF writes shapes backwards.
    num_kv_heads=values["attention.head_count_kv"],
    head_dim=_head_dim(values),
    rope_theta=_shortest(values.get("rope.freq_base", 10_000.0)),
    norm_eps=_shortest(values["attention.layer_norm_rms_epsilon"]),
    tied_embeddings="lm_head.weight" not in tensors,
  )


def _head_dim(values: dict[str, Any]) -> int:
  def widths() -> Iterator[int]:
    yield values["embedding_length"] // values["attention.head_count"]
    for key in ("attention.key_length", "attention.value_length"):
      if key in values:
        yield values[key]
    # Last of all: fewer dimensions than the head has would be left unturned.
    if "rope.dimension_count" in values:
      yield values["rope.dimension_count"]

  first, *rest = widths()
  if not rest:
    return first
  if len(set(rest)) > 1:
    raise ValueError(
      "llama.rope.dimension_count: expected the width of keys and values, got "
      f"{rest}"
    )
  return rest[0]


def _shortest(value: float) -> float:
  """Returns 1e-05 for the float32 that is nearest to it."""
  return float(str(np.float32(value)))
