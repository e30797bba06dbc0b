# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""--mode=aot: what is written, and a small configuration compiled for a TPU."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import runpy
import subprocess
import sys
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from hypo_jax import sharding
from hypo_jax.aot import chips, entries, flops, memory, page, summary
from hypo_jax.aot.chips import CHIPS, Slice
from hypo_jax.aot.compiled import Buffer, Collective, Program, Work
from hypo_jax.job import aot, compiling, lowering, steps, work

ROOT = pathlib.Path(__file__).parents[1]
GIB = 2**30
V5E = Slice(CHIPS["v5e"], (2, 2))
MESSAGE = (
  "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the "
  "total memory required for HLO temporaries (29.90G) exceeds available HBM "
  "(15.75G). HLO module: jit_f.\nSee the guide."
)
OLDER = (
  "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
  "memory space hbm. Used 20.00G of 15.48G hbm. Exceeded hbm capacity by 4.5G."
)
KEYS = {
  "topology": str,
  "fits": bool,
  "bytes_per_device": {"arguments", "temporaries", "peak", "hbm"},
  "model_flops_per_device": float,
  "roofline_seconds": {"compute", "hbm", "interconnect"},
  "predicted": {"step_seconds", "mfu", "bound_by"},
  "collective_bytes": dict,
  "compile_seconds": float,
}


def program(flops, *, arguments, temporaries, fits=True, message=""):
  """A compiled program of 1 s a peak of operations, and a second's gather."""
  gathered = Collective("all-gather", 100e9, 4, 1, False, "params['up']")
  made = Program((Work(flops, 0.0, 1),), (gathered,), (), ("a note",))
  own = memory.Memory(
    int(arguments * GIB), int(temporaries * GIB), fits=fits, message=message
  )
  return compiling.Compiled(
    memory=own,
    program=made,
    estimate=chips.estimate(made, V5E),
    arguments=(Buffer(arguments * GIB, "f32[2]", "state/up"),),
    made=(Buffer(temporaries * GIB, "f32[9]", "jit(step)/dot_general"),),
    seconds=10.0,
    notes=made.notes,
  )


def plan(**changes):
  peak = V5E.flops
  found = aot.Plan(
    topology="v5e:2x2",
    place=V5E,
    train=program(2 * peak, arguments=5, temporaries=3),
    rollout=program(peak, arguments=1, temporaries=4),
    train_flops=1.5 * peak,
    rollout_flops=0.5 * peak,
    idle=0,
    tokens=1000,
    num_steps=3600,
    advice=("model.remat=True: keep one activation a layer",),
  )
  return dataclasses.replace(found, **changes)


def check_keys(entry):
  assert entry.keys() == KEYS.keys()
  for name, expected in KEYS.items():
    if isinstance(expected, set):
      assert entry[name].keys() == expected
    else:
      assert isinstance(entry[name], expected)


def test_the_file_has_the_contracts_keys_and_a_steps_sums():
  found = entries.entries(plan())
  assert found.keys() == {"train_step", "rollout"}
  step, rollout = found["train_step"], found["rollout"]
  for entry in (step, rollout):
    check_keys(entry)
  # The state stays while rollouts are drawn: 5 + the larger of 3 and 4.
  assert step["bytes_per_device"]["arguments"] == 5 * GIB
  assert step["bytes_per_device"]["temporaries"] == 4 * GIB
  assert step["bytes_per_device"]["peak"] == 9 * GIB
  assert rollout["bytes_per_device"]["peak"] == 5 * GIB
  # A step adds both: 2 + 1 s of products, and a gather of 1 s in each.
  assert step["roofline_seconds"]["compute"] == pytest.approx(3)
  assert step["roofline_seconds"]["interconnect"] == pytest.approx(2, rel=1e-4)
  seconds = step["predicted"]["step_seconds"]
  assert seconds == pytest.approx(5, rel=1e-4)
  assert step["predicted"]["mfu"] == pytest.approx((1.5 + 0.5) / seconds)
  assert step["predicted"]["bound_by"] == "compute"
  assert step["collective_bytes"] == {"all-gather": 200e9}
  assert step["compile_seconds"] == 20
  assert json.loads(json.dumps(found)) == found


