# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Variance and cost of every estimator of the KL gradient, at equal tokens.

    python -m benchmarks.variance

On the default's model, at policies near the reference and far from it. A batch
has 64 rollouts whatever k is, so k rollouts a prompt are of 64 / k prompts:
prompts and rollouts are drawn anew, as in training, and both make the variance.
Prompts are independent draws, so the covariance of a batch's gradient is that
of one prompt's over the number of prompts; its trace is estimated from the
gradients of all prompts of many batches, its error by the jackknife over these.

At the reference itself all are 0 in every draw, up to rounding: so are the
log-ratios, and the token KL is smallest there. The section goes to
docs/results/estimators.md.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax.flatten_util import ravel_pytree

from benchmarks import trial
from hypo_jax import compilations, keys, losses, objective, rollout
from hypo_jax.batch import Rows

_SEED = flags.DEFINE_integer("seed", 0, "The world's.")
_BLOCKS = flags.DEFINE_integer("blocks", 32, "Batches drawn of each k.", 2)
_REPEATS = flags.DEFINE_integer("repeats", 15, "Timed calls of each.", 1)

ROLLOUTS = 64  # of a batch


class Form(NamedTuple):
  """A way to estimate the gradient.

  Attributes:
    estimator: of `objective.ESTIMATORS`.
    samples_per_prompt: k.
    baseline: whether a prompt's other rollouts serve as a baseline.
  """

  estimator: str
  samples_per_prompt: int
  baseline: bool

  @property
  def name(self) -> str:
    if self.estimator == "rao_blackwell" and self.samples_per_prompt > 1:
      return f"rao_blackwell with{'' if self.baseline else 'out'} baseline"
    return self.estimator


FORMS = (
  Form("sequence", 1, False),
  Form("to_go", 1, False),
  Form("rao_blackwell", 1, False),
  Form("sequence", 2, False),
  Form("to_go", 2, False),
  Form("leave_one_out", 2, True),
  Form("rao_blackwell", 2, False),
  Form("rao_blackwell", 2, True),
  Form("leave_one_out", 4, True),
  Form("rao_blackwell", 4, True),
)
# By what a policy is called: settings that differ from the default's, updates.
POLICIES: dict[str, tuple[dict[str, Any], int]] = {
  "HyPO after 5 updates": ({}, 5),
  "HyPO after 100 updates": ({}, 100),
  "DPO after 100 updates": (
    {"method": "dpo", "learning_rate": 3e-4, "beta": 0.5, "kl_coef": 0.0},
    100,
  ),
}


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)  # Orbax tells every save.
  compilations.keep_programs()
  folder = trial.ROOT / "runs" / "estimators" / str(_SEED.value)
  world = trial.World(_SEED.value, folder, {})
  policies = {n: trained(world, *how) for n, how in POLICIES.items()}
  found = {
    name: variances(world, params, num_blocks=_BLOCKS.value)
    for name, params in policies.items()
  }
  seconds = costs(world, policies["HyPO after 100 updates"], _REPEATS.value)
  trial.publish_section("estimators", summary(found, seconds))


def trained(world: trial.World, overrides: dict[str, Any], updates: int) -> Any:
  """Returns the policy's parameters after so many updates."""
  for step, state in enumerate(world.states(overrides)):
    if step == updates:
      return jax.tree.map(jnp.copy, state.trainable)
  raise ValueError(f"updates: expected at most {step}, got {updates}")


def surrogate(model, form: Form) -> Callable[..., jax.Array]:
  """Returns loss(params, reference, rows), the mean over rollouts."""

  def loss(params, reference, rows: Rows) -> jax.Array:
    exact = form.estimator == "rao_blackwell"
    scores = objective.score_rows_and_kl(
      model, params, reference, rows, kl_gradient=exact
    )
    scored, ref_scored, token_kl, mask = (
      x.reshape(-1, x.shape[-1]) for x in (*scores, rows.slot_mask)
    )
    k = form.samples_per_prompt if form.baseline else 1
    if exact:
      term = losses.rao_blackwell_kl_loss(
        scored, token_kl, mask, samples_per_prompt=k
      )
    else:
      term = losses.reverse_kl_loss(
        scored,
        ref_scored,
        mask,
        estimator=form.estimator,
        samples_per_prompt=k,
      )
    return jnp.mean(term.loss)

  return loss


class Moments(NamedTuple):
  """Sums over the gradients of a block's prompts.

  Attributes:
    total: float32 [D].
    squares: float32, of squared norms.
  """

  total: jax.Array
  squares: jax.Array


