# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of each layout as records, one pure function a layout.

A function takes a row and `as_messages`, and returns {"prompt", "chosen",
"rejected"} and, where the row has scores, {"chosen_score", "rejected_score"};
ValueError says why a row is bad. Of whole texts, prompt + completion gives each
back exactly.

What an implied prompt is:

  * of conversations, the turns that both have in common; one assistant's turn
    must be left on each side;
  * of dialogues (hh), the text up to the last "\\n\\nAssistant:" in common; an
    answer after which the dialogue goes on is a bad row, whether the prompt is
    implied or not;
  * of other texts, what they have in common up to the last place where a run
    of white space begins in both. The white space goes to the completions: no
    word is cut, and most tokenizers join a space to the word after it. Words
    with which both answers begin so become part of the prompt: nothing in the
    text tells them apart.

Prompts that a layout's fields are put into (our choice but for TL;DR's, which
is that of Stiennon et al. 2020, arXiv 2009.01325):

    tldr   "SUBREDDIT: r/{}\\n\\nTITLE: {}\\n\\nPOST: {}\\n\\nTL;DR:"
    shp    "POST: {history}\\n\\nRESPONSE:"

The completion then begins with one space. As messages, for models with a chat
template, the prompt is one user's turn (TL;DR's text, the SHP history alone),
as is any text that stands as a prompt of its own and is no dialogue. Where a
text prompt becomes messages, of whatever layout, the completion loses
the white space before it: no model begins its turn with that.
"""

import re
from typing import Any

from hypo_jax.data import fields, hh

Record = dict[str, Any]

# Dialogues that lost what they begin with, or have other line ends.
_HH_TURN = re.compile(r"(\r?\n){2}(Human|Assistant):")


def explicit(row: fields.Row, as_messages: bool = False) -> Record:
  """Prompt and completions stand apart."""
  prompt = fields.prompt(row)
  chosen, rejected = (
    fields.completion(row, name) for name in ("chosen", "rejected")
  )
  return _dialogue_pair(prompt, chosen, rejected, as_messages) | _scores(row)


def implicit(row: fields.Row, as_messages: bool = False) -> Record:
  """Whole texts or whole conversations; the prompt is what they share."""
  chosen, rejected = (fields.field(row, n) for n in ("chosen", "rejected"))
  if isinstance(chosen, str) and isinstance(rejected, str):
    chosen, rejected = (fields.text(row, n) for n in ("chosen", "rejected"))
    return _cut_texts(chosen, rejected, as_messages) | _scores(row)
  return _cut_turns(
    fields.messages("chosen", chosen), fields.messages("rejected", rejected)
  ) | _scores(row)


def ultrafeedback(row: fields.Row, as_messages: bool = False) -> Record:
  """Conversations that begin with the prompt; it becomes messages."""
  del as_messages  # They are.
  prompt = fields.prompt(row)
  chosen, rejected = (
    fields.messages(name, fields.field(row, name))
    for name in ("chosen", "rejected")
  )
  record = _cut_turns(chosen, rejected)
  turns = record["prompt"]
  same = (
    turns[-1]["content"] == prompt
    if isinstance(prompt, str)
    else (turns == prompt)
  )
  if not same:
    raise ValueError(
      "prompt: expected what chosen has before its last turn, got another text"
    )
  return record | _scores(row)


def dialogue(row: fields.Row, as_messages: bool = False) -> Record:
  """HH: both whole dialogues, or split at the last assistant's turn."""
  if "prompt" in row:
    record = explicit(row, as_messages)
    for name in ("chosen", "rejected"):
      _check_one_answer(name, record[name])
    return record
  chosen, rejected = (fields.text(row, n) for n in ("chosen", "rejected"))
  _check_differ(chosen, rejected)
  shared = chosen[: _num_shared(chosen, rejected)]
  start = shared.rfind(hh.ASSISTANT)
  if start < 0 or not shared.startswith(hh.HUMAN):
    raise ValueError(
      "chosen, rejected: expected dialogues that begin alike, from "
      f"{hh.HUMAN!r} to {hh.ASSISTANT!r}, got {shared[:40]!r} in common"
    )
  end = start + len(hh.ASSISTANT)
  for name, text in (("chosen", chosen), ("rejected", rejected)):
    _check_one_answer(name, text[end:])
  return _dialogue_pair(chosen[:end], chosen[end:], rejected[end:], as_messages)