def test_without_rollouts_their_entry_is_null():
  found = entries.entries(plan(rollout=None, rollout_flops=0.0))
  assert found["rollout"] is None
  check_keys(found["train_step"])
  assert found["train_step"]["bytes_per_device"]["peak"] == 8 * GIB


def test_both_programs_must_fit_above_the_state():
  assert plan().fits
  # Alone it would fit; above a state of 5 GiB it doesn't.
  crowded = plan(rollout=program(1.0, arguments=1, temporaries=11))
  assert not crowded.fits
  assert not entries.entries(crowded)["train_step"]["fits"]
  assert entries.entries(crowded)["rollout"]["fits"]


def test_a_fused_step_is_the_step_and_its_rollouts_stand_beside_it():
  fused = plan(fused=True)
  found = entries.entries(fused)
  step, rollout = found["train_step"], found["rollout"]
  for entry in (step, rollout):
    check_keys(entry)
  # Of the train step's program alone, which does the work of both.
  assert step["predicted"]["step_seconds"] == pytest.approx(3, rel=1e-4)
  assert step["roofline_seconds"]["compute"] == pytest.approx(2)
  assert step["collective_bytes"] == {"all-gather": 100e9}
  assert step["predicted"]["mfu"] == pytest.approx((1.5 + 0.5) / 3, rel=1e-4)
  # The job runs the other to time it, while the state is there.
  assert step["bytes_per_device"]["peak"] == 9 * GIB
  assert step["compile_seconds"] == 20
  text = summary.summary(fused)
  for part in ("fused step", "rollout alone", "drawn inside the train step"):
    assert part in text
    assert part in page.make_page(fused)
  assert "without the rollout" not in text


def test_a_reference_that_the_step_does_not_use_still_takes_its_place():
  assert plan(idle=2 * GIB).peak == plan().peak + 2 * GIB
  assert not plan(idle=7 * GIB).fits


@pytest.mark.parametrize(
  ("text", "temporaries"), [(MESSAGE, 29.90 * GIB), (OLDER, 15 * GIB)]
)
def test_a_refusal_for_memory_is_read(text, temporaries):
  found = memory.of_error(RuntimeError(text), 5 * GIB)
  assert not found.fits
  assert found.temporaries == pytest.approx(temporaries)
  assert found.arguments == 5 * GIB
  assert found.message == text.splitlines()[0]


def test_another_error_is_no_refusal_for_memory():
  assert memory.of_error(RuntimeError("INVALID_ARGUMENT: no"), 0) is None


def test_demand_20_what_does_not_fit_names_buffers_and_settings():
  refused = program(
    1.0, arguments=5, temporaries=30, fits=False, message=MESSAGE
  )
  text = summary.summary(plan(train=refused))
  assert "It does not fit: 35.00 GiB on devices of 16.00 GiB" in text
  assert "30.00 GiB  dot_general f32[9]" in text
  assert "5.00 GiB  state/up f32[2]" in text
  # What it would take is only known of what can be compiled.
  assert "MFU" not in text
  assert "model.remat=True" in text
  assert "CompileTimeHbmOom" in text


def test_the_page_of_what_does_not_fit_says_by_how_much():
  refused = program(
    1.0, arguments=5, temporaries=30, fits=False, message=MESSAGE
  )
  text = page.make_page(plan(train=refused))
  for part in (
    "It does not fit: 35.00 GiB on devices of 16.00 GiB",
    "Too much by</dt><dd>19.25 GiB",
    # The line at 15.75 of 35 GiB.
    'class="limit" style="left:45.00%"',
    "CompileTimeHbmOom",
    "model.remat=True",
  ):
    assert part in text
  assert "MFU, at best" not in text
  assert "Time of a step" not in text


