# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""The notebooks: without outputs, and run from top to bottom in a kernel.

Each is run as it lies there but for its settings cell, with QUICK and, for the
real model, a tiny random one and made-up pairs.
"""

import importlib.util
import json
import os
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import nbclient
import nbformat
import numpy as np
import pytest

from hypo_jax import models
from tests import kinds

FOLDER = pathlib.Path(__file__).parents[1] / "colabs"
PATHS = sorted(FOLDER.glob("*.ipynb"))
KIND = "qwen2"


def code_cells(notebook):
  return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def cell(notebook, name):
  (found,) = [c for c in notebook["cells"] if c["id"] == name]
  return found


def with_settings(source, **settings):
  """Returns a cell with other values in its form."""
  for name, value in settings.items():
    source, count = re.subn(
      rf"^{name} = .*(?=  # @param)", f"{name} = {value!r}", source, flags=re.M
    )
    assert count == 1, f"expected one setting {name}, got {count}"
  return source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped_and_in_its_one_form(path):
  text = path.read_text("utf-8")
  notebook = json.loads(text)
  nbformat.validate(notebook)
  form = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False)
  assert text == form + "\n"
  for code in code_cells(notebook):
    assert code["outputs"] == [] and code["execution_count"] is None
    assert code["metadata"] == {}
  assert notebook["metadata"]["accelerator"] == "TPU"


def test_there_are_three_that_install_alike():
  notebooks = [json.loads(path.read_text("utf-8")) for path in PATHS]
  assert len(notebooks) == 3
  installs = ["".join(cell(n, "install")["source"]) for n in notebooks]
  assert len(set(installs)) == 1
  for notebook in notebooks:
    assert code_cells(notebook)[0]["id"] == "install"
    assert "QUICK = False  # @param" in "".join(
      cell(notebook, "settings")["source"]
    )


class Shell:
  """Stands for `subprocess`: notes commands, and makes what a clone would."""

  def __init__(self):
    self.commands = []

  def run(self, command, *, check):
    assert check
    self.commands.append(command)
    if command[:2] == ["git", "clone"]:
      pathlib.Path(command[-1]).mkdir()


@pytest.fixture
def install(tmp_path, monkeypatch):
  """Returns what runs the install cell in an empty folder; gives commands."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", [*sys.path])
  notebook = json.loads(PATHS[0].read_text("utf-8"))
  source = "".join(cell(notebook, "install")["source"])

  def install_with(plugins=(), **settings):
    shell = Shell()
    monkeypatch.setitem(sys.modules, "subprocess", shell)
    monkeypatch.setattr(
      importlib.util, "find_spec", lambda name: name in plugins or None
    )
    exec(with_settings(source, **settings), {})
    return shell.commands

  return install_with


@pytest.mark.parametrize(
  ("plugins", "wanted"),
  [
    ((), "jax"),
    (("libtpu",), "jax[tpu]"),
    (("jax_cuda12_plugin",), "jax[cuda12]"),
  ],
)
def test_what_is_installed_keeps_the_runtimes_accelerator(
  install, tmp_path, plugins, wanted
):
  clone, pip = install(plugins, REPOSITORY="https://host/me/hypo_jax")
  assert clone[:2] == ["git", "clone"] and "https://host/me/hypo_jax" in clone
  assert pip[-3:] == ["-r", "hypo_jax_clone/requirements.txt", wanted]
  assert pathlib.Path.cwd().parent == tmp_path and sys.path[0] == os.getcwd()


def test_an_address_that_was_not_set_is_said_before_anything_is_run(install):
  with pytest.raises(ValueError, match="REPOSITORY: expected the address"):
    install()


