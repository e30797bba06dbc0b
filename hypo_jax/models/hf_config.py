# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's config.json to and from ours, for every family.

Files of transformers 4 (rope_theta, rope_scaling, rotary_pct,
rope_local_base_freq) and 5 (rope_parameters) are read; written ones suit both.
Nothing is passed over: a key that is not read here must be one that changes no
result (dropout, caches, token ids), else it is refused by name. A missing key
takes the default that transformers has for that family, except sizes and
rms_norm_eps, which must be there.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from hypo_jax.models.config import Rope, TransformerConfig
from hypo_jax.models.families import FAMILIES

# Of training, generation, heads for other tasks, and of the file's making.
_HARMLESS = set(
  """
  _attn_implementation_autoset _name_or_path _num_labels attention_dropout
  attention_probs_dropout_prob attn_pdrop auto_map bos_token_id
  cache_implementation chunk_size_feed_forward classifier_dropout dtype
  embd_pdrop eos_token_id gradient_checkpointing hidden_dropout
  hidden_dropout_prob id2label initializer_range intermediate_dropout is_decoder
  is_llama_config label2id max_length model_max_length n_ctx n_special
  num_labels output_attentions output_hidden_states pad_token_id
  predict_special_tokens prefix pretraining_tp problem_type
  reorder_and_upcast_attn resid_pdrop return_dict summary_activation
  summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
  task_specific_params temperature tie_encoder_decoder tokenizer_class
  torch_dtype torchscript transformers.js_config transformers_version
  unk_token_id unsloth_fixed unsloth_version use_cache
  """.split()
)

# What must be so, where config.json has it, whatever the family.
_ONLY = {
  "quantization_config": (None,),
  "rope_interleaved": (False, None),
  "is_encoder_decoder": (False,),
  "add_cross_attention": (False,),
  "use_bidirectional_attention": (False, None),
  "use_mrope": (False,),
}

_ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
}

_COUNTS = {
  "vocab_size": "vocab_size",
  "num_layers": "num_hidden_layers",
  "width": "hidden_size",
  "num_heads": "num_attention_heads",
  "mlp_width": "intermediate_size",
  "max_positions": "max_position_embeddings",
}
_GPT2_COUNTS = {
  "vocab_size": "vocab_size",
  "num_layers": "n_layer",
  "width": "n_embd",
  "num_heads": "n_head",
  "max_positions": "n_positions",
}


class _Values:
  """config.json's contents, and which of its keys were read."""

  def __init__(self, values: dict[str, Any]):
    self._values = values
    self.unread = set(values)

  def get(self, key: str, default: Any = None) -> Any:
    self.unread.discard(key)
    value = self._values.get(key)
    return default if value is None else value

  def nullable(self, key: str, default: Any) -> Any:
    """Null is None; only an absent key takes the default."""
    return self.get(key, None if key in self._values else default)

  def cap(self, key: str, default: float | None) -> float | None:
    value = self.nullable(key, default)
    return None if value is None else _positive(key, value)

  def object(self, key: str) -> dict[str, Any]:
    value = self.get(key, {})
    if not isinstance(value, dict):
      raise ValueError(f"{key}: expected an object, got {value!r}")
    return value

  def required(self, key: str) -> Any:
    if (value := self.get(key)) is None:
      raise ValueError(f"{key}: expected in config.json, missing")
    return value

  def count(self, key: str, default: int | None = None) -> int:
    value = self.get(key, default)
    if value is None:
      self.required(key)
    if type(value) is not int or value < 1:
      raise ValueError(f"{key}: expected a positive integer, got {value!r}")
    return value

  def number(self, key: str, default: float | None = None) -> float | None:
    value = self.get(key, default)
    return None if value is None else _positive(key, value)

  def flag(self, key: str, default: bool) -> bool:
    value = self.get(key, default)
    if type(value) is not bool:
      raise ValueError(f"{key}: expected true or false, got {value!r}")
    return value

  def only(self, key: str, *allowed: Any) -> None:
    value = self._values.get(key, allowed[0])
    self.unread.discard(key)
    if value not in allowed:
      raise ValueError(f"{key}: expected {allowed[0]!r}, got {value!r}")