def test_the_page_names_programs_arrays_and_collectives():
  text = page.make_page(plan())
  assert text.startswith("<!doctype html>")
  for part in (
    "It fits in 9.00 GiB of 16.00 GiB a device",
    "state/up",
    "params[&#x27;up&#x27;]",
    "rollout: a note",
    "without the rollout",
  ):
    assert part in text
  assert "<script" not in text


def test_the_change_that_helps_most_is_the_fastest_that_fits():
  slow = plan(train=program(9 * V5E.flops, arguments=5, temporaries=3))
  large = plan(train=program(1.0, arguments=5, temporaries=40))
  trials = (
    aot.Trial("a=1", plan()),
    aot.Trial("b=2", large),
    aot.Trial("c=3", None, "expected another"),
  )
  assert summary.best(slow, trials).change == "a=1"
  text = summary.summary(slow, trials)
  assert "best change: a=1: 2.40 times the tokens a second" in text
  assert summary.best(plan(), trials) is None
  assert "None of the 3 changes tried helps" in summary.summary(plan(), trials)
  assert "c=3 is refused: expected another" in page.make_page(slow, trials)


class Stage:
  """A lowered and compiled program whose text can't be had, or that is refused.

  As JAX's own, as far as `compiling.compile_program` looks.
  """

  def __init__(self, refusal: str = ""):
    self.refusal = refusal

  def compile(self):
    if self.refusal:
      raise jax.errors.JaxRuntimeError(self.refusal)
    return self

  def as_text(self):
    raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: no text")

  def memory_analysis(self):
    names = ("argument", "output", "alias", "temp", "generated_code")
    sizes = (100, 40, 30, 7, 2)
    return types.SimpleNamespace(
      **{f"{n}_size_in_bytes": s for n, s in zip(names, sizes, strict=True)}
    )


def compile_stage(stage):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  laid = sharding.replicated(mesh)
  x = jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=laid)
  jaxpr = jax.make_jaxpr(lambda x: x @ x)(x)
  return compiling.compile_program(stage, jaxpr, {"x": x}, V5E, ())


def test_without_the_compiled_text_the_traced_program_is_counted():
  found = compile_stage(Stage())
  assert found.memory == memory.Memory(100, 7, rest=40 - 30 + 2)
  assert found.program.flops == 2 * 8**3 / V5E.num_devices
  assert found.program.bytes == 3 * 8 * 8 * 4 / V5E.num_devices
  assert "no text" in found.notes[0]
  assert "collectives are missing" in found.notes[1]


class Text:
  """A lowered program of which only the text is looked at."""

  def __init__(self, text):
    self.text = text

  def as_text(self):
    return self.text


def test_a_program_that_a_change_leaves_alone_is_compiled_once(monkeypatch):
  compiled = []

  def compile_train(lowered, place):
    compiled.append(lowered.train_step.text)
    return program(1.0, arguments=1, temporaries=1)

  def compile_rollout(lowered, place):
    compiled.append(lowered.rollout_step.text)
    return program(2.0, arguments=2, temporaries=2)

  monkeypatch.setattr(compiling, "_compile_train", compile_train)
  monkeypatch.setattr(compiling, "_compile_rollout", compile_rollout)
  known = {}
  first, second = (
    compiling.compile_steps(
      None,
      types.SimpleNamespace(train_step=Text(text), rollout_step=Text("draw")),
      V5E,
      known,
    )
    for text in ("as it is", "changed")
  )
  assert compiled == ["as it is", "draw", "changed"]
  assert (first[1].seconds, second[1].seconds) == (10.0, 0.0)
  assert second[1].memory == first[1].memory
  assert second[0].seconds == 10.0


