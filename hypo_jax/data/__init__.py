# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
