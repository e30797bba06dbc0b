# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""HyPO, hybrid preference optimization (arXiv 2406.01462), in JAX."""
