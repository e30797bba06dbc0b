# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The arrays that travel between data, sampling and training.

A training example is one *prefix-shared row*: the prompt once, then its
completion slots, each padded to C tokens:

    [ prompt P | chosen C | rejected C | rollout C | ... ]

A slot sees the prompt and, causally, itself; never another slot. Prompts are
left-padded, so that the token which predicts a slot's first token is always
the prompt's last; completions are right-padded.

Shapes: B rows, P prompt, S slots, C completion, k samples per prompt, N = B*k.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

# By what they hold, under the names they have here and in data sets' arrays.
_PROMPT = ("prompt_tokens", "prompt_mask")
_COMPLETION = (
  "tokens",
  "mask",
  "chosen_tokens",
  "chosen_mask",
  "rejected_tokens",
  "rejected_mask",
  "slot_tokens",
  "slot_mask",
  "token_log_probs",
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Completions:
  """Completions sampled from a policy; rows of one prompt are adjacent.

  Attributes:
    tokens: int32 [N, C], right-padded.
    mask: bool [N, C], True up to and including the first EOS.
    token_log_probs: float32 [N, C], nats, 0 where mask is False.
  """

  tokens: jax.Array
  mask: jax.Array
  token_log_probs: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PreferenceBatch:
  """Offline pairs, one a row, with what the reference policy says of them.

  Attributes:
    prompt_tokens: int32 [B, P], left-padded.
    prompt_mask: bool [B, P], True on real tokens.
    chosen_tokens: int32 [B, C], right-padded.
    chosen_mask: bool [B, C], True on scored tokens, the first EOS included.
    rejected_tokens: int32 [B, C].
    rejected_mask: bool [B, C].
    pair_mask: bool [B], False for a row that holds no pair, or a pair with an
      empty side: it gets zero weight.
    row: int32 [B], the row's number in the data set; sampling keys fold it in.
    ref_chosen_log_probs: float32 [B], nats, log reference(chosen | prompt).
    ref_rejected_log_probs: float32 [B].
  """

  prompt_tokens: jax.Array
  prompt_mask: jax.Array
  chosen_tokens: jax.Array
  chosen_mask: jax.Array
  rejected_tokens: jax.Array
  rejected_mask: jax.Array
  pair_mask: jax.Array
  row: jax.Array
  ref_chosen_log_probs: jax.Array
  ref_rejected_log_probs: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """Prefix-shared rows.

  Attributes:
    prompt_tokens: int32 [B, P], left-padded.
    prompt_mask: bool [B, P].
    slot_tokens: int32 [B, S, C], right-padded; an empty slot is all padding.
    slot_mask: bool [B, S, C].
  """

  prompt_tokens: jax.Array
  prompt_mask: jax.Array
  slot_tokens: jax.Array
  slot_mask: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rollouts:
  """Rows whose slots were sampled from the policy.

  Attributes:
    rows: B prompts with k slots each.
    token_log_probs: float32 [B, k, C], as the sampler saw them.
  """

  rows: Rows
  token_log_probs: jax.Array


def pair_rows(batch: PreferenceBatch) -> Rows:
  """Returns rows of two slots: chosen, rejected."""
  return Rows(
    batch.prompt_tokens,
    batch.prompt_mask,
    jnp.stack([batch.chosen_tokens, batch.rejected_tokens], axis=1),
    jnp.stack([batch.chosen_mask, batch.rejected_mask], axis=1),
  )


def rollout_rows(
  prompt_tokens: jax.Array,
  prompt_mask: jax.Array,
  completions: Completions,
) -> Rollouts:
  """Returns rows whose k slots are each prompt's sampled completions.

  Args:
    prompt_tokens: int32 [B, P].
    prompt_mask: bool [B, P].
    completions: N = B * k completions, rows of one prompt adjacent.

  Raises:
    ValueError: if N is not a multiple of B.
  """
  rows, length = prompt_tokens.shape[0], completions.tokens.shape[-1]
  if completions.tokens.shape[0] % rows:
    raise ValueError(
      f"completions: expected a multiple of {rows} rows (one group per "
      f"prompt), got {completions.tokens.shape[0]}"
    )
  shape = (rows, -1, length)
  return Rollouts(
    Rows(
      prompt_tokens,
      prompt_mask,
      completions.tokens.reshape(shape),
      completions.mask.reshape(shape),
    ),
    completions.token_log_probs.reshape(shape),
  )


def join_slots(first: Rows, second: Rows) -> Rows:
  """Returns rows with the slots of both, which share their prompts.

  The slots are padded to the longer of the two completion lengths.
  """
  length = max(first.slot_tokens.shape[-1], second.slot_tokens.shape[-1])

  def padded(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, 0), (0, length - x.shape[-1])))

  return Rows(
    first.prompt_tokens,
    first.prompt_mask,
    jnp.concatenate(
      [padded(first.slot_tokens), padded(second.slot_tokens)], axis=1
    ),
    jnp.concatenate(
      [padded(first.slot_mask), padded(second.slot_mask)], axis=1
    ),
  )


def predicting(last: jax.Array, slots: jax.Array) -> jax.Array:
  """Returns [B, S, C, D], the hidden states that predict each slot token.

  Args:
    last: [B, 1, D], of the prompts' last tokens.
    slots: [B, S, C, D], of the slots' tokens.
  """
  last = jnp.broadcast_to(last[:, None], slots[:, :, :1].shape)
  return jnp.concatenate([last, slots[:, :, :-1]], axis=2)


def cut_lengths(tree: Any, prompt_length: int, completion_length: int) -> Any:
  """Cuts padding: prompts on the left, completions on the right.

  Nothing is lost where `lengths` are no larger.

  Args:
    tree: of the classes above, or of dicts with their names; arrays of jax or
      numpy. Those that are shorter stay as they are.
    prompt_length: tokens kept of a prompt, at least 1.
    completion_length: tokens kept of a completion, at least 1.
  """

  def cut(path, x):
    name = _name(path)
    if name in _PROMPT:
      return x[..., max(x.shape[-1] - prompt_length, 0) :]
    return x[..., :completion_length] if name in _COMPLETION else x

  return jax.tree_util.tree_map_with_path(cut, tree)


def lengths(tree: Any) -> tuple[jax.Array, jax.Array]:
  """Returns the longest prompt and completion that masks hold, in tokens.

  Args:
    tree: of the classes above.

  Returns:
    Two int32 scalars, 0 where there is none.
  """
  prompts, completions = [jnp.int32(0)], [jnp.int32(0)]
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    name = _name(path)
    if name == "prompt_mask":
      prompts.append(
        jnp.max(jnp.where(x, x.shape[-1] - jnp.arange(x.shape[-1]), 0))
      )
    elif name.endswith("mask") and name in _COMPLETION:
      completions.append(jnp.max(jnp.where(x, jnp.arange(x.shape[-1]) + 1, 0)))
  return jnp.max(jnp.stack(prompts)), jnp.max(jnp.stack(completions))


def _name(path: tuple) -> str:
  return str(getattr(path[-1], "key", getattr(path[-1], "name", "")))
