# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy is worth: reward, win rate, KL to the reference, pair accuracy.

Completions are drawn at temperature 1 from the whole distribution, so that

    KL(policy || reference) = E_policy[log policy(y|x) - log reference(y|x)]

is estimated without bias by the mean log-ratio of own samples (`kl`) and, with
less variance, by the exact KL of the next-token distributions summed over the
states that the samples visit (`kl_rao_blackwell`). Completions are drawn up to
twice the training limit; all but `kl_long` speak of their first part.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from hypo_jax import (
  diagnostics,
  keys,
  objective,
  scoring,
  sharding,
  statistics,
)
from hypo_jax.batch import (
  PreferenceBatch,
  Rollouts,
  cut_lengths,
  pair_rows,
)
from hypo_jax.data import buckets
from hypo_jax.statistics import Judged, PolicySamples

Arrays = dict[str, np.ndarray]


class Completed(NamedTuple):
  """Completions of n prompts, k each, not scored.

  Attributes:
    tokens: int32 [n, k, C].
    mask: bool [n, k, C].
  """

  tokens: np.ndarray
  mask: np.ndarray


def make_sampler(
  model,
  rollout_step: Callable[..., Rollouts],
  *,
  batch_size: int,
  mesh: Mesh,
) -> Callable[..., PolicySamples]:
  """Returns sampler(params, reference, prompt_tokens, prompt_mask, key).

  The prompts are numpy [n, P], any n; `key` is folded with the prompt's number.
  Every process gets all samples.

  Args:
    model: `models.Model`, which scores.
    rollout_step: of `rollout.make_rollout_step`.
    batch_size: prompts a call.
    mesh: the mesh.
  """
  model = model.with_rows(sharding.row_sharding(mesh))
  run = partial(_over_prompts, batch_size=batch_size, mesh=mesh)

  @jax.jit
  def score(params, reference, rows):
    scored, ref_scored, token_kl = objective.score_rows_and_kl(
      model, params, reference, rows
    )
    mask = rows.slot_mask
    log_ratio = jnp.where(mask, scored - ref_scored, 0.0)
    token_kl = jnp.where(mask, token_kl, 0.0)
    ref_scored = jnp.where(mask, ref_scored, 0.0)
    return PolicySamples(
      rows.slot_tokens, mask, log_ratio, token_kl, ref_scored
    )

  def sampler(params, reference, prompt_tokens, prompt_mask, key):
    def one_batch(tokens, mask, row_keys):
      rollouts = rollout_step(params, tokens, mask, row_keys)
      return score(params, reference, rollouts.rows)

    return run(one_batch, prompt_tokens, prompt_mask, key)

  return sampler


def make_completer(
  rollout_step: Callable[..., Rollouts], *, batch_size: int, mesh: Mesh
) -> Callable[..., Completed]:
  """Returns completer(params, prompt_tokens, prompt_mask, key).

  It draws what `make_sampler`'s function draws up to its limit, and scores
  nothing. Arguments as there.
  """
  run = partial(_over_prompts, batch_size=batch_size, mesh=mesh)

  def completer(params, prompt_tokens, prompt_mask, key):
    def one_batch(tokens, mask, row_keys):
      rows = rollout_step(params, tokens, mask, row_keys).rows
      return Completed(rows.slot_tokens, rows.slot_mask)

    return run(one_batch, prompt_tokens, prompt_mask, key)

  return completer


def _over_prompts(
  one_batch: Callable[..., Any],
  prompt_tokens: np.ndarray,
  prompt_mask: np.ndarray,
  key: jax.Array,
  *,
  batch_size: int,
  mesh: Mesh,
) -> Any:
  """Calls one_batch(tokens, mask, keys) over prompts; joins what it returns."""
  parts = []
  for numbers in row_batches(len(prompt_tokens), batch_size):
    tokens, mask, row = sharding.put_rows(
      mesh,
      (prompt_tokens[numbers], prompt_mask[numbers], numbers.astype(np.int32)),
    )
    part = one_batch(tokens, mask, keys.row_keys(key, row))
    parts.append(sharding.gather(part))
  joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
  return jax.tree.map(lambda x: x[: len(prompt_tokens)], joined)