def _positive(key: str, value: Any) -> float:
  if type(value) not in (int, float) or not 0 < value < math.inf:
    raise ValueError(f"{key}: expected a positive number, got {value!r}")
  return float(value)


def parse(values: dict[str, Any]) -> TransformerConfig:
  """Returns the architecture that config.json describes.

  Args:
    values: the file's contents.

  Raises:
    ValueError: for an unknown architecture, a missing key, or a setting that
      isn't supported or not known.
  """
  v = _Values(values)
  name = v.get("architectures")
  known = {family.architecture: key for key, family in FAMILIES.items()}
  if isinstance(name, list | tuple) and len(name) == 1:
    (name,) = name
  if name not in list(known):  # Not to be hashed: it may be any JSON.
    raise ValueError(
      f"architectures: expected one of {sorted(known)}, got {name!r}"
    )
  family = known[name]
  v.only("model_type", family)
  for key, allowed in _ONLY.items():
    v.only(key, *allowed)
  counts = _GPT2_COUNTS if family == "gpt2" else _COUNTS
  sizes = {ours: v.count(theirs) for ours, theirs in counts.items()}
  settings = _PARSERS[family](v, sizes)
  if unknown := sorted(v.unread - _HARMLESS):
    raise ValueError(
      f"{unknown[0]}: expected a setting known for {name}, got "
      f"{values[unknown[0]]!r}; delete it from config.json if no result "
      "depends on it"
    )
  return TransformerConfig(family=family, **sizes, **settings)


