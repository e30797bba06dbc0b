# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""What the theory states, exactly: optima, balls, families of minimisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logit, softmax

from hypo_jax import losses
from hypo_jax.coverage import descent, minimisers, optimum, population, trees

# Reference (0.1, 0.8, 0.1) and (0.45, 0.45, 0.1) with the first of two seen
# completions preferred at 0.8: unseen mass rises and falls.
EXAMPLE, COUNTER_EXAMPLE = (0.1, 0.8, 0.1), (0.45, 0.45, 0.1)


def random_problems(count=200, size=7, seed=0):
  rng = np.random.default_rng(seed)
  reference = rng.dirichlet(np.full(size, 0.5), size=count)
  return reference, rng.uniform(-1, 1, size=(count, size)), rng


def test_optimum_is_the_maximum_and_the_gap_is_a_kl():
  reference, rewards, rng = random_problems()
  best = optimum.optimal_policy(reference, rewards, beta=0.3)
  value = optimum.optimal_value(reference, rewards, beta=0.3)
  np.testing.assert_allclose(
    optimum.objective(best, reference, rewards, beta=0.3), value, atol=1e-12
  )
  policy = rng.dirichlet(np.ones(7), size=200)
  gap = value - optimum.objective(policy, reference, rewards, beta=0.3)
  np.testing.assert_allclose(gap, 0.3 * optimum.kl(policy, best), atol=1e-9)


@pytest.mark.parametrize("beta", [0.02, 0.3, 5.0])
def test_optimum_stays_in_the_ball(beta):
  reference, rewards, _ = random_problems()
  bound = np.abs(rewards).max(axis=-1)
  best = optimum.optimal_policy(reference, rewards, beta=beta)
  kl = optimum.kl(best, reference)
  largest = optimum.largest_kl(bound, beta=beta)
  assert (kl <= largest + 1e-12).all()
  assert (largest < optimum.kl_bound(bound, beta=beta)).all()


@pytest.mark.parametrize("x", [0.01, 1.0, 12.0])
def test_largest_kl_is_attained_by_two_rewards(x):
  q = np.exp(np.linspace(-x - 5, -1e-9, 200_001))
  reference = np.stack([q, -np.expm1(np.log(q))], axis=-1)
  best = optimum.optimal_policy(reference, np.array([x / 2, -x / 2]), beta=1.0)
  np.testing.assert_allclose(
    optimum.kl(best, reference).max(),
    optimum.largest_kl(x / 2, beta=1.0),
    rtol=1e-6,
  )


def test_backward_induction_gives_the_optimum_of_a_tree():
  tree = trees.full_tree(3, 4)
  rng = np.random.default_rng(1)
  table = rng.normal(size=(tree.num_states, 3))
  rewards = rng.normal(size=len(tree.tokens))
  with jax.enable_x64():
    reference = np.exp(trees.log_probs(tree, table))
  assert reference.sum() == pytest.approx(1.0, abs=1e-12)
  value = optimum.tree_optimal_value(tree, table, rewards, beta=0.2)
  assert value == pytest.approx(
    float(optimum.optimal_value(reference, rewards, beta=0.2)), abs=1e-12
  )


def test_states_of_trees_are_prefixes_or_previous_tokens():
  tree = trees.full_tree(2, 3)
  prefixes = {}
  for tokens, states in zip(tree.tokens, tree.states, strict=True):
    for t, state in enumerate(states):
      assert prefixes.setdefault(int(state), tuple(tokens[:t])) == tuple(
        tokens[:t]
      )
  assert sorted(prefixes) == list(range(tree.num_states)) == list(range(7))
  bigram = trees.bigram_tree(2, 3)
  assert bigram.states[5].tolist() == [2, 1, 0]
  assert bigram.tokens[5].tolist() == [1, 0, 1]


def family(mass, unseen=1e-3, beta=0.5):
  reference = np.array([0.3, 0.7 - unseen, unseen])
  rewards = np.array([1.0, 0.0, -1.0])
  seen = np.array([True, True, False])
  members = minimisers.dpo_minimisers(reference, seen, rewards, mass, beta=beta)
  return reference, rewards, seen, members


