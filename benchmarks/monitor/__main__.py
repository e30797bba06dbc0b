# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Calibrates the coverage monitor, and judges it on seeds it never saw.

    python -m benchmarks.monitor --seeds=0,1,2,3,4
    python -m benchmarks.monitor --seeds=21,22,23,24,25,26,27,28,29,30

Runs of several kinds on each seed, under runs/monitor. Thresholds are fitted to
the seeds 0 to 4, and frozen in hypo_jax/coverage/monitor.py; the page
docs/results/monitor.md, rewritten after each seed, judges these on the others.
"""

from absl import app, flags, logging

from benchmarks import trial
from benchmarks.monitor import cells, page
from hypo_jax import compilations

_SEEDS = flags.DEFINE_list("seeds", "0,1,2,3,4", "Which seeds are run.")


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # Orbax tells every save.
  compilations.keep_programs()
  for seed in _SEEDS.value:
    cells.run_seed(seed, cells.FOLDER / seed)
    text = page.make_page(
      cells.read_runs(cells.CALIBRATION), cells.read_runs(cells.JUDGED)
    )
    trial.publish("monitor", cells.CALIBRATION, text)


if __name__ == "__main__":
  app.run(main)
