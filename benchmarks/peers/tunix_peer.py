# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A peer: google-tunix's DPO trainer and sampler, and HyPO composed from them.

    .venv-peers/tunix/bin/python -m benchmarks.peers.tunix_peer --case=...

A step is the trainer's own jitted step, called with an example whose reference
log-probs of pairs were computed beforehand; no log, no checkpoint. HyPO gives
the trainer a loss that adds the KL term to tunix's own DPO loss: the sampler
takes the policy's weights and draws, and policy and reference score the
rollouts with tunix's log-probs. `gen` is the sampler alone.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.llama3.model import ModelConfig
from tunix.models.llama3.params import create_model_from_safe_tensors
from tunix.rl import common
from tunix.sft.dpo import dpo_trainer

from benchmarks import cases, measure


@flax.struct.dataclass(frozen=True)
class Sequences:
  """Prompts with rollouts, and what the reference says of them.

  Attributes:
    tokens: int32 [B, P + C].
    positions: int32 [B, P + C].
    attention_mask: bool [B, P + C, P + C].
    ref_log_probs: float32 [B], or None before the reference is asked.
    length: C.
  """

  tokens: jax.Array
  positions: jax.Array
  attention_mask: jax.Array
  ref_log_probs: jax.Array | None
  length: int = flax.struct.field(pytree_node=False)


@flax.struct.dataclass(frozen=True)
class HypoExample:
  """Pairs as the trainer makes them, and rollouts."""

  pairs: dpo_trainer.TrainExample
  rollouts: Sequences


class Numbers:
  """The tokenizer that the sampler asks for: a text of token ids."""

  def __init__(self, vocab_size: int):
    # Outside the vocabulary: nothing ends a completion early.
    self._end = vocab_size

  def encode(self, text: str) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, tokens: list[int]) -> str:
    return " ".join(map(str, tokens))

  def bos_id(self) -> None:
    return None

  def eos_id(self) -> int:
    return self._end

  def pad_id(self) -> int:
    return 0


def run(case: cases.Case, clock: measure.Clock) -> None:
  """Times the case."""
  batch, model = cases.make_batch(case), _load(case)
  draw = _drawing(case, model, batch["prompt"])
  if case.kind == "gen":

    def sample() -> measure.Check:
      draw(None)
      return {}

    clock.loop(sample)
    return
  trainer = dpo_trainer.DPOTrainer(
    model,
    None,
    optax.chain(
      optax.clip_by_global_norm(cases.MAX_GRAD_NORM),
      optax.adamw(cases.LEARNING_RATE, weight_decay=0.0),
    ),
    dpo_trainer.DPOTrainingConfig(
      beta=cases.BETA, eval_every_n_steps=1 << 30, max_steps=clock.num_calls
    ),
  )
  pairs = _pairs(trainer, model, batch)
  reference = _load(case) if case.kind == "hypo" else None
  if reference is not None:
    trainer.with_loss_fn(_hypo_loss, has_aux=True)
    trainer.with_gen_model_input_fn(lambda example: {"example": example})
  train_step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)

  def step() -> measure.Check:
    example = pairs
    if reference is not None:
      tokens = jnp.asarray(np.concatenate([batch["prompt"], draw(model)], 1))
      rollouts = _sequences(tokens, case.completion_length)
      known = _log_probs(reference, rollouts)
      example = HypoExample(pairs, rollouts.replace(ref_log_probs=known))
    loss, found, norm = jax.block_until_ready(train_step(example))
    # The optimizer's update is a part of the step as well.
    jax.block_until_ready(nnx.state(model))
    check = {"loss": loss, "grad_norm": norm} | found
    for name in ("chosen", "rejected"):
      check[f"{name}_log_probs"] = found[f"log_probs/{name}"]
    return {k: float(check[k]) for k in measure.CHECKS if k in check}

  clock.loop(step)


def _hypo_loss(model, example: HypoExample):
  loss, found = dpo_trainer.dpo_loss_fn(model, example.pairs, beta=cases.BETA)
  scored = _log_probs(model, example.rollouts)
  ratio = jax.lax.stop_gradient(scored - example.rollouts.ref_log_probs)
  found = found | {
    "loss": loss,
    "kl": ratio.mean(),
    "rollout_log_probs": scored.mean(),
  }
  return loss + cases.KL_COEF * (ratio * scored).mean(), found


def _log_probs(model, sequences: Sequences) -> jax.Array:
  """Returns [B]: log-probs of rollouts."""
  return common.get_per_token_logps(
    model,
    sequences.tokens,
    sequences.positions,
    sequences.attention_mask,
    logits_to_keep=sequences.length,
  ).sum(axis=1)


def _sequences(tokens: jax.Array, length: int) -> Sequences:
  mask = jnp.ones(tokens.shape, bool)
  return Sequences(
    tokens,
    common.build_positions_from_mask(mask),
    common.make_causal_attn_mask(mask),
    None,
    length,
  )


def _drawing(case: cases.Case, model, prompts: np.ndarray):
  """Returns draw(policy or None) -> int32 [B, C], by tunix's sampler."""
  size = case.size
  length = case.prompt_length + case.completion_length
  sampler = Sampler(
    model,
    Numbers(size.vocab_size),
    CacheConfig(
      cache_size=length,
      num_layers=size.num_layers,
      num_kv_heads=size.num_kv_heads,
      head_dim=size.head_dim,
    ),
  )
  texts = [" ".join(map(str, row)) for row in prompts]
  seeds = iter(range(1 << 30))

  def draw(policy) -> np.ndarray:
    if policy is not None:
      sampler.transformer_state = nnx.variables(policy, nnx.Param)
    found = sampler(
      texts,
      max_generation_steps=case.completion_length,
      max_prompt_length=case.prompt_length,
      temperature=1.0,
      top_p=1.0,
      seed=next(seeds),
    )
    tokens = np.stack(found.tokens)
    if tokens.shape[1] != case.completion_length:
      raise ValueError(
        f"rollouts: expected {case.completion_length} tokens a row, got "
        f"{tokens.shape[1]}"
      )
    return tokens

  return draw


def _load(case: cases.Case):
  size = case.size
  config = ModelConfig(
    num_layers=size.num_layers,
    vocab_size=size.vocab_size,
    embed_dim=size.width,
    hidden_dim=size.mlp_width,
    num_heads=size.num_heads,
    head_dim=size.head_dim,
    num_kv_heads=size.num_kv_heads,
    rope_theta=int(cases.ROPE_THETA),
    norm_eps=cases.NORM_EPS,
    weight_tying=True,
  )
  return create_model_from_safe_tensors(
    str(cases.checkpoint(case)), config, dtype=jnp.float32
  )


def _pairs(trainer, model, batch: dict[str, np.ndarray]):
  """Returns the trainer's own example, the reference's log-probs in it."""
  arrays = {f"{name}_ids": tokens for name, tokens in batch.items()} | {
    f"{name}_mask": np.ones(tokens.shape, np.int32)
    for name, tokens in batch.items()
  }
  example = trainer._prepare_inputs(dpo_trainer.TrainingInput(**arrays))
  chosen, rejected = dpo_trainer.compute_logps(
    model,
    example.input_ids,
    example.positions,
    example.attention_mask,
    example.logits_to_keep,
    example.completion_mask,
  )
  return example.replace(ref_chosen_logps=chosen, ref_rejected_logps=rejected)


if __name__ == "__main__":
  measure.main("tunix", run, ("google-tunix", "jax", "flax", "optax"))