def test_what_cannot_be_read_is_taken_from_as_many_v5e_chips(monkeypatch):
  """The rollout's text fails on a v6e slice, and not the train step's."""
  v6e = Slice(CHIPS["v6e"], (2, 2))
  train = program(1e12, arguments=5, temporaries=3)
  unread = dataclasses.replace(compile_stage(Stage()), seconds=10.0)
  elsewhere = program(2e12, arguments=9, temporaries=9)
  asked = []
  elsewhere_lowered = types.SimpleNamespace(rollout_step=Text("draw"))
  lowered = types.SimpleNamespace(
    train_step=Text("train"), rollout_step=Text("draw")
  )
  for name, fake in {
    "slice_devices": lambda name: (None, asked.append(name)),
    "lower": lambda config, devices: elsewhere_lowered,
    "_compile_train": lambda lowered, place: train,
    "_compile_rollout": lambda of, place: (
      unread if of is lowered else elsewhere
    ),
  }.items():
    monkeypatch.setattr(compiling, name, fake)
  kept, read = compiling.compile_steps(None, lowered, v6e, {})
  assert asked == ["v5e:2x2"]
  assert kept is train
  assert read.program.flops == 2e12
  assert read.estimate == elsewhere.estimate
  assert read.memory == unread.memory
  assert read.seconds == 20
  assert "no text" in read.notes[0] and "on v5e:2x2" in read.notes[1]


def test_a_program_refused_for_memory_is_still_described():
  found = compile_stage(Stage(MESSAGE))
  assert not found.memory.fits
  assert found.memory.arguments == 8 * 8 * 4
  assert found.memory.temporaries == pytest.approx(29.9 * GIB)
  assert found.program.flops == 2 * 8**3 / V5E.num_devices
  assert found.made[0].bytes == 8 * 8 * 4  # As its argument lies.
  assert "does not fit" in found.notes[0]


def test_another_refusal_of_the_compiler_is_not_hidden():
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    compile_stage(Stage("INTERNAL: a defect"))


@pytest.mark.parametrize(
  ("source", "name"),
  [
    (
      "jit(step)/transpose(jvp())/while/body/closed_call/x,y->z/dot_general",
      "backward/x,y->z/dot_general",
    ),
    ("jit(step)/jvp()/while/body/checkpoint/sub", "sub"),
    ("params['layers']['up']", "params['layers']['up']"),
    ("", "not named by the compiler"),
  ],
)
def test_an_arrays_operation_is_named_without_wrappers(source, name):
  assert summary.operation(source) == name


def small_config():
  config = runpy.run_path(str(ROOT / "configs" / "hypo.py"))["get_config"]()
  config.preference.batch_size = config.preference.micro_batch_size = 16
  return config


