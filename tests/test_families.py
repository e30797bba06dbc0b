# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Every family against transformers, on tiny random checkpoints."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from hypo_jax import models, sampling
from hypo_jax.batch import Rows
from hypo_jax.models import hf_config
from hypo_jax.models.config import Rope
from tests import kinds
from tests import make_checkpoints as made

pytest.importorskip("torch", reason="needs the test extra's torch")
pytest.importorskip(
  "transformers", reason="needs the test extra's transformers"
)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

CASES = list(made.CASES)
V = 61


@pytest.fixture(autouse=True)
def _highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
  """Makes and loads each case once: (folder, theirs, ours)."""
  found = {}

  def get(case):
    if case not in found:
      folder = tmp_path_factory.mktemp("families") / case
      theirs = made.make(case)
      theirs.save_pretrained(folder)
      found[case] = folder, theirs, models.load(folder)
    return found[case]

  return get


def mixed_batch(seed=0, width=26):
  """Rows of several lengths, padded left, right and not at all."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, V, (4, width))
  mask = np.ones((4, width), bool)
  mask[1, :7] = False
  mask[2, 19:] = False
  mask[3, :3] = False
  return tokens, mask


@pytest.mark.parametrize("case", CASES)
def test_demand_09_log_probs_equal_transformers_on_either_padding(
  checkpoints, case
):
  _, theirs, ours = checkpoints(case)
  tokens, mask = mixed_batch()
  got = np.asarray(ours.log_probs(tokens, mask))
  np.testing.assert_allclose(
    got, made.log_probs(theirs, tokens, mask), atol=1e-4
  )
  # And without any batch or padding at all.
  for row in range(len(tokens)):
    real = tokens[row][mask[row]][None]
    alone = made.log_probs(theirs, real)[0]
    both = mask[row, 1:] & mask[row, :-1]
    np.testing.assert_allclose(got[row][both], alone, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_greedy_continuation_equals_transformers(checkpoints, case):
  import torch

  _, theirs, ours = checkpoints(case)
  prompts = np.random.default_rng(1).integers(0, V, (3, 9))
  drawn = sampling.sample(
    ours.apply_fn,
    ours.params,
    prompts,
    np.ones(prompts.shape, bool),
    jax.random.key(0),
    max_new_tokens=12,
    eos_token_id=V,  # None of the vocabulary: nobody stops early.
    pad_token_id=0,
    temperature=0.0,
    init_cache=ours.model.init_cache,
  )
  tokens = np.concatenate([prompts, np.asarray(drawn.tokens)], axis=1)
  with torch.no_grad():
    logits = theirs(torch.tensor(tokens)).logits[:, 8:-1].numpy()
  best = np.sort(logits, axis=-1)
  clear = best[..., -1] - best[..., -2] > 1e-3
  assert clear.mean() > 0.9
  np.testing.assert_array_equal(
    logits.argmax(-1)[clear], np.asarray(drawn.tokens)[clear]
  )


@pytest.mark.parametrize("case", CASES)
def test_prefix_shared_row_equals_separate_sequences(checkpoints, case):
  _, _, policy = checkpoints(case)
  model = policy.model
  rng = np.random.default_rng(2)
  prompt_mask = np.arange(9) >= np.array([[0], [4]])
  slot_mask = np.arange(8) < np.array([[8, 5, 0], [1, 7, 8]])[..., None]
  rows = Rows(
    jnp.asarray(rng.integers(0, V, (2, 9))),
    jnp.asarray(prompt_mask),
    jnp.asarray(rng.integers(0, V, (2, 3, 8))),
    jnp.asarray(slot_mask),
  )
  weights = jnp.asarray(rng.normal(size=slot_mask.shape) * slot_mask)

  def shared(params):
    hidden = model.row_hidden(params, rows)
    scored = jax.nn.log_softmax(model.bind(params).logits(hidden))
    scored = jnp.take_along_axis(scored, rows.slot_tokens[..., None], -1)
    return jnp.where(rows.slot_mask, scored[..., 0], 0.0)

  # Prompt and slot as one left-padded row, each slot in a row of its own.
  prompts = jnp.repeat(rows.prompt_tokens, 3, axis=0)
  tokens = jnp.concatenate([prompts, rows.slot_tokens.reshape(6, 8)], axis=1)
  mask = jnp.concatenate(
    [jnp.repeat(rows.prompt_mask, 3, axis=0), rows.slot_mask.reshape(6, 8)],
    axis=1,
  )

  def separate(params):
    scored = dataclasses.replace(policy, params=params).log_probs(tokens, mask)
    return scored[:, 8:].reshape(2, 3, 8)

  value, pull_back = jax.vjp(shared, policy.params)
  plain, plain_pull_back = jax.vjp(separate, policy.params)
  np.testing.assert_allclose(value, plain, atol=3e-5)
  got = jax.tree.leaves(pull_back(weights)[0])
  for a, b in zip(
    got, jax.tree.leaves(plain_pull_back(weights)[0]), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-4 * max(1, jnp.abs(b).max()))


@pytest.mark.parametrize("case", CASES)
def test_demand_19_export_is_what_transformers_saved_and_loads(
  checkpoints, case, tmp_path
):
  import torch
  import transformers

  folder, theirs, ours = checkpoints(case)
  models.save(ours, tmp_path / "out")
  name = "model.safetensors"
  expected = safetensors.numpy.load_file(folder / name)
  saved = safetensors.numpy.load_file(tmp_path / "out" / name)
  assert saved.keys() == expected.keys()
  for key, array in expected.items():
    np.testing.assert_array_equal(saved[key], array, err_msg=key)
  again = models.load(tmp_path / "out")
  assert again.config == ours.config
  jax.tree.map(np.testing.assert_array_equal, again.params, ours.params)
  exported = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "out", attn_implementation="eager"
  ).eval()
  tokens, _ = mixed_batch()
  with torch.no_grad():
    before = theirs(torch.tensor(tokens)).logits
    after = exported(torch.tensor(tokens)).logits
  assert torch.equal(before, after)
  positions = np.broadcast_to(np.arange(26), tokens.shape)
  logits, _ = ours.apply_fn(
    ours.params,
    tokens,
    positions=positions,
    attention_mask=np.tril(np.ones((1, 26, 26), bool)),
  )
  np.testing.assert_allclose(logits, after.numpy(), atol=1e-4)
  p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(before.numpy())
  assert jnp.sum(jnp.exp(p) * (p - q), axis=-1).max() < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_configs_of_transformers_4_and_5_say_the_same(
  checkpoints, case, tmp_path
):
  folder, _, ours = checkpoints(case)
  old = tmp_path / "old"
  shutil.copytree(folder, old)
  made.with_old_keys(old)
  text = (old / "config.json").read_text()
  assert "rope_parameters" not in text and "layer_types" not in text
  assert models.load(old).config == ours.config


@pytest.mark.parametrize("case", ["llama3", "gemma2", "gpt2", "neox"])
def test_sharded_weights_of_any_dtype_load_equal(checkpoints, case, tmp_path):
  import torch

  folder, theirs, ours = checkpoints(case)
  theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
  assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
  again = models.load(tmp_path / "shards")
  jax.tree.map(np.testing.assert_array_equal, again.params, ours.params)
  narrow = made.make(case).to(torch.bfloat16)
  narrow.save_pretrained(tmp_path / "narrow")
  widened = models.load(tmp_path / "narrow")
  rounded = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), ours.params
  )
  jax.tree.map(np.testing.assert_array_equal, widened.params, rounded)


@pytest.mark.parametrize("turned", [30, 60, 88])
def test_a_written_share_gives_its_rotary_dimensions_again(checkpoints, turned):
  """30 / 88 * 88 is below 30 in floating point, and readers cut."""
  heads = {"num_heads": 1, "num_kv_heads": 1, "head_dim": 88, "width": 88}
  config = checkpoints("neox")[2].config
  config = dataclasses.replace(config, **heads, rotary_dim=turned)
  values = hf_config.render(config, dtype="float32", token_ids={})
  assert hf_config.parse(values).rotary_dim == turned
  assert int(88 * values["rotary_pct"]) == turned  # As transformers has it.
  assert values["rotary_pct"] == pytest.approx(turned / 88)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_is_as_close_as_transformers_bfloat16(case, tmp_path):
  worst = made.parity(case, tmp_path / case)
  theirs = worst["mean transformers bfloat16"]
  assert worst["mean bfloat16"] < 1.5 * theirs + 1e-3


DETAILS = {
  "mistral": {"windows": (6,) * 4},
  "qwen2_windows": {"windows": (None, 5, 5, 5)},
  "qwen2": {"rope": Rope(10_500.0)},
  "llama2": {"norm_eps": 1e-2},
  "llama3": {"rope": Rope(500.0)},
  "llama_biases": {"rope": Rope(9_000.0)},
  "gemma2": {"windows": (None, 5, None, 5)},
  "gemma3": {"rope": (Rope(100.0),) * 7},
  "gpt2": {"activation": "gelu"},
  "neox": {"rotary_dim": 4},
  "neox_sequential": {"parallel_residual": True},
  "qwen3": {"query_scale": 0.25},
  "smollm2": {"activation": "gelu_tanh"},
}
MORE_DETAILS = {
  "gemma2": [
    {"attention_softcap": None},
    {"final_softcap": None},
    {"query_scale": None},
    {"embedding_scale": 1.0},
    {"activation": "silu"},
    {"norm_offset": 0.0},
  ],
  "gemma3": [{"windows": None}, {"query_scale": None}],
  "neox": [{"activation": "gelu_tanh"}, {"norm": "layer", "norm_eps": 1e-2}],
  "llama3": [
    {"rope": Rope(500.0, 8.0)},
    {"rope": Rope(500.0, 8.0, 1.0, 4.0, 32)},
  ],
}
MUTATIONS = [(case, change) for case, change in DETAILS.items()] + [
  (case, change) for case, many in MORE_DETAILS.items() for change in many
]


@pytest.mark.parametrize("case, change", MUTATIONS, ids=str)
def test_every_detail_shows_in_these_checkpoints(checkpoints, case, change):
  """Else the comparisons above could not fail."""
  _, theirs, ours = checkpoints(case)
  tokens, mask = mixed_batch()
  config = dataclasses.replace(ours.config, **change)
  assert config != ours.config
  other = dataclasses.replace(ours, model=models.Model(config), config=config)
  difference = other.log_probs(tokens, mask) - made.log_probs(
    theirs, tokens, mask
  )
  assert np.abs(difference).max() > 5e-4


def test_weights_saved_without_their_head_are_found(checkpoints, tmp_path):
  folder, theirs, ours = checkpoints("gpt2")
  tensors = safetensors.numpy.load_file(folder / "model.safetensors")
  bare = {k.removeprefix("transformer."): v for k, v in tensors.items()}
  # As the first GPT-2 on the hub has it, causal mask and all.
  bare["h.0.attn.bias"] = np.ones((1, 1, 64, 64), np.float32)
  (tmp_path / "bare").mkdir()
  safetensors.numpy.save_file(bare, tmp_path / "bare" / "model.safetensors")
  shutil.copy(folder / "config.json", tmp_path / "bare")
  again = models.load(tmp_path / "bare")
  jax.tree.map(np.testing.assert_array_equal, again.params, ours.params)


@pytest.mark.parametrize(
  "case, head",
  [("gpt2", "lm_head.weight"), ("neox_tied", "embed_out.weight")],
)
def test_a_tied_head_is_compared_with_the_embedding(
  tmp_path, monkeypatch, case, head
):
  name, sizes = made.CASES["neox"]
  tied = (name, sizes | {"tie_word_embeddings": True})
  monkeypatch.setitem(made.CASES, "neox_tied", tied)
  made.make(case).save_pretrained(tmp_path)
  expected = models.load(tmp_path).params
  path = tmp_path / "model.safetensors"
  tensors = safetensors.numpy.load_file(path)
  (embedding,) = (
    x for k, x in tensors.items() if "wte" in k or "embed_in" in k
  )
  safetensors.numpy.save_file(tensors | {head: embedding}, path)
  jax.tree.map(
    np.testing.assert_array_equal, models.load(tmp_path).params, expected
  )
  safetensors.numpy.save_file(tensors | {head: embedding + 1e-3}, path)
  with pytest.raises(ValueError, match=f"tie_word_embeddings: .*{head}"):
    models.load(tmp_path)


def test_gemma3_loads_though_its_tokenizer_knows_an_images_token(
  tmp_path, monkeypatch
):
  """That token's id is vocab_size itself: the text models have no row for it.

  A token that text can give, beyond the rows, is refused.
  """
  rows = kinds.backend("gemma").get_vocab_size()
  name, sizes = made.CASES["gemma3"]
  monkeypatch.setitem(made.CASES, "x", (name, sizes | {"vocab_size": rows}))
  theirs = made.make("x")
  theirs.save_pretrained(tmp_path)
  kinds.write_folder(tmp_path, "gemma")
  path = tmp_path / "tokenizer.json"
  values = json.loads(path.read_text("utf-8"))
  values["added_tokens"].append(
    values["added_tokens"][0] | {"id": rows, "content": "<image_soft_token>"}
  )
  path.write_text(json.dumps(values), "utf-8")
  ours = models.load(tmp_path)
  ids = ours.tokenizer.encode_prompt("The answer")
  assert ids == kinds.tokenizer("gemma").encode_prompt("The answer")
  tokens = np.array([ids])
  got = ours.log_probs(tokens, np.ones(tokens.shape, bool))
  np.testing.assert_allclose(got, made.log_probs(theirs, tokens), atol=1e-4)
  for tokenizer in (ours.tokenizer, models.load_tokenizer(tmp_path)):
    with pytest.raises(ValueError, match="got '<image_soft_token>'"):
      tokenizer.encode_prompt("an <image_soft_token>")
  last = max(values["model"]["vocab"].items(), key=lambda entry: entry[1])[0]
  values["model"]["vocab"][last] = rows + 5
  path.write_text(json.dumps(values), "utf-8")
  for load in (models.load, models.load_tokenizer):
    with pytest.raises(ValueError, match=f"vocab_size = {rows}.*{rows + 5}"):
      load(tmp_path)


@pytest.mark.parametrize(
  "case, changes, error",
  [
    ("gemma2", {"layer_types": ["chunked"] * 4}, "layer_types: expected 'full"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inv"),
    ("qwen3", {"layer_types": ["full_attention"]}, None),
    ("mistral", {"sliding_window": -1}, "sliding_window: expected a positive"),
    ("mistral", {"sliding_window": 0}, "sliding_window: expected a positive"),
    ("qwen2", {"max_window_layers": "x"}, "max_window_layers: expected an int"),
    ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar: expected"),
    ("gemma2", {"attn_logit_softcapping": "x"}, "attn_logit_softcapping: exp"),
    ("gemma3", {"sliding_window_pattern": 0}, "sliding_window_pattern: exp"),
    ("gpt2", {"layer_norm_epsilon": "x"}, "layer_norm_epsilon: expected a pos"),
    ("neox", {"attention_type": "local"}, "attention_type: expected a setting"),
  ],
)
def test_settings_of_a_family_are_read_or_refused(
  checkpoints, tmp_path, case, changes, error
):
  folder, _, ours = checkpoints(case)
  shutil.copytree(folder, tmp_path / "x")
  path = tmp_path / "x" / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  if error is None:  # Without a window, what slides is no matter.
    assert models.load(tmp_path / "x").config == ours.config
    return
  with pytest.raises(ValueError, match=error):
    models.load(tmp_path / "x")
