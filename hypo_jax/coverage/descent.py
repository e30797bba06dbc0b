# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What gradient descent reaches, which need not be every minimiser.

Softmax-tabular policies, DPO from the reference. The gradient in the logits is
0 on the unseen completions, and on the seen ones it sums to 0: their logits
change by d with sum d = 0, those of the unseen stay. So the unseen mass grows
exactly when

    sum over seen of reference * exp(d)  <  sum over seen of reference.

With Bradley-Terry labels and pairs that connect the seen completions, DPO's
loss is strictly convex in the differences of d and is smallest at

    d = (r - mean of r over the seen) / beta,

so that the limit is known without a single step. Equal reference probabilities
give exp(d) a mean of at least 1: unseen mass then falls. It grows where the
reference's own favourites among the seen are worth less.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

Params = Any


def tabular_limit(
  reference: np.ndarray, seen: np.ndarray, rewards: np.ndarray, *, beta: float
) -> np.ndarray:
  """Returns the policy [..., M] to which gradient descent on DPO converges.

  Args:
    reference: [..., M] probabilities, where it starts.
    seen: bool [..., M], the completions that pairs compare, all connected.
    rewards: [..., M]; labels are Bradley-Terry.
    beta: > 0.
  """
  change = tabular_change(seen, rewards, beta=beta)
  with np.errstate(divide="ignore"):
    return softmax(np.log(reference) + change, axis=-1)


def tabular_change(
  seen: np.ndarray, rewards: np.ndarray, *, beta: float
) -> np.ndarray:
  """Returns d [..., M], the change of the logits, 0 on the unseen."""
  seen = np.asarray(seen, bool)
  rewards = np.asarray(rewards, np.float64)
  mean = rewards.mean(axis=-1, where=seen, keepdims=True)
  return np.where(seen, (rewards - mean) / beta, 0.0)


def unseen_mass_grows(
  reference: np.ndarray, seen: np.ndarray, rewards: np.ndarray, *, beta: float
) -> np.ndarray:
  """Returns bool [...], by the condition above, without the policy."""
  factor = np.exp(tabular_change(seen, rewards, beta=beta))
  weight = np.where(seen, reference, 0.0)
  return (weight * factor).sum(axis=-1) < weight.sum(axis=-1)


def descend(
  loss: Callable[[Params], jax.Array],
  params: Params,
  *,
  learning_rate: float,
  num_steps: int,
  every: int,
) -> Params:
  """Runs plain gradient descent; traceable, so jit and vmap apply.

  Args:
    loss: params -> scalar.
    params: where it starts, a pytree.
    learning_rate: of every step.
    num_steps: a multiple of `every`.
    every: steps between two entries of the result.

  Returns:
    Params with a leading axis of num_steps / every + 1, the start first.
  """
  if num_steps % every:
    raise ValueError(
      f"num_steps: expected a multiple of {every}, got {num_steps}"
    )
  gradient = jax.grad(loss)

  def step(params, _):
    update = gradient(params)
    return jax.tree.map(lambda p, g: p - learning_rate * g, params, update)

  def stretch(params, _):
    after = jax.lax.fori_loop(0, every, lambda i, p: step(p, i), params)
    return after, after

  _, path = jax.lax.scan(stretch, params, None, length=num_steps // every)
  return jax.tree.map(
    lambda start, rest: jnp.concatenate([start[None], rest]), params, path
  )