def test_a_searched_change_keeps_batches_whole():
  config = small_config()
  assert aot.changes(config, 4) == [
    {"preference.batch_size": 32, "preference.micro_batch_size": 32},
    {"preference.micro_batch_size": 8},
    {"model.remat": not config.model.remat},
    {"mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 2},
  ]


@pytest.mark.parametrize("micro_batch_size", [8, 16])
def test_the_program_that_the_job_runs_is_lowered(micro_batch_size):
  config = small_config()
  config.preference.micro_batch_size = micro_batch_size
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  lowered = lowering.lower(config, mesh)
  job = lowered.job
  settings = job.methods["hypo"]
  assert lowered.fused == steps.fuses(job, settings) == (micro_batch_size == 16)
  # A fused step returns its rollouts too.
  assert len(lowered.train_step.out_info) == (3 if lowered.fused else 2)


def test_a_fused_step_saves_the_rollouts_prefill():
  """Operations of the two programs, less those of a prompts' forward."""
  config = small_config()
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  fused = lowering.lower(config, mesh)
  config.rollout.every_steps = 2  # With one, both run in one program.
  split = lowering.lower(config, mesh)
  assert fused.fused and not split.fused
  trips = work.decode_trips(fused.job)
  model, batch = fused.job.model, fused.batch
  prefill = flops.count_function(
    partial(model.prompt_forward, first=batch.prompt_tokens.shape[1] - 1),
    model.abstract_params,
    batch.prompt_tokens,
    batch.prompt_mask,
  )
  apart = flops.count(split.train_jaxpr)
  drawn = flops.count(split.rollout_jaxpr, while_trips=trips)
  together = flops.count(fused.train_jaxpr, while_trips=trips)
  assert prefill.flops > 0
  assert together.flops == apart.flops + drawn.flops - prefill.flops


def test_model_operations_count_as_by_hand():
  """Of the default's transformer: rows, heads, prefill and decoding."""
  config = small_config()
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  lowered = lowering.lower(config, mesh)
  model, tokens = lowered.job.model, lowered.job.tokens
  c, rows = model.config, config.preference.batch_size
  P, C = tokens.prompt_length, tokens.completion_length
  R, k = lowered.job.max_new_tokens, config.rollout.samples_per_prompt
  weights = c.width * c.head_dim * 2 * (c.num_heads + c.num_kv_heads)
  weights += (3 if c.gated_mlp else 2) * c.width * c.mlp_width

  def layers(tokens, pairs):
    """Of a row's tokens, and the query-key pairs of its attention."""
    attention = 2 * c.num_heads * c.head_dim * pairs
    return 2 * c.num_layers * (tokens * weights + attention)

  # Of a prompt's tokens but the last, the last layer has keys and values only.
  elsewhere = weights - 2 * c.width * c.head_dim * c.num_kv_heads
  left_out = 2 * (P - 1) * (elsewhere + 2 * c.num_heads * c.head_dim * P)

  def row(slots, length):
    head = 2 * slots * length * c.width * c.vocab_size
    pairs = P * P + slots * length * (P + length)
    return layers(P + slots * length, pairs) + head - left_out

  assert R == C
  prefill = layers(P, P * P) - left_out + 2 * c.width * c.vocab_size
  looks = -(-(R - 1) // 16)  # The prompt's last token gives the first.
  steps = looks * -(-(R - 1) // looks)
  decode = layers(steps, steps * (P + R))
  decode += 2 * steps * c.width * c.vocab_size
  learning, sampling = aot.model_flops(lowered)
  assert learning == rows * (3 * row(2 + k, C) + row(k, C))
  assert sampling == rows * (prefill + k * decode)


def test_the_largest_arguments_are_a_devices_share():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  laid = sharding.row_sharding(mesh)
  tree = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=laid)
    for name, shape in {"a": (2, 3), "b": (40,)}.items()
  }
  first, second = memory.largest_arguments(tree)
  assert (first.source, first.bytes, first.shape) == (
    "b",
    160,
    "float32[40]",
  )
  assert second.bytes == 24


def test_the_largest_made_are_found_inside_scans():
  def f(x):
    return jax.lax.scan(
      lambda x, _: (jnp.outer(x, x).sum(0), None), x, length=3
    )

  jaxpr = jax.make_jaxpr(f)(np.ones(8, np.float32))
  largest = memory.largest_made(jaxpr, {}, 4)[0]
  assert largest.bytes == 8 * 8 * 4 / 4
  assert "mul" in largest.source


def test_what_is_made_in_an_arguments_shape_is_cut_as_that_one_is():
  """On a mesh that repeats the weights, a gradient lies whole on each."""
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  whole = sharding.replicated(mesh)
  x = jax.ShapeDtypeStruct((6, 6), jnp.float32, sharding=whole)
  jaxpr = jax.make_jaxpr(lambda x: (x * 2.0, jnp.tile(x, (2, 1))))(x)
  made = {b.shape: b.bytes for b in memory.largest_made(jaxpr, {"x": x}, 4)}
  assert made["float32[6,6]"] == 6 * 6 * 4
  assert 12 * 6 * 4 / 4 in made.values()


def test_what_is_made_by_rows_is_a_devices_share_already():
  mesh = AbstractMesh((4,), ("d",), axis_types=(AxisType.Auto,))
  cut = PartitionSpec("d")
  mapped = jax.shard_map(
    lambda x: x[:, :, None] * x[:, None], mesh=mesh, in_specs=cut, out_specs=cut
  )
  jaxpr = jax.make_jaxpr(mapped)(np.ones((8, 3), np.float32))
  first = memory.largest_made(jaxpr, {}, 4)[0]
  assert first.bytes == 2 * 3 * 3 * 4
  assert first.shape == "float32[2,3,3]"


def run(*flags):
  return subprocess.run(
    [sys.executable, "run.py", "--config=configs/hypo.py", *flags],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--mode=aot"], "--topology: expected a slice"),
    (["--mode=aot", "--topology=v5e-8"], "--topology: expected a chip of"),
    (["--search"], "--topology, --search: expected with --mode=aot only"),
  ],
)
def test_wrong_flags_are_told_in_a_line(flags, message, tmp_path):
  done = run(*flags, f"--workdir={tmp_path / 'job'}")
  assert done.returncode
  assert message in done.stderr
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "job" / "aot.json").exists()


