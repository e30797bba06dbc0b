# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a user may bring that can't work: each is one line that says why."""

import dataclasses
import json
import shutil

import jax
import pytest
import safetensors.numpy

from configs import hypo
from hypo_jax import models
from hypo_jax.job import lowering, run_job
from tests import kinds

KIND = "qwen2"
CONFIG = models.TransformerConfig(
  vocab_size=1024,  # Padded far beyond the tokenizer's.
  num_layers=2,
  width=16,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_width=16,
  max_positions=64,
)
MODEL = models.Model(CONFIG)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("good")
  params = MODEL.init(jax.random.key(0))
  models.save(models.Policy(MODEL.apply, params, CONFIG, None, MODEL), folder)
  template = kinds.GOLDEN["templates"]["chatml"]["source"]
  kinds.write_folder(folder, KIND, template)
  ends = kinds.GOLDEN["kinds"][KIND]["eos_token_ids"]
  change(folder / "generation_config.json", eos_token_id=ends)
  return folder


@pytest.fixture
def job(model_folder, tmp_path):
  """A job that would work: its configuration, model folder and pairs."""
  folder = tmp_path / "model"
  shutil.copytree(model_folder, folder)
  pairs = tmp_path / "pairs.jsonl"
  rows = [
    {"prompt": f"Say {i}", "chosen": "yes", "rejected": "no"} for i in range(40)
  ]
  pairs.write_text("\n".join(map(json.dumps, rows)))
  config = hypo.get_config()
  config.model.path, config.data.path = str(folder), str(pairs)
  config.data.completion_length = 8
  config.data.validation_fraction = config.data.test_fraction = 0.3
  config.sft.num_steps = config.sft.batch_size = 1
  config.preference.num_steps = 1
  config.preference.batch_size = config.preference.micro_batch_size = 4
  config.evaluate.num_prompts = config.evaluate.num_validation_prompts = 4
  config.evaluate.samples_per_prompt = 1
  config.evaluate.validation_samples_per_prompt = 1
  return config, folder, pairs


def change(path, **values):
  """Changes keys of a JSON file; None takes one away."""
  found = json.loads(path.read_text()) | values
  found = {k: v for k, v in found.items() if v is not None}
  path.write_text(json.dumps(found))


def cut_short(config, folder, pairs):
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-100])


