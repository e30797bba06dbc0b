# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The README.md of an exported model: what it is, made how, measured how."""

from typing import Any

from hypo_jax import hub
from hypo_jax.report.formatting import policy_name
from hypo_jax.report.tables import COLUMNS, MORE_COLUMNS, policy_table

_PAPER = (
  "Trained with [HyPO](https://arxiv.org/abs/2406.01462) (Song, Swamy, Singh, "
  "Bagnell, Sun, 2024) as implemented in hypo_jax: DPO on pairs, plus "
  "KL(policy ‖ reference) estimated on completions sampled from the policy."
)
_OTHER = (
  "Trained with hypo_jax by {method} on pairs; no completions were sampled in "
  "training."
)


def model_card(
  *,
  base: str,
  data: str,
  adapter_base: str | None,
  step: int,
  settings: dict[str, Any],
  results: dict[str, Any] | None,
  measured_on: str,
) -> str:
  """Returns a model card in Markdown, with the hub's YAML head.

  Args:
    base: folder, file or hub name of the model it began from; "" for random
      weights.
    data: file, folder or hub name of the pairs.
    adapter_base: what the folder's PEFT adapter is loaded onto; None where the
      folder holds whole weights.
    step: updates done.
    settings: of training, by section: {"preference": {"beta": 0.1, ...}, ...},
      or a value alone; "preference" holds the method's own.
    results: entries as in report.json by policy, the reference's too; None
      where this checkpoint wasn't measured.
    measured_on: which prompts and pairs the results are of.
  """
  method = policy_name(settings["preference"]["method"])
  kl_coef = settings["preference"]["kl_coef"]
  parts = [
    _head(base, data, adapter_base is not None),
    f"# {_name(base)}, tuned by {method}",
    _PAPER if kl_coef else _OTHER.format(method=method),
    f"- Base: {_code(base) if base else 'random weights'}",
    f"- Data: {_code(data)}",
    f"- Checkpoint: step {step}",
    "- Sampled and measured at temperature 1, from the whole distribution",
    "## Use",
    _use(adapter_base),
    "## Results",
    _results(results, measured_on),
    "## Settings",
    _settings(settings),
  ]
  return _blank_lines(parts) + "\n"


def _head(base: str, data: str, adapter: bool) -> str:
  lines = ["---", f"library_name: {'peft' if adapter else 'transformers'}"]
  # The hub takes names of its own alone.
  if hub.is_name(base):
    lines.append(f"base_model: {base}")
  if hub.is_name(data):
    lines += ["datasets:", f"- {data}"]
  return "\n".join([*lines, "tags:", "- hypo", "- preference-tuning", "---"])


def _name(base: str) -> str:
  return base.rstrip("/").split("/")[-1] if base else "A small transformer"


def _code(text: str) -> str:
  return f"`{text}`"


def _use(adapter_base: str | None) -> str:
  load = [
    "from transformers import AutoModelForCausalLM",
    "",
    'model = AutoModelForCausalLM.from_pretrained("this folder")',
  ]
  if adapter_base is not None:
    load = [
      "from peft import PeftModel",
      load[0],
      "",
      f'base = AutoModelForCausalLM.from_pretrained("{adapter_base}")',
      'model = PeftModel.from_pretrained(base, "this folder")',
    ]
  return "\n".join(["```python", *load, "```"])


def _results(results: dict[str, Any] | None, measured_on: str) -> str:
  if not results:
    return "This checkpoint was not measured."
  table = policy_table(
    {"policies": results},
    tuple(c for c in (*COLUMNS, *MORE_COLUMNS) if c[0] != "tokens trained on"),
  )
  # A row a quantity: the columns are too many to read side by side.
  rows = [list(row) for row in zip(*table, strict=True)]
  rows = [row for row in rows if row[0] != "checkpoint"]
  return (
    f"On {measured_on}; ± is one standard error.\n\n{_table(rows)}\n\n"
    "KL(policy ‖ reference) is in nats a sequence, on the policy's own "
    "completions. A win is against the reference's completion of the same "
    "prompt; pair accuracy is the share of held-out pairs whose chosen side "
    "gained more log-probability."
  )


def _settings(settings: dict[str, Any]) -> str:
  rows = [["setting", "value"]]
  for section, values in settings.items():
    if isinstance(values, dict):
      rows += [[_code(f"{section}.{k}"), f"{v}"] for k, v in values.items()]
    else:
      rows.append([_code(section), f"{values}"])
  return _table(rows)


def _table(rows: list[list[str]]) -> str:
  head, *body = [" | ".join(_cell(c) for c in row) for row in rows]
  line = " | ".join("---" for _ in rows[0])
  return "\n".join(f"| {row} |" for row in (head, line, *body))


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ")


def _blank_lines(parts: list[str]) -> str:
  """Joins paragraphs by blank lines, items of a list by none."""
  text = parts[0]
  for before, part in zip(parts, parts[1:], strict=False):
    items = before.startswith("- ") and part.startswith("- ")
    text += ("\n" if items else "\n\n") + part
  return text