def row_batches(total: int, size: int) -> list[np.ndarray]:
  """Row numbers in batches of equal size; the last one wraps around."""
  return [
    np.arange(start, start + size) % total for start in range(0, total, size)
  ]


def make_pair_scorer(model, *, batch_size: int, mesh: Mesh):
  """Returns scorer(params, pairs) -> numpy log_probs [n, 2] (chosen, rejected).

  `pairs` is a dict of numpy arrays, as `PreferenceBatch` names them. Where they
  are many, rows are batched by length and cut to a few lengths; log-probs then
  depend, by rounding, on what else is scored.
  """
  model = model.with_rows(sharding.row_sharding(mesh))

  @jax.jit
  def score(params, batch: PreferenceBatch):
    rows = pair_rows(batch)
    return scoring.sequence_log_probs(
      objective.score_rows(model, params, rows), rows.slot_mask
    )

  return over_pairs(score, (2,), batch_size=batch_size, mesh=mesh)


def over_pairs(
  score: Callable[[Any, PreferenceBatch], jax.Array],
  shape: tuple[int, ...],
  *,
  batch_size: int,
  mesh: Mesh,
) -> Callable[[Any, Arrays], np.ndarray]:
  """Returns scorer(params, pairs), which calls `score` batch by batch.

  Args:
    score: jitted, (params, batch) -> [B, *shape]; the batch's log-probs of the
      reference are zeros.
    shape: of what it says of a pair.
    batch_size: pairs a call.
    mesh: the mesh.

  Returns:
    A function of pairs, numpy arrays [n, ...] as `PreferenceBatch` names them,
    to numpy float32 [n, *shape] on every process.
  """

  def scorer(params, pairs: Arrays) -> np.ndarray:
    found = np.zeros((len(pairs["prompt_tokens"]), *shape), np.float32)
    for group, cut in _by_length(pairs, batch_size):
      for numbers in row_batches(len(group), batch_size):
        rows = group[numbers]
        batch = {k: v[rows] for k, v in cut_lengths(pairs, *cut).items()}
        unknown = np.zeros(len(rows), np.float32)
        batch |= {
          "ref_chosen_log_probs": unknown,
          "ref_rejected_log_probs": unknown,
          "row": rows.astype(np.int32),
        }
        placed = sharding.put_rows(mesh, PreferenceBatch(**batch))
        found[rows] = sharding.gather(score(params, placed))
    return found

  return scorer


def _by_length(
  pairs: Arrays, batch_size: int
) -> list[tuple[np.ndarray, tuple[int, int]]]:
  """Returns numbers of rows, and the lengths that all of them can be cut to."""
  lengths = buckets.row_lengths(pairs)
  limits = tuple(
    pairs[name].shape[1] for name in ("prompt_mask", "chosen_mask")
  )
  chosen = buckets.choose_for_rows(
    lengths, limits=limits, batch_size=batch_size, slots=2
  )
  groups, left = [], np.arange(len(lengths))
  for cut in (*chosen.lengths, limits):
    fits = (lengths[left] <= cut).all(axis=1)
    groups.append((left[fits], cut))
    left = left[~fits]
  return groups


def judge_samples(
  judge, tokenizer, prompts, samples: PolicySamples | Completed
) -> Judged:
  """Judges completions as text, on process 0; every process gets the result.

  Args:
    judge: (prompt, completion) -> (reward, valid, clauses or words).
    tokenizer: decodes the completions.
    prompts: n texts.
    samples: cut at the training limit.
  """
  shape = samples.tokens.shape[:2]
  judged = Judged(np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, int))
  if jax.process_index() == 0:
    for i, texts in enumerate(decode(tokenizer, samples)):
      for j, text in enumerate(texts):
        for array, value in zip(judged, judge(prompts[i], text), strict=True):
          array[i, j] = value
  if jax.process_count() > 1:
    # As bytes: a device would round float64 to float32.
    judged = Judged(
      *(
        multihost_utils.broadcast_one_to_all(x.view(np.uint8)).view(x.dtype)
        for x in judged
      )
    )
  return judged


def decode(tokenizer, samples: PolicySamples | Completed) -> list[list[str]]:
  """Returns the completions as text, k for each of n prompts."""
  return [
    [tokenizer.decode(t[m].tolist()) for t, m in zip(*row, strict=True)]
    for row in zip(samples.tokens, samples.mask, strict=True)
  ]