def tldr(row: fields.Row, as_messages: bool = False) -> Record:
  """Two summaries of one post, and which was preferred."""
  info = fields.field(row, "info")
  if not isinstance(info, dict):
    raise ValueError(f"info: expected an object, got {fields.kind(info)}")
  summaries = fields.field(row, "summaries")
  if not isinstance(summaries, list) or len(summaries) != 2:
    raise ValueError(
      f"summaries: expected a list of two, got {fields.kind(summaries)}"
      + (f" of {len(summaries)}" if isinstance(summaries, list) else "")
    )
  texts = []
  for position, summary in enumerate(summaries):
    place = f"summaries[{position}]"
    if not isinstance(summary, dict):
      raise ValueError(
        f"{place}: expected an object, got {fields.kind(summary)}"
      )
    text = fields.text({f"{place}.text": summary.get("text")}, f"{place}.text")
    texts.append(_answer(text, as_messages))
  best = fields.choice(row, "choice")
  prompt = _asked(_post(info), as_messages)
  return _pair(prompt, texts[best], texts[1 - best])


def tldr_demonstration(row: fields.Row, as_messages: bool = False) -> Record:
  """A post and its author's summary."""
  return {
    "prompt": _asked(_post(row), as_messages),
    "chosen": _answer(fields.text(row, "summary"), as_messages),
  }


def shp(row: fields.Row, as_messages: bool = False) -> Record:
  """Two comments on one post, and which readers preferred."""
  history = fields.text(row, "history")
  names = ("A", "B") if fields.choice(row, "labels") else ("B", "A")
  prompt = _asked(
    history if as_messages else f"POST: {history}\n\nRESPONSE:", as_messages
  )
  record = _pair(
    prompt,
    *(_answer(fields.text(row, f"human_ref_{n}"), as_messages) for n in names),
  )
  if row.get("score_A") is not None and row.get("score_B") is not None:
    scores = [fields.number(row, f"score_{name}") for name in names]
    record |= dict(zip(("chosen_score", "rejected_score"), scores, strict=True))
  return record


def demonstration(row: fields.Row, as_messages: bool = False) -> Record:
  """Prompt and completion, the latter under either name."""
  if "chosen" in row and "completion" in row:
    raise ValueError("expected chosen or completion, got both")
  name = "completion" if "completion" in row else "chosen"
  prompt, completions = _as_dialogue(
    fields.prompt(row), [fields.completion(row, name)], as_messages
  )
  return {"prompt": prompt, "chosen": completions[0]}


def text_alone(row: fields.Row, as_messages: bool = False) -> Record:
  """A text that is to be continued; whatever else the row has is left."""
  del as_messages
  return {"text": fields.text(row, "text")}


def prompt_alone(row: fields.Row, as_messages: bool = False) -> Record:
  """A prompt; whatever else the row has is not looked at."""
  return {"prompt": _as_dialogue(fields.prompt(row), [], as_messages)[0]}


