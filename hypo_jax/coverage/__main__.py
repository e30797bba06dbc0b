# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the gallery: python -m hypo_jax.coverage --out=docs/coverage."""

from absl import app, flags

from hypo_jax.coverage import gallery

_OUT = flags.DEFINE_string("out", "docs/coverage", "Folder to write to.")


def main(argv: list[str]) -> None:
  del argv
  out = _OUT.value
  gallery.write(out, f"python -m hypo_jax.coverage --out={out}")


if __name__ == "__main__":
  app.run(main)