def no_shard(config, folder, pairs):
  (folder / "model.safetensors").unlink()
  index = {"weight_map": {"model.norm.weight": "model-00001-of-2.safetensors"}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def only_pickles(config, folder, pairs):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_config(config, folder, pairs):
  (folder / "config.json").unlink()


def broken_config(config, folder, pairs):
  (folder / "config.json").write_text('{"model_type": "llama",')


def of_config(**values):
  return lambda config, folder, pairs: change(folder / "config.json", **values)


def integers(config, folder, pairs):
  path = folder / "model.safetensors"
  tensors = safetensors.numpy.load_file(path)
  name = "model.norm.weight"
  tensors[name] = tensors[name].astype("int32")
  safetensors.numpy.save_file(tensors, path)


def no_end(config, folder, pairs):
  change(folder / "config.json", eos_token_id=None)
  change(folder / "generation_config.json", eos_token_id=None)
  change(folder / "tokenizer_config.json", eos_token=None, chat_template=None)


def no_template(config, folder, pairs):
  change(folder / "tokenizer_config.json", chat_template=None)
  pairs.write_text(pairs.read_text().replace('"Say', '"\\n\\nHuman: Say'))
  pairs.write_text(
    pairs.read_text().replace('", "ch', '\\n\\nAssistant:", "ch')
  )
  config.data.as_messages = True


def no_tokenizer(config, folder, pairs):
  (folder / "tokenizer.json").unlink()


def larger_tokenizer(config, folder, pairs):
  small = dataclasses.replace(CONFIG, vocab_size=100)
  model = models.Model(small)
  params = model.init(jax.random.key(0))
  models.save(models.Policy(model.apply, params, small, None, model), folder)


def other_rows(config, folder, pairs):
  rows = [{"question": "a", "answer": "b"}] * 9
  pairs.write_text("\n".join(map(json.dumps, rows)))


def bad_rows(config, folder, pairs):
  pairs.write_text(pairs.read_text().replace('"yes"', "7", 3))


def other_columns(config, folder, pairs):
  config.data.path = str(pairs.with_suffix(".csv"))
  pairs.with_suffix(".csv").write_text("text,label\ngood,1\n")


def not_gguf(config, folder, pairs):
  path = folder / "a.gguf"
  path.write_bytes(b"GGUF and no more")
  config.model.path = str(path)


def of_key(**values):
  """Sets keys of the configuration; __ stands for a dot."""

  def set_keys(config, folder, pairs):
    flat = {name.replace("__", "."): value for name, value in values.items()}
    config.update_from_flattened_dict(flat)

  return set_keys


CASES = [
  (cut_short, "model.safetensors: .*cut short"),
  (no_shard, "model-00001-of-2.safetensors: expected by .*index.json"),
  (only_pickles, "expected model.safetensors, or .*, got pytorch_model.bin"),
  (no_config, "expected config.json"),
  (broken_config, "config.json: not readable as JSON"),
  (of_config(num_hidden_layers=3), "layers.2.*: expected in the weights"),
  (of_config(num_hidden_layers=1), "layers.1.*: a weight that this"),
  (of_config(intermediate_size=8), "expected shape .*16.*, got .*"),
  (of_config(architectures=["MambaForCausalLM"]), "architectures: expected"),
  (of_config(residual_scale=2.0), "residual_scale: expected a setting known"),
  (of_config(rope_parameters={"rope_type": "yarn"}), "rope_type: expected"),
  (of_config(hidden_act="relu"), "hidden_act: expected 'silu', got 'relu'"),
  (integers, "model.norm.weight: expected a floating-point tensor"),
  (no_end, "expected a token that ends completions"),
  (no_template, "prompt: expected text, since .* no chat template"),
  (no_tokenizer, "model: expected tokenizer.json, none"),
  (larger_tokenizer, "tokenizer: expected ids below vocab_size = 100, .* got"),
  (other_rows, "data.layout: expected rows of a known layout"),
  (of_key(data__layout="shp"), 'expected rows of layout "shp"'),
  (of_key(data__layout="trl"), 'data.layout: expected "auto" or one of'),
  (bad_rows, "3 of 40 rows are bad"),
  (other_columns, "data.layout: expected rows of a known layout"),
  (of_key(data__path="nowhere.jsonl"), "path: expected a file .*no such path"),
  (of_key(model__path="nowhere"), "path_or_name: expected a folder"),
  (not_gguf, "expected a whole GGUF file"),
  (of_key(data__prompt_length=60), "expected at most 64 positions, got 76"),
  (of_key(rollout__max_new_tokens=60), "expected at most 64 positions, got 72"),
  (
    of_key(evaluate__reward_model_share=0.5, reward_model__batch_size=6),
    "reward_model.batch_size: expected a multiple of .* = 4, .* got 6",
  ),
  (of_key(model__param_dtype="int8"), "model.param_dtype: expected a float"),
  (of_key(lora__rank=2, lora__targets="q"), "lora.targets: expected"),
  (of_key(preference__micro_batch_size=3), "micro_batch_size: expected a div"),
  (of_key(preference__kl_coef=0.0), "kl_coef: expected a number > 0 for hypo"),
  (of_key(preference__estimator="k3"), "estimator: expected one of"),
  (of_key(mesh__fsdp=3), "mesh: .*expected a product"),
  (of_key(seed=-1), "seed: expected at least 0, got -1"),
  (of_key(preference__method="PPO"), "preference.method: .*online_dpo, got 'P"),
  (
    of_key(model__compute_dtype="bf16"),
    "model.compute_dtype: expected float32",
  ),
  (of_key(model__param_dtype="float23"), "model.param_dtype: expected float32"),
  (of_key(checkpoint__every_steps=0), "checkpoint.every_steps: expected at le"),
  (of_key(checkpoint__keep=0), "checkpoint.keep: expected at least 1, got 0"),
  (of_key(evaluate__every_steps=0), "evaluate.every_steps: expected at least"),
  (of_key(evaluate__num_prompts=0), "evaluate.num_prompts: expected at least"),
  (of_key(evaluate__samples_per_prompt=0), "evaluate.samples_per_prompt: exp"),
  (of_key(rollout__samples_per_prompt=0), "rollout.samples_per_prompt: expec"),
  (of_key(rollout__max_new_tokens=-1), "rollout.max_new_tokens: expected at"),
  (of_key(preference__num_steps=0), "preference.num_steps: expected at least"),
  (of_key(preference__max_grad_norm=0.0), "max_grad_norm: expected a number"),
  (of_key(preference__max_grad_norm=-1.0), "max_grad_norm: expected a number"),
  (of_key(preference__weight_decay=-0.1), "weight_decay: expected a number >="),
  (of_key(preference__warmup_steps=-5), "warmup_steps: expected a number >= 0"),
  (
    of_key(
      preference__batch_size=64,
      preference__micro_batch_size=4,
      baselines__dpo__batch_size=64,
    ),
    "preference.batch_size: expected at most the .* pairs, got 64",
  ),
]


@pytest.mark.parametrize(
  ("damage", "message"), CASES, ids=[message for _, message in CASES]
)
def test_bad_input_is_one_line_that_says_what_was_expected(
  job, tmp_path, monkeypatch, damage, message
):
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  damage(*job)
  with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
    run_job(job[0], tmp_path / "work")
  line, *rows = str(caught.value).split("\n")
  # What run.py asks for before it prints the message alone.
  assert "expected" in str(caught.value)
  assert all("pairs.jsonl:" in row for row in rows) and len(rows) <= 10
  assert not (tmp_path / "work" / "checkpoints").exists()


def test_aot_lowers_the_model_of_the_path_where_that_is_here(job):
  config, _, _ = job
  ids, described = lowering.model_of(config)
  assert dataclasses.replace(described, remat=False) == CONFIG
  tokenizer = models.load_tokenizer(config.model.path)
  assert ids.eos_token_id == tokenizer.eos_token_id
  config.model.path = "owner/elsewhere"
  ids, described = lowering.model_of(config)
  assert described.num_layers == config.model.architecture.num_hidden_layers


@pytest.mark.slow
def test_without_damage_the_job_runs_with_its_padded_vocabulary(job, tmp_path):
  """Rollouts may draw ids beyond the tokenizer; they decode to none."""
  config, folder, _ = job
  tokenizer = models.load_tokenizer(folder)
  assert tokenizer.vocab_size < CONFIG.vocab_size
  assert tokenizer.decode([CONFIG.vocab_size - 1]) == ""
  result = run_job(config, tmp_path / "work")
  assert set(result["policies"]) == {"reference", "dpo", "hypo"}
