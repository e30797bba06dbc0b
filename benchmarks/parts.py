# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What the parts of our own step cost, each compiled and timed alone.

    python -m benchmarks.parts [--case=hypo-tiny-256 ...] [--steps=5]

Each case in a process of its own; a line of JSON a case, then a table. Parts:

    hidden gradient   hidden states of all slots, and their gradient
    head              from hidden states to the loss, and its gradient
    reference         the reference's hidden states of the rollouts
    prefill           a rollout of one token: of a prompt's forward pass, which
                      a HyPO step has in its hidden gradient
    decoded token     of all rows: (C tokens - 1 token) / (C - 1)
    optimizer         clipping, AdamW and the new parameters

They are the step's own functions on the step's shapes. The compiler sees less
than in the step, so their sum may lie on either side of the whole, which is
timed too. Operations are those that a part needs, without recomputation.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import app, flags

from benchmarks import apart, cases, full_rows, measure, own, programs
from hypo_jax import models, objective, rollout, sharding, train
from hypo_jax.batch import join_slots, pair_rows, predicting

_HERE = flags.DEFINE_bool("here", False, "Time one case in this process.")

# What is timed; prefill and decoded token come from the two rollouts.
ROLLOUT, ONE_TOKEN = "rollout", "rollout of one token"


class Part(NamedTuple):
  """Something to time.

  Attributes:
    run: does it, and returns arrays.
    flops: operations that it needs, forward and backward.
  """

  run: Callable[[], Any]
  flops: float


class Given:
  """Stands for a model whose hidden states are its parameters.

  Through it the objective is what follows the hidden states: the head, the
  losses and their gradient.
  """

  def __init__(self, config: models.TransformerConfig):
    self.config = config

  def row_hidden(self, params, rows):
    """Returns those of the last slots, as many as `rows` has."""
    return params["hidden"][:, -rows.slot_tokens.shape[1] :]

  def output_embedding(self, params):
    return params["head"]


def main(argv: list[str]) -> None:
  del argv
  settings = programs.settings()
  names = programs.chosen_cases()
  if _HERE.value:
    measure.use_threads(settings["threads"])
    print(json.dumps(run(cases.get_case(names[0]), **settings)))
    return
  lines = []
  for name in names:
    arguments = ["--here", f"--case={name}"]
    arguments += [f"--{key}={value}" for key, value in settings.items()]
    try:
      lines.append(apart.run("benchmarks.parts", arguments, name))
    except apart.Failed as error:
      raise SystemExit(str(error)) from error
    print(json.dumps(lines[-1]), flush=True)
  print("\n\n".join(map(table, lines)))


def run(
  case: cases.Case, *, steps: int, warmup: int, threads: int
) -> dict[str, Any]:
  """Times the case's step and its parts in this process.

  Args:
    case: of which step.
    steps: timed ones.
    warmup: untimed ones after the first.
    threads: as `measure.use_threads` was given; goes with the figures.
  """

  def timed(part: Part) -> dict:
    clock = measure.Clock(steps=steps, warmup=warmup)

    def step() -> measure.Check:
      jax.block_until_ready(part.run())
      return {}

    clock.loop(step)
    return clock.figures() | {"flops": part.flops}

  whole = measure.Clock(steps=steps, warmup=warmup)
  found: dict[str, Any] = {"case": case.name, "threads": threads}
  found |= own.run(case, whole)
  found["step"] = whole.figures()
  found["parts"] = {k: timed(part) for k, part in make_parts(case).items()}
  return found


def make_parts(case: cases.Case) -> dict[str, Part]:
  """Returns what is to be timed, by name."""
  policy = own.load(case)
  model, params = policy.model, policy.params
  tokens = jax.tree.map(jnp.asarray, cases.make_batch(case))
  parts = {}
  if case.kind != "dpo":
    parts |= _rollouts(case, model, params, tokens["prompt"])
  if case.kind != "gen":
    batch = full_rows.pairs(**tokens)
    # Rollouts of the policy that is the reference: random tokens, as pairs are.
    drawn = parts[ROLLOUT].run() if case.kind == "hypo" else None
    parts |= _gradient(case, model, params, batch, drawn)
    parts["optimizer"] = _optimizer(params)
  return parts


def _rollouts(case, model, params, prompts) -> dict[str, Part]:
  mesh = sharding.make_mesh()
  mask = jnp.ones(prompts.shape, bool)
  keys = jax.random.split(jax.random.key(0), case.rows)

  def part(length: int) -> Part:
    step = rollout.make_rollout_step(
      model,
      samples_per_prompt=1,
      max_new_tokens=length,
      eos_token_id=case.size.vocab_size,
      pad_token_id=0,
      mesh=mesh,
    )
    slot, head = cases.slot_flops(case), cases.head_flops(case)
    # The last token is drawn, not run.
    decoded = (slot * (length - 1) + head * length) / case.completion_length
    flops = case.rows * (cases.prompt_flops(case) + decoded)
    return Part(lambda: step(params, prompts, mask, keys), flops)

  return {ROLLOUT: part(case.completion_length), ONE_TOKEN: part(1)}


