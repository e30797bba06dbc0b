# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Many jobs compared: which cells there are, what is read off each, the page.

A cell is one method with one set of settings on one seed. Nothing here runs
one (`hypo_jax.job.study` does): cells, scores, tests and tables are plain
functions, fixed before the first result was seen (docs/results/study_plan.md).
"""
