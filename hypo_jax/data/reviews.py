# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""An embedded world of film reviews, with an exact judge.

A prompt names a film and two or three different aspects; a completion is a
short review. Words are separated by single spaces, and each is one token:

    prompt      film: FILM ; aspects: ASPECT , ASPECT [, ASPECT]
    completion  FILM : CLAUSE { (and | but | ,) CLAUSE } . [overall VERDICT]
    CLAUSE      the ASPECT was [ADVERB] ADJECTIVE

The gold reward is the mean sentiment of the clauses, in [-1, 1], where

    sentiment = ADVERBS[adverb, or "" for none] * ADJECTIVES[adjective]

and -1 where the text is not in the grammar, speaks of another film, of an
aspect that was not asked for, or of one aspect twice. A review need not speak
of every aspect, nor keep their order. Connectives and verdict are free: they
change no reward, even where they contradict the clauses.

Nothing holds a policy inside the grammar: whatever it can emit decodes to text,
special tokens included, and the judge reads that text. The longest review ends
within 26 tokens, so what was cut at 32 is never valid.

Everything drawn is a pure function of the arguments. Which prompts make up a
split depends on nothing at all. The judge knows no taste beyond the two tables.
"""

import functools
import hashlib
import itertools
import math
import re
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

FILMS = tuple(
  "Amber Tide,Black Orchard,Copper Moon,Distant Bells,Electric Sparrow,"
  "Frozen Lantern,Golden Ash,Hollow Crown,Iron Garden,Jade Harbor,"
  "Kindred Wolves,Lost Meridian,Midnight Ferry,Northern Glass,Open Water,"
  "Paper Kings,Quiet Thunder,Red Canyon,Silver Thread,Twelve Doors,"
  "Under Snow,Velvet Storm,Winter Bridge,Yellow Station".split(",")
)
ASPECTS = tuple(
  "plot music acting dialogue pacing ending editing scenery".split()
)
ADJECTIVES = {
  word: sentiment
  for sentiment, words in (
    (1.0, "superb dazzling"),
    (0.75, "gripping moving"),
    (0.5, "charming solid"),
    (0.25, "decent pleasant"),
    (-0.25, "plain uneven"),
    (-0.5, "stale weak"),
    (-0.75, "clumsy dull"),
    (-1.0, "unbearable dreadful"),
  )
  for word in words.split()
}
ADVERBS = {"slightly": 0.4, "rather": 0.6, "": 0.8, "truly": 0.9, "utterly": 1}
VERDICTS = ("a waste", "a mixed bag", "worth seeing")

# Prompts a split: together all 24 * (8 * 7 + 8 * 7 * 6) of them.
SPLIT_SIZES = {
  "sft": 4096,
  "pairs": 2048,
  "validation": 512,
  "test": 1024,
  "rollout": 1024,
  "validation_pairs": 352,
  "test_pairs": 352,
}

_SPECIALS = ("<pad>", "<eos>", "<sep>")
_PAD, _EOS, _SEP = range(len(_SPECIALS))
_OTHER_WORDS = "film: ; aspects: , : the was and but . overall".split()


def _any_of(texts: Sequence[str]) -> str:
  return "(" + "|".join(re.escape(text) for text in texts if text) + ")"


_CLAUSE = (
  f"the {_any_of(ASPECTS)} was "
  f"(?:{_any_of(list(ADVERBS))} )?{_any_of(list(ADJECTIVES))}"
)
_PROMPT_PATTERN = re.compile(
  rf"film: {_any_of(FILMS)} ; "
  rf"aspects: ({_any_of(ASPECTS)}(?: , {_any_of(ASPECTS)}){{1,2}})"
)
_CLAUSE_PATTERN = re.compile(_CLAUSE)
_REVIEW_PATTERN = re.compile(
  rf"{_any_of(FILMS)} : ({_CLAUSE}(?: (?:and|but|,) {_CLAUSE})*) \."
  rf"(?: overall {_any_of(VERDICTS)})?"
)


class Judgement(NamedTuple):
  """What the judge says of a completion.

  Attributes:
    reward: gold reward in [-1, 1]; -1 where invalid.
    valid: in the grammar, and about what the prompt asks.
    num_clauses: 0 where invalid.
  """

  reward: float
  valid: bool
  num_clauses: int


def judge(prompt: str, completion: str) -> Judgement:
  """Gives the gold reward of a completion.

  Args:
    prompt: of this world.
    completion: any text.

  Raises:
    ValueError: if the prompt is not of this world.
  """
  film, aspects = _parse_prompt(prompt)
  invalid = Judgement(-1.0, False, 0)
  match = _REVIEW_PATTERN.fullmatch(completion)
  if match is None or match[1] != film:
    return invalid
  clauses = _CLAUSE_PATTERN.findall(match[2])
  spoken = [aspect for aspect, _, _ in clauses]
  if len(set(spoken)) < len(spoken) or not set(spoken) <= set(aspects):
    return invalid
  total = sum(ADVERBS[adv] * ADJECTIVES[adj] for _, adv, adj in clauses)
  return Judgement(total / len(clauses), True, len(clauses))


def prompts(split: str, count: int, *, seed: int) -> list[str]:
  """Draws different prompts of a split.

  Args:
    split: a key of SPLIT_SIZES; no prompt is in two splits.
    count: at most the split's size; a larger one only adds prompts.
    seed: of the draw within the split, at least 0.

  Raises:
    ValueError: for an unknown split, or a count that it can't give.
  """
  if split not in SPLIT_SIZES:
    raise ValueError(
      f"split: expected one of {', '.join(SPLIT_SIZES)}, got {split!r}"
    )
  if not 0 <= count <= SPLIT_SIZES[split]:
    raise ValueError(
      f"count: expected 0 to {SPLIT_SIZES[split]} prompts of {split!r}, "
      f"got {count}"
    )
  members = _splits()[split]
  order = generator(seed, f"prompts {split}").permutation(len(members))
  return [members[i] for i in order[:count]]


def demonstrations(count: int, *, seed: int) -> list[dict[str, str]]:
  """Writes reviews to imitate: valid, of all sentiments alike.

  Adjectives are drawn alike for every clause, whatever the others say, so the
  expected gold reward is 0. Connectives and verdict agree with the clauses.

  Args:
    count: a larger one only adds records. The prompts of "sft" are used in
      turn, so none comes twice before all came once.
    seed: of the draw, at least 0.

  Returns:
    Records {"prompt", "chosen"}.

  Raises:
    ValueError: if count is negative.
  """
  if count < 0:
    raise ValueError(f"count: expected at least 0, got {count}")
  members = _splits()["sft"]
  order = generator(seed, "demonstration prompts")
  rng = generator(seed, "demonstrations")
  records = []
  while len(records) < count:
    turn = order.permutation(len(members))[: count - len(records)]
    asked = [members[i] for i in turn]
    records += [{"prompt": p, "chosen": write_review(p, rng)} for p in asked]
  return records


def label_pair(
  prompt: str,
  first: str,
  second: str,
  *,
  uniform: float,
  temperature: float = 0.25,
  judge: Callable[[str, str], Judgement] = judge,
) -> dict[str, str] | None:
  """Says which of two completions is preferred, by the Bradley-Terry model.

      P(first preferred) = sigmoid((r(first) - r(second)) / temperature),

  where r is the judge's reward.

  Args:
    prompt: that both answer.
    first: a completion.
    second: another.
    uniform: drawn from [0, 1); below P, the first is preferred.
    temperature: in units of reward, above 0.
    judge: this world's, or another: (prompt, completion) -> Judgement.

  Returns:
    {"prompt", "chosen", "rejected"}, or None where both are the same text.

  Raises:
    ValueError: for a temperature that is not positive.

  Source: Bradley and Terry (1952); 0.25 is our choice.
  """
  if not temperature > 0:
    raise ValueError(f"temperature: expected above 0, got {temperature}")
  if first == second:
    return None
  gain = judge(prompt, first).reward - judge(prompt, second).reward
  # sigmoid(x) = (1 + tanh(x / 2)) / 2, which can't overflow.
  chance = (1 + math.tanh(gain / temperature / 2)) / 2
  chosen, rejected = (first, second) if uniform < chance else (second, first)
  return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


class WordTokenizer:
  """One token a word, over the closed vocabulary of this world.

  A prompt's ids end with <sep>, where the review begins.

  Attributes:
    pad_token_id: 0.
    eos_token_id: 1.
    vocab_size: special tokens included.
    words: all of them, without special tokens.
  """

  def __init__(self):
    words = " ".join([*FILMS, *ASPECTS, *ADVERBS, *ADJECTIVES, *VERDICTS])
    unique = dict.fromkeys([*_SPECIALS, *_OTHER_WORDS, *words.split()])
    self._words = tuple(unique)
    known = [*enumerate(unique)][len(_SPECIALS) :]
    self._ids = {word: i for i, word in known}
    self.pad_token_id = _PAD
    self.eos_token_id = _EOS
    self.vocab_size = len(self._words)
    self.words = tuple(self._ids)

  def fingerprint(self) -> str:
    """Returns what the ids of any text follow from."""
    return " ".join(self._words)

  def encode_prompt(self, prompt: str) -> list[int]:
    """Returns ids, <sep> last; ValueError for messages or an unknown word."""
    if not isinstance(prompt, str):
      raise ValueError(
        "prompt: expected text, since this world has no chat template, got "
        f"{type(prompt).__name__}"
      )
    return [*self._encode("prompt", prompt), _SEP]

  def encode_completion(self, text: str) -> list[int]:
    """Returns ids without EOS; ValueError for an unknown word."""
    return self._encode("text", text)

  def decode(self, ids: Sequence[int]) -> str:
    """Joins words by spaces and drops an EOS at the end.

    Any other special token stays visible ("<pad>"): a policy can emit it, and
    a judge that reads the text must not overlook it.
    """
    ids = list(ids)
    if ids and ids[-1] == _EOS:
      ids.pop()
    return " ".join(self._words[i] for i in ids)

  def token_text(self, token_id: int) -> str:
    """Returns one token as its word, or its name in brackets."""
    return self._words[token_id]

  def spells(self, text: str) -> bool:
    """Whether encoding gives at least one id, and decoding those the text."""
    return all(word in self._ids for word in text.split(" "))

  def _encode(self, name: str, text: str) -> list[int]:
    words = text.split()
    unknown = [word for word in words if word not in self._ids]
    if unknown:
      raise ValueError(
        f"{name}: expected words of the reviews' vocabulary, got "
        f"{unknown[0]!r} in {text!r:.80}"
      )
    return [self._ids[word] for word in words]


def _parse_prompt(prompt: str) -> tuple[str, list[str]]:
  match = _PROMPT_PATTERN.fullmatch(prompt)
  aspects = match[2].split(" , ") if match else []
  if not aspects or len(set(aspects)) < len(aspects):
    raise ValueError(
      "prompt: expected 'film: FILM ; aspects: ASPECT , ASPECT [, ASPECT]' "
      f"with different aspects, got {prompt!r:.80}"
    )
  return match[1], aspects


@functools.cache
def _splits() -> dict[str, tuple[str, ...]]:
  """Every prompt once, in an order fixed by hash, cut into the splits."""
  every = [
    f"film: {film} ; aspects: {' , '.join(aspects)}"
    for film in FILMS
    for number in (2, 3)
    for aspects in itertools.permutations(ASPECTS, number)
  ]
  # Not numpy's shuffle: its streams may change between versions, and then
  # an old run's test prompts would be a new run's training prompts.
  every.sort(key=lambda prompt: hashlib.sha256(prompt.encode()).digest())
  rest = iter(every)
  return {
    split: tuple(itertools.islice(rest, size))
    for split, size in SPLIT_SIZES.items()
  }


def generator(seed: int, purpose: str) -> np.random.Generator:
  """Returns the world's own source of what is drawn for a purpose."""
  return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def write_review(prompt: str, rng: np.random.Generator) -> str:
  """Writes a review that is valid for a prompt.

  One to all of the aspects in any order; half the clauses have no adverb.
  """

  def pick(options: Sequence[str]) -> str:
    return options[rng.integers(len(options))]

  film, aspects = _parse_prompt(prompt)
  number = rng.integers(1, len(aspects) + 1)
  text, sentiments = f"{film} :", []
  for i in rng.permutation(len(aspects))[:number]:
    adverb = "" if rng.random() < 0.5 else pick([a for a in ADVERBS if a])
    adjective = pick(list(ADJECTIVES))
    sentiments.append(ADVERBS[adverb] * ADJECTIVES[adjective])
    if len(sentiments) > 1:
      agree = sentiments[-1] * sentiments[-2] > 0
      text += " " + pick([",", "and" if agree else "but"])
    text += f" the {aspects[i]} was {adverb} ".rstrip() + f" {adjective}"
  text += " ."
  if rng.random() < 0.5:
    mean = sum(sentiments) / len(sentiments)
    text += f" overall {VERDICTS[int(mean > -0.2) + int(mean > 0.2)]}"
  return text
