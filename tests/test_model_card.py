# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Model cards name base, data, method, settings and measured results."""

import pytest
import yaml
from fake_report import make_report

from hypo_jax import report as reporting

SETTINGS = {
  "seed": 7,
  "preference": {"method": "hypo", "kl_coef": 0.015, "beta": 0.1},
  "lora": {"targets": "query|value"},
}


def card(**changes):
  policies = make_report()["policies"]
  arguments = {
    "base": "owner/model",
    "data": "owner/pairs",
    "adapter_base": None,
    "step": 300,
    "settings": SETTINGS,
    "results": {name: policies[name] for name in ("reference", "hypo")},
    "measured_on": "the test prompts",
  }
  return reporting.model_card(**arguments | changes)


def head(text):
  _, block, _ = text.split("---\n", 2)
  return yaml.safe_load(block)


def test_a_cards_head_names_base_and_data_of_the_hub_for_the_hub():
  found = head(card())
  assert found["base_model"] == "owner/model"
  assert found["datasets"] == ["owner/pairs"]
  assert found["library_name"] == "transformers"


@pytest.mark.parametrize(
  "path", ["", "/data/my/model", "model.gguf", "../model", "models/mine"]
)
def test_a_local_path_stands_in_the_text_but_not_in_the_hubs_head(
  path, tmp_path, monkeypatch
):
  (tmp_path / "models" / "mine").mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  text = card(base=path, data=path)
  assert not {"base_model", "datasets"} & set(head(text))
  assert f"Base: `{path}`" in text or "Base: random weights" in text


def test_a_card_shows_results_with_errors_and_every_setting():
  text = card()
  hypo = make_report()["policies"]["hypo"]
  assert "| policy | reference | HyPO |" in text
  assert f"| step | 0 | {hypo['step']} |" in text
  assert " ± " in text and "On the test prompts" in text
  assert "| `seed` | 7 |" in text and "| `preference.beta` | 0.1 |" in text
  assert r"query\|value" in text  # A bare bar would begin a column.


def test_a_card_without_results_says_so():
  text = card(results=None)
  assert "not measured" in text and "±" not in text


def test_an_adapters_card_says_what_it_is_loaded_onto():
  text = card(adapter_base="/some/reference")
  assert head(text)["library_name"] == "peft"
  assert 'from_pretrained("/some/reference")' in text


def test_a_method_without_rollouts_is_not_called_hypo():
  offline = {"method": "dpo", "kl_coef": 0.0}
  text = card(settings=SETTINGS | {"preference": offline})
  assert "tuned by DPO" in text and "no completions were sampled" in text
