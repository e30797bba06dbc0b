# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's chat experiment: Llama-3-8B-Instruct on UltraFeedback, HyPO.

    python run.py --config=configs/ultrafeedback_llama3_8b.py

Model and data come by hub name; --config.model.path and --config.data.path take
local copies. Hardware: TPU v5e-64. All weights are trained: over all devices 96
GB of state (float32 parameters and Adam moments), 161 GB with gradient and
reference; about four hours (estimated from the operations at 40% of the peak;
not measured). --config.lora.rank=16 --config.model.param_dtype=bfloat16
--config.preference.learning_rate=1e-4 trains an adapter instead: 17 GB.

From the paper: model, data set, a leave-one-out baseline over k rollouts. It
lists learning rate, batch size, schedule, beta, lambda, k and LoRA's settings;
their values are not known to us, so every value here is our choice.
"""

from ml_collections import ConfigDict

from configs import hypo


def get_config() -> ConfigDict:
  config = hypo.get_config()
  config.model.path = "meta-llama/Meta-Llama-3-8B-Instruct"
  # That model's config.json, with the ends of its generation_config.json.
  config.model.architecture = ConfigDict(
    {
      "architectures": ("LlamaForCausalLM",),
      "vocab_size": 128256,
      "num_hidden_layers": 32,
      "hidden_size": 4096,
      "num_attention_heads": 32,
      "num_key_value_heads": 8,
      "intermediate_size": 14336,
      "max_position_embeddings": 8192,
      "rope_theta": 500000.0,
      "rms_norm_eps": 1e-5,
      "hidden_act": "silu",
      "tie_word_embeddings": False,
      "bos_token_id": 128000,
      "eos_token_id": (128001, 128009),
    }
  )
  config.model.compute_dtype = "bfloat16"
  config.model.remat = True

  config.data.path = "HuggingFaceH4/ultrafeedback_binarized"
  config.data.split = "train_prefs"
  config.data.prompt_length = 1024
  config.data.completion_length = 1024
  config.data.validation_fraction = 0.01
  config.data.test_fraction = 0.02

  config.sft.num_steps = 0  # the model is fine-tuned already
  config.preference.num_steps = 460  # one epoch of 97% of 61,135 pairs
  config.preference.batch_size = 128
  config.preference.micro_batch_size = 64  # one row a device of 64
  config.preference.learning_rate = 3e-7
  config.preference.schedule = "cosine"
  config.preference.warmup_steps = 46
  config.preference.kl_coef = 0.01
  config.preference.estimator = "leave_one_out"
  config.rollout.samples_per_prompt = 2
  config.baselines = ConfigDict()

  config.mesh.data = 1
  config.mesh.fsdp = -1
  config.checkpoint.every_steps = 115
  config.checkpoint.keep = 1
  config.evaluate.every_steps = 115
  config.evaluate.also_at_steps = ()
  config.evaluate.samples_per_prompt = 2
  config.evaluate.validation_samples_per_prompt = 2
  return config
