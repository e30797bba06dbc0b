# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Lengths that micro-batches are cut to: how chosen, and what they save."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import hypo
from hypo_jax import (
  compilations,
  evaluate,
  models,
  sharding,
  timing,
  train,
)
from hypo_jax.batch import cut_lengths
from hypo_jax.data import buckets, pipeline
from hypo_jax.job import batches, setup, steps
from tests import kinds

KIND = "qwen2"
LIMITS = (64, 32)


def table(prompts, completions):
  """Rows of these lengths, whose tokens are all 7."""
  p, c = LIMITS
  prompts, completions = np.asarray(prompts), np.asarray(completions)
  prompt_mask = np.arange(p) >= p - prompts[:, None]
  chosen_mask = np.arange(c) < completions[:, None]
  rejected_mask = np.arange(c) < completions[:, None] // 2
  masks = {
    "prompt": prompt_mask,
    "chosen": chosen_mask,
    "rejected": rejected_mask,
  }
  rows = {f"{name}_mask": mask for name, mask in masks.items()}
  rows |= {f"{name}_tokens": 7 * mask for name, mask in masks.items()}
  return rows | {"pair_mask": chosen_mask.any(1) & rejected_mask.any(1)}


def skewed(num_rows, seed=0):
  """Lengths of which half are below a quarter of the limits."""
  share = np.random.default_rng(seed).beta(1, 3, (num_rows, 2))
  return np.maximum((share * LIMITS).astype(int), 1)


lengths_of_rows = st.lists(
  st.tuples(st.integers(1, LIMITS[0]), st.integers(0, LIMITS[1])),
  min_size=1,
  max_size=12,
)


@given(lengths_of_rows)
def test_trimming_drops_nothing_but_padding(lengths):
  rows = table(*np.array(lengths).T)
  trimmed = buckets.trim(rows)
  np.testing.assert_array_equal(buckets.row_lengths(rows), lengths)
  np.testing.assert_array_equal(buckets.row_lengths(trimmed), lengths)
  widest = np.maximum(np.max(lengths, axis=0), 1)
  for name, longest, limit in zip(
    ("prompt_mask", "rejected_tokens"), widest, LIMITS, strict=True
  ):
    assert longest <= trimmed[name].shape[1] <= min(longest + 15, limit)
  assert trimmed["pair_mask"].tolist() == rows["pair_mask"].tolist()


@given(lengths_of_rows, st.integers(1, 80), st.integers(1, 40))
def test_cutting_keeps_the_prompt_s_end_and_the_completion_s_start(
  lengths, p, c
):
  rows = table(*np.array(lengths).T)
  rows["prompt_tokens"] = rows["prompt_tokens"] * np.arange(LIMITS[0])
  cut = cut_lengths(rows, p, c)
  for name, array in rows.items():
    if name.startswith("prompt"):
      array = array[:, -p:]
    elif array.ndim == 2:
      array = array[:, :c]
    np.testing.assert_array_equal(cut[name], array)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_dealing_gives_each_micro_batch_rows_of_like_length(n, size, seed):
  tokens = np.random.default_rng(seed).integers(0, 9, n * size)
  order = buckets.deal(tokens, size)
  assert sorted(order) == list(range(n * size))
  micros = tokens[order].reshape(size, n).T  # Rows i, i + n, ... are one.
  flat = micros.ravel().tolist()
  assert flat == sorted(flat)


def test_a_micro_batch_that_does_not_divide_the_batch_is_named():
  with pytest.raises(ValueError, match="micro_batch_size: .* 6 rows, got 4"):
    buckets.deal(np.arange(6), 4)