def test_in_a_clone_nothing_is_installed(install, tmp_path, monkeypatch):
  (tmp_path / "run.py").touch()
  (tmp_path / "colabs").mkdir()
  monkeypatch.chdir(tmp_path / "colabs")
  assert install() == []
  assert pathlib.Path.cwd() == tmp_path


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Returns what runs a notebook with other settings, in a folder of its own.

  Jobs, the kernel's connection file, IPython's profile and compiled programs
  (several stages of a job compile the same) go to that folder.
  """
  (tmp_path / "temporary").mkdir()
  monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
  for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
    monkeypatch.setenv(name, str(tmp_path / name.lower()))
  monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
  monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

  def run_notebook(name, **settings):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    form = cell(notebook, "settings")
    form["source"] = with_settings(form["source"], **settings)
    nbclient.NotebookClient(
      notebook,
      timeout=300,
      kernel_name="python3",
      resources={"metadata": {"path": str(FOLDER)}},
    ).execute()
    assert all(code["execution_count"] for code in code_cells(notebook))
    return notebook

  return run_notebook


def outputs(notebook, name):
  return cell(notebook, name)["outputs"]


def printed(notebook, name):
  return "".join(o["text"] for o in outputs(notebook, name) if "text" in o)


def pictures(notebook, name):
  return sum("image/png" in o.get("data", {}) for o in outputs(notebook, name))


def test_hypo_in_ten_minutes(run):
  notebook = run("hypo_in_ten_minutes", QUICK=True)
  for name in ("blind", "live", "mass", "lambda"):
    assert pictures(notebook, name) == 1
  (table,) = outputs(notebook, "samples")
  assert table["data"]["text/html"].count("<tr>") == 5


def test_losses_in_your_model(run):
  notebook = run("losses_in_your_model", QUICK=True)
  differences = re.findall(
    r"difference (\S+) nats", printed(notebook, "scoring")
  )
  assert len(differences) == 2 and max(map(float, differences)) < 1e-5
  assert "total probability 1.00000" in printed(notebook, "enumeration")
  biases = re.findall(
    r"^(.+?) +bias (\S+)", printed(notebook, "estimators"), re.M
  )
  assert len(biases) == 8
  for name in ("training", "picture"):
    assert pictures(notebook, name) == 1


@pytest.fixture
def tiny_model(tmp_path):
  """A folder as from the hub: random weights, a tokenizer, a chat template."""
  config = models.TransformerConfig(
    vocab_size=384,
    num_layers=2,
    width=16,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=16,
    max_positions=64,
  )
  model, folder = models.Model(config), tmp_path / "model"
  random = np.random.default_rng(0).normal
  params = jax.tree.map(
    lambda x: jnp.asarray(random(size=x.shape, scale=0.1), jnp.float32),
    model.abstract_params,
  )
  models.save(models.Policy(model.apply, params, config, None, model), folder)
  kinds.write_folder(
    folder, KIND, kinds.GOLDEN["templates"]["chatml"]["source"]
  )
  ends = {"eos_token_id": kinds.GOLDEN["kinds"][KIND]["eos_token_ids"]}
  (folder / "generation_config.json").write_text(json.dumps(ends))
  return folder


@pytest.fixture
def pairs(tmp_path):
  path = tmp_path / "pairs.jsonl"
  rows = [
    {"chosen": "yes", "rejected": "no"}
    | {"prompt": f"\n\nHuman: Say {i}\n\nAssistant:"}
    for i in range(80)
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  return path


def test_real_model_lora_tpu(run, tiny_model, pairs, monkeypatch):
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
  monkeypatch.setenv("XLA_FLAGS", flags)
  notebook = run(
    "real_model_lora_tpu",
    QUICK=True,
    MODEL=str(tiny_model),
    PAIRS=str(pairs),
    SPLIT="",
    NUM_STEPS=1,
  )
  assert "mesh: data 1, fsdp 2, tensor 1" in printed(notebook, "mesh")
  # An embedding [384, 16] is cut in two.
  assert re.search(
    r"embedding +\(384, 16\) +\(384, 8\)", printed(notebook, "mesh")
  )
  assert pictures(notebook, "pictures") >= 1
  assert "Say" in outputs(notebook, "samples")[0]["data"]["text/html"]
  exported = printed(notebook, "export")
  for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
    assert name in exported
