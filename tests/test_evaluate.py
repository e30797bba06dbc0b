# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Samplers over more prompts than one call takes."""

from functools import partial

import jax
import numpy as np

from hypo_jax import evaluate, models, rollout, sharding
from tests.test_train import CONFIG

LIMIT, SAMPLES, P = 4, 3, 5
MODEL = models.Model(CONFIG)
MESH = sharding.make_mesh()
COMMON = {"batch_size": len(jax.devices()) * 2, "mesh": MESH}
draw = partial(
  rollout.make_rollout_step,
  MODEL,
  samples_per_prompt=SAMPLES,
  eos_token_id=1,
  pad_token_id=0,
  mesh=MESH,
)


def test_a_completer_draws_what_a_sampler_scores():
  """Prompts don't fill the last batch; the sampler's limit is twice as long."""
  num_prompts = COMMON["batch_size"] + 1
  rng = np.random.default_rng(0)
  tokens = rng.integers(2, CONFIG.vocab_size, (num_prompts, P), np.int32)
  mask = np.arange(P) >= rng.integers(0, P, (num_prompts, 1))
  policy, reference = (
    jax.tree.map(lambda x: 3 * x, MODEL.init(jax.random.key(i)))
    for i in range(2)
  )
  key = jax.random.key(2)
  sampler = evaluate.make_sampler(
    MODEL, draw(max_new_tokens=2 * LIMIT), **COMMON
  )
  scored = sampler(policy, reference, tokens, mask, key)
  completer = evaluate.make_completer(draw(max_new_tokens=LIMIT), **COMMON)
  drawn = completer(policy, tokens, mask, key)
  assert scored.tokens.shape == (num_prompts, SAMPLES, 2 * LIMIT)
  assert drawn.tokens.shape == (num_prompts, SAMPLES, LIMIT)
  np.testing.assert_array_equal(drawn.tokens, scored.cut(LIMIT).tokens)
  np.testing.assert_array_equal(drawn.mask, scored.cut(LIMIT).mask)
  assert not drawn.mask.all()  # Some ended.
  assert np.abs(scored.log_ratio[scored.mask]).min() > 0.0
  assert not scored.log_ratio[~scored.mask].any()
  # Each prompt has its own noise, also where two are in one place of a batch.
  assert len({t.tobytes() for t in drawn.tokens}) == num_prompts