def test_dpo_cannot_tell_its_minimisers_apart():
  reference, rewards, seen, members = family(np.linspace(0.0, 0.999, 50))
  np.testing.assert_allclose(members.sum(axis=-1), 1.0)
  np.testing.assert_allclose(members[:, 2], np.linspace(0.0, 0.999, 50))
  pairs = population.all_pairs(np.where(seen, 0.5, 0.0), rewards)
  with jax.enable_x64():
    log_probs = jnp.log(jnp.maximum(members, 1e-300))
    ref = jnp.log(jnp.asarray(reference))

    def loss(log_probs):
      return population.dpo_loss(log_probs, ref, pairs, beta=0.5)

    value = jax.vmap(loss)(log_probs)
    slope = jax.vmap(jax.grad(loss))(log_probs)
  # The entropy of the label is the least that any policy can have.
  p = 1 / (1 + np.exp(-1.0))
  least = -p * np.log(p) - (1 - p) * np.log1p(-p)
  np.testing.assert_allclose(value, least, rtol=1e-12)
  np.testing.assert_allclose(slope, 0.0, atol=1e-12)


@pytest.mark.parametrize("unseen", [1e-2, 1e-5, 1e-9])
def test_kl_of_dpo_minimisers_tends_to_minus_log_reference(unseen):
  mass = np.array([0.0, 0.3, 1 - 1e-12])
  reference, rewards, _, members = family(mass, unseen)
  conditional = members[0, :2] / members[0, :2].sum()
  k = optimum.kl(conditional, reference[:2] / reference[:2].sum())
  kl = optimum.kl(members, reference)
  np.testing.assert_allclose(minimisers.family_kl(mass, unseen, k), kl)
  assert kl[-1] == pytest.approx(-np.log(unseen), rel=1e-9)
  value = optimum.objective(members, reference, rewards, beta=0.0)
  assert value[-1] == pytest.approx(rewards[2], abs=1e-9)


def test_least_kl_mass_is_the_least_and_below_k():
  k, unseen = np.meshgrid([0.0, 0.1, 2.0, 30.0], [1e-12, 0.05, 0.9])
  mass = minimisers.least_kl_mass(unseen, k)
  least = minimisers.least_kl(unseen, k)
  np.testing.assert_allclose(
    minimisers.family_kl(mass, unseen, k), least, rtol=1e-9, atol=1e-12
  )
  others = np.linspace(0, 1 - 1e-9, 2001)[:, None, None]
  assert (minimisers.family_kl(others, unseen, k) >= least - 1e-12).all()
  assert (least <= k + 1e-15).all()
  np.testing.assert_allclose(
    mass, unseen / (unseen + (1 - unseen) * np.exp(-k)), rtol=1e-12
  )


def pair(**kwargs):
  fields = {"first": 0.5, "unseen": 0.1, "preference": 0.8, "beta": 0.1}
  return minimisers.OnePair(**(fields | kwargs))


def test_hypo_prices_the_ratio_too():
  best, *_ = minimisers.hypo_minima(pair(), 1.0)
  assert best.h == pytest.approx(0.13, abs=0.005)
  assert pair().dpo_log_ratio() == pytest.approx(13.86, abs=0.005)


def test_where_nobody_prefers_either_the_reference_is_the_minimum():
  (best,) = minimisers.hypo_minima(pair(preference=0.5), 0.3)
  assert best.h == 0.0 and best.mass == pytest.approx(0.1)
  assert best.loss == pytest.approx(np.log(2))


def test_hypo_tends_to_the_nearest_minimiser_of_dpo():
  problem = pair(beta=1.0)
  h = problem.dpo_log_ratio()
  errors = []
  for kl_coef in (1e-2, 1e-4, 1e-6):
    (best,) = minimisers.hypo_minima(problem, kl_coef)
    errors.append(h - best.h)
    assert best.kl < float(problem.kl(h))
  assert errors[0] > errors[1] > errors[2] > 0
  assert errors[2] < 1e-5
  nearest = minimisers.least_kl_mass(0.1, problem.conditional_kl(h))
  assert best.mass == pytest.approx(float(nearest), abs=1e-5)


