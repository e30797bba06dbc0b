# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Imports point one way, and only the models know Flax."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "hypo_jax").rglob("*.py"))

# Lower layers know nothing of higher ones.
LAYERS = {
  "batch": 0,
  "compilations": 0,
  "hub": -1,  # Strings and folders; the report asks it, too.
  "keys": 0,
  "losses": 0,
  "scoring": 0,
  "sharding": 0,
  "report": 0,
  "rewards": 0,
  "aot": 1,
  "checkpoint": 0,
  "timing": 1,
  "traces": 0,
  "logs": 1,
  "data": 1,
  "models": 1,
  "policy_gradient": 1,
  "ppo": 2,
  "sampling": 1,
  "coverage": 1,
  "statistics": 1,
  "study": 2,
  "optimum": 0,
  "terms": 1,
  "diagnostics": 2,
  "objective": 2,
  "rollout": 2,
  "train": 3,
  "evaluate": 4,
  "loop": 4,
  "online": 4,
  "reward_model": 5,
  "job": 6,
}
JAX_ONLY = {
  "losses": set(),
  "policy_gradient": {"losses"},
  "ppo": {"losses", "policy_gradient"},
  "sampling": {"batch"},
  "scoring": set(),
}


def imported(path: pathlib.Path) -> set[str]:
  """Full names of what a file imports."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


def own(names: set[str]) -> set[str]:
  return {n.split(".")[1] for n in names if n.startswith("hypo_jax.")}


def unit(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / "hypo_jax").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
  name = unit(path)
  if name == "__init__":
    assert not own(imported(path))
    return
  for other in own(imported(path)) - {name}:
    assert LAYERS[other] < LAYERS[name], f"{name} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_models_import_flax_and_nothing_imports_torch(path):
  roots = {n.split(".")[0] for n in imported(path)}
  assert "flax" not in roots or unit(path) == "models"
  assert not roots & {"torch", "transformers", "tensorflow"}


@pytest.mark.parametrize("name", JAX_ONLY)
def test_pure_functions_import_jax_alone(name):
  files = [path for path in FILES if unit(path) == name]
  assert files
  names = set().union(*map(imported, files))
  assert own(names) - {name} <= JAX_ONLY[name]
  roots = {n.split(".")[0] for n in names}
  assert not roots & {"flax", "optax", "orbax", "absl", "ml_collections"}
