# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""HyPO against other offline and online methods, with error bars and controls.

    python run.py --config=configs/study.py --config.study.subset=smoke

Many jobs in the embedded world of film reviews, on as many cores as there are,
each in a folder of its own; the same command goes on where it was stopped. What
is run, read off and tested was fixed beforehand: docs/results/study_plan.md.

    smoke      2 seeds, 3 methods, untuned
    tuning     nine settings of every method on two seeds; writes `chosen`
    main       ten other seeds: the table of methods, that with the judge, and
               the first once more, tuned by its own outcome
    controls   one thing of DPO or HyPO changed, on five of these seeds
    all        tuning, main, controls
"""

from ml_collections import ConfigDict

from configs import hypo


def get_config() -> ConfigDict:
  config = hypo.get_config()
  config.baselines = ConfigDict()
  config.checkpoint.keep = 1
  config.evaluate.num_prompts = 256
  config.evaluate.samples_per_prompt = 4
  config.evaluate.optimum_samples = 16384  # of each seed's reference

  config.study = ConfigDict()
  config.study.subset = "main"
  config.study.seeds = tuple(range(11, 21))
  config.study.control_seeds = tuple(range(11, 16))
  config.study.tuning_seeds = (2000, 2001)
  config.study.chosen = "configs/study_chosen.json"  # settings, after tuning
  # Evaluations of cells that are shown: closest where policies move fastest.
  config.study.evaluate_at = (1, 2, 3, 4, 5, 7, 10, 12, 15, 20, 25, 30)
  config.study.evaluate_at += tuple(range(40, 301, 20))
  config.study.workers = 0  # processes; 0: one a core
  config.study.results = ""  # folder of the page; empty: the workdir
  return config
