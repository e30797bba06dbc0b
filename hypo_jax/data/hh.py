# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Anthropic's HH dialogues as messages, for models with a chat template.

    "\n\nHuman: Hi!\n\nAssistant:"  ->  [{"role": "user", "content": "Hi!"}]

A prompt ends with the assistant's turn open, its text still to come.

Source: Bai et al. 2022 (arXiv 2204.05862), the format of the published data.
"""

import re

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def as_messages(prompt: str) -> list[dict[str, str]]:
  """Returns a dialogue's turns, or any other text as one user's turn.

  Raises:
    ValueError: as `hh_messages`, for text that has turns, but not as that
      wants them.
  """
  if HUMAN in prompt or ASSISTANT in prompt:
    return hh_messages(prompt)
  return [{"role": "user", "content": prompt}]


def hh_messages(prompt: str) -> list[dict[str, str]]:
  """Parses a dialogue that ends where the assistant's answer begins.

  Args:
    prompt: turns "\\n\\nHuman: ..." and "\\n\\nAssistant: ..." in strict
      alternation, from a human turn to an empty assistant turn.

  Returns:
    Messages {"role": "user" or "assistant", "content"}, the last a user's;
    white space around each turn's text is dropped.

  Raises:
    ValueError: for text before the first turn, a turn out of order or without
      text, or an assistant's turn that isn't open at the end.
  """
  start, *turns = _TURN.split(prompt)
  if start.strip():
    raise ValueError(
      f"prompt: expected '\\n\\nHuman:' at the start, got {start[:40]!r}"
    )
  names, texts = turns[::2], [text.strip() for text in turns[1::2]]
  for i, name in enumerate(names):
    if name != ("Human", "Assistant")[i % 2]:
      raise ValueError(
        "prompt: expected turns of Human and Assistant to alternate, from "
        f"Human, got {name} as turn {i + 1}"
      )
  if not names or names[-1] != "Assistant" or texts[-1]:
    raise ValueError(
      f"prompt: expected '\\n\\nAssistant:' at the end, got {prompt[-40:]!r}"
    )
  for i, text in enumerate(texts[:-1]):
    if not text:
      raise ValueError(f"prompt: expected text in turn {i + 1}, got none")
  return [
    {"role": _ROLES[name], "content": text}
    for name, text in zip(names[:-1], texts[:-1], strict=True)
  ]