def test_a_missing_libtpu_is_told(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match="expected the package libtpu"):
    compiling.slice_devices("v5e:2x2")


@pytest.mark.slow
def test_demand_20_what_the_compiler_refuses_for_memory_is_written(tmp_path):
  """Two layers of 8,192 with Adam, in float32 and whole on each device."""
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed: pip install libtpu")
  done = run(
    "--mode=aot",
    "--topology=v5e:2x2",
    f"--workdir={tmp_path}",
    "--config.model.architecture.hidden_size=8192",
    "--config.model.architecture.intermediate_size=28672",
  )
  assert done.returncode == 0, done.stderr[-3000:]
  for part in (
    "It does not fit",
    "1.75 GiB  state/trainable/layers/down float32[2,28672,8192]",
    "mesh.data=1, mesh.fsdp=-1: cut the weights over all devices",
    "CompileTimeHbmOom",
  ):
    assert part in done.stdout
  found = json.loads((tmp_path / "aot.json").read_text())
  check_keys(found["train_step"])
  assert not found["train_step"]["fits"]
  used = found["train_step"]["bytes_per_device"]
  # Weights and two moments of the policy, weights of the reference: of each,
  # two layers' feed-forward alone.
  assert used["arguments"] > 4 * 4 * 2 * 3 * 8192 * 28672
  assert used["temporaries"] > used["hbm"]
  assert used["peak"] >= used["arguments"] + used["temporaries"]
  assert "It does not fit" in (tmp_path / "aot.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("mesh", "gathers"),
  [((-1, 1), False), ((1, 4), True)],
  ids=["fused", "split"],
)
def test_a_small_config_compiles_for_a_tpu_slice(mesh, gathers, tmp_path):
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed: pip install libtpu")
  done = run(
    "--mode=aot",
    "--topology=v5e:2x2",
    f"--workdir={tmp_path}",
    f"--config.mesh.data={mesh[0]}",
    f"--config.mesh.fsdp={mesh[1]}",
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert "It fits" in done.stdout
  found = json.loads((tmp_path / "aot.json").read_text())
  for entry in found.values():
    check_keys(entry)
    assert entry["fits"]
    used = entry["bytes_per_device"]
    assert used["peak"] >= used["arguments"] + used["temporaries"] > 0
    assert entry["roofline_seconds"]["compute"] > 0
    assert 0 < entry["predicted"]["mfu"] < 1
  # Weights are cut over devices in the split step alone.
  moved = found["train_step"]["collective_bytes"]
  assert moved["all-reduce"] > 0
  assert (moved.get("all-gather", 0) > 0) == gathers
  assert ("drawn inside the train step" in done.stdout) == (not gathers)
  assert (tmp_path / "aot.html").exists()
