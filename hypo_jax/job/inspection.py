# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at a job's data before anything is trained: task and tokenizer alone.

No weights are read, no state is built, and config.json is left as it is, so
that what an inspection advises can be changed and trained in the same place.
"""

import pathlib
from typing import Any

from hypo_jax import models, report
from hypo_jax.checkpoint import write_json
from hypo_jax.data import inspection, reviews, tasks
from hypo_jax.job.setup import make_task


def inspect_data(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
  """Inspects the pairs, or the demonstrations of a world without pairs yet.

  Bad rows are skipped and counted whatever data.on_bad_rows says, since their
  number is what one wants to see; what training would do is a finding.

  Args:
    config: the job's.
    workdir: datasets are built here, and pairs that a job has sampled are found
      here; gets inspect.json and inspect.html.

  Returns:
    What `inspection.inspect_records` gives, and "source" (where the rows come
    from, in words), "notes" (what was skipped) and "settings" (the config).

  Raises:
    ValueError: for data that can't be read, or a model without a tokenizer.
  """
  reading_config = config.copy_and_resolve_references()
  reading_config.data.on_bad_rows = "skip"
  task = make_task(reading_config, workdir)
  tokenizer, max_positions = reviews.WordTokenizer(), None
  if config.model.path:
    tokenizer = models.load_tokenizer(config.model.path)
    max_positions = models.load_config(config.model.path).max_positions
  data, rollout = config.data, config.rollout
  records, source = _records(task, data.path, workdir)
  stages = ("sft", "preference")
  if task.pairs is None and records["train"] is not task.demonstrations:
    stages = ("preference",)  # Sampled pairs, not what is fine-tuned on.
  result = inspection.inspect_records(
    records,
    tokenizer,
    inspection.Limits(
      data.prompt_length,
      data.completion_length,
      rollout.max_new_tokens or data.completion_length,
    ),
    stages=_stages(config, stages),
    max_positions=max_positions,
    rollout_prompts=task.prompts.get("rollout", ()),
    judge=task.judge,
    reading=task.counts | {"on_bad": data.on_bad_rows},
  )
  result |= {
    "source": source,
    "notes": list(task.notes),
    "settings": config.to_dict(),
  }
  report.write_inspection(workdir, result)
  write_json(workdir / "inspect.json", result)
  return result


def _stages(config: Any, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
  """Returns updates and batch size of the stages that are run."""
  stages = {name: getattr(config, name) for name in names}
  return {
    name: {"num_steps": stage.num_steps, "batch_size": stage.batch_size}
    for name, stage in stages.items()
    if stage.num_steps
  }


def _records(
  task: tasks.Task, path: str, workdir: pathlib.Path
) -> tuple[dict[str, tasks.Records], str]:
  """Returns rows by split, and where they come from."""
  if task.pairs is not None:
    return task.pairs, path
  folder = workdir / "data"
  files = {split: folder / f"{split}.jsonl" for split in tasks.SPLITS}
  if all(file.exists() for file in files.values()):
    records = {s: tasks.read_records(f).records for s, f in files.items()}
    return records, f"{folder}, sampled by a job"
  world = "the embedded world" if path == "reviews" else path
  return {"train": task.demonstrations}, (
    f"{world}, whose pairs a job has yet to sample into {folder}"
  )
