# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's config.json to and from ours, and how tensors are named.

Only LlamaForCausalLM. A setting that our transformer hasn't got and that would
change its results (rope scaling, biases, other activations) is refused by name;
settings of training and generation (dropout, caches, initial scale) are not
read.
"""

from typing import Any

from hypo_jax.models.transformer import TransformerConfig

# Path in the parameters -> (tensor name, shape in the files), a layer's with
# {} for its number.
Path = tuple[str, ...]
Layout = dict[Path, tuple[str, tuple[int, ...]]]

_ARCHITECTURE = "LlamaForCausalLM"

# What each setting must be, where config.json has it.
_ONLY = {
  "model_type": ("llama",),
  "hidden_act": ("silu",),
  "attention_bias": (False,),
  "mlp_bias": (False,),
  "rope_interleaved": (False,),
  "partial_rotary_factor": (1, None),
  "quantization_config": (None,),
}

_COUNTS = {
  "vocab_size": "vocab_size",
  "num_layers": "num_hidden_layers",
  "width": "hidden_size",
  "num_heads": "num_attention_heads",
  "mlp_width": "intermediate_size",
  "max_positions": "max_position_embeddings",
}


def parse(values: dict[str, Any]) -> TransformerConfig:
  """Returns the architecture that config.json describes.

  Args:
    values: the file's contents, written by transformers 4 (rope_theta) or 5
      (rope_parameters).

  Raises:
    ValueError: for a missing key, or a setting that isn't supported.
  """
  if (names := values.get("architectures")) != [_ARCHITECTURE]:
    raise ValueError(
      f"architectures: expected [{_ARCHITECTURE!r}], got {names}"
    )
  for key, allowed in _ONLY.items():
    if key in values and values[key] not in allowed:
      raise ValueError(f"{key}: expected {allowed[0]!r}, got {values[key]!r}")
  counts = {ours: _count(values, key) for ours, key in _COUNTS.items()}
  heads = counts["num_heads"]
  head_dim = counts["width"] // heads
  if values.get("head_dim") is None and counts["width"] % heads:
    raise ValueError(
      f"hidden_size: expected a multiple of num_attention_heads = {heads}, got "
      f"{counts['width']}"
    )
  # Where transformers has a default for Llama, it is the default here.
  return TransformerConfig(
    **counts,
    num_kv_heads=_count(values, "num_key_value_heads", default=heads),
    head_dim=_count(values, "head_dim", default=head_dim),
    rope_theta=_rope_theta(values),
    norm_eps=float(_required(values, "rms_norm_eps")),
    tied_embeddings=bool(values.get("tie_word_embeddings", False)),
  )


def _required(values: dict[str, Any], key: str) -> Any:
  if values.get(key) is None:
    raise ValueError(f"{key}: expected in config.json, missing")
  return values[key]


def _count(
  values: dict[str, Any], key: str, *, default: int | None = None
) -> int:
  if values.get(key) is None and default is not None:
    return default
  count = _required(values, key)
  if type(count) is not int or count < 1:
    raise ValueError(f"{key}: expected a positive integer, got {count!r}")
  return count


def _rope_theta(values: dict[str, Any]) -> float:
  """Returns the rotary base, from whichever keys hold it."""
  bases = []
  if values.get("rope_theta") is not None:
    bases.append(float(values["rope_theta"]))
  for key in ("rope_parameters", "rope_scaling"):
    rope = values.get(key) or {}
    for name in ("rope_type", "type"):
      if rope.get(name, "default") != "default":
        raise ValueError(
          f"{key}.{name}: expected 'default' (no rope scaling), got "
          f"{rope[name]!r}"
        )
    unknown = set(rope) - {"rope_type", "type", "rope_theta"}
    unknown -= {k for k in unknown if rope[k] in _ONLY.get(k, ())}
    if unknown:
      raise ValueError(
        f"{key}: expected rope_theta alone, got {sorted(unknown)}"
      )
    if "rope_theta" in rope:
      bases.append(float(rope["rope_theta"]))
  if len(set(bases)) > 1:
    raise ValueError(
      f"rope_theta: expected one value, got {bases[0]} and {bases[1]} (in "
      "rope_parameters)"
    )
  return bases[0] if bases else 10_000.0


def render(
  config: TransformerConfig, *, dtype: str, token_ids: dict[str, Any]
) -> dict[str, Any]:
  """Returns config.json's contents, readable by transformers 4 and 5.

  Args:
    config: the architecture.
    dtype: of the stored weights.
    token_ids: bos_token_id, eos_token_id and pad_token_id, where known.

  Raises:
    ValueError: for what LlamaForCausalLM hasn't got.
  """
  for name in ("windows", "attention_softcap", "final_softcap"):
    if getattr(config, name) is not None:
      raise ValueError(
        f"{name}: expected None ({_ARCHITECTURE} has none), got "
        f"{getattr(config, name)}"
      )
  if isinstance(config.rope_theta, tuple):
    raise ValueError(
      f"rope_theta: expected one value for all layers ({_ARCHITECTURE}), got "
      f"{config.rope_theta}"
    )
  return {
    "architectures": [_ARCHITECTURE],
    "model_type": "llama",
    **{theirs: getattr(config, ours) for ours, theirs in _COUNTS.items()},
    "num_key_value_heads": config.num_kv_heads,
    "head_dim": config.head_dim,
    "rms_norm_eps": config.norm_eps,
    # transformers 4 reads the first, 5 the second.
    "rope_theta": config.rope_theta,
    "rope_parameters": {
      "rope_theta": config.rope_theta,
      "rope_type": "default",
    },
    "tie_word_embeddings": config.tied_embeddings,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "torch_dtype": dtype,
    **token_ids,
  }


def layout(config: TransformerConfig) -> Layout:
  """Returns the tensors that hold each parameter, in the files' order."""
  width, mlp = config.width, config.mlp_width
  queries = config.num_heads * config.head_dim
  keys = config.num_kv_heads * config.head_dim
  layers = {
    "attention_norm": ("input_layernorm", (width,)),
    "query": ("self_attn.q_proj", (queries, width)),
    "key": ("self_attn.k_proj", (keys, width)),
    "value": ("self_attn.v_proj", (keys, width)),
    "output": ("self_attn.o_proj", (width, queries)),
    "mlp_norm": ("post_attention_layernorm", (width,)),
    "gate": ("mlp.gate_proj", (mlp, width)),
    "up": ("mlp.up_proj", (mlp, width)),
    "down": ("mlp.down_proj", (width, mlp)),
  }
  vocabulary = (config.vocab_size, width)
  found: Layout = {("embedding",): ("model.embed_tokens.weight", vocabulary)}
  for ours, (theirs, shape) in layers.items():
    found["layers", ours] = (f"model.layers.{{}}.{theirs}.weight", shape)
  found["final_norm",] = ("model.norm.weight", (width,))
  if not config.tied_embeddings:
    found["head",] = ("lm_head.weight", vocabulary)
  return found


def tensor_names(name: str, num_layers: int) -> list[str]:
  """Returns one name a layer, or the name itself where it has no {}."""
  if "{}" not in name:
    return [name]
  return [name.format(layer) for layer in range(num_layers)]
