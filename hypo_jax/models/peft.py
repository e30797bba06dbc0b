# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters as folders of the PEFT library, which loads them onto the base.

    lora_A [rank, inputs], lora_B [outputs, rank], scaled by lora_alpha / r

A parameter that shares its tensor with others (GPT-2's and NeoX's fused query,
key and value) has an adapter of its own here, and one for all there: ranks then
stand side by side, and lora_alpha grows with them.
"""

import dataclasses
import json
import os
import pathlib
import re
from typing import Any

import numpy as np
import safetensors.numpy

from hypo_jax.models import families
from hypo_jax.models.config import TransformerConfig
from hypo_jax.models.layers import LINEAR
from hypo_jax.models.policy import Policy


def save_adapter(
  policy: Policy,
  path: str | os.PathLike,
  *,
  base: str,
  card: str | None = None,
) -> None:
  """Writes adapter_config.json, adapter_model.safetensors and tokenizer files.

  Args:
    policy: one with an adapter.
    path: the folder, made where it isn't there.
    base: what the adapter belongs to: a folder or hub name.
    card: contents of README.md, the model card; None writes none.

  Raises:
    ValueError: for a policy without adapter.
  """
  if "adapters" not in policy.params:
    raise ValueError(
      "policy: expected one with an adapter (lora.rank > 0), got full weights"
    )
  config, adapters = policy.config, policy.params["adapters"]["layers"]
  rank = next(iter(adapters.values()))["a"].shape[-1]
  alpha = config.adapter_scale * rank
  tensors, modules, ranks = {}, set(), {}
  for pattern, tensor in families.FAMILIES[config.family].tensors.items():
    names = [path[-1] for path in tensor.paths]
    if not pattern.endswith(".weight") or not adapters.keys() & set(names):
      continue
    module = pattern.removesuffix(".weight")
    short = module.split("{}.")[-1]
    modules.add(short)
    pairs = [adapters.get(name) for name in names]
    count = sum(pair is not None for pair in pairs)
    if count > 1:
      ranks[re.escape(short)] = count * rank
    for layer in range(config.num_layers):
      of_layer = [
        pair and {key: np.asarray(x[layer]) for key, x in pair.items()}
        for pair in pairs
      ]
      a, b = _matrices(of_layer, names, tensor, config)
      name = f"base_model.model.{module.format(layer)}"
      tensors[f"{name}.lora_A.weight"] = a
      tensors[f"{name}.lora_B.weight"] = b
  folder = pathlib.Path(path)
  folder.mkdir(parents=True, exist_ok=True)
  safetensors.numpy.save_file(
    tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"}
  )
  settings = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base,
    "r": rank,
    "lora_alpha": alpha,
    # Ranks side by side keep the scale alpha / r of each.
    "rank_pattern": ranks,
    "alpha_pattern": {k: alpha * r / rank for k, r in ranks.items()},
    "target_modules": sorted(modules),
    "fan_in_fan_out": config.family == "gpt2",
    "lora_dropout": 0.0,
    "bias": "none",
    "inference_mode": True,
  }
  text = json.dumps(settings, indent=2) + "\n"
  (folder / "adapter_config.json").write_text(text, "utf-8")
  if hasattr(policy.tokenizer, "save"):
    policy.tokenizer.save(folder)
  if card is not None:
    (folder / "README.md").write_text(card, "utf-8")


def _matrices(
  pairs: list[dict[str, Any] | None],
  names: list[str],
  tensor: families.Tensor,
  config: TransformerConfig,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns lora_A [R, inputs] and lora_B [outputs, R] of one tensor.

  An adapter's own two axes lie as in the weight's file if the residual stream's
  axis d is thought of as the rank's: [outputs, d] of a query is [outputs, R].
  """
  rank = next(pair for pair in pairs if pair)["a"].shape[-1]
  thin = dataclasses.replace(config, width=rank)
  inputs, _ = LINEAR[names[0]]
  turned = (
    tensor.axes.split(",")[0] == inputs
  )  # The file has [inputs, outputs].

  def in_file(parts):
    matrix = families.to_file(parts, tensor, thin)
    return matrix.T if turned else matrix

  if inputs != "d":
    (pair,) = pairs
    a, b = in_file([pair["a"]]), pair["b"].T
  else:
    present = [i for i, pair in enumerate(pairs) if pair]
    shape = pairs[present[0]]["b"].shape  # Parts of one tensor are alike.
    columns = [
      in_file(
        [
          pairs[i]["b"] if i == part else np.zeros(shape, np.float32)
          for i in range(len(pairs))
        ]
      )
      for part in present
    ]
    a = np.concatenate([pairs[i]["a"].T for i in present], axis=0)
    b = np.concatenate(columns, axis=1)
  return np.ascontiguousarray(a), np.ascontiguousarray(b)
