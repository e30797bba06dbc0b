# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The speed cases: models, batches, and the work that each cannot avoid.

A case is called kind-model-prompt: `hypo-tiny-256` is a HyPO step of the tiny
model on prompts of 256 tokens. Rows are full, so that no
padding is skipped by one program and computed by another; rollouts are as long
as the pairs' completions. Weights are random, and every program loads the same
file of them. Those of the `large` model are for one GPU: weights and optimizer
in float32, products in bfloat16. All others are float32 throughout.

Imports numpy alone: the peers' environments hold neither JAX nor ours.
"""

import dataclasses
import json
import os
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "runs" / "speed"

# The timed programs: ours, and the peers, as figures name them.
OURS = "hypo_jax"
PEERS = ("trl", "lean", "tunix")

# Of every program's model. tunix 0.1.7 rotates by this base whatever its
# setting says, so all do.
ROPE_THETA = 1_000_000.0
NORM_EPS = 1e-5

# Of every program's update.
BETA = 0.1
KL_COEF = 0.01
LEARNING_RATE = 1e-5
MAX_GRAD_NORM = 1.0


@dataclasses.dataclass(frozen=True)
class Size:
  """A Llama decoder with tied embeddings and a gated MLP.

  Attributes:
    vocab_size: V.
    num_layers: L.
    width: D.
    num_heads: H, each of width / H.
    num_kv_heads: K, a divisor of H.
    mlp_width: F.
    compute_dtype: of products, "float32" or "bfloat16"; weights are float32.
  """

  vocab_size: int
  num_layers: int
  width: int
  num_heads: int
  num_kv_heads: int
  mlp_width: int
  compute_dtype: str = "float32"

  @property
  def head_dim(self) -> int:
    return self.width // self.num_heads

  @property
  def layer_weights(self) -> int:
    """Weights of all layers that a token is multiplied with."""
    attention = 2 * self.width * self.width
    attention += 2 * self.width * self.num_kv_heads * self.head_dim
    return self.num_layers * (attention + 3 * self.width * self.mlp_width)

  @property
  def head_weights(self) -> int:
    return self.vocab_size * self.width

  @property
  def num_params(self) -> int:
    norms = (2 * self.num_layers + 1) * self.width
    return self.layer_weights + self.head_weights + norms


SIZES = {
  "tiny": Size(4096, 4, 256, 4, 4, 1024),
  # The shape of SmolLM2-135M.
  "small": Size(49152, 30, 576, 9, 3, 1536),
  # The shape of SmolLM2-1.7B.
  "large": Size(49152, 24, 2048, 32, 32, 8192, "bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class Case:
  """One program to time.

  Attributes:
    name: kind-model-prompt.
    kind: "dpo" (the reference's log-probs of pairs are known beforehand),
      "hypo" (the same, and a rollout a prompt, drawn within the step) or "gen"
      (sampling alone).
    model: a name of SIZES.
    rows: B, pairs; or prompts to complete.
    prompt_length: P, tokens.
    completion_length: C, tokens, of pairs and rollouts.
  """

  name: str
  kind: str
  model: str
  rows: int
  prompt_length: int
  completion_length: int

  @property
  def size(self) -> Size:
    return SIZES[self.model]


CASES = {
  name: Case(name, *name.split("-")[:2], *shape)
  for name, shape in {
    "dpo-tiny-64": (8, 64, 32),
    "dpo-tiny-256": (8, 256, 64),
    "dpo-small-128": (4, 128, 48),
    "hypo-tiny-64": (8, 64, 32),
    "hypo-tiny-256": (8, 256, 64),
    "hypo-small-128": (4, 128, 48),
    "gen-tiny-64": (16, 64, 32),
    "gen-small-128": (8, 128, 48),
    "dpo-large-512": (4, 512, 128),
    "hypo-large-512": (4, 512, 128),
    "gen-large-512": (8, 512, 128),
  }.items()
}


# What a CPU is timed with.
ON_CPU = tuple(name for name, case in CASES.items() if case.model != "large")


def get_case(name: str) -> Case:
  """Returns the case of that name."""
  if name not in CASES:
    raise ValueError(f"case: expected one of {', '.join(CASES)}, got {name!r}")
  return CASES[name]


def flops(case: Case) -> int:
  """Returns the floating-point operations that a step of `case` needs.

  A multiply-add counts twice, a backward pass as two forwards; only matrix
  products and attention are counted, attention at the keys that a query sees.
  No prompt is run twice by the same weights: chosen, rejected and rollout share
  it, and decoding goes on from its keys and values. No recomputation. (That
  the last token of a completion need not be run is left out: it is a share of
  1 / C.)
  """
  prompt, decode = prompt_flops(case), slot_flops(case) + head_flops(case)
  if case.kind == "gen":
    return case.rows * (prompt + decode)
  if case.kind == "dpo":
    return case.rows * 3 * (prompt + 2 * decode)
  reference = prompt + decode
  return case.rows * (3 * (prompt + 3 * decode) + reference + decode)


def prompt_flops(case: Case) -> int:
  """Returns the operations of one prompt's hidden states, forward."""
  length = case.prompt_length
  return _hidden_flops(case, length, length * (length + 1) // 2)


def slot_flops(case: Case) -> int:
  """Returns the operations of one completion's hidden states, forward."""
  length = case.completion_length
  seen = length * case.prompt_length + length * (length + 1) // 2
  return _hidden_flops(case, length, seen)


def head_flops(case: Case) -> int:
  """Returns the operations of one completion's logits, forward."""
  return 2 * case.size.head_weights * case.completion_length


def _hidden_flops(case: Case, tokens: int, seen: int) -> int:
  size = case.size
  # Scores and weighted values: 2 * D each a query-key pair and layer.
  attention = 4 * size.num_layers * size.width * seen
  return 2 * size.layer_weights * tokens + attention


def decode_bytes(case: Case) -> int:
  """Returns the bytes of weights that decoding reads: all, a token."""
  if case.kind == "dpo":
    return 0
  weights = case.size.layer_weights + case.size.head_weights
  width = {"float32": 4, "bfloat16": 2}[case.size.compute_dtype]
  return width * weights * case.completion_length


def make_batch(case: Case) -> dict[str, np.ndarray]:
  """Returns prompt [B, P], chosen and rejected [B, C]: random int32 tokens.

  Token 0 is not among them: some programs take every 0 for padding.
  """
  rng = np.random.default_rng(0)
  lengths = {"prompt": case.prompt_length}
  if case.kind != "gen":
    lengths |= dict.fromkeys(("chosen", "rejected"), case.completion_length)
  shapes = {name: (case.rows, length) for name, length in lengths.items()}
  return {
    name: rng.integers(1, case.size.vocab_size, size=shape, dtype=np.int32)
    for name, shape in shapes.items()
  }


def checkpoint(case: Case) -> pathlib.Path:
  """Returns a folder of config.json and model.safetensors, made if missing.

  Names, layouts and config are those of Hugging Face's Llama. Scales keep the
  residual stream near one and logits' deviation near one, so that log-probs
  tell whether two programs compute the same thing.
  """
  from safetensors.numpy import save_file

  size, folder = case.size, FOLDER / case.model
  if (folder / "config.json").exists():
    return folder
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(1)

  def weight(outputs: int, inputs: int) -> np.ndarray:
    noise = rng.standard_normal((outputs, inputs), dtype=np.float32)
    return noise * np.float32(inputs**-0.5)

  kv_width = size.num_kv_heads * size.head_dim
  linears = {
    "self_attn.q_proj": (size.width, size.width),
    "self_attn.k_proj": (kv_width, size.width),
    "self_attn.v_proj": (kv_width, size.width),
    "self_attn.o_proj": (size.width, size.width),
    "mlp.gate_proj": (size.mlp_width, size.width),
    "mlp.up_proj": (size.mlp_width, size.width),
    "mlp.down_proj": (size.width, size.mlp_width),
  }
  ones = np.ones(size.width, np.float32)
  tensors = {
    "model.embed_tokens.weight": weight(size.vocab_size, size.width),
    "model.norm.weight": ones,
  }
  for layer in range(size.num_layers):
    prefix = f"model.layers.{layer}"
    for name in ("input_layernorm", "post_attention_layernorm"):
      tensors[f"{prefix}.{name}.weight"] = ones.copy()
    for name, shape in linears.items():
      tensors[f"{prefix}.{name}.weight"] = weight(*shape)
  # Written aside and renamed, the config last: a folder that has it is whole.
  new = folder / f"model.{os.getpid()}.new"
  save_file(tensors, new, metadata={"format": "pt"})
  new.rename(folder / "model.safetensors")
  new = folder / f"config.{os.getpid()}.new"
  new.write_text(json.dumps(_config(case), indent=2))
  new.rename(folder / "config.json")
  return folder


def _config(case: Case) -> dict:
  size = case.size
  return {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": size.vocab_size,
    "num_hidden_layers": size.num_layers,
    "hidden_size": size.width,
    "num_attention_heads": size.num_heads,
    "num_key_value_heads": size.num_kv_heads,
    "head_dim": size.head_dim,
    "intermediate_size": size.mlp_width,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rms_norm_eps": NORM_EPS,
    "rope_theta": ROPE_THETA,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    # A token outside the vocabulary: nothing ends a completion early.
    "bos_token_id": None,
    "eos_token_id": None,
    "torch_dtype": "float32",
  }