def test_two_minima_of_hypo_tie():
  problem = pair(first=0.2, unseen=0.05, preference=0.9)
  kl_coef = minimisers.tie(problem, 0.2, 0.3)
  assert kl_coef == pytest.approx(0.24687, abs=5e-6)
  one, other = minimisers.hypo_minima(problem, kl_coef)
  assert one.loss == pytest.approx(other.loss, abs=1e-12)
  assert sorted([one.h, other.h]) == pytest.approx([0.73, 21.97], abs=0.005)
  with pytest.raises(ValueError, match="low, high: expected two minima"):
    minimisers.tie(problem, 0.3, 0.4)


@pytest.mark.parametrize("kl_coef", [0.001, 0.01, 0.24, 1.0, 30.0])
@pytest.mark.parametrize(
  ("preference", "beta"),
  # Of the last three, DPO's h is where the KL's slope is below rounding.
  [(0.03, 0.1), (0.6, 0.1), (0.95, 0.1), (0.9, 0.05), (0.01, 0.1), (0.99, 0.1)],
)
def test_minima_of_hypo_are_those_of_the_loss_on_a_grid(
  kl_coef, preference, beta
):
  problem = pair(first=0.2, unseen=0.05, preference=preference, beta=beta)
  h = np.linspace(-60, 60, 1_200_001)
  loss = problem.hypo_loss(h, kl_coef)
  inner = (loss[1:-1] < loss[:-2]) & (loss[1:-1] <= loss[2:])
  expected = h[1:-1][inner]
  found = minimisers.hypo_minima(problem, kl_coef)
  np.testing.assert_allclose(sorted(m.h for m in found), expected, atol=2e-4)
  assert found[0].loss == pytest.approx(loss.min(), abs=1e-8)


def test_deterministic_labels_have_no_finite_minimiser_but_a_finite_kl():
  problem = pair(preference=1.0, first=0.2, unseen=1e-6)
  best, *others = minimisers.hypo_minima(problem, 0.01)
  assert np.isposinf(best.h) and not others
  assert best.kl == pytest.approx(-np.log(1e-6 + (1 - 1e-6) * 0.2))
  far = problem.hypo_loss(np.array([50.0, 100.0, 200.0, 590.0]), 0.01)
  assert (np.diff(far) < 0).all() and far[-1] > best.loss
  strong, *_ = minimisers.hypo_minima(problem, 5.0)
  assert np.isfinite(strong.h)


def test_one_pair_is_what_the_training_code_minimises():
  problem = pair(first=0.3, unseen=0.2, beta=0.7)
  kl_coef = 0.4
  best, *_ = minimisers.hypo_minima(problem, kl_coef)
  reference = np.array([0.24, 0.56, 0.2])

  def loss(logits):
    """hypo_loss on one pair and one rollout whose token KL is exact."""
    log_probs = jax.nn.log_softmax(logits)
    ref = jnp.log(jnp.asarray(reference))
    kl = (jnp.exp(log_probs) * (log_probs - ref)).sum()
    token = jnp.zeros((1, 1), log_probs.dtype)
    value, _ = losses.hypo_loss(
      log_probs[:1],
      log_probs[1:2],
      ref[:1],
      ref[1:2],
      token,
      token,
      jnp.ones((1, 1), bool),
      beta=0.7,
      kl_coef=kl_coef,
      label_smoothing=0.2,
      estimator="rao_blackwell",
      rollout_token_kl=kl[None, None],
    )
    return value

  with jax.enable_x64():
    start = jnp.log(jnp.asarray(reference))
    path = jax.jit(
      lambda x: descent.descend(
        loss, x, learning_rate=1.0, num_steps=2000, every=2000
      )
    )(start)
    reached = np.asarray(jax.nn.softmax(path[-1]))
    value = float(loss(path[-1]))
  np.testing.assert_allclose(reached, problem.policy(best.h), atol=1e-9)
  assert value == pytest.approx(best.loss, abs=1e-12)


def test_population_kl_has_the_exact_value_and_gradient():
  tree = trees.full_tree(3, 3)
  rng = np.random.default_rng(2)
  table, ref = rng.normal(size=(2, tree.num_states, 3))
  with jax.enable_x64():
    ref_log_probs = trees.log_probs(tree, ref)

    def plain(table):
      log_probs = trees.log_probs(tree, table)
      return (jnp.exp(log_probs) * (log_probs - ref_log_probs)).sum()

    def ours(table):
      return population.reverse_kl(trees.log_probs(tree, table), ref_log_probs)

    for one, other in zip(
      jax.value_and_grad(plain)(table),
      jax.value_and_grad(ours)(table),
      strict=True,
    ):
      np.testing.assert_allclose(one, other, atol=1e-12)


