# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Every method that learns from rewards, small, for tests/test_online_job.py.

Fine-tuned until most of what it writes is in the grammar; enough updates for a
reward to rise by more than its noise.
"""

from ml_collections import ConfigDict

from configs import hypo


def get_config(methods: str = "all") -> ConfigDict:
  """Returns the main method alone for "one"."""
  config = hypo.get_config()
  shape = config.model.architecture
  shape.num_hidden_layers = 1
  shape.hidden_size = 32
  shape.num_attention_heads = 2
  shape.num_key_value_heads = 1
  shape.intermediate_size = 64
  config.data.num_demonstrations = 1024
  config.data.num_pairs = 64
  config.sft.num_steps = 300
  config.sft.batch_size = 32
  config.sft.learning_rate = 1e-2

  config.preference.method = "ppo"
  config.preference.num_steps = 30
  config.preference.batch_size = 16
  config.preference.micro_batch_size = 16
  config.preference.learning_rate = 2e-3
  config.preference.kl_coef = 0.02
  config.rollout.samples_per_prompt = 4
  config.reward = "judge"
  config.baselines = ConfigDict(
    {
      "rloo": {"learning_rate": 5e-3},
      "grpo": {"learning_rate": 5e-3},
      "online_dpo": {"kl_coef": 0.0, "learning_rate": 3e-3},
      "hypo": {"kl_target": 0.5, "beta": 0.1, "kl_coef": 0.05},
    }
    if methods == "all"
    else {}
  )
  if methods == "all":
    config.online.temperature = 0.8  # PPO's alone
  config.checkpoint.every_steps = 10
  config.evaluate.every_steps = 30
  config.evaluate.also_at_steps = ()
  config.evaluate.num_prompts = 16
  config.evaluate.num_validation_prompts = 64
  config.evaluate.samples_per_prompt = 2
  config.evaluate.validation_samples_per_prompt = 4
  config.evaluate.optimum_samples = 1024
  return config
