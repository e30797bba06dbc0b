# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What our own step costs: time, CPU, memory, compilation, share of the floor.

    python -m benchmarks.step [--case=hypo-tiny-256 ...] [--steps=5]

Without `--case` all of them (`cases`), each in a process of its own (`own`). A
line of JSON a case, then a table. A `hypo` step draws its rollouts and updates;
a `dpo` step updates, the reference's log-probs of pairs being known; `gen`
samples.

The floor is the time that the case's floating-point operations take at the rate
of one large product, measured in the same process. Decoding also reads every
weight for each token, so that a rollout of few rows stays far above it.
"""

import json

from absl import app

from benchmarks import apart, cases, programs

# Heading, width.
_COLUMNS = (
  ("case", 15),
  ("median s", 9),
  ("min", 8),
  ("max", 8),
  ("CPU s", 8),
  ("first s", 8),
  ("own GiB", 8),
  ("peak GiB", 9),
  ("GFLOP", 7),
  ("GFLOP/s", 8),
  ("of floor", 9),
)


def main(argv: list[str]) -> None:
  del argv
  lines = []
  for name in programs.chosen_cases():
    try:
      line = programs.timed_apart(
        cases.OURS, cases.get_case(name), **programs.settings()
      )
    except apart.Failed as error:
      raise SystemExit(str(error)) from error
    print(json.dumps(line), flush=True)
    lines.append(line)
  print(table(lines))


def table(lines: list[dict]) -> str:
  """Returns figures as a table of text, a row a case.

  "own GiB" is the peak of the process's own memory over warm steps, "peak GiB"
  that of all resident memory since it began, compilation and files included.
  """
  rows = [[name for name, _ in _COLUMNS]]
  for line in lines:
    flops = cases.flops(cases.get_case(line["case"]))
    rate = flops / line["seconds"]
    rows.append(
      [
        line["case"],
        f"{line['seconds']:.3f}",
        f"{line['min_seconds']:.3f}",
        f"{line['max_seconds']:.3f}",
        f"{line['cpu_seconds']:.2f}",
        f"{line['first_seconds']:.1f}",
        f"{line['anon_bytes'] / 2**30:.2f}",
        f"{line['peak_bytes'] / 2**30:.2f}",
        f"{flops / 1e9:.0f}",
        f"{rate / 1e9:.0f}",
        f"{rate / line['product_flops_per_second']:.0%}",
      ]
    )
  widths = [width for _, width in _COLUMNS]
  return "\n".join(
    row[0].ljust(widths[0])
    + "".join(
      cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
    )
    for row in rows
  )


if __name__ == "__main__":
  app.run(main)
