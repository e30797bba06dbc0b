# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Reads GGUF files of Llama, Qwen and Gemma models, quantised or not.

A file's metadata become the config.json that the same model has on a hub, so
that both go through `hf_config`, and its tensors come out as float32 under
their Hugging Face names and in that layout. What GGUF holds differently:

  * llama keeps the rows of each query and key head as pairs to be rotated
    together, where Hugging Face splits the head into halves:
    out[h, (j, i)] = in[h, (i, j)], i < E/2, j < 2;
  * Gemma's norms are stored with their offset of 1 added;
  * Llama 3's rope scaling is a tensor of factors, from which the settings are
    found again.

Other architectures, and keys that say anything beyond these, are refused by
name.
"""

import os
from typing import Any

import numpy as np

from hypo_jax.models import hf_config
from hypo_jax.models import tokenizer as tokenizer_lib
from hypo_jax.models.config import Rope
from hypo_jax.models.families import FAMILIES

# general.architecture -> model_type. Mistral's files say llama.
_FAMILIES = {
  "llama": "llama",
  "qwen2": "qwen2",
  "qwen3": "qwen3",
  "gemma2": "gemma2",
  "gemma3": "gemma3_text",
}
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
  "attn_q_norm": "self_attn.q_norm",
  "attn_k_norm": "self_attn.k_norm",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYER_NAMES = _LAYER_NAMES | {
  "post_attention_norm": "post_attention_layernorm",
  "ffn_norm": "pre_feedforward_layernorm",
  "post_ffw_norm": "post_feedforward_layernorm",
}
_COUNTS = {
  "num_hidden_layers": "block_count",
  "hidden_size": "embedding_length",
  "num_attention_heads": "attention.head_count",
  "intermediate_size": "feed_forward_length",
  "max_position_embeddings": "context_length",
}
_EPS = "attention.layer_norm_rms_epsilon"
_KNOWN_KEYS = {
  *_COUNTS.values(),
  _EPS,
  "attention.head_count_kv",
  "attention.key_length",
  "attention.value_length",
  "rope.dimension_count",
  "rope.freq_base",
  "vocab_size",
}
_WINDOW_KEYS = {"attention.sliding_window"}
_GEMMA_KEYS = _WINDOW_KEYS | {
  "attn_logit_softcapping",
  "final_logit_softcapping",
  "rope.scaling.type",
  "rope.scaling.factor",
}
# The base of layers with a window, which older converters didn't write.
_NEAR_BASE = "rope.freq_base_swa"
# Sizes that take another query scale (llama.cpp knows them by their depth).
_WIDE_QUERIES = {("gemma2", 46), ("gemma3", 62)}
# What Meta's Llama 3 files use beside the factor, which varies.
_LLAMA3 = Rope(
  low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
)
_ROPE_FREQS = "rope_freqs.weight"


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
      ValueError: for a file that is cut short, or of another architecture.
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
        f"{path}: expected a whole GGUF file (cut short?): {error}"
      ) from error
    # A view into the file for each of the vocabulary's tokens: 50 MB.
    reader.fields.clear()
    self._architecture = metadata.get("general.architecture")
    gemma = str(self._architecture).startswith("gemma")
    names = _GEMMA_LAYER_NAMES if gemma else _LAYER_NAMES
    self._tensors = {_hf_name(t.name, names): t for t in reader.tensors}
    freqs = self._tensors.pop(_ROPE_FREQS, None)
    factors = None if freqs is None else np.asarray(freqs.data, np.float32)
    self.config = hf_config.parse(_values(metadata, self._tensors, factors))
    self.tokenizer = tokenizer_lib.from_gguf(
      metadata, num_rows=self.config.vocab_size
    )
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
    if self._architecture == "llama" and name.endswith("q_proj.weight"):
      return _halves(array, self.config.num_heads)
    if self._architecture == "llama" and name.endswith("k_proj.weight"):
      return _halves(array, self.config.num_kv_heads)
    if name.endswith("norm.weight"):
      return array - np.float32(self.config.norm_offset)
    return array


def _hf_name(name: str, layer_names: dict[str, str]) -> str:
  """Returns the Hugging Face name; an unknown name comes back as it is."""
  parts = name.split(".")
  if len(parts) == 4 and parts[0] == "blk" and parts[2] in layer_names:
    return f"model.layers.{parts[1]}.{layer_names[parts[2]]}.{parts[3]}"
  return _TOP_NAMES.get(name, name)


def _halves(array: np.ndarray, num_heads: int) -> np.ndarray:
  """Rows of each head from pairs (E/2, 2) to halves (2, E/2)."""
  pairs = array.reshape(num_heads, -1, 2, array.shape[-1])
  return pairs.swapaxes(1, 2).reshape(array.shape)


def _values(
  metadata: dict[str, Any],
  tensors: dict[str, Any],
  rope_factors: np.ndarray | None,
) -> dict[str, Any]:
  """Returns config.json's contents."""
  architecture = metadata.get("general.architecture")
  if architecture not in _FAMILIES:
    raise ValueError(
      f"general.architecture: expected one of {sorted(_FAMILIES)}, got "
      f"{architecture}"
    )
  if (parts := metadata.get("split.count")) not in (None, 0, 1):
    raise ValueError(
      f"split.count: expected 1, got {parts}; join the parts with "
      "llama-gguf-split --merge"
    )
  values = {
    key.removeprefix(f"{architecture}."): value
    for key, value in metadata.items()
    if key.startswith(f"{architecture}.")
  }
  _check(architecture, values)
  embedding = tensors.get("model.embed_tokens.weight")
  if embedding is None:
    raise ValueError("token_embd.weight: expected in the file, missing")
  heads = values["attention.head_count"]
  head_dim = _head_dim(architecture, values)
  family = _FAMILIES[architecture]
  config = {
    "architectures": [FAMILIES[family].architecture],
    "model_type": family,
    **{theirs: values[key] for theirs, key in _COUNTS.items()},
    "vocab_size": int(embedding.shape[-1]),  # GGUF writes shapes backwards.
    "num_key_value_heads": values.get("attention.head_count_kv", heads),
    "head_dim": head_dim,
    "rms_norm_eps": _shortest(values[_EPS]),
    "tie_word_embeddings": "lm_head.weight" not in tensors,
  }
  theta = _shortest(values.get("rope.freq_base", 10_000.0))
  rope = {"rope_type": "default", "rope_theta": theta}
  if rope_factors is not None:
    rope |= _llama3_scaling(rope_factors, theta, head_dim)
  if architecture.startswith("gemma"):
    return config | _gemma_values(architecture, values, theta, head_dim)
  return config | {"rope_parameters": rope}


