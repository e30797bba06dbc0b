# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Variance and cost of the KL's gradient by estimator, at equal sampled tokens.

    python -m benchmarks.variance --seed=1000 --steps=20,300

The default configuration's policy, after so many updates of HyPO, draws 64
completions again and again: of 64 prompts, of 32 with two each, of 16 with
four. Every estimator takes its gradient on the same draws of its kind. Variance
is the trace of the covariance of one such gradient, over the squared norm of
the mean, which all share and the one with the least variance tells best: a
variance of 9 is a noise three times as long as the gradient. Cost is processor
time of scoring both policies and of the gradient, without drawing. The table
goes to docs/results/kl_variance.md.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import trial
from hypo_jax import keys, objective, rollout, sharding, terms, timing, train
from hypo_jax.job import batches, methods, steps

_SEED = flags.DEFINE_integer("seed", 1000, "A tuning seed.")
_STEPS = flags.DEFINE_list(
  "steps", "20,300", "Updates before the policy draws."
)
_DRAWS = flags.DEFINE_integer("draws", 100, "Gradients an estimator.")

_ROLLOUTS = 64
# Estimator, rollouts a prompt, and how many serve as each other's baseline.
CASES = {
  "sequence": ("sequence", 1, 1),
  "to_go": ("to_go", 1, 1),
  "rao_blackwell": ("rao_blackwell", 1, 1),
  "leave_one_out, 2 a prompt": ("leave_one_out", 2, 2),
  "rao_blackwell, 2 a prompt, no baseline": ("rao_blackwell", 2, 1),
  "rao_blackwell, 2 a prompt": ("rao_blackwell", 2, 2),
  "leave_one_out, 4 a prompt": ("leave_one_out", 4, 4),
  "rao_blackwell, 4 a prompt": ("rao_blackwell", 4, 4),
}


def main(argv: list[str]) -> None:
  del argv
  folder = trial.ROOT / "runs" / "variance" / str(_SEED.value)
  world = trial.World(_SEED.value, folder, 1)
  counts = [int(step) for step in _STEPS.value]
  text = [_head()]
  for number, params in policies(world, counts).items():
    found = {
      name: measure(world, params, *case) for name, case in CASES.items()
    }
    text.append(table(number, found))
  page = "\n".join(text)
  path = trial.ROOT / "docs" / "results" / "kl_variance.md"
  path.write_text(page)
  print(page)


def policies(world: trial.World, counts: list[int]) -> dict[int, dict]:
  """Returns HyPO's parameters after so many updates."""
  job = world.job
  settings = methods.resolved(
    job.config.preference.to_dict() | job.config.online.to_dict()
  )
  optimizer = steps.make_optimizer(settings)
  step_fn = steps.make_train_step(job, settings, optimizer)
  stage = batches.of_pairs(job, settings, world.tables["train"])
  update = steps.make_update(job, settings, step_fn, world.reference, stage)
  state = train.init_state(world.reference, optimizer, job.mesh)
  timer, found = timing.StepTimer(), {}
  for step in range(max(counts) + 1):
    if step in counts:
      found[step] = jax.device_get(state.trainable)
    if step < max(counts):
      state, _ = update(state, step, timer)
  return found


def measure(
  world: trial.World, params, estimator: str, samples: int, baseline: int
) -> dict[str, np.ndarray | float]:
  """Returns the mean gradient, its variance, the KL, and seconds a gradient."""
  job = world.job
  model = job.model.with_rows(sharding.row_sharding(job.mesh))
  draw = rollout.make_rollout_step(
    job.model,
    samples_per_prompt=samples,
    max_new_tokens=job.max_new_tokens,
    eos_token_id=job.eos_token_ids,
    pad_token_id=job.tokens.tokenizer.pad_token_id,
    mesh=job.mesh,
  )

  @jax.jit
  def gradient(params, reference, rollouts):
    counts = objective.Counts(1.0, 1.0, jnp.float32(_ROLLOUTS), 1.0)

    def loss(params):
      scored = objective.score_rows_and_kl(
        model,
        params,
        reference,
        rollouts.rows,
        kl_gradient=estimator == "rao_blackwell",
      )
      loss, metrics = terms.kl_terms(
        *scored,
        rollouts,
        counts,
        estimator=estimator,
        samples_per_prompt=baseline,
        max_importance_weight=None,
      )
      return loss, metrics["kl_rao_blackwell"]

    tree, kl = jax.grad(loss, has_aux=True)(params)
    return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)]), kl

  pairs = world.tables["train"]
  per_draw = _ROLLOUTS // samples
  mean, squares, kls, seconds = 0.0, 0.0, [], 0.0
  for number in range(_DRAWS.value):
    # The same prompts for all; every prompt comes equally often.
    row = np.arange(number * per_draw, (number + 1) * per_draw)
    row = (row % len(pairs["prompt_mask"])).astype(np.int32)
    drawn = draw(
      params,
      pairs["prompt_tokens"][row],
      pairs["prompt_mask"][row],
      keys.row_keys(jax.random.fold_in(jax.random.key(7), number), row),
    )
    if not number:
      gradient(params, world.reference, drawn)  # Compiles.
    jax.block_until_ready(drawn)
    start = time.process_time()
    found, kl = jax.block_until_ready(gradient(params, world.reference, drawn))
    seconds += time.process_time() - start
    found = np.asarray(found, np.float64)
    mean, squares = mean + found, squares + found @ found
    kls.append(float(kl))
  count = _DRAWS.value
  mean = mean / count
  return {
    "mean": mean,
    "variance": (squares - count * mean @ mean) / (count - 1),
    "kl": float(np.mean(kls)),
    "seconds": seconds / count,
  }


def _head() -> str:
  versions = f"jax {jax.__version__}, numpy {np.__version__}"
  return (
    "# Variance of the KL's gradient\n\n"
    f"`python -m benchmarks.variance --seed={_SEED.value} "
    f"--steps={','.join(_STEPS.value)} --draws={_DRAWS.value}`; {versions}. "
    f"Gradients from {_ROLLOUTS} rollouts each. Variance: trace of the "
    "covariance of one, over the squared norm of the mean gradient. Cost: "
    "processor time of scoring and gradient, over that of `sequence`.\n"
  )


def table(number: int, found: dict[str, dict]) -> str:
  """Returns the Markdown of one policy."""
  best = min(found.values(), key=lambda each: each["variance"])
  # Less what its own noise adds to the square of a mean.
  norm = best["mean"] @ best["mean"] - best["variance"] / _DRAWS.value
  kl = np.mean([each["kl"] for each in found.values()])
  first = found["sequence"]["seconds"]
  lines = [
    f"## After {number} updates, at a KL of {kl:.2f} nats\n",
    "| estimator | variance | variance x cost | cost |",
    "|---|---|---|---|",
  ]
  for name, each in found.items():
    variance, cost = each["variance"] / norm, each["seconds"] / first
    lines.append(
      f"| {name} | {variance:.3g} | {variance * cost:.3g} | {cost:.2f} |"
    )
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  app.run(main)
