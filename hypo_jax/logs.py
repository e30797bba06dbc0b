# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Where numbers go while a stage runs: JSON lines, TensorBoard, the terminal.

A line holds the metrics of a logged step, or, under "evaluation", what an
evaluation measured after it. Only process 0 writes. After a restart the files
are cut back to the step that training goes on from, so that nothing stands in
them twice.
"""

import json
import os
import pathlib
import sys
import time
from typing import Any

from hypo_jax.checkpoint import json_values
from hypo_jax.report.formatting import step_seconds

# Metrics named on the terminal, in this order, where a step has them; then
# where its seconds went.
_SHOWN = ("loss", "reward_margin", "kl", "tokens_per_second", "mfu")
_PART = "_seconds"
_PLAIN_LINE_SECONDS = 10.0
_BAR = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class StageLog:
  """Writes one stage's metrics.

  Args:
    workdir: holds metrics.jsonl and TensorBoard's events.
    stage: name, the prefix of TensorBoard's tags.
    num_steps: the stage's length.
    first_step: step that the stage goes on from; None at its start.
    step_offset: steps of the stages before, so that TensorBoard's steps grow
      over the whole job and its purge reaches no earlier stage.
    active: False on processes other than 0, which write nothing.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    stage: str,
    *,
    num_steps: int,
    first_step: int | None,
    step_offset: int,
    active: bool,
  ):
    self._stage, self._num_steps, self._offset = stage, num_steps, step_offset
    self._active = active
    self._bar = None
    self._last_line = -_PLAIN_LINE_SECONDS
    if not active:
      return
    from tensorboardX import SummaryWriter
    from tqdm import tqdm

    path = workdir / "metrics.jsonl"
    _cut_back(path, stage, first_step)
    self._file = path.open("a")
    self._board = SummaryWriter(
      str(workdir), purge_step=step_offset + (first_step or 0) + 1
    )
    if sys.stderr.isatty():
      self._bar = tqdm(
        total=num_steps,
        initial=first_step or 0,
        desc=stage,
        dynamic_ncols=True,
        bar_format=_BAR,
      )

  def write(self, step: int, metrics: dict[str, Any]) -> None:
    """Writes a logged step's metrics (numbers) to both files."""
    if not self._active:
      return
    self._record(step, metrics)
    self._plot(step, metrics, self._stage)
    shown = {
      k: f"{metrics[k]:.3g}" for k in _SHOWN if metrics.get(k) is not None
    }
    split = _split(metrics)
    if self._bar is not None:
      # A narrow terminal cuts the end off.
      first = [f"{k} {shown.pop(k)}" for k in ("loss", "kl") if k in shown]
      rest = [f"{k} {v}" for k, v in shown.items()]
      text = ", ".join(filter(None, [*first, split, *rest]))
      self._bar.set_postfix_str(text, refresh=False)
      self._bar.update(step - self._bar.n)
      return
    now = time.monotonic()
    if now - self._last_line > _PLAIN_LINE_SECONDS or step == self._num_steps:
      self._last_line = now
      text = "  ".join(f"{k} {v}" for k, v in shown.items())
      self.say(f"step {step}/{self._num_steps}  {text}  {split}")

  def write_evaluation(self, step: int, entry: dict[str, Any]) -> None:
    """Writes the numbers among what an evaluation measured to both files."""
    if not self._active:
      return
    numbers = {
      k: v for k, v in entry.items() if v is None or isinstance(v, int | float)
    }
    self._record(step, {"evaluation": numbers})
    self._plot(step, numbers, f"{self._stage}/evaluation")

  def _record(self, step: int, row: dict[str, Any]) -> None:
    row = {"stage": self._stage, "step": step, **row}
    self._file.write(json.dumps(json_values(row), allow_nan=False) + "\n")
    self._file.flush()

  def _plot(self, step: int, numbers: dict[str, Any], prefix: str) -> None:
    for name, value in json_values(numbers).items():
      if value is not None:
        self._board.add_scalar(f"{prefix}/{name}", value, self._offset + step)

  def say(self, text: str) -> None:
    """Prints a line to the terminal without breaking the progress bar."""
    if not self._active:
      return
    if self._bar is not None:
      self._bar.write(f"{self._stage}: {text}", file=sys.stderr)
    else:
      print(f"{self._stage}: {text}", file=sys.stderr, flush=True)

  def close(self) -> None:
    if self._active:
      self._file.close()
      self._board.close()
      if self._bar is not None:
        self._bar.close()


def _split(metrics: dict[str, Any]) -> str:
  """Where a step's seconds went, in a few words."""
  if "seconds_per_step" not in metrics:
    return ""
  parts = {
    k.removesuffix(_PART): v for k, v in metrics.items() if k.endswith(_PART)
  }
  return step_seconds(metrics["seconds_per_step"], parts)


def _cut_back(path: pathlib.Path, stage: str, first_step: int | None) -> None:
  """Drops the stage's lines after first_step, and a line cut by a kill.

  At a stage's start all of its lines go: one killed before its first checkpoint
  may have left its first evaluation.
  """
  last = -1 if first_step is None else first_step
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines():
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      continue
    if row["stage"] != stage or row["step"] <= last:
      kept.append(line + "\n")
  aside = path.with_name(path.name + ".aside")
  aside.write_text("".join(kept))
  os.replace(aside, path)