def _gradient(case, model, params, batch, drawn) -> dict[str, Part]:
  """Hidden states with gradient, the head, and the reference if any."""
  pairs = pair_rows(batch)
  rows = pairs if drawn is None else join_slots(pairs, drawn.rows)
  slots = rows.slot_tokens.shape[1]

  forward = jax.jit(model.row_hidden)

  @jax.jit
  def gradient(params, rows, hidden_bar):
    def hidden(params):
      return _hidden_states(model, params, rows, fused=drawn is not None)

    return jax.vjp(hidden, params)[1](hidden_bar)

  hidden = forward(params, rows)
  head = jax.jit(model.output_embedding)(params)
  needed = cases.prompt_flops(case) + slots * cases.slot_flops(case)
  parts = {
    "hidden gradient": Part(
      lambda: gradient(params, rows, hidden), 3 * case.rows * needed
    )
  }
  parts["head"] = _head(
    case, model, {"hidden": hidden, "head": head}, batch, drawn
  )
  if drawn is not None:
    needed = cases.prompt_flops(case) + cases.slot_flops(case)
    parts["reference"] = Part(
      lambda: forward(params, drawn.rows), case.rows * needed
    )
  return parts


def _hidden_states(model, params, rows, *, fused: bool):
  """Returns [B, S, C, D] as a step has them."""
  if not fused:
    return model.row_hidden(params, rows)
  # Rollouts need the prompts' keys and values in between.
  last, keys_values = model.prompt_forward(
    params,
    rows.prompt_tokens,
    rows.prompt_mask,
    first=rows.prompt_mask.shape[1] - 1,
  )
  slots = model.slots_forward(
    params, keys_values, rows.prompt_mask, rows.slot_tokens, rows.slot_mask
  )
  return predicting(last, slots)


def _head(case, model, given, batch, drawn) -> Part:
  """What follows the hidden states; policy and reference are `given`."""
  loss = objective.PreferenceLoss(
    model=Given(model.config),
    method=case.kind,
    beta=cases.BETA,
    kl_coef=0.0 if drawn is None else cases.KL_COEF,
  )
  counts = objective.count(batch, drawn)
  gradient = jax.jit(jax.grad(loss.split, has_aux=True))
  # Three passes a slot, and the reference's of the rollouts.
  passes = 3 * given["hidden"].shape[1] + (drawn is not None)
  return Part(
    lambda: gradient(given, given, batch, drawn, counts),
    case.rows * passes * cases.head_flops(case),
  )


def _optimizer(params) -> Part:
  optimizer = train.make_optimizer(
    learning_rate=cases.LEARNING_RATE,
    num_steps=1,
    max_grad_norm=cases.MAX_GRAD_NORM,
  )
  state = train.init_state(params, optimizer, sharding.make_mesh())

  def update(state, gradient):
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.trainable
    )
    trainable = optax.apply_updates(state.trainable, updates)
    norm = optax.tree.norm(gradient)
    return train.TrainState(state.step + 1, trainable, opt_state), norm

  step = jax.jit(update, donate_argnums=0)

  def run():
    nonlocal state
    state, norm = step(state, params)
    return state, norm

  return Part(run, 0)


class Row(NamedTuple):
  """A part's share of a step.

  Attributes:
    name: of the part.
    times: it runs a step.
    seconds: each time.
    cpu_seconds: each time.
    flops: each time.
  """

  name: str
  times: int
  seconds: float
  cpu_seconds: float
  flops: float


def rows(line: dict) -> list[Row]:
  """Returns the parts of a line of `run`, prefill and decoded token apart."""
  parts = dict(line["parts"])
  length = cases.get_case(line["case"]).completion_length
  found = []
  if ROLLOUT in parts:
    whole, first = parts.pop(ROLLOUT), parts.pop(ONE_TOKEN)
    names = ("seconds", "cpu_seconds", "flops")
    token = {n: (whole[n] - first[n]) / (length - 1) for n in names}
    # A HyPO step's prompts run once, for gradient and rollouts.
    times = int("hidden gradient" not in parts)
    found += [
      Row("prefill", times, *(first[n] for n in names)),
      Row("decoded token", length - 1, *token.values()),
    ]
  return found + [
    Row(name, 1, part["seconds"], part["cpu_seconds"], part["flops"])
    for name, part in parts.items()
  ]


def table(line: dict) -> str:
  """Returns a case's parts in Markdown, their sum and the step below them."""
  rate, step = line["product_flops_per_second"], line["step"]["seconds"]
  parts = rows(line)
  lines = [
    f"### {line['case']}",
    "",
    "| part | times | s each | CPU s each | GFLOP each | GFLOP/s | of a large "
    "product | of the step |",
    "|---|---|---|---|---|---|---|---|",
  ]
  total = Row(
    "sum of parts",
    1,
    sum(r.times * r.seconds for r in parts),
    sum(r.times * r.cpu_seconds for r in parts),
    sum(r.times * r.flops for r in parts),
  )
  needed = cases.flops(cases.get_case(line["case"]))
  whole = Row("step", 1, step, line["step"]["cpu_seconds"], needed)
  for row in (*parts, total, whole):
    reached = row.flops / row.seconds
    share = row.times * row.seconds / step
    speed = f"{reached / 1e9:.0f} | {reached / rate:.0%}"
    lines.append(
      f"| {row.name} | {row.times} | {row.seconds:.4f} | "
      f"{row.cpu_seconds:.4f} | {row.flops / 1e9:.2f} | "
      f"{speed if row.flops else '- | -'} | {share:.0%} |"
    )
  return "\n".join([*lines, "", f"A large product: {rate / 1e9:.0f} GFLOP/s."])


if __name__ == "__main__":
  app.run(main)
