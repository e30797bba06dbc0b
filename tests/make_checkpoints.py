# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Makes tiny random checkpoints of every family with transformers.

    python -m tests.make_checkpoints FOLDER    # and prints the parity table

Weights are large, norms and biases random, windows and rope's original context
shorter than the sequences, so that a wrong detail moves log-probs by far more
than rounding does.
"""

import json
import pathlib
import sys

import numpy as np

SIZES = {
  "vocab_size": 61,
  "hidden_size": 32,
  "num_hidden_layers": 4,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "intermediate_size": 48,
  "max_position_embeddings": 64,
}
_NEOX = {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}
_GEMMA = SIZES | {
  "head_dim": 12,
  "query_pre_attn_scalar": 20,
  "sliding_window": 5,
}


def _rope(theta=500.0, kind="default", **settings):
  return {"rope_type": kind, "rope_theta": theta} | settings


_LLAMA3 = _rope(
  kind="llama3",
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=16,
)

# Case -> the name of transformers' config class, and its arguments.
CASES = {
  "llama2": ("LlamaConfig", SIZES | {"num_key_value_heads": 4}),
  "llama3": (
    "LlamaConfig",
    SIZES | {"rope_parameters": _LLAMA3, "tie_word_embeddings": True},
  ),
  "llama_biases": (
    "LlamaConfig",
    SIZES | {"attention_bias": True, "mlp_bias": True, "head_dim": 12},
  ),
  "mistral": ("MistralConfig", SIZES | {"sliding_window": 5}),
  "qwen2": ("Qwen2Config", SIZES),
  "qwen2_windows": (
    "Qwen2Config",
    SIZES
    | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
  ),
  "qwen3": ("Qwen3Config", SIZES | {"head_dim": 12}),
  "gemma2": (
    "Gemma2Config",
    _GEMMA | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
  ),
  "gemma3": (
    "Gemma3TextConfig",
    _GEMMA
    | {
      "num_hidden_layers": 7,
      "rope_parameters": {
        "sliding_attention": _rope(100.0),
        "full_attention": _rope(3000.0, "linear", factor=8.0),
      },
    },
  ),
  "gpt2": (
    "GPT2Config",
    {"vocab_size": 61, "n_positions": 64, "n_embd": 32, "n_layer": 3}
    | {"n_head": 4},
  ),
  "neox": (
    "GPTNeoXConfig",
    _NEOX | {"rope_parameters": _rope(partial_rotary_factor=0.25)},
  ),
  "neox_sequential": (
    "GPTNeoXConfig",
    _NEOX
    | {
      "use_parallel_residual": False,
      "rope_parameters": _rope(partial_rotary_factor=0.5),
    },
  ),
}
# SmolLM2 is a llama with tied embeddings and three heads a key-value head.
CASES["smollm2"] = (
  "LlamaConfig",
  SIZES
  | {
    "hidden_size": 36,
    "num_attention_heads": 6,
    "rope_parameters": _rope(100_000.0),
    "tie_word_embeddings": True,
  },
)


def make(case: str):
  """Returns transformers' model of a case, in float32, eager attention."""
  import torch
  import transformers

  name, settings = CASES[case]
  config = getattr(transformers, name)(**settings)
  config._attn_implementation = "eager"
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.ndim == 1:
        parameter.add_(0.3 * torch.randn_like(parameter))
      else:
        scale = 1.5 * parameter.shape[-1] ** -0.5
        parameter.copy_(scale * torch.randn_like(parameter))
  return model


def with_old_keys(folder: pathlib.Path) -> None:
  """Rewrites a folder's config.json as transformers 4 wrote it."""
  path = folder / "config.json"
  config = json.loads(path.read_text())
  config["torch_dtype"] = config.pop("dtype", "float32")
  rope = config.pop("rope_parameters", None)
  kind = config["model_type"]
  if kind == "gemma3_text":
    config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    rope = rope["full_attention"]
    config["sliding_window_pattern"] = config.pop("_sliding_window_pattern", 6)
  config.pop("layer_types", None)
  if kind == "gpt_neox":
    config["rotary_pct"] = rope["partial_rotary_factor"]
    config["rotary_emb_base"] = rope["rope_theta"]
  elif rope is not None:
    config["rope_theta"] = rope.pop("rope_theta")
    scaled = rope["rope_type"] != "default"
    config["rope_scaling"] = rope if scaled else None
  path.write_text(json.dumps(config))


def log_probs(model, tokens: np.ndarray, mask: np.ndarray | None = None):
  """Returns transformers' [B, T-1] log-probs of tokens[:, 1:]."""
  import torch

  mask = np.ones(tokens.shape, bool) if mask is None else mask
  positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
  with torch.no_grad():
    logits = model(
      torch.tensor(tokens),
      attention_mask=torch.tensor(mask).long(),
      position_ids=torch.tensor(positions),
    ).logits
    scored = torch.log_softmax(logits.float(), dim=-1).numpy()
  scored = np.take_along_axis(scored[:, :-1], tokens[:, 1:, None], axis=-1)
  return np.where(mask[:, 1:] & mask[:, :-1], scored[..., 0], 0.0)


def parity(case: str, folder: pathlib.Path) -> dict[str, float]:
  """Largest differences from transformers' float32 log-probs, in nats."""
  import jax
  import torch

  from hypo_jax import models

  model = make(case)
  model.save_pretrained(folder)
  tokens = np.random.default_rng(0).integers(0, 61, (4, 30))
  expected = log_probs(model, tokens)
  real = np.ones(tokens.shape, bool)
  worst = {}
  with jax.default_matmul_precision("highest"):
    for dtype in ("float32", "bfloat16"):
      ours = models.load(folder, dtype=dtype).log_probs(tokens, real)
      worst[dtype] = float(np.abs(ours - expected).max())
      worst[f"mean {dtype}"] = float(np.abs(ours - expected).mean())
  theirs = log_probs(model.to(torch.bfloat16), tokens)
  worst["transformers bfloat16"] = float(np.abs(theirs - expected).max())
  worst["mean transformers bfloat16"] = float(np.abs(theirs - expected).mean())
  return worst


def main(folder: str) -> None:
  """Prints the largest and mean differences from float32 log-probs, nats."""
  names = ("float32", "bfloat16", "transformers bfloat16")
  names += tuple(f"mean {name}" for name in names[1:])
  print("| case |", " | ".join(names), "|")
  print("|---|" + "---|" * len(names))
  for case in CASES:
    worst = parity(case, pathlib.Path(folder) / case)
    cells = " | ".join(f"{worst[name]:.1e}" for name in names)
    print(f"| {case} | {cells} |", flush=True)


if __name__ == "__main__":
  main(sys.argv[1])
