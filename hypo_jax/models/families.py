# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Model families: how each one's files name and lay out our parameters.

A tensor's axes are written as letters, those of the file before the arrow (axes
that are one in the file stand together) and ours after it:

    "he,d->dhe"     [H * E, D] in the file is [D, H, E] here
    "hse,d->sdhe"   s = 3 parameters (query, key, value) fused in one tensor

    d width, h heads, k key-value heads, e head width, f feed-forward width,
    v vocabulary, p positions, s parameters in the tensor

A table lists all that a family may have; a model has those that its
configuration asks for. Both directions are exact.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from hypo_jax.models.config import TransformerConfig

Path = tuple[str, ...]


class Tensor(NamedTuple):
  """One tensor of the files: the parameters it holds, and its axes."""

  paths: tuple[Path, ...]
  axes: str


@dataclasses.dataclass(frozen=True)
class Family:
  """One family.

  Attributes:
    architecture: as config.json names it.
    prefix: begins the names of all weights but the head's; some files lack it.
    tensors: by name in the files; {} stands for the layer's number.
  """

  architecture: str
  prefix: str
  tensors: dict[str, Tensor]


def _top(**tensors: tuple[str, str]) -> dict[str, Tensor]:
  """Tensors outside the layers: ours = (theirs, axes)."""
  return {
    theirs: Tensor(((ours,),), axes) for ours, (theirs, axes) in tensors.items()
  }


def _layers(prefix: str, tensors: dict[str, tuple[str, str]]):
  """Tensors of a layer: theirs -> (ours, separated by commas; axes)."""
  return {
    f"{prefix}{theirs}": Tensor(
      tuple(("layers", name) for name in ours.split(",")), axes
    )
    for theirs, (ours, axes) in tensors.items()
  }


_ATTENTION = {
  "self_attn.q_proj.weight": ("query", "he,d->dhe"),
  "self_attn.q_proj.bias": ("query_bias", "he->he"),
  "self_attn.k_proj.weight": ("key", "ke,d->dke"),
  "self_attn.k_proj.bias": ("key_bias", "ke->ke"),
  "self_attn.v_proj.weight": ("value", "ke,d->dke"),
  "self_attn.v_proj.bias": ("value_bias", "ke->ke"),
  "self_attn.o_proj.weight": ("output", "d,he->hed"),
  "self_attn.o_proj.bias": ("output_bias", "d->d"),
  "self_attn.q_norm.weight": ("query_norm", "e->e"),
  "self_attn.k_norm.weight": ("key_norm", "e->e"),
}
_MLP = {
  "mlp.gate_proj.weight": ("gate", "f,d->df"),
  "mlp.gate_proj.bias": ("gate_bias", "f->f"),
  "mlp.up_proj.weight": ("up", "f,d->df"),
  "mlp.up_proj.bias": ("up_bias", "f->f"),
  "mlp.down_proj.weight": ("down", "d,f->fd"),
  "mlp.down_proj.bias": ("down_bias", "d->d"),
}
_LLAMA_NORMS = {
  "input_layernorm.weight": ("attention_norm", "d->d"),
  "post_attention_layernorm.weight": ("mlp_norm", "d->d"),
}
_GEMMA_NORMS = {
  "input_layernorm.weight": ("attention_norm", "d->d"),
  "post_attention_layernorm.weight": ("attention_post_norm", "d->d"),
  "pre_feedforward_layernorm.weight": ("mlp_norm", "d->d"),
  "post_feedforward_layernorm.weight": ("mlp_post_norm", "d->d"),
}
_OUTSIDE = _top(
  embedding=("model.embed_tokens.weight", "v,d->vd"),
  final_norm=("model.norm.weight", "d->d"),
  head=("lm_head.weight", "v,d->dv"),
)
_LLAMA = _OUTSIDE | _layers(
  "model.layers.{}.", _LLAMA_NORMS | _ATTENTION | _MLP
)
_GEMMA = _OUTSIDE | _layers(
  "model.layers.{}.", _GEMMA_NORMS | _ATTENTION | _MLP
)
_GPT2 = _top(
  embedding=("transformer.wte.weight", "v,d->vd"),
  position_embedding=("transformer.wpe.weight", "p,d->pd"),
  final_norm=("transformer.ln_f.weight", "d->d"),
  final_norm_bias=("transformer.ln_f.bias", "d->d"),
  head=("lm_head.weight", "v,d->dv"),
) | _layers(
  "transformer.h.{}.",
  {
    "ln_1.weight": ("attention_norm", "d->d"),
    "ln_1.bias": ("attention_norm_bias", "d->d"),
    "attn.c_attn.weight": ("query,key,value", "d,she->sdhe"),
    "attn.c_attn.bias": ("query_bias,key_bias,value_bias", "she->she"),
    "attn.c_proj.weight": ("output", "he,d->hed"),
    "attn.c_proj.bias": ("output_bias", "d->d"),
    "ln_2.weight": ("mlp_norm", "d->d"),
    "ln_2.bias": ("mlp_norm_bias", "d->d"),
    "mlp.c_fc.weight": ("up", "d,f->df"),
    "mlp.c_fc.bias": ("up_bias", "f->f"),
    "mlp.c_proj.weight": ("down", "f,d->fd"),
    "mlp.c_proj.bias": ("down_bias", "d->d"),
  },
)
_GPT_NEOX = _top(
  embedding=("gpt_neox.embed_in.weight", "v,d->vd"),
  final_norm=("gpt_neox.final_layer_norm.weight", "d->d"),
  final_norm_bias=("gpt_neox.final_layer_norm.bias", "d->d"),
  head=("embed_out.weight", "v,d->dv"),
) | _layers(
  "gpt_neox.layers.{}.",
  {
    "input_layernorm.weight": ("attention_norm", "d->d"),
    "input_layernorm.bias": ("attention_norm_bias", "d->d"),
    "attention.query_key_value.weight": ("query,key,value", "hse,d->sdhe"),
    "attention.query_key_value.bias": (
      "query_bias,key_bias,value_bias",
      "hse->she",
    ),
    "attention.dense.weight": ("output", "d,he->hed"),
    "attention.dense.bias": ("output_bias", "d->d"),
    "post_attention_layernorm.weight": ("mlp_norm", "d->d"),
    "post_attention_layernorm.bias": ("mlp_norm_bias", "d->d"),
    "mlp.dense_h_to_4h.weight": ("up", "f,d->df"),
    "mlp.dense_h_to_4h.bias": ("up_bias", "f->f"),
    "mlp.dense_4h_to_h.weight": ("down", "d,f->fd"),
    "mlp.dense_4h_to_h.bias": ("down_bias", "d->d"),
  },
)

