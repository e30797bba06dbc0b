# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Qwen3-0.6B on Anthropic's helpful and harmless dialogues: HyPO against DPO.

    python run.py --config=configs/hh_qwen3_0.6b.py

Model and data come by hub name; --config.model.path and --config.data.path take
local copies. Hardware: one GPU of 40 GB, or TPU v5e-8. 7.2 GB of state, 12 GB
with gradient and reference; about an hour with the baseline on an A100
(estimated from the operations at 30% of the peak; not measured). Not an
experiment of the paper: every value is our choice.
"""

from ml_collections import ConfigDict

from configs import hypo


def get_config() -> ConfigDict:
  config = hypo.get_config()
  config.model.path = "Qwen/Qwen3-0.6B"
  # That model's config.json, with the ends of its generation_config.json.
  config.model.architecture = ConfigDict(
    {
      "architectures": ("Qwen3ForCausalLM",),
      "vocab_size": 151936,
      "num_hidden_layers": 28,
      "hidden_size": 1024,
      "num_attention_heads": 16,
      "num_key_value_heads": 8,
      "head_dim": 128,
      "intermediate_size": 3072,
      "max_position_embeddings": 40960,
      "rope_theta": 1000000,
      "rms_norm_eps": 1e-6,
      "hidden_act": "silu",
      "tie_word_embeddings": True,
      "bos_token_id": 151643,
      "eos_token_id": (151645, 151643),
      "pad_token_id": 151643,
    }
  )
  config.model.compute_dtype = "bfloat16"
  config.model.remat = True

  config.data.path = "Anthropic/hh-rlhf"
  config.data.split = "train"  # of all its parts
  config.data.as_messages = True
  config.data.prompt_length = 384
  config.data.completion_length = 128
  config.data.validation_fraction = 0.01
  config.data.test_fraction = 0.01

  config.sft.num_steps = 0
  config.preference.num_steps = 1000
  config.preference.batch_size = 64
  config.preference.micro_batch_size = 16
  config.preference.learning_rate = 1e-6
  config.preference.schedule = "linear"
  config.preference.warmup_steps = 50
  config.preference.kl_coef = 0.02
  config.baselines.dpo.learning_rate = 1e-6
  config.baselines.dpo.beta = 0.1

  config.mesh.data = 1
  config.mesh.fsdp = -1
  config.checkpoint.every_steps = 200
  config.checkpoint.keep = 1
  config.evaluate.every_steps = 100
  config.evaluate.also_at_steps = ()
  config.evaluate.samples_per_prompt = 2
  config.evaluate.validation_samples_per_prompt = 2
  return config
