# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF files of every architecture that is read, against transformers."""

import dataclasses

import gguf
import jax
import numpy as np
import pytest

from hypo_jax import models
from hypo_jax.models.config import Rope
from tests import make_checkpoints as made

pytest.importorskip("torch", reason="needs the test extra's torch")
transformers = pytest.importorskip(
  "transformers", reason="needs the test extra's transformers"
)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

V = 61
LAYER = {
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "post_attention_layernorm": "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
}
GEMMA = LAYER | {
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
}
ARCHITECTURES = {
  "llama2": "llama",
  "llama3": "llama",
  "mistral": "llama",
  "smollm2": "llama",
  "qwen2": "qwen2",
  "qwen3": "qwen3",
  "gemma2": "gemma2",
  "gemma3": "gemma3",
}


@pytest.fixture(autouse=True)
def _highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


def tensors_of(model, architecture):
  """The model's tensors, named and laid out as llama.cpp's converter does."""
  config = model.config
  head_dim = getattr(config, "head_dim", None)
  head_dim = head_dim or config.hidden_size // config.num_attention_heads
  heads = {
    "attn_q": config.num_attention_heads,
    "attn_k": config.num_key_value_heads,
  }
  names = GEMMA if architecture.startswith("gemma") else LAYER
  top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
  top["lm_head"] = "output"
  tensors = {}
  for name, parameter in model.state_dict().items():
    array = parameter.numpy().astype(np.float32)
    base, kind = name.rsplit(".", 1)
    if base == "lm_head" and config.tie_word_embeddings:
      continue
    if base in top:
      theirs = top[base]
    else:
      layer, part = base.removeprefix("model.layers.").split(".", 1)
      theirs = f"blk.{layer}.{names[part]}"
    short = theirs.split(".")[-1]
    if architecture == "llama" and short in heads:
      # Halves of a head become pairs that are rotated together.
      halves = array.reshape(heads[short], 2, head_dim // 2, -1)
      array = halves.swapaxes(1, 2).reshape(array.shape)
    if architecture.startswith("gemma") and "norm" in theirs:
      array = array + 1
    tensors[f"{theirs}.{kind}"] = np.ascontiguousarray(array)
  scaling = config.rope_parameters
  if architecture == "llama" and scaling["rope_type"] == "llama3":
    tensors["rope_freqs.weight"] = llama3_factors(scaling, head_dim)
  return tensors


def llama3_factors(scaling, head_dim):
  """What each wavelength is divided by, as the converter computes it."""
  factors = []
  low = scaling["original_max_position_embeddings"]
  low_length = low / scaling["low_freq_factor"]
  high_length = low / scaling["high_freq_factor"]
  for i in range(0, head_dim, 2):
    length = 2 * np.pi * scaling["rope_theta"] ** (i / head_dim)
    if length < high_length:
      factors.append(1.0)
    elif length > low_length:
      factors.append(scaling["factor"])
    else:
      low_factor = scaling["low_freq_factor"]
      smooth = (low / length - low_factor) / (
        scaling["high_freq_factor"] - low_factor
      )
      factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
  return np.array(factors, np.float32)


def write(path, model, architecture, *, kinds=None, near_base=None):
  """Writes a model as a GGUF file.

  Args:
    path: the file.
    model: transformers'.
    architecture: as GGUF names it.
    kinds: matrices' types, by name.
    near_base: rotary base of layers with a window; None: as files were before
      they said it.
  """
  config = model.config
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_block_count(config.num_hidden_layers)
  writer.add_context_length(config.max_position_embeddings)
  writer.add_embedding_length(config.hidden_size)
  writer.add_feed_forward_length(config.intermediate_size)
  writer.add_head_count(config.num_attention_heads)
  writer.add_head_count_kv(config.num_key_value_heads)
  writer.add_layer_norm_rms_eps(config.rms_norm_eps)
  if head_dim := getattr(config, "head_dim", None):
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
  rope = config.rope_parameters
  if architecture == "gemma3":
    rope = rope["full_attention"]
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(rope["factor"])
  writer.add_rope_freq_base(rope["rope_theta"])
  if near_base is not None:
    writer.add_rope_freq_base_swa(near_base)
  if architecture.startswith("gemma"):
    writer.add_sliding_window(config.sliding_window)
  if architecture == "gemma2":
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre("smollm")
  letters = [chr(ord("!") + i) for i in range(V - 2)]
  writer.add_token_list(["<eos>", *letters, "AB"])
  writer.add_token_types([3] + [1] * (V - 1))
  writer.add_token_merges(["A B"])
  writer.add_eos_token_id(0)
  for name, array in tensors_of(model, architecture).items():
    kind = (kinds or {}).get(name)
    if kind is None:
      writer.add_tensor(name, array)
    else:
      packed = gguf.quants.quantize(array, kind)
      writer.add_tensor(name, packed, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def as_gguf_says(case, near_base=10_000.0):
  """A case with the settings that GGUF files take for granted."""
  model = made.make(case)
  config = model.config
  if case == "gemma2" or case == "gemma3":
    # The query scale is the head's width; near layers' base is 10,000 where the
    # file doesn't say it.
    config.query_pre_attn_scalar = config.head_dim
    if case == "gemma3":
      config.rope_parameters["sliding_attention"]["rope_theta"] = near_base
  if case == "mistral":
    config.sliding_window = None  # llama.cpp's llama has no windows.
  if case == "llama3":
    config.rope_parameters["original_max_position_embeddings"] = 8192
    config.rope_parameters["rope_theta"] = 500_000.0
  rebuilt = transformers.AutoModelForCausalLM.from_config(config).eval()
  rebuilt.load_state_dict(model.state_dict())
  return rebuilt


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_gguf_log_probs_equal_transformers(tmp_path, case):
  theirs = as_gguf_says(case)
  path = write(tmp_path / "a.gguf", theirs, ARCHITECTURES[case])
  ours = models.load(path)
  tokens = np.random.default_rng(0).integers(0, V, (3, 26))
  got = ours.log_probs(tokens, np.ones(tokens.shape, bool))
  expected = made.log_probs(theirs, tokens)
  np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("base", [10_000.0, 100.0])
def test_gemma3s_near_base_is_read_where_the_file_says_it(tmp_path, base):
  theirs = as_gguf_says("gemma3", near_base=base)
  ours = models.load(
    write(tmp_path / "a.gguf", theirs, "gemma3", near_base=base)
  )
  assert {rope.theta for rope in ours.config.rope} == {base, 3000.0}
  tokens = np.random.default_rng(0).integers(0, V, (3, 26))
  got = ours.log_probs(tokens, np.ones(tokens.shape, bool))
  expected = made.log_probs(theirs, tokens)
  np.testing.assert_allclose(got, expected, atol=1e-4)
  # Gemma 2 has no such key.
  gemma2 = as_gguf_says("gemma2")
  path = write(tmp_path / "b.gguf", gemma2, "gemma2", near_base=base)
  with pytest.raises(ValueError, match="gemma2.rope.freq_base_swa: expected"):
    models.load(path)


@pytest.mark.parametrize("case", ["llama2", "smollm2", "qwen2"])
def test_transformers_reads_the_same_model_from_the_file(tmp_path, case):
  """A second reader, so that writer and reader can't share a mistake."""
  theirs = as_gguf_says(case)
  write(tmp_path / "a.gguf", theirs, ARCHITECTURES[case])
  again = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path, gguf_file="a.gguf"
  ).eval()
  ours = models.load(tmp_path / "a.gguf")
  tokens = np.random.default_rng(1).integers(0, V, (2, 20))
  got = ours.log_probs(tokens, np.ones(tokens.shape, bool))
  np.testing.assert_allclose(got, made.log_probs(again, tokens), atol=1e-4)


WIDE = made.SIZES | {"hidden_size": 256, "intermediate_size": 256}
WIDE |= {"num_hidden_layers": 1, "num_key_value_heads": 4}
KINDS = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
# Bytes of a block of 256 weights, and where its 16-bit scales lie.
K_BLOCKS = {
  "Q2_K": (84, (80, 82)),
  "Q3_K": (110, (108,)),
  "Q4_K": (144, (0, 2)),
  "Q5_K": (176, (0, 2)),
  "Q6_K": (210, (208,)),
}


def random_blocks(kind, rows):
  """Rows of one K-quantised block each, with scales near 0.01."""
  rng = np.random.default_rng(0)
  size, scales = K_BLOCKS[kind]
  blocks = rng.integers(0, 256, (rows, size), np.uint8)
  for at in scales:
    drawn = rng.uniform(0.005, 0.02, (rows, 1)).astype(np.float16)
    blocks[:, at : at + 2] = drawn.view(np.uint8)
  return blocks


@pytest.mark.parametrize("kind", [*KINDS, *K_BLOCKS])
def test_quantised_matrices_load_as_the_library_reads_them(
  tmp_path, kind, monkeypatch
):
  monkeypatch.setitem(made.CASES, "wide", ("LlamaConfig", WIDE))
  model = made.make("wide")
  kind_id = gguf.GGMLQuantizationType[kind]
  name = "blk.0.ffn_down.weight"
  if kind in K_BLOCKS:
    packed = random_blocks(kind, 256)
    monkeypatch.setattr(gguf.quants, "quantize", lambda array, kind: packed)
  path = write(tmp_path / "a.gguf", model, "llama", kinds={name: kind_id})
  original = model.state_dict()["model.layers.0.mlp.down_proj.weight"].numpy()
  if kind not in K_BLOCKS:
    packed = gguf.quants.quantize(original, kind_id)
  expected = gguf.quants.dequantize(packed, kind_id).reshape(256, 256)
  got = np.asarray(models.load(path).params["layers"]["down"][0])
  np.testing.assert_array_equal(got, expected.T)
  assert np.isfinite(expected).all() and np.ptp(expected) > 0
  if kind not in K_BLOCKS:
    assert np.abs(expected - original).max() < 0.1 * np.abs(original).max()


def test_rope_factors_of_the_files_writer_are_the_settings_found_again():
  """Both ways of writing Llama 3's scaling down agree."""
  rope = Rope(500_000.0, 8.0, 1.0, 4.0, 8192)
  scaling = {
    "rope_theta": rope.theta,
    "factor": rope.factor,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
  }
  factors = llama3_factors(scaling, 128)
  plain = dataclasses.replace(rope, factor=1.0)
  expected = plain.frequencies(128) / rope.frequencies(128)
  np.testing.assert_allclose(factors, expected, rtol=1e-4)
  assert 1.0 < np.median(factors) < 8.0 and len(set(factors.round(3))) > 5


def test_gemma_norms_are_stored_with_their_offset(tmp_path):
  theirs = as_gguf_says("gemma2")
  path = write(tmp_path / "a.gguf", theirs, "gemma2")
  got = models.load(path).params["layers"]["attention_norm"]
  expected = [layer.input_layernorm.weight for layer in theirs.model.layers]
  expected = np.stack([w.detach().numpy() for w in expected])
  np.testing.assert_allclose(got, expected, atol=1e-6)
