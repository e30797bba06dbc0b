# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The architecture's numbers: one transformer, every setting explicit.

A model family (`families`) is a choice of these settings and a table of weight
names; no code asks which family it runs. What differs from layer to layer is a
tuple with one entry a layer, with no period assumed.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

NORMS = ("rms", "layer")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


@dataclasses.dataclass(frozen=True)
class Rope:
  """One rotary table.

  Attributes:
    theta: rotary base.
    factor: positions are divided by it; 1 for none.
    low_freq_factor: with the next two, the "llama3" scaling: only wavelengths
      above original_max_positions / low_freq_factor are divided by `factor`,
      those below original_max_positions / high_freq_factor stay, and between
      them it goes over smoothly. None divides all alike ("linear").
    high_freq_factor: see low_freq_factor.
    original_max_positions: see low_freq_factor.
  """

  theta: float = 10_000.0
  factor: float = 1.0
  low_freq_factor: float | None = None
  high_freq_factor: float | None = None
  original_max_positions: int | None = None

  def frequencies(self, rotary_dim: int) -> jax.Array:
    """Returns float32 [rotary_dim / 2], radians a position."""
    exponents = jnp.arange(0, rotary_dim, 2) / rotary_dim
    plain = self.theta**-exponents
    scaled = plain / self.factor
    if self.low_freq_factor is None:
      return scaled
    # Turns over the original context, from few (low) to many (high).
    turns = self.original_max_positions * plain / (2 * math.pi)
    width = self.high_freq_factor - self.low_freq_factor
    share = jnp.clip((turns - self.low_freq_factor) / width, 0.0, 1.0)
    return (1 - share) * scaled + share * plain


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """The architecture; the last four say how it is run and stored.

  Attributes:
    vocab_size: V.
    num_layers: L.
    width: D.
    num_heads: H.
    num_kv_heads: K, a divisor of H.
    head_dim: E.
    mlp_width: F.
    max_positions: longest prompt plus completion, in tokens.
    rope: rotary table, one for all layers or one a layer; None for none.
    rotary_dim: leading dimensions of a head that are turned, even; None: all.
    learned_positions: add a learned embedding of the position.
    windows: attention window by layer in tokens (None: unlimited), or None.
    query_scale: factor of attention scores; None: head_dim ** -0.5.
    query_key_norm: RMSNorm of every head's query and key, before rotation.
    attention_softcap: bound on attention scores, or None.
    final_softcap: bound on logits, or None.
    norm: "rms", or "layer" (with mean and bias).
    norm_eps: added to the mean square, or variance.
    norm_offset: added to the stored scales of norms (1 for Gemma).
    post_norms: norm the attention's and the MLP's output too.
    parallel_residual: attention and MLP read the same residual stream.
    gated_mlp: down(activation(gate x) * up x), or down(activation(up x)).
    activation: "silu", "gelu" or "gelu_tanh".
    qkv_bias: queries, keys and values have biases.
    output_bias: the attention's output projection has one.
    mlp_bias: the MLP's projections have biases.
    embedding_scale: factor of token embeddings, rounded to the compute dtype.
    tied_embeddings: the head is the transposed embedding.
    family: Hugging Face model_type whose names and layout files have.
    compute_dtype: dtype of products' operands and of the residual stream.
    remat: recompute each layer's activations in the backward pass.
    adapter_scale: factor of adapters' products, alpha / rank (see `lora`).
  """

  vocab_size: int
  num_layers: int
  width: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  max_positions: int
  rope: Rope | tuple[Rope, ...] | None = Rope()
  rotary_dim: int | None = None
  learned_positions: bool = False
  windows: tuple[int | None, ...] | None = None
  query_scale: float | None = None
  query_key_norm: bool = False
  attention_softcap: float | None = None
  final_softcap: float | None = None
  norm: str = "rms"
  norm_eps: float = 1e-5
  norm_offset: float = 0.0
  post_norms: bool = False
  parallel_residual: bool = False
  gated_mlp: bool = True
  activation: str = "silu"
  qkv_bias: bool = False
  output_bias: bool = False
  mlp_bias: bool = False
  embedding_scale: float = 1.0
  tied_embeddings: bool = True
  family: str = "llama"
  compute_dtype: str = "float32"
  remat: bool = False
  adapter_scale: float = 1.0

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f"num_kv_heads: expected a divisor of num_heads = {self.num_heads}, "
        f"got {self.num_kv_heads}"
      )
    turned = self.head_dim if self.rotary_dim is None else self.rotary_dim
    if self.rope and (turned % 2 or not 0 < turned <= self.head_dim):
      name = "head_dim" if self.rotary_dim is None else "rotary_dim"
      raise ValueError(
        f"{name}: expected an even number (rotary positions turn pairs), at "
        f"most {self.head_dim}, got {turned}"
      )
    for name, allowed in (("norm", NORMS), ("activation", ACTIVATIONS)):
      if getattr(self, name) not in allowed:
        raise ValueError(
          f"{name}: expected one of {allowed}, got {getattr(self, name)!r}"
        )
    for name in ("rope", "windows"):
      value = getattr(self, name)
      if isinstance(value, tuple) and len(value) != self.num_layers:
        raise ValueError(
          f"{name}: expected one value a layer ({self.num_layers}), got "
          f"{len(value)}"
        )