def test_a_dealt_batch_is_the_same_rows_and_every_process_has_its_share():
  lengths = skewed(40)
  rows = table(*lengths.T)
  kwargs = {"batch_size": 16, "seed": 3, "stage": "preference"}
  dealt = kwargs | {"tokens": lengths.sum(1), "micro_batch_size": 4}
  plain, whole = (pipeline.make_batches(rows, **k) for k in (kwargs, dealt))
  halves = [
    pipeline.make_batches(rows, process_index=i, process_count=2, **dealt)
    for i in range(2)
  ]
  for step in range(4):
    assert sorted(whole(step)["row"]) == sorted(plain(step)["row"])
    joined = [half(step)["row"] for half in halves]
    assert np.concatenate(joined).tolist() == whole(step)["row"].tolist()
    # Each process cuts its rows as all rows are cut: into the same micro-batch.
    for micro in range(4):
      mine = np.concatenate([half[micro::4] for half in joined])
      assert mine.tolist() == whole(step)["row"][micro::4].tolist()


def choose(lengths, *, batch_size=16, micro_batch_size=4, num_steps=1000):
  order = pipeline.make_order(
    len(lengths), batch_size=batch_size, seed=0, stage="preference"
  )
  found = buckets.choose(
    [lengths],
    [lengths @ [1, 2]],
    [order],
    limits=LIMITS,
    num_steps=num_steps,
    micro_batch_size=micro_batch_size,
    slots=2,
  )
  return found, order


def test_the_padding_that_is_said_is_the_padding_that_there_is():
  lengths = skewed(500)
  found, order = choose(lengths, num_steps=200)
  assert 1 <= len(found.lengths) <= 3
  assert found.longest == (64, 32)
  weights = np.array([1, 2])
  real = taken = whole = 0
  for step in range(200):
    rows = lengths[order(step)]
    dealt = rows[buckets.deal(rows @ weights, 4)]
    for micro in range(4):
      needs = dealt[micro::4].max(axis=0)
      cut = next(
        bucket
        for bucket in (*found.lengths, found.longest)
        if (needs <= bucket).all()
      )
      real += (dealt[micro::4] @ weights).sum()
      taken += 4 * (weights @ cut)
      whole += 4 * (weights @ LIMITS)
  assert found.padding == pytest.approx(1 - real / taken)
  assert found.padding_without == pytest.approx(1 - real / whole)
  assert found.padding < found.padding_without - 0.1
  assert "not" in str(found) and "64+32" in str(found)


def test_dealing_by_length_saves_what_whole_batches_do_not():
  """Of 16 random rows one is nearly always long."""
  lengths = skewed(500)
  whole, _ = choose(lengths, micro_batch_size=16)
  dealt, _ = choose(lengths)
  assert dealt.padding < whole.padding - 0.1


@pytest.mark.parametrize(
  ("lengths", "num_steps"),
  [
    (np.full((100, 2), LIMITS), 1000),
    (np.full((100, 2), (3, 2)), 1000),
    (skewed(500), 20),
  ],
  ids=["all full", "all short", "too few steps to pay for a compilation"],
)
def test_a_length_that_does_not_pay_is_not_taken(lengths, num_steps):
  found, _ = choose(lengths, num_steps=num_steps)
  assert found.lengths == ()
  assert found.longest == ((16, 16) if lengths[0, 0] == 3 else LIMITS)


@settings(max_examples=5)
@given(st.integers(0, 2**31), st.integers(1, 64), st.integers(1, 32))
def test_lengths_ascend_and_stay_within_the_limits(seed, p, c):
  lengths = np.minimum(skewed(64, seed), (p, c))
  found, _ = choose(lengths)
  tokens = [prompt + 2 * completion for prompt, completion in found.lengths]
  assert tokens == sorted(tokens)
  assert all(
    n <= m for b in found.lengths for n, m in zip(b, LIMITS, strict=True)
  )
  assert (lengths <= found.longest).all()


