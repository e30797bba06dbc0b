# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates: Jinja programs that write messages as a model's text.

They are run as transformers runs them: the same settings, the same names
(messages, add_generation_prompt, tools and documents, both none, and the
special tokens), `raise_exception`, `tojson`, loop controls and
{% generation %} blocks. One thing is left out, the clock, so that a run's
tokens are the same tomorrow: there is no `strftime_now`. Templates that ask
whether it is defined (Llama 3.2's) write their own fixed date then; others are
refused with a message that says so.

`Turn` is what a template writes around the answer. It is found by having the
template write one, so that a completion is trained to begin and to end as the
template has it, whatever that is.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

Messages = list[dict[str, Any]]

# A dialogue to have templates write, and an answer that none writes itself.
QUESTION = [{"role": "user", "content": "Why?"}]
PROBE = "Jqzkv"


class ChatTemplate:
  """A compiled template with the special tokens that it may write."""

  def __init__(self, source: str, special: Mapping[str, str]):
    """Compiles `source`; raises ValueError where it isn't Jinja."""
    self.source = source
    self._special = dict(special)
    try:
      self._template = _environment().from_string(source)
    except jinja2.TemplateError as error:
      raise ValueError(
        f"chat_template: expected a Jinja template, got an error: {error}"
      ) from error

  def render(self, messages: Messages, *, open_answer: bool) -> str:
    """Returns the text of `messages`.

    Args:
      messages: {"role", "content"} and what else the template reads; keys whose
        value is None are left out.
      open_answer: write the beginning of the assistant's answer too
        (add_generation_prompt).

    Raises:
      ValueError: where there are none, or the template refuses them.
    """
    if not messages or not all(isinstance(m, dict) for m in messages):
      raise ValueError(
        "prompt: expected text or messages {role, content}, at least one, got "
        f"{messages!r:.80}"
      )
    known = [{k: v for k, v in m.items() if v is not None} for m in messages]
    try:
      return self._template.render(
        messages=known,
        tools=None,
        documents=None,
        add_generation_prompt=open_answer,
        **self._special,
      )
    except Exception as error:  # A template is a program: anything may come.
      roles = ", ".join(str(m.get("role")) for m in known)
      reason = str(error)
      if "strftime_now" in reason:
        reason = (
          "it asks for today's date (strftime_now), which would change a run's "
          "tokens; write a date into the template instead"
        )
      raise ValueError(
        "prompt: expected messages that the chat template takes, got roles "
        f"{roles}: {reason}"
      ) from error


@dataclasses.dataclass(frozen=True)
class Turn:
  """What stands around the text of an answer.

  Attributes:
    opening: between the open prompt and the text: " " (Llama 2), an empty
      <think> block (Qwen 3), mostly nothing.
    closing: after the text, its end token included and nothing after that:
      "<|im_end|>", " </s>"; empty where the template writes no such token.
    end_token: the end token, or None.
  """

  opening: str = ""
  closing: str = ""
  end_token: str | None = None


def find_turn(
  template: ChatTemplate, *, eos: Iterable[str], special: Iterable[str]
) -> Turn:
  """Returns what `template` writes around the last answer of a dialogue.

  Args:
    template: where it refuses a dialogue of one question and one answer, the
      turn is taken to be bare.
    eos: tokens known to end a completion.
    special: others that may: the first of all that follows the answer ends it.
  """
  answer = {"role": "assistant", "content": PROBE}
  try:
    prompt = template.render(QUESTION, open_answer=True)
    whole = template.render([*QUESTION, answer], open_answer=False)
  except ValueError:
    return Turn()
  before, found, after = whole.rpartition(PROBE)
  if not found:
    return Turn()
  eos = set(eos)
  places = [(after.find(t), -len(t), t) for t in eos.union(special)]
  place, _, end = min((p for p in places if p[0] >= 0), default=(0, 0, None))
  closing = "" if end is None else after[:place] + end
  opening = ""
  if before.startswith(prompt):
    # Not so where a template opens an answer with more than it writes before
    # one that is there (<think>): then nothing is left to write.
    opening = before.removeprefix(prompt)
  if any(token in opening for token in eos | {end} if token is not None):
    # The question's end, which the open prompt lacks.
    opening = ""
  return Turn(opening, closing, end)


class _GenerationBlock(jinja2.ext.Extension):
  """{% generation %}...{% endgeneration %}: an answer's text, to be masked by
  others; here the text alone matters."""

  tags = {"generation"}

  def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    return jinja2.nodes.Scope(body, lineno=line)


def _environment() -> jinja2.Environment:
  def raise_exception(message):
    raise jinja2.TemplateError(message)

  def tojson(
    value, ensure_ascii=False, indent=None, separators=None, sort_keys=False
  ):
    return json.dumps(
      value,
      ensure_ascii=ensure_ascii,
      indent=indent,
      separators=separators,
      sort_keys=sort_keys,
    )

  # The sandbox, because a template is somebody else's program.
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_GenerationBlock, jinja2.ext.loopcontrols],
  )
  environment.filters["tojson"] = tojson
  environment.globals["raise_exception"] = raise_exception
  return environment
