# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The scaling benchmark: equal forms, fits, memory as compiled."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cases, fits
from benchmarks.scaling import axes, page, plots, separate
from benchmarks.scaling import point as timed
from benchmarks.scaling.axes import Point
from hypo_jax import objective

TOY = cases.Size(
  vocab_size=0,
  num_layers=2,
  width=16,
  num_heads=2,
  num_kv_heads=2,
  mlp_width=32,
)


def toy_step(point: Point):
  """Returns model, policy, reference, batch and rollouts."""
  model = timed.make_model(point, TOY)
  params, reference = (model.init(jax.random.key(i)) for i in range(2))
  programs = timed.make_programs(model, point, "shared")
  batch = timed.make_batch(point)
  rollouts = programs.rollout(
    params,
    batch.prompt_tokens,
    batch.prompt_mask,
    timed.row_keys(point, 0),
  )
  return model, params, reference, batch, rollouts


@pytest.mark.parametrize("k", [1, 3])
def test_separate_sequences_have_the_loss_and_gradient_of_shared_rows(k):
  point = Point(prompt=5, completion=4, rollouts=k, vocabulary=11, batch=2)
  model, params, reference, batch, rollouts = toy_step(point)
  shared_loss = objective.PreferenceLoss(
    model=model,
    method="hypo",
    beta=cases.BETA,
    kl_coef=cases.KL_COEF,
    estimator="rao_blackwell",
    samples_per_prompt=k,
  ).split
  counts = objective.count(batch, rollouts)

  @jax.jit
  def both(params):
    shared = jax.value_and_grad(
      lambda p: shared_loss(p, reference, batch, rollouts, counts),
      has_aux=True,
    )(params)
    plain = jax.value_and_grad(
      lambda p: separate.loss(model, p, reference, batch, rollouts),
      has_aux=True,
    )(params)
    return shared, plain

  ((loss, metrics), gradient), ((plain, plain_metrics), plain_gradient) = both(
    params
  )
  assert float(loss) == pytest.approx(float(plain), rel=1e-5)
  kl = float(plain_metrics["kl"])
  assert kl > 0.01
  assert float(metrics["kl_rao_blackwell"]) == pytest.approx(kl, rel=1e-4)
  for a, b in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(plain_gradient), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()) + 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["shared", "separate"])
def test_a_point_is_timed(form):
  point = Point(prompt=6, completion=4, vocabulary=11, batch=2)
  found = timed.run(point, form, steps=1, warmup=1, size=TOY)
  assert found["rollout"]["seconds"] > 0 and found["update"]["seconds"] > 0
  assert set(found["temporaries"]) == {"rollout", "update"}
  assert found["check"]["grad_norm"] > 0


def planned_bytes(point: Point, program: str) -> int:
  """Returns the temporaries of a point's program as compiled."""
  programs = timed.make_programs(timed.make_model(point, TOY), point, "shared")
  arguments = getattr(programs, f"{program}_args")
  compiled = getattr(programs, program).lower(*arguments).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def test_demand_13_memory_grows_by_the_head_alone_in_words_and_rows():
  """An update's logits would be 3.2 GB at once, then 12.9 GB."""
  small = Point(prompt=8, completion=512, vocabulary=4096, batch=2)
  large = dataclasses.replace(small, vocabulary=262144)
  rows = dataclasses.replace(large, batch=8)
  few, many, of_rows = (
    planned_bytes(point, "update") for point in (small, large, rows)
  )
  # Of both policies, what is made of them, and their gradient; the turned
  # embeddings, and theirs.
  logits = 6 * 4 * objective.LOGITS_AT_ONCE
  embeddings = 4 * 4 * TOY.width * large.vocabulary
  assert 0 < many - few <= logits + embeddings
  activations = planned_bytes(dataclasses.replace(small, batch=8), "update")
  assert of_rows <= logits + embeddings + activations


def test_demand_13_a_rollout_holds_one_tokens_logits():
  small = Point(prompt=8, completion=64, vocabulary=4096, batch=2)
  large = dataclasses.replace(small, vocabulary=262144)
  grown = planned_bytes(large, "rollout") - planned_bytes(small, "rollout")
  # Logits, by groups too, what is drawn from them, and their log-probs.
  assert 0 < grown <= 8 * 4 * small.batch * large.vocabulary


