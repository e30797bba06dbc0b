# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a step's parts: they add up to the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cases, full_rows, parts
from hypo_jax import models, objective
from hypo_jax.batch import join_slots, pair_rows

TOY = cases.Size(
  vocab_size=11,
  num_layers=2,
  width=8,
  num_heads=4,
  num_kv_heads=2,
  mlp_width=6,
)


@pytest.fixture
def toy_case(monkeypatch, tmp_path):
  """Returns a function that makes the toy case of a kind, known by name."""
  monkeypatch.setitem(cases.SIZES, "toy", TOY)
  monkeypatch.setattr(cases, "FOLDER", tmp_path)

  def make(kind: str) -> cases.Case:
    case = cases.Case(f"{kind}-toy-5", kind, "toy", 2, 5, 3)
    monkeypatch.setitem(cases.CASES, case.name, case)
    return case

  return make


NAMES = {
  "gen": ["rollout", "rollout of one token"],
  "dpo": ["hidden gradient", "head", "optimizer"],
}
NAMES["hypo"] = NAMES["gen"] + ["hidden gradient", "head", "reference"]
NAMES["hypo"] += ["optimizer"]


def timed(part: parts.Part) -> dict:
  return {"seconds": 1.0, "cpu_seconds": 1.5, "flops": part.flops}


@pytest.mark.parametrize("kind", NAMES)
def test_parts_need_the_operations_of_the_step(toy_case, kind):
  case = toy_case(kind)
  found = parts.make_parts(case)
  assert list(found) == NAMES[kind]
  line = {"case": case.name, "parts": {k: timed(p) for k, p in found.items()}}
  rows = {row.name: row for row in parts.rows(line)}
  total = sum(row.times * row.flops for row in rows.values())
  # A completion's last token is not run, which the step's count leaves out.
  last = case.rows * cases.slot_flops(case) / case.completion_length
  if kind == "hypo":
    # Its first token's logits, which the pairs' are too, are the prompt's.
    last += case.rows * cases.head_flops(case) / case.completion_length
    assert rows["prefill"].times == 0
  assert total + (kind != "dpo") * last == pytest.approx(cases.flops(case))


def test_the_head_alone_has_the_gradient_that_it_has_in_the_step(toy_case):
  case = toy_case("hypo")
  policy = models.load(str(cases.checkpoint(case)))
  model, params = policy.model, policy.params
  reference = jax.tree.map(lambda x: 1.1 * x, params)
  batch = full_rows.pairs(**cases.make_batch(case))
  drawn = parts.make_parts(case)[parts.ROLLOUT].run()
  counts = objective.count(batch, drawn)

  def loss_fn(model):
    return objective.PreferenceLoss(
      model=model,
      method="hypo",
      beta=0.1,
      kl_coef=0.5,
    ).split

  def given(params, rows):
    hidden = model.row_hidden(params, rows)
    return {"hidden": hidden, "head": model.output_embedding(params)}

  rows = join_slots(pair_rows(batch), drawn.rows)

  @jax.jit
  def whole(params):
    return loss_fn(model)(params, reference, batch, drawn, counts)[0]

  @jax.jit
  def in_parts(params):
    head = loss_fn(parts.Given(model.config))
    known = given(reference, rows)  # whose last slot is the rollout
    return head(given(params, rows), known, batch, drawn, counts)[0]

  expected, gradient = jax.value_and_grad(whole)(params)
  actual, found = jax.value_and_grad(in_parts)(params)
  assert float(actual) == pytest.approx(float(expected), rel=1e-6)
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_prefill_and_token_are_what_two_rollouts_differ_by():
  # A prefill of 2 s and 0.1 s a token.
  case = cases.get_case("gen-small-128")
  length = case.completion_length

  def rollout(n):
    return {
      "seconds": 2 + (n - 1) / 10,
      "cpu_seconds": 4 + (n - 1) / 5,
      "flops": 1e9 * n,
    }

  line = {
    "case": case.name,
    "parts": {parts.ROLLOUT: rollout(length), parts.ONE_TOKEN: rollout(1)},
    "step": {"seconds": 8.0, "cpu_seconds": 12.0},
    "product_flops_per_second": 1e11,
  }
  prefill, decoded = parts.rows(line)
  assert (prefill.seconds, prefill.cpu_seconds) == pytest.approx((2, 4))
  assert (prefill.times, decoded.times) == (1, length - 1)
  assert (decoded.seconds, decoded.cpu_seconds) == pytest.approx((0.1, 0.2))
  text = parts.table(line)
  assert "| prefill | 1 | 2.0000 | 4.0000 |" in text
  assert f"| decoded token | {length - 1} | 0.1000 | 0.2000 |" in text
  # 2 s of 8 s; the parts are 2 + 4.7 s.
  assert "| 25% |" in text and "| 84% |" in text