def test_scoring_many_pairs_in_buckets_gives_the_same(monkeypatch):
  config = models.TransformerConfig(
    vocab_size=8,
    num_layers=1,
    width=8,
    num_heads=1,
    num_kv_heads=1,
    head_dim=8,
    mlp_width=8,
    max_positions=sum(LIMITS),
  )
  model = models.Model(config)
  params = model.init(jax.random.key(0))
  rows = table(*skewed(90).T)
  mesh = sharding.make_mesh()

  def score(least):
    monkeypatch.setattr(buckets, "_LEAST_BATCHES", least)
    scorer = evaluate.make_pair_scorer(model, batch_size=8, mesh=mesh)
    before = compilations.count()
    return scorer(params, rows), compilations.count() - before

  whole, programs = score(30)
  cut, more_programs = score(1)
  assert more_programs > programs
  np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-5)


def write_pairs(path, num_rows=160):
  """Texts of one to forty words."""
  rng = np.random.default_rng(0)

  def text(most):
    count = 1 + int(most * rng.beta(1, 3))
    return " ".join(rng.choice(["ab", "cd", "a", "d"], count))

  rows = [
    {"prompt": text(60), "chosen": text(28), "rejected": text(28)}
    for _ in range(num_rows)
  ]
  path.write_text("\n".join(json.dumps(row) for row in rows))


def make_job(folder):
  """A tiny random model on pairs whose lengths vary."""
  config = models.TransformerConfig(
    vocab_size=1024,
    num_layers=1,
    width=8,
    num_heads=1,
    num_kv_heads=1,
    head_dim=8,
    mlp_width=8,
    max_positions=LIMITS[0] + 2 * LIMITS[1],
  )
  model = models.Model(config)
  params = model.init(jax.random.key(0))
  base = folder / "base"
  models.save(models.Policy(model.apply, params, config, None, model), base)
  kinds.write_folder(base, KIND)
  ends = {"eos_token_id": kinds.GOLDEN["kinds"][KIND]["eos_token_ids"]}
  (base / "generation_config.json").write_text(json.dumps(ends))
  write_pairs(folder / "pairs.jsonl")
  settings = hypo.get_config()
  settings.update_from_flattened_dict(
    {
      "model.path": str(base),
      "data.path": str(folder / "pairs.jsonl"),
      "data.prompt_length": LIMITS[0],
      "data.completion_length": LIMITS[1],
      "preference.batch_size": 16,
      "preference.micro_batch_size": 4,
      "preference.num_steps": 400,
    }
  )
  return setup.set_up(settings, folder / "work")


def compiled_after_two_updates(job, settings, stage):
  """Programs that eight updates compile, of which the first two warm up."""
  optimizer = steps.make_optimizer(settings)
  step = steps.make_train_step(
    job, settings, optimizer, buckets=stage.buckets.lengths
  )
  update = steps.make_update(job, settings, step, job.params, stage)
  state = train.init_state(job.params, optimizer, job.mesh)
  for number in range(8):
    if number == 2:
      before = compilations.count()
    state, metrics = jax.block_until_ready(
      update(state, number, timing.StepTimer())
    )
  assert np.isfinite(metrics["loss"])
  return compilations.count() - before


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "hypo"])
def test_demand_17_nothing_is_compiled_after_the_first_updates(
  tmp_path, method
):
  """Rows of many lengths; the same batches cut one by one compile anew."""
  job = make_job(tmp_path)
  settings = job.methods[method]
  pairs, _ = job.tokens.pairs(job.task.pairs["train"])
  for side in ("chosen", "rejected"):
    unknown = np.zeros(len(pairs["pair_mask"]), np.float32)
    pairs[f"ref_{side}_log_probs"] = unknown
  stage = batches.of_pairs(job, settings, pairs)
  assert stage.buckets.lengths
  needed = set()
  for number in range(8):
    lengths = buckets.row_lengths(stage.batch_at(number))
    needed |= {tuple(lengths[micro::4].max(axis=0)) for micro in range(4)}
  assert len(needed) > 8
  assert compiled_after_two_updates(job, settings, stage) == 0
  if method == "dpo":
    alone = dataclasses.replace(
      stage,
      batch_at=lambda step: buckets.trim(stage.batch_at(step // 2)),
      buckets=dataclasses.replace(stage.buckets, lengths=()),
    )
    assert compiled_after_two_updates(job, settings, alone) > 0
