# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Variance of gradients, from draws whose covariance is known; pages."""

import jax
import numpy as np
import pytest
from absl import flags
from jax.flatten_util import ravel_pytree

from benchmarks import trial, variance
from hypo_jax.batch import Rows
from hypo_jax.models import Model, TransformerConfig

BLOCK = 50
CONFIG = TransformerConfig(
  vocab_size=17,
  num_layers=1,
  width=16,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_width=24,
  max_positions=32,
)


def random_rows(num_prompts, k):
  rng = np.random.default_rng(0)
  shape = (num_prompts, k, 5)
  return Rows(
    rng.integers(0, 17, (num_prompts, 4)).astype(np.int32),
    np.ones((num_prompts, 4), bool),
    rng.integers(0, 17, shape).astype(np.int32),
    np.arange(5) < rng.integers(1, 6, shape[:2])[..., None],
  )


def moments(draws):
  """Blocks of Moments of draws [n, D]."""
  return [
    variance.Moments(b.sum(0), (b * b).sum())
    for b in draws.reshape(-1, BLOCK, draws.shape[-1])
  ]


def drawn(seed, mean, scale=(1.0, 2.0, 3.0), n=4000):
  rng = np.random.default_rng(seed)
  return rng.normal(mean, scale, size=(n, 3))


def test_the_trace_is_the_sum_of_variances_and_its_error_is_honest():
  found = [
    variance.trace(moments(drawn(i, 5.0, n=1000)), BLOCK) for i in range(200)
  ]
  values, errors = np.array(found).T
  assert values.mean() == pytest.approx(14.0, abs=0.15)
  assert errors.mean() == pytest.approx(values.std(), rel=0.15)
  draws = drawn(0, 5.0, n=1000)
  value, _ = variance.trace(moments(draws), BLOCK)
  assert value == pytest.approx(draws.var(axis=0, ddof=1).sum())


def test_the_means_norm_leaves_out_what_noise_adds_and_its_error_is_honest():
  """Errors of few blocks are small: what is squared is uncertain itself."""
  found = [
    variance.squared_norm(moments(drawn(i, 0.2)), BLOCK) for i in range(200)
  ]
  values, errors = np.array(found).T
  assert values.mean() == pytest.approx(3 * 0.2**2, rel=0.05)
  assert errors.mean() == pytest.approx(values.std(), rel=0.15)
  noise = [
    variance.squared_norm(moments(drawn(i, 0.0)), BLOCK)[0] for i in range(200)
  ]
  # Not 14 / 4000, a sum of squares that chance alone gives; it may be below 0.
  assert abs(np.mean(noise)) < 0.2 * 14 / 4000 and min(noise) < 0


def test_a_page_says_where_the_gradient_drowns():
  row = {"trace": 6.0, "stderr": 1.0, "bias": 1.0, "norm_stderr": 0.5}
  found = {
    name: {form: row | {"squared_norm": squared} for form in variance.FORMS}
    for name, squared in (("near", 2.0), ("far", -0.1))
  }
  seconds = dict.fromkeys(variance.FORMS, (0.1, 0.2))
  flags.FLAGS.mark_as_parsed()
  lines = variance.summary(found, seconds).splitlines()
  assert "| sequence | 1 | 3.0 ± 0.5 | n/a | 0.100 | 0.200 |" in lines
  assert lines[-1] == "| squared norm |  | ± 25% | drowned in noise |  |  |"


def test_equal_expectations_differ_by_chance_and_others_by_more():
  equal = [variance.bias(moments(drawn(i, 0.0)), BLOCK) for i in range(200)]
  assert np.mean(equal) == pytest.approx(1.0, abs=0.15)
  assert variance.bias(moments(drawn(0, 0.3)), BLOCK) > 10


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_prompts_gradient_is_summed_over_prompts_by_form(k):
  """The batch's gradient is the mean of what `make_moments` sums."""
  model = Model(CONFIG)
  params, reference = (model.init(jax.random.key(i)) for i in (0, 1))
  rows = random_rows(num_prompts=3, k=k)
  forms = [f for f in variance.FORMS if f.samples_per_prompt == k]
  own, differences = variance.make_moments(model, forms)(
    params, reference, rows
  )
  last = own[-1].total
  for form, found, difference in zip(forms, own, differences, strict=True):
    loss = variance.surrogate(model, form)
    whole = ravel_pytree(jax.grad(loss)(params, reference, rows))[0]
    np.testing.assert_allclose(found.total / 3, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
      difference.total, found.total - last, rtol=1e-4, atol=1e-4
    )


def test_at_the_reference_every_draw_is_0():
  model = Model(CONFIG)
  params = model.init(jax.random.key(0))
  forms = [f for f in variance.FORMS if f.samples_per_prompt == 2]
  own, _ = variance.make_moments(model, forms)(
    params, params, random_rows(num_prompts=3, k=2)
  )
  assert len(own) == 5
  for found in own:
    assert found.squares < 1e-10


def test_a_section_takes_the_place_of_its_like():
  page = "# Page\n\nTop.\n\n## One\n\nold\n\n## Two\n\nstays\n"
  found = trial.with_section(page, "## One\n\nnew\n")
  assert found == "# Page\n\nTop.\n\n## One\n\nnew\n\n## Two\n\nstays\n"
  added = trial.with_section(page, "## Three\n\nnew\n")
  assert added == page + "\n## Three\n\nnew\n"
  assert trial.with_section(added, "## Three\n\nnew\n") == added