def _heads(v: _Values, sizes, *, head_dim: int | None = None) -> dict[str, int]:
  heads = sizes["num_heads"]
  if head_dim is None and v.get("head_dim") is None and sizes["width"] % heads:
    raise ValueError(
      f"hidden_size: expected a multiple of num_attention_heads = {heads}, got "
      f"{sizes['width']}"
    )
  return {
    "num_kv_heads": v.count("num_key_value_heads", heads),
    "head_dim": v.count("head_dim", head_dim or sizes["width"] // heads),
  }


def _activation(v: _Values, key: str, default: str) -> str:
  name = v.get(key, default)
  if name not in list(_ACTIVATIONS):
    raise ValueError(f"{key}: expected {default!r}, got {name!r}")
  return _ACTIVATIONS[name]


def _rms(v: _Values) -> dict[str, Any]:
  eps = _positive("rms_norm_eps", v.required("rms_norm_eps"))
  return {"norm": "rms", "norm_eps": eps}


def _llama(v: _Values, sizes) -> dict[str, Any]:
  bias = v.flag("attention_bias", False)
  return {
    **_heads(v, sizes),
    **_rms(v),
    **_rope(v),
    "activation": _activation(v, "hidden_act", "silu"),
    "qkv_bias": bias,
    "output_bias": bias,
    "mlp_bias": v.flag("mlp_bias", False),
    "tied_embeddings": v.flag("tie_word_embeddings", False),
  }


def _mistral(v: _Values, sizes) -> dict[str, Any]:
  windows = v.nullable("sliding_window", 4096)
  if windows is not None:
    windows = (_window(windows),) * sizes["num_layers"]
  return {
    **_heads(v, sizes),
    **_rms(v),
    **_rope(v),
    "activation": _activation(v, "hidden_act", "silu"),
    "windows": windows,
    "tied_embeddings": v.flag("tie_word_embeddings", False),
  }


def _window(value: Any) -> int:
  if type(value) is not int or value < 1:
    raise ValueError(
      f"sliding_window: expected a positive integer, got {value!r}"
    )
  return value


def _qwen(v: _Values, sizes) -> dict[str, Any]:
  num_layers = sizes["num_layers"]
  slides = v.flag("use_sliding_window", False)
  window = v.get("sliding_window", 4096)
  first = v.get("max_window_layers", 28)
  if type(first) is not int or first < 0:
    raise ValueError(
      f"max_window_layers: expected an integer of at least 0, got {first!r}"
    )
  types = v.get("layer_types") or [
    "sliding_attention" if i >= first else "full_attention"
    for i in range(num_layers)
  ]
  return {
    **_rms(v),
    **_rope(v),
    "activation": _activation(v, "hidden_act", "silu"),
    "windows": _by_type(types, window, num_layers) if slides else None,
    "tied_embeddings": v.flag("tie_word_embeddings", False),
  }


def _qwen2(v: _Values, sizes) -> dict[str, Any]:
  return _heads(v, sizes) | _qwen(v, sizes) | {"qkv_bias": True}


def _qwen3(v: _Values, sizes) -> dict[str, Any]:
  bias = v.flag("attention_bias", False)
  return {
    **_heads(v, sizes, head_dim=128),
    **_qwen(v, sizes),
    "query_key_norm": True,
    "qkv_bias": bias,
    "output_bias": bias,
  }


def _gemma(v: _Values, sizes) -> dict[str, Any]:
  v.get("hidden_act")  # Read by nobody: hidden_activation rules.
  v.only("attention_bias", False)
  scalar = v.number("query_pre_attn_scalar", 256)
  return {
    **_heads(v, sizes, head_dim=256),
    **_rms(v),
    "norm_offset": 1.0,
    "post_norms": True,
    "activation": _activation(v, "hidden_activation", "gelu_pytorch_tanh"),
    "query_scale": scalar**-0.5,
    "embedding_scale": sizes["width"] ** 0.5,
    "tied_embeddings": v.flag("tie_word_embeddings", True),
  }


def _gemma2(v: _Values, sizes) -> dict[str, Any]:
  num_layers = sizes["num_layers"]
  window = v.get("sliding_window", 4096)
  types = v.get("layer_types") or _every(2, num_layers)
  return {
    **_gemma(v, sizes),
    **_rope(v),
    "windows": _by_type(types, window, num_layers),
    "attention_softcap": v.cap("attn_logit_softcapping", 50.0),
    "final_softcap": v.cap("final_logit_softcapping", 30.0),
  }


def _gemma3(v: _Values, sizes) -> dict[str, Any]:
  num_layers = sizes["num_layers"]
  window = v.get("sliding_window", 4096)
  period = v.count("_sliding_window_pattern", 6)
  period = v.count("sliding_window_pattern", period)
  types = v.get("layer_types") or _every(period, num_layers)
  wide = _rope(v, default_theta=1_000_000.0, layer_type="full_attention")
  near = _rope(
    v,
    theta_key="rope_local_base_freq",
    scaling_key="",
    layer_type="sliding_attention",
  )
  return {
    **_gemma(v, sizes),
    "query_key_norm": True,
    "windows": _by_type(types, window, num_layers),
    "rope": tuple(
      (near if t == "sliding_attention" else wide)["rope"] for t in types
    ),
    "attention_softcap": v.cap("attn_logit_softcapping", None),
    "final_softcap": v.cap("final_logit_softcapping", None),
  }


def _every(period: int, num_layers: int) -> list[str]:
  """Every period-th layer attends to all."""
  return [
    "full_attention" if (i + 1) % period == 0 else "sliding_attention"
    for i in range(num_layers)
  ]


def _by_type(types: Any, window: Any, num_layers: int):
  """Returns each layer's window from layer_types."""
  if not isinstance(types, list) or len(types) != num_layers:
    raise ValueError(
      f"layer_types: expected one a layer ({num_layers}), got {types}"
    )
  for name in types:
    if name not in ("full_attention", "sliding_attention"):
      raise ValueError(
        "layer_types: expected 'full_attention' or 'sliding_attention', got "
        f"{name!r}"
      )
  return tuple(
    _window(window) if name == "sliding_attention" else None for name in types
  )


def _gpt2(v: _Values, sizes) -> dict[str, Any]:
  width, heads = sizes["width"], sizes["num_heads"]
  if width % heads:
    raise ValueError(
      f"n_embd: expected a multiple of n_head = {heads}, got {width}"
    )
  v.only("scale_attn_weights", True)
  v.only("scale_attn_by_inverse_layer_idx", False)
  return {
    "num_kv_heads": heads,
    "head_dim": width // heads,
    "mlp_width": v.count("n_inner", 4 * width),
    "rope": None,
    "learned_positions": True,
    "norm": "layer",
    "norm_eps": v.number("layer_norm_epsilon", 1e-5),
    "gated_mlp": False,
    "activation": _activation(v, "activation_function", "gelu_new"),
    "qkv_bias": True,
    "output_bias": True,
    "mlp_bias": True,
    "tied_embeddings": v.flag("tie_word_embeddings", True),
  }


def _gpt_neox(v: _Values, sizes) -> dict[str, Any]:
  bias = v.flag("attention_bias", True)
  heads = sizes["num_heads"]
  if sizes["width"] % heads:
    raise ValueError(
      f"hidden_size: expected a multiple of num_attention_heads = {heads}, got "
      f"{sizes['width']}"
    )
  head_dim = sizes["width"] // heads
  rope = _rope(
    v,
    theta_key="rotary_emb_base",
    share_key="rotary_pct",
    default_share=0.25,
  )
  share = rope.pop("share")
  return {
    **rope,
    "rotary_dim": int(head_dim * share),
    "num_kv_heads": heads,
    "head_dim": head_dim,
    "norm": "layer",
    "norm_eps": v.number("layer_norm_eps", 1e-5),
    "parallel_residual": v.flag("use_parallel_residual", True),
    "gated_mlp": False,
    "activation": _activation(v, "hidden_act", "gelu"),
    "qkv_bias": bias,
    "output_bias": bias,
    "mlp_bias": True,
    "tied_embeddings": v.flag("tie_word_embeddings", False),
  }


_PARSERS: dict[str, Callable[..., dict[str, Any]]] = {
  "llama": _llama,
  "mistral": _mistral,
  "qwen2": _qwen2,
  "qwen3": _qwen3,
  "gemma2": _gemma2,
  "gemma3_text": _gemma3,
  "gpt2": _gpt2,
  "gpt_neox": _gpt_neox,
}

_LLAMA3 = {
  "low_freq_factor": "low_freq_factor",
  "high_freq_factor": "high_freq_factor",
  "original_max_positions": "original_max_position_embeddings",
}
_ROPE_TYPES = {
  "default": (),
  "linear": ("factor",),
  "llama3": ("factor", *_LLAMA3.values()),
}


def _rope(
  v: _Values,
  *,
  theta_key: str = "rope_theta",
  scaling_key: str = "rope_scaling",
  share_key: str = "partial_rotary_factor",
  layer_type: str | None = None,
  default_theta: float = 10_000.0,
  default_share: float = 1.0,
) -> dict[str, Any]:
  """Returns {"rope": Rope}, and the rotary "share" where one isn't 1.

  Old keys and new ones may stand side by side; they must then agree.
  """
  new = v.object("rope_parameters")
  if layer_type is not None and layer_type in new:
    new = new[layer_type]
  elif layer_type == "sliding_attention":
    new = {}
  old = v.object(scaling_key) if scaling_key else {}
  thetas = [v.number(theta_key), v.number("rope_theta")]
  thetas = thetas[:1] if layer_type == "sliding_attention" else thetas
  shares = [v.number(share_key)]
  ropes = []
  for key, values in (("rope_parameters", new), (scaling_key, old)):
    if not values:
      continue
    rope, theta, share = _read_rope(key, values)
    ropes.append(rope)
    thetas.append(theta)
    shares.append(share)
  theta = _agreed(theta_key, thetas, default_theta)
  share = _agreed(share_key, shares, default_share)
  scaling = _agreed(scaling_key or "rope_parameters", ropes, Rope())
  result = {"rope": dataclasses.replace(scaling, theta=theta)}
  if default_share != 1.0:
    return result | {"share": share}
  if share != 1.0:
    raise ValueError(f"{share_key}: expected 1, got {share}")
  return result


def _read_rope(key: str, values: dict[str, Any]):
  """Returns a Rope without its base, the base and the rotary share."""
  if not isinstance(values, dict):
    raise ValueError(f"{key}: expected an object, got {values!r}")
  kind = values.get("rope_type", values.get("type", "default"))
  if kind not in list(_ROPE_TYPES):
    raise ValueError(
      f"{key}.rope_type: expected one of {list(_ROPE_TYPES)}, got {kind!r}"
    )
  names = _ROPE_TYPES[kind]
  if missing := [name for name in names if values.get(name) is None]:
    raise ValueError(f"{key}.{missing[0]}: expected for {kind}, missing")
  usual = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
  usual |= {"rope_interleaved"} if not values.get("rope_interleaved") else set()
  if unknown := sorted(set(values) - usual - set(names)):
    raise ValueError(
      f"{key}: expected {kind} settings, got {unknown[0]} = "
      f"{values[unknown[0]]!r}"
    )

  def number(name: str) -> float | None:
    value = values.get(name)
    return None if value is None else _positive(f"{key}.{name}", value)

  rope = Rope(factor=number("factor")) if names else Rope()
  if kind == "llama3":
    settings = {ours: number(theirs) for ours, theirs in _LLAMA3.items()}
    settings["original_max_positions"] = int(settings["original_max_positions"])
    rope = dataclasses.replace(rope, **settings)
    if rope.high_freq_factor <= rope.low_freq_factor:
      raise ValueError(
        f"{key}.high_freq_factor: expected above low_freq_factor = "
        f"{rope.low_freq_factor}, got {rope.high_freq_factor}"
      )
  return rope, number("rope_theta"), number("partial_rotary_factor")


def _agreed(key: str, found: list[Any], default: Any) -> Any:
  """Returns the one value that old and new keys give."""
  distinct = list(dict.fromkeys(x for x in found if x is not None))
  if len(distinct) > 1:
    raise ValueError(
      f"{key}: expected one value, got {distinct[0]} and {distinct[1]} (in "
      "rope_parameters)"
    )
  return distinct[0] if distinct else default


def render(
  config: TransformerConfig, *, dtype: str, token_ids: dict[str, Any]
) -> dict[str, Any]:
  """Returns config.json's contents, readable by transformers 4 and 5.

  Args:
    config: the architecture.
    dtype: of the stored weights.
    token_ids: bos_token_id, eos_token_id and pad_token_id, where known.

  Raises:
    ValueError: for what the family hasn't got.
  """
  c = config
  counts = _GPT2_COUNTS if c.family == "gpt2" else _COUNTS
  values = {
    "architectures": [FAMILIES[c.family].architecture],
    "model_type": c.family,
    **{theirs: getattr(c, ours) for ours, theirs in counts.items()},
    **_RENDERERS[c.family](c),
    "tie_word_embeddings": c.tied_embeddings,
    "torch_dtype": dtype,
    **token_ids,
  }
  # Whatever the family can't express comes back as something else.
  again = parse(values)
  for field in dataclasses.fields(c):
    ours, theirs = getattr(c, field.name), getattr(again, field.name)
    if ours != theirs and field.name not in _HOW_TO_RUN:
      raise ValueError(
        f"{field.name}: expected {theirs!r} ({values['architectures'][0]} has "
        f"nothing else), got {ours!r}"
      )
  return values


_HOW_TO_RUN = ("compute_dtype", "remat", "adapter_scale")
_THEIR_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_new"}


def _render_rope(rope: Rope) -> tuple[dict[str, Any], dict[str, Any] | None]:
  """Returns rope_parameters of transformers 5 and rope_scaling of 4."""
  if rope.low_freq_factor is not None:
    scaling = {"rope_type": "llama3", "factor": rope.factor}
    scaling |= {theirs: getattr(rope, ours) for ours, theirs in _LLAMA3.items()}
  elif rope.factor != 1.0:
    scaling = {"rope_type": "linear", "factor": rope.factor}
  else:
    return {"rope_theta": rope.theta, "rope_type": "default"}, None
  return {"rope_theta": rope.theta} | scaling, scaling


def _one_rope(c: TransformerConfig) -> dict[str, Any]:
  rope = c.rope[0] if isinstance(c.rope, tuple) else c.rope
  new, old = _render_rope(rope or Rope())
  return {
    "rope_theta": new["rope_theta"],
    "rope_scaling": old,
    "rope_parameters": new,
  }


def _layer_types(c: TransformerConfig) -> dict[str, Any]:
  windows = c.windows or (None,) * c.num_layers
  return {
    "sliding_window": next((w for w in windows if w), None),
    "layer_types": [
      "sliding_attention" if w else "full_attention" for w in windows
    ],
  }


def _render_llama(c: TransformerConfig) -> dict[str, Any]:
  return {
    "num_key_value_heads": c.num_kv_heads,
    "head_dim": c.head_dim,
    "rms_norm_eps": c.norm_eps,
    **_one_rope(c),
    "hidden_act": _THEIR_ACTIVATIONS[c.activation],
    "attention_bias": c.qkv_bias,
    "mlp_bias": c.mlp_bias,
  }


def _render_mistral(c: TransformerConfig) -> dict[str, Any]:
  values = _render_llama(c)
  del values["attention_bias"], values["mlp_bias"]
  return values | {"sliding_window": c.windows[0] if c.windows else None}


def _render_qwen(c: TransformerConfig) -> dict[str, Any]:
  values = _render_llama(c) | _layer_types(c)
  del values["mlp_bias"]
  if c.family == "qwen2":
    del values["attention_bias"]
    if c.head_dim * c.num_heads == c.width:
      del values["head_dim"]  # transformers writes none.
  return values | {"use_sliding_window": c.windows is not None}


def _render_gemma(c: TransformerConfig) -> dict[str, Any]:
  scalar = (c.query_scale or c.head_dim**-0.5) ** -2
  values = {
    "num_key_value_heads": c.num_kv_heads,
    "head_dim": c.head_dim,
    "rms_norm_eps": c.norm_eps,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": round(scalar, 6),
    "attn_logit_softcapping": c.attention_softcap,
    "final_logit_softcapping": c.final_softcap,
    "attention_bias": False,
    **_layer_types(c),
  }
  if values["query_pre_attn_scalar"] == int(values["query_pre_attn_scalar"]):
    values["query_pre_attn_scalar"] = int(values["query_pre_attn_scalar"])
  if c.family == "gemma2":
    return values | _one_rope(c)
  by_layer = c.rope if isinstance(c.rope, tuple) else (c.rope,) * c.num_layers
  ropes = dict(zip(values["layer_types"], by_layer, strict=True))
  wide = ropes.get("full_attention", Rope(theta=1_000_000.0))
  near = ropes.get("sliding_attention", Rope())
  new, old = _render_rope(wide)
  return values | {
    "rope_theta": wide.theta,
    "rope_scaling": old,
    "rope_local_base_freq": near.theta,
    "rope_parameters": {
      "full_attention": new,
      "sliding_attention": _render_rope(near)[0],
    },
  }


def _render_gpt2(c: TransformerConfig) -> dict[str, Any]:
  return {
    "n_inner": None if c.mlp_width == 4 * c.width else c.mlp_width,
    "activation_function": _THEIR_ACTIVATIONS[c.activation],
    "layer_norm_epsilon": c.norm_eps,
  }


def _render_gpt_neox(c: TransformerConfig) -> dict[str, Any]:
  turned = c.rotary_dim or c.head_dim
  share = turned / c.head_dim
  # Readers cut head_dim * share, which may round to below what it should be.
  if int(c.head_dim * share) < turned:
    share = math.nextafter(share, math.inf)
  rope = _one_rope(c)
  del rope["rope_theta"]
  rope["rope_parameters"]["partial_rotary_factor"] = share
  return {
    "layer_norm_eps": c.norm_eps,
    "use_parallel_residual": c.parallel_residual,
    "hidden_act": _THEIR_ACTIVATIONS[c.activation],
    "attention_bias": c.qkv_bias,
    "rotary_pct": share,
    "rotary_emb_base": rope["rope_parameters"]["rope_theta"],
    **rope,
  }


_RENDERERS: dict[str, Callable[[TransformerConfig], dict[str, Any]]] = {
  "llama": _render_llama,
  "mistral": _render_mistral,
  "qwen2": _render_qwen,
  "qwen3": _render_qwen,
  "gemma2": _render_gemma,
  "gemma3_text": _render_gemma,
  "gpt2": _render_gpt2,
  "gpt_neox": _render_gpt_neox,
}
