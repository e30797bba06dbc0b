# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Our own step of a case, timed in this process; `benchmarks.step` runs it.

    python -m benchmarks.own --case=hypo-tiny-256

One micro-batch, no recomputation, and the KL term of the sequence estimator.
An end-of-text token outside the vocabulary lets every rollout run to its
length, and changes no draw.
"""

import dataclasses
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases, measure
from hypo_jax import models, objective, rollout, sharding, train
from hypo_jax.batch import PreferenceBatch

# Rows and columns of the product whose rate is taken for the machine's.
_LARGE, _LARGE_ON_GPU, _PRODUCTS = 2048, 8192, 7


def run(case: cases.Case, clock: measure.Clock) -> dict:
  """Times the case; returns the rate of a large product beside it."""
  make = _sampling_step if case.kind == "gen" else _training_step
  # What the step doesn't hold is freed: the start's weights, for DPO.
  clock.loop(make(case, load(case), cases.make_batch(case)))
  rate = product_flops_per_second(case.size.compute_dtype)
  found = {"product_flops_per_second": rate}
  # Of an accelerator; a CPU has no such count.
  memory = jax.devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in memory:
    found["device_peak_bytes"] = memory["peak_bytes_in_use"]
  return found


def load(case: cases.Case) -> models.Policy:
  """Returns the case's model: float32 weights, computing as the case does.

  Like a job's, it knows where its rows lie, and so attends with the platform's
  kernel.
  """
  policy = models.load(str(cases.checkpoint(case)))
  config = dataclasses.replace(
    policy.config, compute_dtype=case.size.compute_dtype
  )
  rows = sharding.row_sharding(sharding.make_mesh())
  model = models.Model(config, rows=rows)
  return dataclasses.replace(
    policy, config=config, model=model, apply_fn=model.apply
  )


def product_flops_per_second(dtype: str = "float32") -> float:
  """Returns the rate of one large product, the median of a few."""
  product = jax.jit(jnp.matmul)
  large = _LARGE if jax.devices()[0].platform == "cpu" else _LARGE_ON_GPU
  # Random: a product of ones can run faster than real ones do.
  matrix = jax.random.normal(jax.random.key(0), (large, large), dtype)
  product(matrix, matrix).block_until_ready()
  seconds = []
  for _ in range(_PRODUCTS):
    start = time.perf_counter()
    product(matrix, matrix).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * large**3 / statistics.median(seconds)


def _sampling_step(case, policy, batch):
  mesh = sharding.make_mesh()
  prompts = jnp.asarray(batch["prompt"])
  mask = jnp.ones(prompts.shape, bool)
  key = jax.random.key(0)
  sample = rollout.make_rollout_step(
    policy.model,
    samples_per_prompt=1,
    max_new_tokens=case.completion_length,
    eos_token_id=case.size.vocab_size,
    pad_token_id=0,
    mesh=mesh,
  )
  calls = iter(range(1 << 30))

  def step() -> measure.Check:
    keys = jax.random.split(jax.random.fold_in(key, next(calls)), case.rows)
    drawn = sample(policy.params, prompts, mask, keys)
    _check_lengths(np.asarray(drawn.rows.slot_mask))
    return {}

  return step


def _training_step(case, policy, batch):
  model, mesh = policy.model, sharding.make_mesh()
  kl_coef = cases.KL_COEF if case.kind == "hypo" else 0.0
  optimizer = train.make_optimizer(
    learning_rate=cases.LEARNING_RATE,
    num_steps=1,
    max_grad_norm=cases.MAX_GRAD_NORM,
  )
  pairs = sharding.put_rows(mesh, _pairs(policy, batch))
  loss = objective.PreferenceLoss(
    model, method=case.kind, beta=cases.BETA, kl_coef=kl_coef
  )
  if kl_coef:
    complete = rollout.make_complete(
      model,
      samples_per_prompt=1,
      max_new_tokens=case.completion_length,
      eos_token_id=case.size.vocab_size,
      pad_token_id=0,
      mesh=mesh,
    )
    update = train.make_fused_step(loss, optimizer, complete)
  else:
    update = train.make_train_step(loss, optimizer)
  state = train.init_state(policy.params, optimizer, mesh)
  reference = policy.params if kl_coef else None
  del policy
  row_keys = jax.jit(
    lambda step: jax.vmap(partial(jax.random.fold_in, jax.random.key(step)))(
      pairs.row
    )
  )
  calls = iter(range(1 << 30))

  def step() -> measure.Check:
    nonlocal state
    if kl_coef:
      state, metrics, rollouts = jax.block_until_ready(
        update(state, reference, pairs, row_keys(next(calls)))
      )
      _check_lengths(np.asarray(rollouts.rows.slot_mask))
    else:
      state, metrics = jax.block_until_ready(update(state, None, pairs, None))
    # The loss of pairs: the KL term's is a surrogate, not comparable.
    found = metrics | {"loss": metrics["preference_loss"]}
    if kl_coef:
      found["rollout_log_probs"] = rollouts.token_log_probs.sum(axis=-1).mean()
    return {k: float(found[k]) for k in measure.CHECKS if k in found}

  return step


def _pairs(policy, batch: dict[str, np.ndarray]) -> PreferenceBatch:
  """Returns the batch with what the reference, the policy's start, says."""
  prompt, rows = batch["prompt"], len(batch["prompt"])

  def arrays(name: str) -> dict[str, np.ndarray]:
    tokens = batch[name]
    joined = np.concatenate([prompt, tokens], axis=1)
    scored = policy.log_probs(joined, np.ones(joined.shape, bool))
    return {
      f"{name}_tokens": tokens,
      f"{name}_mask": np.ones(tokens.shape, bool),
      f"ref_{name}_log_probs": np.asarray(
        scored[:, -tokens.shape[1] :].sum(axis=1)
      ),
    }

  return PreferenceBatch(
    prompt_tokens=prompt,
    prompt_mask=np.ones(prompt.shape, bool),
    pair_mask=np.ones(rows, bool),
    row=np.arange(rows, dtype=np.int32),
    **arrays("chosen"),
    **arrays("rejected"),
  )


def _check_lengths(mask: np.ndarray) -> None:
  """Refuses rollouts that ended early: they would cost less."""
  if not mask.all():
    raise ValueError(
      f"rollouts: expected {mask.size} tokens, got {int(mask.sum())}"
    )


if __name__ == "__main__":
  measure.main(cases.OURS, run, ("jax", "jaxlib", "flax", "optax", "numpy"))