def _cut_texts(chosen: str, rejected: str, as_messages: bool) -> Record:
  _check_differ(chosen, rejected)
  if turn := _HH_TURN.search(chosen):
    raise ValueError(
      "chosen: expected a text, or a dialogue whose turns begin with "
      f"{hh.HUMAN!r} and {hh.ASSISTANT!r}, from its first character on; got "
      f"{turn[0]!r} and {chosen[:40]!r} at the start"
    )
  if as_messages:
    raise ValueError(
      "prompt: expected it apart where data.as_messages is True, since the "
      "words that two texts share may be of the answers; got none"
    )
  cut = last_common_boundary(chosen, rejected)
  if cut is None:
    raise ValueError(
      "chosen, rejected: expected texts that begin with the same words (the "
      "prompt) and end in others, got none in common"
    )
  return _pair(chosen[:cut], chosen[cut:], rejected[cut:])


def last_common_boundary(first: str, second: str) -> int | None:
  """Returns the last place where two texts can be cut between words.

  Both are the same before it, a run of white space begins there in both, and
  neither what is before nor what is after is blank; None where there is none.
  """
  for place in range(_num_shared(first, second), 0, -1):
    if first[place - 1].isspace():
      continue
    rests = first[place:], second[place:]
    if all(rest[:1].isspace() and rest.strip() for rest in rests):
      return place
  return None


def _cut_turns(chosen: list, rejected: list) -> Record:
  _check_differ(chosen, rejected)
  shared = _num_shared(chosen, rejected)
  if not shared:
    raise ValueError(
      "chosen, rejected: expected conversations that begin with the same turns "
      "(the prompt), got none in common"
    )
  fields.check_not_blank(
    "prompt", "".join(turn["content"] for turn in chosen[:shared])
  )
  return _pair(
    chosen[:shared],
    fields.answer("chosen", chosen[shared:]),
    fields.answer("rejected", rejected[shared:]),
  )


def _num_shared(first: str | list, second: str | list) -> int:
  """Returns how many characters or turns are the same from the start."""
  for place, (one, other) in enumerate(zip(first, second, strict=False)):
    if one != other:
      return place
  return min(len(first), len(second))


def _pair(prompt: fields.Prompt, chosen: str, rejected: str) -> Record:
  """Returns a record; texts that were cut may have become blank."""
  if isinstance(prompt, str):
    fields.check_not_blank("prompt", prompt)
  fields.check_not_blank("chosen", chosen)
  fields.check_not_blank("rejected", rejected)
  _check_differ(chosen, rejected)
  return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _check_differ(chosen: Any, rejected: Any) -> None:
  if chosen == rejected:
    raise ValueError("chosen and rejected are identical")


def _scores(row: fields.Row) -> Record:
  """Returns the scores of a row that has both."""
  names = {"chosen_score": "score_chosen", "rejected_score": "score_rejected"}
  if any(row.get(name) is None for name in names.values()):
    return {}
  return {ours: fields.number(row, name) for ours, name in names.items()}


def _post(row: fields.Row) -> str:
  subreddit, title, post = (
    fields.text(row, name) for name in ("subreddit", "title", "post")
  )
  return f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"


def _check_one_answer(name: str, text: str) -> None:
  if hh.HUMAN in text or hh.ASSISTANT in text:
    raise ValueError(
      f"{name}: expected the one answer after the prompt, got a dialogue that "
      "goes on, or begins again"
    )


def _dialogue_pair(
  prompt: fields.Prompt, chosen: str, rejected: str, as_messages: bool
) -> Record:
  prompt, texts = _as_dialogue(prompt, [chosen, rejected], as_messages)
  return _pair(prompt, *texts)


def _as_dialogue(
  prompt: fields.Prompt, completions: list[str], as_messages: bool
) -> tuple[fields.Prompt, list[str]]:
  """Makes messages of a text prompt, if asked to; see `hh.as_messages`."""
  if as_messages and isinstance(prompt, str):
    return hh.as_messages(prompt), [text.lstrip() for text in completions]
  return prompt, completions


def _asked(prompt: str, as_messages: bool) -> fields.Prompt:
  return [{"role": "user", "content": prompt}] if as_messages else prompt


def _answer(text: str, as_messages: bool) -> str:
  return text.lstrip() if as_messages else " " + text.lstrip()
