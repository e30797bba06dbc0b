# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The speed benchmarks' own arithmetic: work, clock, ratios, files.

What they time is not tested here, nor any peer.
"""

import math

import jax
import numpy as np
import pytest

from benchmarks import cases, measure, own, programs, ratios, records, step
from hypo_jax import models

TOY = cases.Size(
  vocab_size=11,
  num_layers=2,
  width=8,
  num_heads=4,
  num_kv_heads=2,
  mlp_width=6,
)


def toy_case(kind: str) -> cases.Case:
  return cases.Case(
    name=f"{kind}-toy-5",
    kind=kind,
    model="toy",
    rows=2,
    prompt_length=5,
    completion_length=3,
  )


@pytest.fixture
def toy(monkeypatch, tmp_path):
  monkeypatch.setitem(cases.SIZES, "toy", TOY)
  monkeypatch.setattr(cases, "FOLDER", tmp_path)


def forward_flops(size: cases.Size, seen: list[int], scored: int) -> int:
  """Counts a forward product by product.

  Args:
    size: the model's.
    seen: for each token, how many keys it sees.
    scored: tokens whose logits are taken.
  """
  kv_width = size.num_kv_heads * size.head_dim
  shapes = [(size.width, size.width)] * 2  # query, output
  shapes += [(size.width, kv_width)] * 2  # key, value
  shapes += [(size.width, size.mlp_width)] * 2  # gate, up
  shapes += [(size.mlp_width, size.width)]  # down
  total = scored * 2 * size.width * size.vocab_size
  for keys in seen:
    for _ in range(size.num_layers):
      total += sum(2 * inputs * outputs for inputs, outputs in shapes)
      # Scores, and the values' weighted sum, of every head.
      total += 2 * size.num_heads * 2 * size.head_dim * keys
  return total


def test_operations_are_those_counted_token_by_token(toy):
  prompt, slot = list(range(1, 6)), [6, 7, 8]
  policy = 3 * forward_flops(TOY, prompt + 2 * slot, 2 * 3)
  assert cases.flops(toy_case("dpo")) == 2 * policy

  # The last prompt token's logits are the first drawn token's.
  drawn = forward_flops(TOY, prompt + slot, 3)
  assert cases.flops(toy_case("gen")) == 2 * drawn

  policy = 3 * forward_flops(TOY, prompt + 3 * slot, 3 * 3)
  reference = forward_flops(TOY, prompt + slot, 3)
  decode = forward_flops(TOY, slot, 3)
  assert cases.flops(toy_case("hypo")) == 2 * (policy + reference + decode)


def test_the_cases_need_what_the_targets_were_set_by():
  flops = {name: cases.flops(case) for name, case in cases.CASES.items()}
  assert flops["hypo-tiny-256"] == pytest.approx(137e9, rel=0.02)
  assert flops["hypo-small-128"] == pytest.approx(1000e9, rel=0.05)
  small = cases.decode_bytes(cases.get_case("hypo-small-128"))
  assert small == pytest.approx(26e9, rel=0.02)
  assert cases.decode_bytes(cases.get_case("dpo-small-128")) == 0
  # SmolLM2-135M, whose shape it is, has this many.
  assert cases.SIZES["small"].num_params == 134_515_008


@pytest.mark.parametrize("name", ["tiny", "small", "large"])
def test_parameters_are_those_of_our_model(name):
  size = cases.SIZES[name]
  config = models.parse_config(
    cases._config(cases.Case("", "dpo", name, 1, 1, 1))
  )
  params = models.Model(config).abstract_params
  assert sum(x.size for x in jax.tree.leaves(params)) == size.num_params


@pytest.mark.parametrize("name", cases.CASES)
def test_batches_are_full_rows_without_the_padding_token(name):
  case = cases.get_case(name)
  batch = cases.make_batch(case)
  prompt = (case.rows, case.prompt_length)
  assert batch["prompt"].shape == prompt
  names = {"prompt"} | ({"chosen", "rejected"} if case.kind != "gen" else set())
  assert set(batch) == names
  for tokens in batch.values():
    assert tokens.min() >= 1 and tokens.max() < case.size.vocab_size


def test_an_unknown_case_is_refused():
  with pytest.raises(ValueError, match="case: expected one of dpo-tiny-64"):
    cases.get_case("dpo-huge-64")


def test_a_checkpoint_is_made_once_and_loads(toy):
  case = toy_case("dpo")
  folder = cases.checkpoint(case)
  written = (folder / "model.safetensors").stat().st_mtime_ns
  assert cases.checkpoint(case) == folder
  assert (folder / "model.safetensors").stat().st_mtime_ns == written
  policy = models.load(str(folder))
  sizes = [x.size for x in jax.tree.leaves(policy.params)]
  assert sum(sizes) == TOY.num_params
  assert policy.config.rope.theta == cases.ROPE_THETA
  assert policy.config.num_kv_heads == TOY.num_kv_heads


@pytest.mark.parametrize(
  "kind",
  [
    pytest.param("dpo", marks=pytest.mark.slow),
    pytest.param("hypo", marks=pytest.mark.slow),
    "gen",
  ],
)
def test_our_step_starts_at_the_reference(toy, kind):
  clock = measure.Clock(steps=1, warmup=1)
  found = own.run(toy_case(kind), clock)
  assert found["product_flops_per_second"] > 0
  figures = clock.figures()
  check = figures["check"]
  assert ("loss" in check) == (kind != "gen")
  assert ("kl" in check) == (kind == "hypo")
  assert ("rollout_log_probs" in check) == (kind == "hypo")
  if kind != "gen":
    assert check["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert check["grad_norm"] > 0
  assert check.get("kl", 0.0) == pytest.approx(0.0, abs=1e-4)
  assert figures["peak_bytes"] >= figures["anon_bytes"]


def test_rollouts_that_ended_early_are_refused():
  own._check_lengths(np.ones((2, 3), bool))
  with pytest.raises(ValueError, match="expected 6 tokens, got 5"):
    own._check_lengths(np.array([[1, 1, 1], [1, 1, 0]], bool))


def test_the_clock_keeps_the_first_call_and_warm_up_apart(monkeypatch):
  # Seconds that each call takes: first, two of warm-up, three that are timed.
  lasts = [50.0, 9.0, 8.0, 3.0, 1.0, 2.0]
  now, cpu = [0.0], [0.0]
  monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
  monkeypatch.setattr(measure.time, "process_time", lambda: cpu[0])
  calls = []

  def step():
    now[0] += lasts[len(calls)]
    cpu[0] += 2 * lasts[len(calls)]
    calls.append(None)
    return {"loss": float(len(calls))}

  clock = measure.Clock(steps=3, warmup=2)
  clock.loop(step)
  assert len(calls) == clock.num_calls == 6
  figures = clock.figures()
  assert figures["first_seconds"] == 50.0
  assert figures["first_cpu_seconds"] == 100.0
  assert figures["seconds"] == 2.0
  assert (figures["min_seconds"], figures["max_seconds"]) == (1.0, 3.0)
  assert figures["cpu_seconds"] == 4.0
  assert figures["check"] == {"loss": 1.0}


def line(program, case, repeat, seconds, **more):
  check = {
    "loss": math.log(2),
    "chosen_log_probs": -280.0,
    "grad_norm": 14.0,
  }
  return {
    "program": program,
    "case": case,
    "repeat": repeat,
    "seconds": seconds,
    "first_seconds": 10.0,
    "first_cpu_seconds": 12.0,
    "peak_bytes": 2**30,
    "anon_bytes": 2**29,
    "product_flops_per_second": 1e11,
    "check": check,
    "steps": 5,
    "warmup": 1,
    "threads": 2,
  } | more


def test_our_table_gives_the_share_of_a_large_product_rate():
  # Half the rate of a large product: twice as long as its products alone.
  seconds = cases.flops(cases.get_case("dpo-tiny-64")) / 5e10
  measured = line("hypo_jax", "dpo-tiny-64", 0, seconds)
  measured |= dict.fromkeys(("min_seconds", "max_seconds"), seconds)
  measured |= {"cpu_seconds": 1.5}
  heads, row = step.table([measured]).splitlines()
  assert len(heads) == len(row)
  assert row.split()[0] == "dpo-tiny-64"
  assert row.split()[-2:] == ["50", "50%"]
  # 2**29 of own memory, 2**30 resident.
  assert row.split()[6:8] == ["0.50", "1.00"]


def test_ratios_compare_repeat_with_repeat():
  # The machine is ten times slower during the second repeat. Medians over all
  # would give 23 / 2; the last repeat of TRL has no partner and doesn't count.
  lines = [
    line("hypo_jax", "dpo-tiny-64", 0, 1.0),
    line("trl", "dpo-tiny-64", 0, 2.0),
    line("hypo_jax", "dpo-tiny-64", 1, 10.0),
    line("trl", "dpo-tiny-64", 1, 40.0),
    line("trl", "dpo-tiny-64", 3, 1e6),
    line("trl", "dpo-tiny-64", 2, 6.0),
    line("hypo_jax", "dpo-tiny-64", 2, 2.0),
    line("trl", "dpo-tiny-256", 0, 1e6),
  ]
  case = "dpo-tiny-64"
  ratio = ratios.of(lines, ("trl", case), ("hypo_jax", case))
  assert (ratio.median, ratio.low, ratio.high) == (3.0, 2.0, 4.0)
  nothing = ratios.of(lines, ("lean", case), ("hypo_jax", case))
  assert math.isnan(nothing.median) and str(nothing) == "-"


@pytest.mark.parametrize(
  "seconds, word", [(2.7, "2.6: met"), (2.5, "2.6: missed")]
)
def test_the_page_says_whether_a_target_is_met(seconds, word):
  lines = [
    line("hypo_jax", "dpo-tiny-64", 0, 1.0),
    line("trl", "dpo-tiny-64", 0, seconds),
  ]
  text = ratios.page(lines, ["dpo-tiny-64"], ["hypo_jax", "trl"])
  assert f"[at least {word}]" in text
  # As much memory as TRL: the target is 0.7 of it.
  assert "1.00 (1.00 to 1.00) [at most 0.7: missed]" in text


def test_the_page_compares_a_gpus_memory_where_there_is_one():
  lines = [
    line("hypo_jax", "dpo-large-512", 0, 1.0, device_peak_bytes=2**33),
    line("trl", "dpo-large-512", 0, 3.0, device_peak_bytes=2**34),
  ]
  text = ratios.page(lines, ["dpo-large-512"], ["hypo_jax", "trl"])
  assert "| 8.00 | 16.00 | 0.50 (0.50 to 0.50) [at most 0.7: met]" in text


def test_rounding_is_no_other_computation_in_bfloat16():
  ours = line("hypo_jax", "hypo-large-512", 0, 1.0)
  peer = line("trl", "hypo-large-512", 0, 1.0)
  peer["check"] = peer["check"] | {"kl": 0.1, "grad_norm": 14.1}
  assert not ratios.disagreements([ours, peer])
  peer["check"]["grad_norm"] = 15.0
  assert len(ratios.disagreements([ours, peer])) == 1


def test_the_page_sets_hypo_against_dpo():
  lines = [
    line("hypo_jax", "dpo-tiny-256", 0, 1.0),
    line("hypo_jax", "hypo-tiny-256", 0, 1.5),
  ]
  names = ["dpo-tiny-256", "hypo-tiny-256"]
  text = ratios.page(lines, names, ["hypo_jax"])
  assert "1.50 (1.50 to 1.50) [at most 1.8: met]" in text


def test_every_target_names_a_case_and_a_program():
  for name, peers in ratios.SPEED_TARGETS.items():
    assert name in cases.CASES
    assert set(peers) <= set(programs.PROGRAMS)
  for pair in ratios.HYPO_TARGETS:
    assert set(pair) <= set(cases.CASES)


@pytest.mark.parametrize(
  "check, value",
  [
    ("loss", 0.7),
    ("kl", 0.5),
    ("chosen_log_probs", -281.0),
    ("rollout_log_probs", -200.0),
    ("grad_norm", 14.1),
  ],
)
def test_another_computation_is_named(check, value):
  ours = line("hypo_jax", "hypo-tiny-64", 0, 1.0)
  peer = line("tunix", "hypo-tiny-64", 0, 1.0)
  ours["check"] |= {"kl": 0.0, "rollout_log_probs": -250.0}
  peer["check"] |= {"kl": 1e-5, "rollout_log_probs": -245.0}
  assert not ratios.disagreements([ours, peer])
  peer["check"][check] = value
  (found,) = ratios.disagreements([ours, peer])
  assert found.startswith(f"tunix, hypo-tiny-64: {check} expected")
  text = ratios.page([ours, peer], ["hypo-tiny-64"], ["hypo_jax", "tunix"])
  assert found in text


def test_what_is_missing_comes_in_turns():
  lines = [line("b", "x", 0, 1.0), line("a", "y", 1, 1.0)]
  assert ratios.missing(lines, ["x", "y"], ["a", "b"], 2) == [
    ("x", 0, "a"),
    ("y", 0, "a"),
    ("y", 0, "b"),
    ("x", 1, "a"),
    ("x", 1, "b"),
    ("y", 1, "b"),
  ]


def test_a_line_cut_off_by_a_stop_is_measured_again(tmp_path):
  path = tmp_path / "compare.jsonl"
  assert records.read(path) == []
  records.append(path, {"repeat": 0})
  with path.open("a") as file:
    file.write('{"repeat": 1, "sec')
  assert records.read(path) == [{"repeat": 0}]
  records.append(path, {"repeat": 1})
  assert records.read(path) == [{"repeat": 0}, {"repeat": 1}]


def test_a_broken_line_is_named(tmp_path):
  path = tmp_path / "compare.jsonl"
  path.write_text('{"repeat": 0}\nnot json\n')
  with pytest.raises(ValueError, match="line 2: expected JSON, got 'not json'"):
    records.read(path)


def test_figures_taken_otherwise_are_not_mixed(tmp_path):
  settings = {"steps": 5, "warmup": 1, "threads": 2}
  lines = [line("trl", "dpo-tiny-64", 0, 1.0)]
  records.check_settings(tmp_path / "c.jsonl", lines, settings)
  with pytest.raises(ValueError, match="steps: expected 5, as in .*, got 1"):
    records.check_settings(tmp_path / "c.jsonl", lines, settings | {"steps": 1})


def test_a_missing_environment_tells_how_to_make_it(tmp_path):
  peer = programs.Program("trl", "benchmarks.peers.trl_peer", tmp_path / "none")
  assert peer.missing == "bash benchmarks/peers/setup.sh trl"
  assert programs.PROGRAMS["hypo_jax"].missing is None
