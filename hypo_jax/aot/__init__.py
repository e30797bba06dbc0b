# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a compiled program costs on a chip that need not be here."""