def make_moments(model, forms: Sequence[Form]) -> Callable[..., Any]:
  """Returns moments(params, reference, rows), jitted.

  Args:
    model: the policy's.
    forms: of one k; the last is what the others' gradients are held against.

  Returns:
    A function of rows of n prompts, to the Moments of each form and those of
    its difference to the last form.
  """
  gradients = [jax.grad(surrogate(model, form)) for form in forms]

  def of_prompt(params, reference, row):
    rows = jax.tree.map(lambda x: x[None], row)
    found = [ravel_pytree(g(params, reference, rows))[0] for g in gradients]
    return found, [g - found[-1] for g in found]

  @jax.jit
  def moments(params, reference, rows: Rows):
    each = jax.vmap(of_prompt, (None, None, 0))(params, reference, rows)
    return jax.tree.map(lambda g: Moments(g.sum(0), jnp.sum(g * g)), each)

  return moments


def trace(blocks: Sequence[Moments], block_size: int) -> tuple[float, float]:
  """Estimates the trace of a gradient's covariance, and its standard error.

  Args:
    blocks: at least two; summed over independent draws.
    block_size: draws in each.
  """
  return _jackknifed(_trace, blocks, block_size)


def squared_norm(
  blocks: Sequence[Moments], block_size: int
) -> tuple[float, float]:
  """Estimates the squared norm of the expected gradient, and its error.

  Without bias, and so below 0 at times where it drowns in noise; `trace` says
  what the arguments are.
  """

  def estimate(total, square, n):
    return total @ total / n**2 - _trace(total, square, n) / n

  return _jackknifed(estimate, blocks, block_size)


def _trace(total: np.ndarray, square: float, n: int) -> float:
  return (square - total @ total / n) / (n - 1)


def _jackknifed(
  estimate: Callable[[np.ndarray, float, int], float],
  blocks: Sequence[Moments],
  block_size: int,
) -> tuple[float, float]:
  """Returns estimate(total, squares, n) and its standard error."""
  totals = np.stack([np.asarray(b.total, np.float64) for b in blocks])
  squares = np.array([float(b.squares) for b in blocks])
  whole = totals.sum(0), squares.sum()
  count = len(blocks)
  without = [
    estimate(whole[0] - t, whole[1] - s, (count - 1) * block_size)
    for t, s in zip(totals, squares, strict=True)
  ]
  spread = (count - 1) * np.var(without)
  value = estimate(*whole, count * block_size)
  return float(value), float(np.sqrt(spread))


def bias(blocks: Sequence[Moments], block_size: int) -> float:
  """Returns the squared mean of a difference over what chance makes of it.

  About 1 where the expectations are equal.
  """
  n = len(blocks) * block_size
  total = np.sum([np.asarray(b.total, np.float64) for b in blocks], axis=0)
  return float(total @ total / n / trace(blocks, block_size)[0])


class Drawn(NamedTuple):
  """What draws a policy's rollouts of the training prompts."""

  tokens: np.ndarray
  mask: np.ndarray
  step: Callable[..., Any]
  key: jax.Array

  def rows(self, params, number: int, num_prompts: int) -> Rows:
    """Returns rollouts of prompts drawn with replacement; of their own key."""
    rng = np.random.default_rng(number)
    chosen = rng.integers(0, len(self.tokens), num_prompts)
    row_keys = keys.row_keys(
      jax.random.fold_in(self.key, number), jnp.arange(num_prompts)
    )
    tokens, mask = self.tokens[chosen], self.mask[chosen]
    return self.step(params, tokens, mask, row_keys).rows


def make_drawn(world: trial.World, samples_per_prompt: int) -> Drawn:
  """Returns what draws k rollouts a prompt."""
  job, table = world.job, world.tables["train"]
  step = rollout.make_rollout_step(
    job.model,
    samples_per_prompt=samples_per_prompt,
    max_new_tokens=job.max_new_tokens,
    eos_token_id=job.eos_token_ids,
    pad_token_id=job.tokens.tokenizer.pad_token_id,
    mesh=job.mesh,
  )
  key = job.key("variance", samples_per_prompt)
  return Drawn(table["prompt_tokens"], table["prompt_mask"], step, key)