# By config.json's model_type, `TransformerConfig.family`.
FAMILIES = {
  "llama": Family("LlamaForCausalLM", "model.", _LLAMA),
  "mistral": Family("MistralForCausalLM", "model.", _LLAMA),
  "qwen2": Family("Qwen2ForCausalLM", "model.", _LLAMA),
  "qwen3": Family("Qwen3ForCausalLM", "model.", _LLAMA),
  "gemma2": Family("Gemma2ForCausalLM", "model.", _GEMMA),
  "gemma3_text": Family("Gemma3ForCausalLM", "model.", _GEMMA),
  "gpt2": Family("GPT2LMHeadModel", "transformer.", _GPT2),
  "gpt_neox": Family("GPTNeoXForCausalLM", "gpt_neox.", _GPT_NEOX),
}


def tensors(config: TransformerConfig, paths: set[Path]) -> dict[str, Tensor]:
  """Returns the tensors that hold the parameters at `paths`.

  Raises:
    ValueError: for a parameter that the family's files have no place for.
  """
  table = FAMILIES[config.family].tensors
  used = {name: t for name, t in table.items() if set(t.paths) <= paths}
  placed = {path for tensor in used.values() for path in tensor.paths}
  if lost := sorted(paths - placed):
    raise ValueError(
      f"{'/'.join(lost[0])}: expected a parameter that the family "
      f"{config.family!r} has, got one without a name in its files"
    )
  return used


def file_shape(tensor: Tensor, config: TransformerConfig) -> tuple[int, ...]:
  """Returns the tensor's shape in the files."""
  groups, sizes = tensor.axes.split("->")[0].split(","), _sizes(tensor, config)
  return tuple(math.prod(sizes[a] for a in group) for group in groups)


def from_file(
  array: np.ndarray, tensor: Tensor, config: TransformerConfig
) -> list[np.ndarray]:
  """Returns a view of each parameter that the tensor holds."""
  theirs, ours = tensor.axes.split("->")
  letters, sizes = theirs.replace(",", ""), _sizes(tensor, config)
  array = array.reshape([sizes[a] for a in letters])
  array = array.transpose([letters.index(a) for a in ours])
  return list(array) if ours[0] == "s" else [array]


def to_file(
  parts: list[np.ndarray], tensor: Tensor, config: TransformerConfig
) -> np.ndarray:
  """Returns the tensor that holds the parameters; undoes `from_file`."""
  theirs, ours = tensor.axes.split("->")
  array = np.stack(parts) if ours[0] == "s" else parts[0]
  array = array.transpose([ours.index(a) for a in theirs.replace(",", "")])
  return np.ascontiguousarray(array.reshape(file_shape(tensor, config)))


def _sizes(tensor: Tensor, config: TransformerConfig) -> dict[str, int]:
  c = config
  return {
    "d": c.width,
    "h": c.num_heads,
    "k": c.num_kv_heads,
    "e": c.head_dim,
    "f": c.mlp_width,
    "v": c.vocab_size,
    "p": c.max_positions,
    "s": len(tensor.paths),
  }


def layer_names(name: str, num_layers: int) -> list[str]:
  """Returns one name a layer, or the name itself where it has no {}."""
  if "{}" not in name:
    return [name]
  return [name.format(layer) for layer in range(num_layers)]