@dataclasses.dataclass(frozen=True)
class Split:
  """What policies are measured on.

  Attributes:
    prompts: n texts (or messages).
    prompt_rows: "prompt_tokens" and "prompt_mask" of them.
    train_prompt_rows: the same of some prompts that training saw; None leaves
      `kl_train_prompts` None.
    pairs: held-out pairs, as `PreferenceBatch` names its arrays.
    ref_pair_log_probs: [m, 2], the reference's.
    ref_judged: the reference's own completions, judged; None without a judge.
    covered: by the pairs that are trained on and by the reference.
  """

  prompts: list[Any]
  prompt_rows: Arrays
  train_prompt_rows: Arrays | None
  pairs: Arrays
  ref_pair_log_probs: np.ndarray
  ref_judged: Judged | None
  covered: diagnostics.Covered


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Measures policies against one reference.

  Attributes:
    sampler: of `make_sampler`.
    pair_scorer: of `make_pair_scorer`.
    reference: the reference's parameters.
    judge: (prompt, completion) -> (reward, valid, clauses or words), or None.
    tokenizer: decodes for the judge.
    completion_length: the training limit, tokens.
    eos_token_ids: ids that end a completion.
    beta: of the held-out pairs' loss.
    learned_rewards: (prompt rows, completions) -> [n, k], a reward model's, or
      None.
  """

  sampler: Callable[..., PolicySamples]
  pair_scorer: Callable[..., np.ndarray]
  reference: Any
  judge: Callable[..., Any] | None
  tokenizer: Any
  completion_length: int
  eos_token_ids: tuple[int, ...]
  beta: float
  learned_rewards: Callable[[Arrays, PolicySamples], np.ndarray] | None = None

  def sample(self, params, rows: Arrays, key: jax.Array) -> PolicySamples:
    return self.sampler(
      params, self.reference, rows["prompt_tokens"], rows["prompt_mask"], key
    )

  def judged(self, prompts, samples: PolicySamples) -> Judged | None:
    if self.judge is None:
      return None
    short = samples.cut(self.completion_length)
    return judge_samples(self.judge, self.tokenizer, prompts, short)

  def measure(
    self, params, split: Split, key: jax.Array
  ) -> tuple[dict[str, Any], PolicySamples, Judged | None]:
    """Returns a history entry and its samples.

    "wins" and "by_prompt" hold numbers by prompt (see `statistics.by_prompt`),
    "by_pair" by held-out pair.

    Fields that need a judge are None without one.
    """
    samples = self.sample(params, split.prompt_rows, key)
    judged = self.judged(split.prompts, samples)
    entry = self.describe(params, split, samples, judged)
    entry["kl_train_prompts"] = None
    if split.train_prompt_rows is not None:
      train_key = keys.folded(key, "train prompts")
      on_train = self.sample(params, split.train_prompt_rows, train_key)
      short = on_train.cut(self.completion_length)
      entry["kl_train_prompts"] = float(short.token_kl.sum(-1).mean())
    return entry, samples, judged

  def describe(self, params, split, samples, judged) -> dict[str, Any]:
    entry = statistics.describe_samples(
      samples, self.completion_length, self.eos_token_ids
    )
    short = samples.cut(self.completion_length)
    entry |= diagnostics.describe_coverage(short, split.covered)
    learned = None
    if self.learned_rewards is not None:
      learned = self.learned_rewards(split.prompt_rows, short)
      mean, stderr = statistics.mean_and_stderr(learned.mean(-1))
      entry |= {"learned_reward_mean": mean, "learned_reward_stderr": stderr}
    names = statistics.JUDGED_FIELDS
    entry |= dict.fromkeys(names) | {"wins": None}
    if judged is not None:
      entry |= statistics.describe_judged(judged, split.ref_judged)
      won = statistics.wins(judged.rewards, split.ref_judged.rewards)
      entry["wins"] = won.tolist()
    entry["by_prompt"] = statistics.by_prompt(
      short, self.eos_token_ids, judged, split.ref_judged, learned
    )
    return entry | statistics.describe_pairs(
      self.pair_scorer(params, split.pairs),
      split.ref_pair_log_probs,
      split.pairs["pair_mask"],
      beta=self.beta,
    )
