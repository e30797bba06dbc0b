# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a configuration: python run.py --config=configs/hypo.py

The same command resumes a job that was stopped or killed, and re-prints the
result of one that is done.
"""

import difflib
import json
import pathlib
import shutil
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Configuration file.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where everything is written; default runs/<config name>."
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "evaluate", "sample", "export", "inspect", "aot"],
  "What to do; inspect looks at the data and needs no trained model, aot "
  "compiles for a TPU slice that need not be here.",
)
_TOPOLOGY = flags.DEFINE_string(
  "topology", None, "For aot: the slice, as v5e:8x8 or v5p:4x4x4."
)
_SEARCH = flags.DEFINE_bool(
  "search", False, "For aot: try a handful of changes, say which helps most."
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "last", "For evaluate, sample, export: last, best or a step."
)
_ADAPTER = flags.DEFINE_bool(
  "adapter", False, "For export: the adapter alone, as a PEFT folder."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "Several hosts: host:port of process 0, with --process_id and "
  "--num_processes; or auto, where the cluster tells (TPU pods, Slurm).",
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process, from 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many.")
_ANEW = flags.DEFINE_bool(
  "anew", False, "Delete the work directory and start anew."
)


# Keys that change how a step is computed and not, but for rounding, what comes
# out: a job may go on with other values.
_HOW = {
  "model.remat",
  "preference.micro_batch_size",
  "mesh.data",
  "mesh.fsdp",
  "mesh.tensor",
}


def main(argv: list[str]) -> None:
  prompts = argv[1:]
  if prompts and _MODE.value != "sample":
    raise app.UsageError(f"expected flags only, got {prompts}")
  if _ADAPTER.value and _MODE.value != "export":
    raise app.UsageError(
      f"--adapter: expected with --mode=export only, got {_MODE.value}"
    )
  if _CONFIG.value is None:
    raise app.UsageError("--config: expected a file, as configs/hypo.py")
  # Orbax tells every save at the info level.
  logging.set_verbosity(logging.WARNING)
  config = _CONFIG.value
  workdir = pathlib.Path(_WORKDIR.value or _default_workdir())
  if _COORDINATOR.value:
    _join_hosts()
  if _MODE.value == "aot" and _TOPOLOGY.value is None:
    raise app.UsageError("--topology: expected a slice, as v5e:8x8")
  if _MODE.value != "aot" and (_TOPOLOGY.value or _SEARCH.value):
    raise app.UsageError(
      f"--topology, --search: expected with --mode=aot only, got {_MODE.value}"
    )
  if _ANEW.value and _MODE.value != "train":
    raise app.UsageError(
      f"--anew: expected with --mode=train only, got {_MODE.value}"
    )
  if "study" in config:
    _study(config, workdir)
    return
  if _MODE.value == "train":
    claim_workdir(
      workdir, config.to_dict(), anew=_ANEW.value, writes=_is_leader()
    )
    _barrier("claimed")
  elif _MODE.value not in ("inspect", "aot"):
    check_workdir(workdir, config.to_dict())
  try:
    if _MODE.value == "inspect":
      _inspect(config, workdir)
    elif _MODE.value == "aot":
      _aot(config, workdir)
    elif _MODE.value == "train":
      _train(config, workdir)
    else:
      _use(config, workdir, prompts)
  except (ValueError, FileNotFoundError) as error:
    # Ours name the argument and what was expected; the rest keeps its trace.
    if "expected" not in str(error):
      raise
    sys.exit(f"error: {error}")


def _join_hosts() -> None:
  import jax

  if _COORDINATOR.value == "auto":
    jax.distributed.initialize()
    return
  jax.distributed.initialize(
    _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  )


def _is_leader() -> bool:
  """Whether this process writes and speaks."""
  if not _COORDINATOR.value:
    return True
  import jax

  return jax.process_index() == 0


def _barrier(name: str) -> None:
  if _COORDINATOR.value:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def _train(config, workdir: pathlib.Path) -> None:
  # After the flags, so that --help and a typo answer at once.
  from hypo_jax import loop, report
  from hypo_jax.job import run_job
  from hypo_jax.job.out_of_memory import OutOfMemory

  done = workdir / "report.json"
  if done.exists():
    result = json.loads(done.read_text())
    print(f"{workdir} is finished; its result:", file=sys.stderr)
  else:
    _keep_programs()
    try:
      result = run_job(config, workdir)
    except loop.Stopped as stopped:
      print(f"{stopped}. The same command goes on from there.", file=sys.stderr)
      sys.exit(130)
    except OutOfMemory as error:
      sys.exit(f"error: {error}")
  if _is_leader():
    print(report.terminal_summary(result))
    print(f"report: {workdir / 'report.html'}")


def _study(config, workdir: pathlib.Path) -> None:
  from hypo_jax import loop
  from hypo_jax.job import lock
  from hypo_jax.job.study import run_study

  if _MODE.value != "train" or _COORDINATOR.value:
    raise app.UsageError(
      "--mode, --coordinator: expected train on one host for a study, got "
      f"{_MODE.value}, {_COORDINATOR.value}"
    )
  try:
    if _ANEW.value:
      with lock.alone(workdir, "study"):
        _empty(workdir)
    failed = run_study(config, workdir)
  except loop.Stopped as stopped:
    print(f"{stopped}. The same command goes on from there.", file=sys.stderr)
    sys.exit(130)
  except ValueError as error:
    if "expected" not in str(error):
      raise
    sys.exit(f"error: {error}")
  if failed:
    sys.exit("\n".join([f"failed cells: {len(failed)}", *failed]))


def _keep_programs() -> None:
  """Keeps compiled programs on disk, and says where."""
  from hypo_jax import compilations

  folder = compilations.keep_programs()
  if folder and _is_leader():
    print(f"compiled programs are kept in {folder}", file=sys.stderr)


def _inspect(config, workdir: pathlib.Path) -> None:
  import jax

  from hypo_jax import report
  from hypo_jax.job.inspection import inspect_data

  if jax.process_index():
    return
  result = inspect_data(config, workdir)
  print(report.inspection_summary(result, colour=sys.stdout.isatty()))
  print(f"page: {workdir / 'inspect.html'}")


def _use(config, workdir: pathlib.Path, prompts: list[str]) -> None:
  from hypo_jax.job.out_of_memory import OutOfMemory, explained
  from hypo_jax.job.setup import set_up

  if _COORDINATOR.value and _MODE.value == "export":
    raise ValueError(
      "--mode=export: expected one process, which writes the folder, got "
      "--coordinator"
    )
  _keep_programs()
  try:
    with explained(config, workdir) as watch:
      watch.running = f"--mode={_MODE.value}"
      job = set_up(config, workdir)
      _use_job(job, prompts)
  except OutOfMemory as error:
    sys.exit(f"error: {error}")


def _use_job(job, prompts: list[str]) -> None:
  from hypo_jax.job import modes

  if _MODE.value == "evaluate":
    entry = modes.evaluate_checkpoint(job, _CHECKPOINT.value)
    print(json.dumps(entry, indent=1))
  elif _MODE.value == "export":
    print(
      modes.export_checkpoint(job, _CHECKPOINT.value, adapter=_ADAPTER.value)
    )
  else:
    prompts = prompts or [line.rstrip("\n") for line in sys.stdin]
    completions = modes.sample_checkpoint(job, _CHECKPOINT.value, prompts)
    for prompt, texts in zip(prompts, completions, strict=True):
      print("\n".join([prompt, *(f"  {text}" for text in texts)]))


def _aot(config, workdir: pathlib.Path) -> None:
  import jax

  # Nothing is run, so a TPU or GPU that is here is left alone.
  jax.config.update("jax_platforms", "cpu")
  from hypo_jax.job import aot

  summary = aot.run_aot(config, workdir, _TOPOLOGY.value, search=_SEARCH.value)
  print(summary)
  print(f"page: {workdir / 'aot.html'}")


def _default_workdir() -> str:
  path = flags.FLAGS["config"].config_filename
  return f"runs/{pathlib.Path(path).stem}"


def claim_workdir(
  workdir: pathlib.Path, config: dict, *, anew: bool, writes: bool = True
) -> None:
  """Writes config.json, or checks that the one there is the same.

  Keys of `_HOW` may differ, and all may where nothing was trained or sampled
  yet; config.json then gets the new ones.

  Args:
    workdir: may be missing.
    config: the job's.
    anew: delete what is there.
    writes: False to look only, as all but one of several processes do.

  Raises:
    SystemExit: if the job there was begun with another config; the message
      shows the difference. If what --anew would delete is no job's.
  """
  path = workdir / "config.json"
  if anew:
    if writes:
      _delete(workdir)
  elif path.exists() and _is_begun(workdir):
    changed, difference = _difference(path, config)
    if changed and changed <= _HOW:
      if writes:
        names = ", ".join(sorted(changed))
        print(f"{workdir}: going on with another {names}", file=sys.stderr)
    elif changed:
      sys.exit(
        f"{workdir} was made with another config:\n{difference}\n"
        "Use another --workdir, or --anew to delete this one and start anew."
      )
  if not writes:
    return
  workdir.mkdir(parents=True, exist_ok=True)
  aside = path.with_name("config.json.aside")
  aside.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
  aside.replace(path)


def check_workdir(workdir: pathlib.Path, config: dict) -> None:
  """Checks that a job was trained here with this config, and writes nothing.

  Raises:
    SystemExit: if there is none, or it had another config, keys of `_HOW`
      aside.
  """
  path = workdir / "config.json"
  if not path.exists():
    sys.exit(
      f"error: workdir: expected a trained job in {workdir}, found no "
      "config.json; run --mode=train first"
    )
  changed, difference = _difference(path, config)
  if not changed <= _HOW:
    sys.exit(
      f"{workdir} was trained with another config:\n{difference}\n"
      "Pass the flags that it was trained with."
    )


def _is_begun(workdir: pathlib.Path) -> bool:
  """Whether a job left anything here that depends on its config."""
  names = ("data/train.jsonl", "metrics.jsonl", "report.json")
  kept = any(workdir.glob("checkpoints/*/*"))
  return kept or any((workdir / name).exists() for name in names)


def _delete(workdir: pathlib.Path) -> None:
  if not workdir.exists():
    return
  if any(workdir.iterdir()) and not (workdir / "config.json").exists():
    sys.exit(
      f"error: --anew: expected the work directory of a job, got {workdir} "
      "without a config.json; delete it by hand if it can go"
    )
  shutil.rmtree(workdir)


def _empty(study: pathlib.Path) -> None:
  """Deletes a study's folders, one a seed, and nothing else."""
  for folder in study.iterdir():
    if folder.name.isdecimal():
      shutil.rmtree(folder)


def _difference(path: pathlib.Path, config: dict) -> tuple[set[str], str]:
  """Returns the keys, with dots, whose values differ, and a readable diff."""
  now = json.loads(json.dumps(config))
  there = json.loads(path.read_text())
  # What is traced changes no result: a job may go on with other steps.
  there["profile"] = now["profile"]
  texts = [
    json.dumps(values, indent=1, sort_keys=True).splitlines()
    for values in (there, now)
  ]
  lines = difflib.unified_diff(*texts, "there", "now", lineterm="", n=1)
  return _changed(there, now), "\n".join(lines)


def _changed(there: dict, now: dict, prefix: str = "") -> set[str]:
  """Returns the keys, with dots, whose values differ."""
  found: set[str] = set()
  for key in there.keys() | now.keys():
    old, new = there.get(key), now.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
      found |= _changed(old, new, f"{prefix}{key}.")
    elif old != new or (key in there) != (key in now):
      found.add(prefix + key)
  return found


if __name__ == "__main__":
  app.run(main)