def test_pairs_are_two_draws_that_differ():
  pairs = population.all_pairs(np.array([0.5, 0.2, 0.0, 0.3]), np.arange(4.0))
  assert list(zip(pairs.first, pairs.second, strict=True)) == [
    (0, 1),
    (0, 3),
    (1, 3),
  ]
  np.testing.assert_allclose(pairs.weight, np.array([0.10, 0.15, 0.06]) / 0.31)
  np.testing.assert_allclose(logit(pairs.preference), [-1, -3, -2])


@pytest.mark.parametrize(
  "reference, mass", [(EXAMPLE, 0.143), (COUNTER_EXAMPLE, 0.082)]
)
def test_gradient_descent_reaches_the_limit_without_steps(reference, mass):
  reference = np.array(reference)
  seen = np.array([True, True, False])
  rewards = np.array([logit(0.8), 0.0, 9.0])  # the last one plays no part
  limit = descent.tabular_limit(reference, seen, rewards, beta=1.0)
  assert limit[2] == pytest.approx(mass, abs=5e-4)
  pairs = population.all_pairs(np.where(seen, 0.5, 0.0), rewards)
  with jax.enable_x64():
    ref = jnp.log(jnp.asarray(reference))

    def loss(logits):
      log_probs = jax.nn.log_softmax(logits)
      return population.dpo_loss(log_probs, ref, pairs, beta=1.0)

    path = jax.jit(
      lambda x: descent.descend(
        loss, x, learning_rate=1.0, num_steps=200, every=1
      )
    )(ref)
    path = np.asarray(path)
  np.testing.assert_allclose(softmax(path[-1]), limit, atol=1e-10)
  # Unseen logits and the sum of the seen ones never move.
  np.testing.assert_allclose(path[:, 2], path[0, 2], atol=1e-14)
  np.testing.assert_allclose(path[:, :2].sum(-1), path[0, :2].sum(), atol=1e-12)


def test_unseen_mass_grows_exactly_by_the_condition():
  reference, rewards, _ = random_problems(2000, 6)
  seen = np.arange(6) < 4
  grows = descent.unseen_mass_grows(reference, seen, rewards, beta=0.5)
  limit = descent.tabular_limit(reference, seen, rewards, beta=0.5)
  before, after = ((x * ~seen).sum(-1) for x in (reference, limit))
  np.testing.assert_array_equal(grows, after > before)
  assert 0.05 < grows.mean() < 0.95
  even = np.where(seen, 0.2, 0.1)
  assert not descent.unseen_mass_grows(even, seen, rewards, beta=0.5).any()


def test_many_seen_completions_reach_the_limit():
  rng = np.random.default_rng(5)
  reference, rewards = softmax(rng.normal(size=6)), rng.normal(size=6)
  seen = np.arange(6) < 4
  pairs = population.all_pairs(np.where(seen, reference, 0.0), rewards)
  with jax.enable_x64():
    ref = jnp.log(jnp.asarray(reference))
    path = jax.jit(
      lambda x: descent.descend(
        lambda z: population.dpo_loss(
          jax.nn.log_softmax(z), ref, pairs, beta=1.0
        ),
        x,
        learning_rate=2.0,
        num_steps=4000,
        every=4000,
      )
    )(ref)
    reached = np.asarray(jax.nn.softmax(path[-1]))
  limit = descent.tabular_limit(reference, seen, rewards, beta=1.0)
  np.testing.assert_allclose(reached, limit, atol=1e-9)


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: minimisers.hypo_minima(pair(), 0.0), "kl_coef: expected > 0"),
    (
      lambda: minimisers.dpo_minimisers(
        [0.5, 0.5], [True, True], [0, 0], 0.1, beta=1.0
      ),
      "seen: expected some True and some False",
    ),
    (lambda: trees.full_tree(1, 2), "vocabulary, depth: expected"),
    (
      lambda: descent.descend(
        jnp.sum, jnp.ones(2), learning_rate=1.0, num_steps=3, every=2
      ),
      "num_steps: expected a multiple of 2, got 3",
    ),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