def _check(architecture: str, values: dict[str, Any]) -> None:
  known = set(_KNOWN_KEYS)
  if architecture.startswith("gemma"):
    known |= _GEMMA_KEYS
  if architecture == "gemma3":
    known |= {_NEAR_BASE}
  if unknown := sorted(set(values) - known):
    raise ValueError(
      f"{architecture}.{unknown[0]}: expected a plain {architecture}, can't "
      f"honour the value {values[unknown[0]]}"
    )
  for key in sorted({*_COUNTS.values(), _EPS} - set(values)):
    raise ValueError(f"{architecture}.{key}: expected in the file, missing")
  for key in (*_COUNTS.values(), "attention.head_count_kv"):
    value = values.get(key, 1)
    if not isinstance(value, int) or value < 1:
      raise ValueError(
        f"{architecture}.{key}: expected a positive integer for all layers, "
        f"got {value}"
      )


def _gemma_values(architecture, values, theta: float, head_dim: int):
  """Returns windows, caps, query scale and rotary tables of Gemma 2 and 3."""
  kind = values.get("rope.scaling.type", "linear")
  factor = float(values.get("rope.scaling.factor", 1.0))
  if kind not in ("linear", "none"):
    raise ValueError(
      f"{architecture}.rope.scaling.type: expected linear, got {kind}"
    )
  wide = {"rope_type": "default", "rope_theta": theta}
  if kind == "linear" and factor != 1.0:
    wide |= {"rope_type": "linear", "factor": factor}
  scalar = head_dim
  if (architecture, values["block_count"]) in _WIDE_QUERIES:
    scalar = values["embedding_length"] // values["attention.head_count"]
  config = {
    "query_pre_attn_scalar": scalar,
    "sliding_window": values.get("attention.sliding_window", 4096),
    "attn_logit_softcapping": values.get("attn_logit_softcapping"),
    "final_logit_softcapping": values.get("final_logit_softcapping"),
  }
  if architecture == "gemma2":
    return config | {"rope_parameters": wide}
  near_theta = _shortest(values.get(_NEAR_BASE, 10_000.0))
  near = {"rope_type": "default", "rope_theta": near_theta}
  both = {"full_attention": wide, "sliding_attention": near}
  return config | {"rope_parameters": both}


def _llama3_scaling(factors: np.ndarray, theta: float, head_dim: int):
  """Returns the settings that give these factors of the wavelengths.

  Raises:
    ValueError: where Llama 3's settings don't.
  """
  factor = float(factors.max())
  rope = Rope(
    theta,
    factor,
    _LLAMA3.low_freq_factor,
    _LLAMA3.high_freq_factor,
    _LLAMA3.original_max_positions,
  )
  plain = np.asarray(Rope(theta).frequencies(head_dim))
  expected = plain / np.asarray(rope.frequencies(head_dim))
  same_shape = factors.shape == expected.shape
  if not same_shape or not np.allclose(factors, expected, rtol=1e-3):
    raise ValueError(
      f"{_ROPE_FREQS}: expected the rotary factors of Llama 3, got others "
      f"(up to {factor:g})"
    )
  return {
    "rope_type": "llama3",
    "factor": factor,
    "low_freq_factor": rope.low_freq_factor,
    "high_freq_factor": rope.high_freq_factor,
    "original_max_position_embeddings": rope.original_max_positions,
  }


def _head_dim(architecture: str, values: dict[str, Any]) -> int:
  names = ("attention.key_length", "attention.value_length")
  # Fewer rotary dimensions than the head has would leave some unturned.
  widths = {values[k] for k in (*names, "rope.dimension_count") if k in values}
  if len(widths) > 1:
    raise ValueError(
      f"{architecture}.rope.dimension_count: expected the width of keys and "
      f"values, got {sorted(widths)}"
    )
  plain = values["embedding_length"] // values["attention.head_count"]
  return widths.pop() if widths else plain


def _shortest(value: float) -> float:
  """Returns 1e-05 for the float32 that is nearest to it."""
  return float(str(np.float32(value)))
