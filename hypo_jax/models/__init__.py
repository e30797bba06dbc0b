# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The transformer, and pretrained weights in and out."""

from hypo_jax.models.config import Rope, TransformerConfig
from hypo_jax.models.hf_config import parse as parse_config
from hypo_jax.models.peft import save_adapter
from hypo_jax.models.policy import Model, Policy
from hypo_jax.models.pretrained import (
  load,
  load_config,
  load_tokenizer,
  needed_tokenizer,
  save,
)

__all__ = [
  "Model",
  "Policy",
  "Rope",
  "TransformerConfig",
  "load",
  "load_config",
  "load_tokenizer",
  "needed_tokenizer",
  "parse_config",
  "save",
  "save_adapter",
]
