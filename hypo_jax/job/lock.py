# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""One writer a folder."""

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def alone(workdir: pathlib.Path, what: str) -> Iterator[None]:
  """Refuses a second one at work in the folder, while the first one is.

  The file `lock` stays; what counts is the kernel's lock on it, which ends with
  the process however that ends.

  Args:
    workdir: created if missing.
    what: is at work, for the message.

  Raises:
    ValueError: where another process holds the lock.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  with (workdir / "lock").open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(
        f"workdir: expected no other {what} at work in {workdir}, found one"
      ) from None
    yield
