# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A job's folder: whose it is, and what --anew may delete."""

import json
import types

import pytest
from ml_collections import ConfigDict

import run
from configs import hypo
from hypo_jax.job import cells, lock, modes, setup

CONFIG = {"seed": 0, "profile": {"steps": []}}
OTHER = CONFIG | {"seed": 1}


def claimed(folder, *, begun):
  run.claim_workdir(folder, CONFIG, anew=False)
  if begun:
    (folder / "metrics.jsonl").touch()
  return folder


def config_of(folder):
  return json.loads((folder / "config.json").read_text())


def test_a_first_slip_claims_nothing(tmp_path):
  folder = claimed(tmp_path / "job", begun=False)
  run.claim_workdir(folder, OTHER, anew=False)
  assert config_of(folder) == OTHER
  (folder / "checkpoints" / "sft" / "100").mkdir(parents=True)
  with pytest.raises(SystemExit, match="(?s)made with another.*--anew"):
    run.claim_workdir(folder, CONFIG, anew=False)
  assert config_of(folder) == OTHER


def test_processes_that_do_not_write_look_all_the_same(tmp_path):
  folder = claimed(tmp_path / "job", begun=True)
  run.claim_workdir(folder, CONFIG, anew=True, writes=False)
  assert (folder / "metrics.jsonl").exists()
  with pytest.raises(SystemExit, match="another config"):
    run.claim_workdir(folder, OTHER, anew=False, writes=False)
  run.claim_workdir(tmp_path / "none", OTHER, anew=False, writes=False)
  assert not (tmp_path / "none").exists()


def test_anew_deletes_a_job_and_nothing_else(tmp_path):
  folder = claimed(tmp_path / "job", begun=True)
  run.claim_workdir(folder, OTHER, anew=True)
  assert [path.name for path in folder.iterdir()] == ["config.json"]
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.tex").touch()
  with pytest.raises(SystemExit, match="--anew: expected the work directory"):
    run.claim_workdir(tmp_path / "mine", CONFIG, anew=True)
  assert (tmp_path / "mine" / "thesis.tex").exists()


def test_using_a_job_writes_nothing_and_never_advises_to_delete_it(tmp_path):
  folder = claimed(tmp_path / "job", begun=True)
  run.check_workdir(folder, CONFIG)
  with pytest.raises(SystemExit, match="the flags that it was tr") as error:
    run.check_workdir(folder, OTHER)
  assert "--anew" not in str(error.value)
  assert config_of(folder) == CONFIG
  with pytest.raises(SystemExit, match="found no config.json"):
    run.check_workdir(tmp_path / "none", CONFIG)


def test_a_cells_folder_is_that_of_its_settings(tmp_path):
  """A key that has no value may be missing, as in a folder of before it."""
  config = ConfigDict({"seed": 1, "preference": {"beta": 0.1, "new": None}})
  old = {"seed": 1, "preference": {"beta": 0.1}}
  (tmp_path / "config.json").write_text(json.dumps(old))
  cells.check_claimed(tmp_path, config)
  config.preference.new = 2
  config.seed = 2
  with pytest.raises(ValueError, match="others of preference.new, seed; rem"):
    cells.check_claimed(tmp_path, config)


def test_two_writers_of_a_folder_are_one_too_many(tmp_path):
  with lock.alone(tmp_path, "job"):
    with pytest.raises(ValueError, match="expected no other job at work in"):
      with lock.alone(tmp_path, "job"):
        pass
  with lock.alone(tmp_path, "job"):
    pass


def test_a_misspelt_setting_of_a_baseline_is_named():
  config = hypo.get_config()
  config.baselines.dpo.max_grad_nrom = 5.0
  with pytest.raises(ValueError, match="max_grad_nrom: .* as max_grad_norm"):
    setup.of_config(config)


def test_a_main_method_in_a_baselines_place_is_told():
  config = hypo.get_config()
  assert setup.replaced_baseline(config) is None
  config.preference.method = "dpo"
  text = setup.replaced_baseline(config)
  assert "takes the place of baselines.dpo" in text
  assert "kl_coef 0.015 for 0.0" in text


@pytest.mark.parametrize(
  ("trained_on", "asked"),
  [
    ("text", ["Hi", "\n\nHuman: Hi\n\nAssistant:"]),
    (
      [{"role": "user", "content": "x"}],
      [[{"role": "user", "content": "Hi"}]] * 2,
    ),
  ],
)
def test_prompts_are_asked_as_they_were_trained_on(
  monkeypatch, trained_on, asked
):
  seen = []

  def tokens(prompts):
    seen.extend(prompts)
    return {"prompt_tokens": None, "prompt_mask": None}

  job = types.SimpleNamespace(
    task=types.SimpleNamespace(pairs={"train": [{"prompt": trained_on}]}),
    tokens=types.SimpleNamespace(prompts=tokens, tokenizer=None),
    completers={"test": lambda *_: None},
    key=lambda _: None,
  )
  policy = types.SimpleNamespace(params=None)
  monkeypatch.setattr(modes, "restore_reference", lambda _: None)
  monkeypatch.setattr(modes, "load_policy", lambda *_: (policy, 0, []))
  monkeypatch.setattr(modes.evaluate, "decode", lambda *_: [])
  texts = ["Hi", "\n\nHuman: Hi\n\nAssistant:"]
  modes.sample_checkpoint(job, "last", texts)
  assert seen == asked
  modes.sample_checkpoint(job, "last", asked)  # Messages stay as they are.
  assert seen == asked * 2