def variances(
  world: trial.World, params: Any, *, num_blocks: int
) -> dict[Form, dict[str, float]]:
  """Measures every form at one policy.

  Returns:
    By form "trace" of a batch's covariance and its "stderr", "squared_norm" of
    the expected gradient and its "norm_stderr", and "bias" against the most
    exact form of the same k.
  """
  found = {}
  for k in sorted({form.samples_per_prompt for form in FORMS}):
    forms = [form for form in FORMS if form.samples_per_prompt == k]
    moments, drawn = make_moments(world.job.model, forms), make_drawn(world, k)
    num_prompts = ROLLOUTS // k
    blocks = [
      moments(params, world.reference, drawn.rows(params, number, num_prompts))
      for number in range(num_blocks)
    ]
    for i, form in enumerate(forms):
      own = [block[0][i] for block in blocks]
      difference = [block[1][i] for block in blocks]
      value, stderr = trace(own, num_prompts)
      squared, norm_stderr = squared_norm(own, num_prompts)
      found[form] = {
        "trace": value / num_prompts,
        "stderr": stderr / num_prompts,
        "squared_norm": squared,
        "norm_stderr": norm_stderr,
        "bias": None if form is forms[-1] else bias(difference, num_prompts),
      }
  return found


def costs(
  world: trial.World, params: Any, repeats: int
) -> dict[Form, tuple[float, float]]:
  """Returns CPU seconds of drawing 64 rollouts, and of their gradient."""
  calls = {}
  for form in FORMS:
    drawn = make_drawn(world, form.samples_per_prompt)
    num_prompts = ROLLOUTS // form.samples_per_prompt
    gradient = jax.jit(jax.grad(surrogate(world.job.model, form)))
    rows = drawn.rows(params, 0, num_prompts)

    def draw(drawn=drawn, num_prompts=num_prompts):
      return drawn.rows(params, 0, num_prompts)

    def differentiate(gradient=gradient, rows=rows):
      return gradient(params, world.reference, rows)

    calls[form] = (draw, differentiate)
  taken: dict[Form, tuple[list[float], list[float]]] = {
    form: ([], []) for form in FORMS
  }
  for _ in range(repeats + 1):
    # In turn, so that what else the machine does falls on all alike.
    for form, parts in calls.items():
      for part, seconds in zip(parts, taken[form], strict=True):
        start = time.process_time()
        jax.block_until_ready(part())
        seconds.append(time.process_time() - start)
  return {
    form: tuple(statistics.median(s[1:]) for s in parts)
    for form, parts in taken.items()
  }


def summary(
  found: dict[str, dict[Form, dict[str, float]]],
  seconds: dict[Form, tuple[float, float]],
) -> str:
  """Returns the page's section."""
  policies = list(found)
  biases = [
    row["bias"]
    for rows in found.values()
    for row in rows.values()
    if row["bias"] is not None
  ]
  lines = [
    "## Gradient variance and cost at equal tokens",
    "",
    f"`python -m benchmarks.variance --blocks={_BLOCKS.value}` (seed "
    f"{_SEED.value}): trace of the covariance of the KL's gradient, over the "
    "squared norm of its expectation, from batches of 64 rollouts, of 64 / k "
    "prompts, on the default's model: at 9 the noise is three times as long as "
    f"the gradient. ± is one standard error, over {_BLOCKS.value} batches, of "
    "the trace alone; that of the norm, which a column shares, stands in the "
    "last row: rows of a column compare better than columns. At the reference "
    "itself all gradients are 0 in every draw, up to rounding. "
    "Seconds are of CPU, for drawing 64 rollouts and for their gradient, "
    "medians of calls in turn. On the same rollouts, the mean gradients "
    "of estimators with equal k differ no more than chance allows: squared "
    f"difference {min(biases):.2f} to {max(biases):.2f} of its expected value.",
    "",
    "| estimator | k | " + " | ".join(policies) + " | drawing | gradient |",
    "|---|---|" + "---|" * (len(policies) + 2),
  ]
  # The form with the least noise tells the norm best.
  clearest = {
    name: min(rows.values(), key=lambda row: row["trace"])
    for name, rows in found.items()
  }
  for form in FORMS:
    cells = [form.name, str(form.samples_per_prompt)]
    for name, rows in found.items():
      signal, row = clearest[name]["squared_norm"], rows[form]
      cells.append(
        f"{row['trace'] / signal:.1f} ± {row['stderr'] / signal:.1f}"
        if signal > 0
        else "n/a"
      )
    cells += [f"{s:.3f}" for s in seconds[form]]
    lines.append("| " + " | ".join(cells) + " |")
  errors = [
    f"± {row['norm_stderr'] / row['squared_norm']:.0%}"
    if row["squared_norm"] > 0
    else "drowned in noise"
    for row in clearest.values()
  ]
  lines.append("| " + " | ".join(["squared norm", "", *errors, "", ""]) + " |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  app.run(main)