def test_fits_find_the_exponent_and_its_error():
  x = [1, 2, 4, 8]
  exact = fits.power(x, [3 * n**1.5 for n in x])
  assert exact.exponent == pytest.approx(1.5)
  assert exact.stderr == pytest.approx(0.0, abs=1e-9)
  assert exact.last == pytest.approx(1.5)
  # A fixed part of 8: flat at first, linear in the end. Order is no matter.
  mixed = fits.power(x[::-1], [8 + n for n in x[::-1]])
  assert mixed.last == pytest.approx(math.log2(16 / 12))
  assert mixed.exponent < mixed.last
  # By hand: y = 0, 1, 1 at x = 0, 1, 2 is 1/6 + x/2, off by 1/6 twice and 1/3.
  line = fits.line([0, 1, 2], [0, 1, 1])
  assert (line.slope, line.start) == pytest.approx((1 / 2, 1 / 6))
  assert line.stderr == pytest.approx(math.sqrt((1 / 6) / 1 / 2))
  assert math.isnan(fits.line([0, 1], [0, 1]).stderr)


@pytest.mark.parametrize(
  "x, y, message",
  [
    ([1, 1], [1, 2], "at two x at least"),
    ([1, 2], [1], "as many of each"),
    ([1, 2], [0, 1], "numbers > 0"),
  ],
)
def test_points_without_a_fit_are_refused(x, y, message):
  with pytest.raises(ValueError, match=message):
    fits.power(x, y)


def measured(point: Point, form: str, seconds: float | None, **check) -> dict:
  """Returns a line as the sweep writes it; only compiled without seconds."""
  found = {
    "point": dataclasses.asdict(point),
    "form": form,
    "temporaries": {"update": 2**20 * point.batch, "rollout": 2**20},
  }
  if seconds is not None:
    one = dict.fromkeys(("seconds", "min_seconds", "max_seconds"), seconds)
    one |= {"cpu_seconds": 2 * seconds, "anon_bytes": 2**30}
    check = {"loss": 0.7, "kl_rao_blackwell": 3.0, "grad_norm": 2.0} | check
    found |= {"rollout": one, "update": one, "check": check}
  return found


def test_every_point_runs_once_and_what_was_only_compiled_runs_again():
  keys = axes.keys(list(axes.AXES))
  assert len(set(keys)) == len(keys)
  base = Point()
  assert (base, "separate") in keys
  both = axes.keys(["vocabulary", "prompt"])
  assert both.count((base, "shared")) == both.count((base, "separate")) == 1
  assert (base, "separate") not in axes.keys(["vocabulary"])

  compiled = measured(base, "shared", None)
  todo = axes.missing([compiled], ["vocabulary"], timed=False)
  assert len(todo) == 3 and (base, "shared") not in todo
  assert len(axes.missing([compiled], ["vocabulary"], timed=True)) == 4
  run = measured(base, "shared", 1.0)
  for lines in ([compiled, run], [run, compiled]):
    assert len(axes.missing(lines, ["vocabulary"], timed=True)) == 3
    assert axes.by_key(lines)[base, "shared"] is run


def test_devices_divide_the_rows():
  for devices, point in axes.points("devices").items():
    assert point.devices == devices and point.batch % devices == 0


def test_the_page_shows_exponents_and_what_sharing_gives(tmp_path):
  lines = []
  for value, point in axes.points("prompt").items():
    lines.append(measured(point, "shared", value / 100))
    lines.append(measured(point, "separate", value / 40))
  found = axes.by_key(lines)
  text = page.page(found, ["prompt"])
  assert "update 1.00 ± 0.00, last 1.00" in text
  assert "separate / shared, update: 2.50 at 64, 2.50 at 128" in text
  widths = {row.count("|") for row in text.splitlines() if row[:1] == "|"}
  assert len(widths) == 1
  assert not page.disagreements(found)
  files = plots.write(found, ["prompt"], tmp_path)
  assert [f.stat().st_size > 0 for f in files] == [True, True]


def test_a_word_of_the_vocabulary_is_told_in_logits_a_row():
  found = {}
  for value, point in axes.points("vocabulary").items():
    line = measured(point, "shared", None)
    # Ten float32 numbers a word and row, and 7 MiB.
    line["temporaries"]["update"] = 7 * 2**20 + 40 * value * point.batch
    found[point, "shared"] = line
  text = page.page(found, ["vocabulary"])
  assert "10.0 float32 logits a row, from 7 MiB at none" in text


@pytest.mark.parametrize(
  "name, value",
  [("loss", 0.71), ("kl_rao_blackwell", 3.01), ("grad_norm", math.nan)],
)
def test_forms_that_compute_something_else_are_named(name, value):
  lines = [
    measured(Point(prompt=64), "shared", 1.0),
    measured(Point(prompt=64), "separate", 1.0, **{name: value}),
  ]
  (text,) = page.disagreements(axes.by_key(lines))
  assert text.startswith(f"prompt 64, separate: {name} expected")
