# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A step's operations, and how long they take at the devices' peak.

    mfu = seconds at the peak / seconds

Three forwards of the policy for its forward and backward, one of the reference,
and sampling: what the step is for, not what a compiler makes of it. Nothing
that is computed again counts, padding does, and rollouts count at their longest
although decoding may end early.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hypo_jax import sampling
from hypo_jax.aot import chips, flops
from hypo_jax.batch import Rows, join_slots
from hypo_jax.job import steps
from hypo_jax.job.setup import Job


def seconds_at_peak(job: Job, count: Callable[[], float]) -> float | None:
  """Returns what a step takes at the peak of all of the mesh's devices.

  Args:
    job: the job.
    count: returns the step's operations; called where the peak is known only.

  Returns:
    Seconds, or None where the peak of such a device isn't known.
  """
  devices = job.mesh.devices
  peak = chips.peak_flops(devices.flat[0].device_kind)
  return None if peak is None else count() / (peak * devices.size)


def sft_flops(job: Job) -> float:
  """Returns the operations of a fine-tuning step, over all devices."""
  rows = row_shapes(job, job.config.sft.batch_size, slots=1)
  return 3 * forward_flops(job.model, rows)


def method_flops(job: Job, settings: dict[str, Any]) -> float:
  """Returns the operations of a method's step, over all devices."""
  size = settings["batch_size"]
  pairs = row_shapes(job, size, slots=2)
  if not settings["kl_coef"]:
    scores_pairs = bool(settings["offline_kl_coef"])
    return sum(model_flops(job, pairs, scores_pairs=scores_pairs))
  samples, length = job.config.rollout.samples_per_prompt, job.max_new_tokens
  drawn = row_shapes(job, size, slots=samples, length=length)
  learning, drawing = model_flops(job, pairs, drawn)
  drawn_once = job.config.rollout.source == "reference"
  return learning if drawn_once else learning + drawing


def model_flops(
  job: Job,
  pairs: Rows,
  drawn: Rows | None = None,
  *,
  scores_pairs: bool = False,
) -> tuple[float, float]:
  """Returns a step's operations, over all devices.

  Attention counts in its plain form, whatever kernel does it.

  Args:
    job: the job.
    pairs: shapes of the pairs' rows.
    drawn: shapes of the rollouts' rows, where there are any.
    scores_pairs: whether the reference scores the pairs too.

  Returns:
    Of learning: three times the policy's forward of pairs and rollouts, and
    the reference's forward of what it scores. Of sampling: prefill and
    decoding, at the longest. Each head's product counts once a scored token.
  """
  if drawn is None:
    return (3 + scores_pairs) * forward_flops(job.model, pairs), 0.0
  policy = [pairs, drawn]
  if not job.config.data.rollout_path:
    policy = [jax.eval_shape(join_slots, pairs, drawn)]
  forward = sum(forward_flops(job.model, rows) for rows in policy)
  learning = 3 * forward + forward_flops(job.model, drawn)
  return learning, sampling_flops(job, drawn)


def sampling_flops(job: Job, drawn: Rows) -> float:
  """Returns the operations of drawing rows of these shapes."""
  model, complete = job.model, steps.make_complete(job, job.model)
  first = drawn.prompt_tokens.shape[1] - 1

  def draw(params, tokens, mask, keys):
    last, keys_values = model.prompt_forward(params, tokens, mask, first=first)
    return complete(params, last, keys_values, mask, keys)

  keys = jax.eval_shape(
    lambda: jax.random.split(jax.random.key(0), drawn.prompt_mask.shape[0])
  )
  return flops.count_function(
    draw,
    model.abstract_params,
    drawn.prompt_tokens,
    drawn.prompt_mask,
    keys,
    while_trips=decode_trips(job),
  ).flops


def decode_trips(job: Job) -> tuple[int, ...]:
  """Returns bounds of the loops that may end early where rollouts are drawn."""
  looks = sampling.num_looks(job.max_new_tokens - 1)
  return (looks,) if looks else ()


def forward_flops(model: Any, rows: Rows) -> float:
  """Returns the operations of one forward of rows, heads included."""
  hidden = flops.count_function(
    model.row_hidden, model.abstract_params, rows
  ).flops
  c = model.config
  return hidden + 2.0 * rows.slot_tokens.size * c.width * c.vocab_size


def row_shapes(
  job: Job, num_rows: int, *, slots: int, length: int | None = None
) -> Rows:
  """Returns the shapes of rows of full length; of slots, where it is given."""

  def shape(dtype, *axes):
    return jax.ShapeDtypeStruct((num_rows, *axes), dtype)

  prompt, completion = job.tokens.prompt_length, job.tokens.completion_length
  completion = length or completion
  return Rows(
    shape(jnp.int32, prompt),
    shape(jnp.bool, prompt),
    shape(jnp.int32, slots, completion),
    shape(jnp.bool, slots, completion),
  )
