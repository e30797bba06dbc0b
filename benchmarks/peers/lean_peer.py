# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A peer: the step as one would write it by hand in torch, without a library.

    .venv-peers/lean/bin/python -m benchmarks.peers.lean_peer --case=...

One forward for pairs and rollouts, as separate sequences; logits at completion
positions only; torch's own fused attention and AdamW; projections that read the
same input are one product; decoding with a preallocated cache.
"""

import os

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from benchmarks import cases, measure


class Layer(nn.Module):
  """One decoder layer, its weights taken from a checkpoint's tensors."""

  def __init__(self, size: cases.Size, tensors: dict[str, torch.Tensor]):
    super().__init__()
    self._heads = size.num_heads, size.num_kv_heads, size.head_dim

    def weight(*names: str) -> nn.Parameter:
      return nn.Parameter(torch.cat([tensors[f"{n}.weight"] for n in names]))

    self.attention_norm = weight("input_layernorm")
    self.qkv = weight(*(f"self_attn.{n}_proj" for n in "qkv"))
    self.output = weight("self_attn.o_proj")
    self.mlp_norm = weight("post_attention_layernorm")
    self.gate_up = weight("mlp.gate_proj", "mlp.up_proj")
    self.down = weight("mlp.down_proj")

  def forward(self, x, cos, sin, cache, start: int):
    """Runs x [N, T, D]; cache holds keys and values [N, K, S, E], or None."""
    heads, kv_heads, width = self._heads
    rows, length = x.shape[:2]
    qkv = functional.linear(_norm(x, self.attention_norm), self.qkv)
    qkv = qkv.view(rows, length, heads + 2 * kv_heads, width).transpose(1, 2)
    q, k, v = qkv.split([heads, kv_heads, kv_heads], dim=1)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    if cache is not None:
      for stored, new in zip(cache, (k, v), strict=True):
        stored[:, :, start : start + length] = new
      k, v = (stored[:, :, : start + length] for stored in cache)
    if length == 1:
      # The heads that share keys are as many queries of one head: no copies.
      q = q.reshape(rows, kv_heads, heads // kv_heads, width)
    elif kv_heads != heads:
      k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
    out = out.reshape(rows, heads, length, width)
    out = out.transpose(1, 2).reshape(rows, length, heads * width)
    x = x + functional.linear(out, self.output)
    both = functional.linear(_norm(x, self.mlp_norm), self.gate_up)
    gate, up = both.chunk(2, dim=-1)
    return x + functional.linear(functional.silu(gate) * up, self.down)


class Decoder(nn.Module):
  """The case's model, with the shared checkpoint's weights."""

  def __init__(self, case: cases.Case):
    super().__init__()
    self._size = size = case.size
    tensors = load_file(cases.checkpoint(case) / "model.safetensors")
    self.embedding = nn.Parameter(tensors["model.embed_tokens.weight"])
    self.final_norm = nn.Parameter(tensors["model.norm.weight"])

    def of_layer(number: int) -> dict[str, torch.Tensor]:
      prefix = f"model.layers.{number}."
      return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
      }

    self.layers = nn.ModuleList(
      Layer(size, of_layer(i)) for i in range(size.num_layers)
    )
    half = torch.arange(0, size.head_dim, 2) / size.head_dim
    frequencies = cases.ROPE_THETA**-half
    length = case.prompt_length + case.completion_length
    angles = torch.arange(length)[:, None] * frequencies
    self.register_buffer("cos", angles.cos())
    self.register_buffer("sin", angles.sin())

  def forward(self, tokens, cache=None, start: int = 0):
    """Returns hidden states [N, T, D] of tokens [N, T], at `start` onward."""
    at = slice(start, start + tokens.shape[1])
    cos, sin = self.cos[at], self.sin[at]
    x = functional.embedding(tokens, self.embedding)
    for number, layer in enumerate(self.layers):
      x = layer(x, cos, sin, cache and cache[number], start)
    return _norm(x, self.final_norm)

  def log_probs(self, prompt, completion):
    """Returns [N]: log-probs of completions [N, C] after prompts [N, P]."""
    tokens = torch.cat([prompt, completion], dim=1)
    hidden = self(tokens[:, :-1])[:, prompt.shape[1] - 1 :]
    logits = functional.linear(hidden, self.embedding)
    losses = functional.cross_entropy(
      logits.flatten(0, 1), completion.flatten(), reduction="none"
    )
    return -losses.view(completion.shape).sum(dim=1)

  @torch.no_grad()
  def sample(self, prompt, length: int):
    """Returns completions [N, length] drawn at temperature 1."""
    size, (rows, filled) = self._size, prompt.shape
    shape = (rows, size.num_kv_heads, filled + length, size.head_dim)
    cache = [
      (torch.empty(shape), torch.empty(shape)) for _ in range(size.num_layers)
    ]
    drawn, tokens, start = [], prompt, 0
    for _ in range(length):
      hidden = self(tokens, cache, start)[:, -1]
      start += tokens.shape[1]
      logits = functional.linear(hidden, self.embedding)
      tokens = torch.multinomial(logits.softmax(dim=-1), 1)
      drawn.append(tokens)
    return torch.cat(drawn, dim=1)


def _norm(x, scale):
  return functional.rms_norm(x, scale.shape, scale, cases.NORM_EPS)


def _rotate(x, cos, sin):
  first, second = x.chunk(2, dim=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return torch.cat(turned, dim=-1)


def run(case: cases.Case, clock: measure.Clock) -> None:
  """Times the case."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.manual_seed(0)
  batch = {
    name: torch.from_numpy(tokens).long()
    for name, tokens in cases.make_batch(case).items()
  }
  model, length = Decoder(case), case.completion_length
  if case.kind == "gen":

    def sample() -> measure.Check:
      model.sample(batch["prompt"], length)
      return {}

    clock.loop(sample)
    return
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=cases.LEARNING_RATE, weight_decay=0.0, fused=True
  )
  reference = Decoder(case) if case.kind == "hypo" else None
  prompt, rows = batch["prompt"], case.rows
  completions = torch.cat([batch["chosen"], batch["rejected"]])
  with torch.no_grad():
    known = model.log_probs(prompt.repeat(2, 1), completions)
  ref_chosen, ref_rejected = known.split(rows)

  def step() -> measure.Check:
    found, slots = {}, completions
    if reference is not None:
      drawn = model.sample(prompt, length)
      slots = torch.cat([completions, drawn])
    repeats = len(slots) // rows
    scored = model.log_probs(prompt.repeat(repeats, 1), slots).split(rows)
    chosen, rejected = scored[:2]
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    loss = -functional.logsigmoid(cases.BETA * margin).mean()
    found["loss"] = loss.item()
    if reference is not None:
      with torch.no_grad():
        ratio = scored[2] - reference.log_probs(prompt, drawn)
      loss = loss + cases.KL_COEF * (ratio * scored[2]).mean()
      found["kl"] = ratio.mean().item()
      found["rollout_log_probs"] = scored[2].mean().item()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), cases.MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return found | {
      "chosen_log_probs": chosen.mean().item(),
      "rejected_log_probs": rejected.mean().item(),
      "grad_norm": norm.item(),
    }

  clock.loop(step)


if __name__ == "__main__":
  measure.main("lean", run, ("torch",))
