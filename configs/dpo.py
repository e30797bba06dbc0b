# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""DPO alone in the embedded world of film reviews; nothing to download.

    python run.py --config=configs/dpo.py

What hypo.py has as its baseline, as the main method: the offline loss, no
rollouts. Two CPU cores, about a minute and a half, 1.2 GiB. Every value is
our choice; learning rate and beta were tuned (docs/results/tuning.md).
"""

from ml_collections import ConfigDict

from configs import hypo


def get_config() -> ConfigDict:
  config = hypo.get_config()
  config.preference.method = "dpo"
  config.preference.learning_rate = 3e-4
  config.preference.beta = 0.5
  config.preference.kl_coef = 0.0
  config.baselines = ConfigDict()
  return config
