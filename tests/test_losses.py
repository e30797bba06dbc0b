# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Preference losses by hand, their identities, masks, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypo_jax import losses

FOUR = (
  "chosen_log_probs",
  "rejected_log_probs",
  "ref_chosen_log_probs",
  "ref_rejected_log_probs",
)
PREFERENCE_LOSSES = {
  "dpo": losses.dpo_loss,
  "ipo": losses.ipo_loss,
  "hinge": losses.hinge_loss,
}
N, C, K = 4, 5, 2
KL_LOSSES = ["sequence", "leave_one_out", "to_go", "rao_blackwell"]
seeds = st.integers(0, 2**31 - 1)


def random_pairs(seed, count=3):
  rng = np.random.default_rng(seed)
  values = rng.uniform(-90, -10, (4, count)).astype(np.float32)
  return dict(zip(FOUR, jnp.asarray(values), strict=True))


def random_rollouts(seed, length=C):
  """Returns log-probs, reference log-probs, token KL and mask, [N, length]."""
  rng = np.random.default_rng(seed)
  log_probs, ref_log_probs = -rng.exponential(size=(2, N, length))
  token_kl = rng.exponential(size=(N, length))
  mask = np.arange(length) < rng.integers(0, C + 1, (N, 1))
  floats = (log_probs, ref_log_probs, token_kl)
  return *(jnp.asarray(x, jnp.float32) for x in floats), jnp.asarray(mask)


def kl_term(name, log_probs, ref_log_probs, token_kl, mask):
  if name == "rao_blackwell":
    return losses.rao_blackwell_kl_loss(
      log_probs, token_kl, mask, samples_per_prompt=K
    )
  return losses.reverse_kl_loss(
    log_probs, ref_log_probs, mask, estimator=name, samples_per_prompt=K
  )


def hypo(pairs, rollouts, *, estimator="sequence", **kwargs):
  log_probs, ref_log_probs, token_kl, mask = rollouts
  if estimator == "rao_blackwell":
    kwargs["rollout_token_kl"] = token_kl
  arguments = dict(beta=0.1, kl_coef=0.3, samples_per_prompt=K) | kwargs
  return losses.hypo_loss(
    **pairs,
    rollout_token_log_probs=log_probs,
    ref_rollout_token_log_probs=ref_log_probs,
    rollout_mask=mask,
    estimator=estimator,
    **arguments,
  )


# Formulas by hand.


def test_preference_losses_follow_their_formulas():
  # h = (-10 + 12) - (-20 + 19) = 3 and (-5 + 5) - (-6 + 4) = 2, beta 0.5.
  four = [jnp.array(x) for x in ([-10.0, -5], [-20.0, -6], [-12.0, -5])]
  four.append(jnp.array([-19.0, -4]))
  loss = losses.dpo_loss(*four, beta=0.5, label_smoothing=0.2)
  expected = [
    0.8 * math.log1p(math.exp(-z)) + 0.2 * math.log1p(math.exp(z))
    for z in (1.5, 1.0)
  ]
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  # 1 / (2 beta) = 1.
  np.testing.assert_allclose(losses.ipo_loss(*four, beta=0.5), [4.0, 1.0])
  # beta h = 1.5 and 1 are both past the hinge; at 0.1 they are 0.3 and 0.2.
  np.testing.assert_allclose(losses.hinge_loss(*four, beta=0.5), [0.0, 0.0])
  np.testing.assert_allclose(
    losses.hinge_loss(*four, beta=0.1), [0.7, 0.8], rtol=1e-6
  )


def test_kl_surrogates_follow_their_formulas():
  p = jnp.array([[-1.0, -2.0, -3.0], [-4.0, -5.0, 9.0]])
  q = jnp.array([[-2.0, -2.5, -1.0], [-4.5, -6.0, 7.0]])
  kl = jnp.array([[0.1, 0.2, 0.4], [0.8, 1.6, 5.0]])
  mask = jnp.array([[True, True, True], [True, True, False]])
  # log-ratios d: 1, 0.5, -2 (sum -0.5) and 0.5, 1 (sum 1.5).
  d = [-0.5, 1.5]
  sequence = losses.reverse_kl_loss(p, q, mask)
  np.testing.assert_allclose(sequence.kl, d, rtol=1e-6)
  np.testing.assert_allclose(sequence.loss, [-6 * -0.5, -9 * 1.5], rtol=1e-6)
  leave_one_out = losses.reverse_kl_loss(
    p, q, mask, estimator="leave_one_out", samples_per_prompt=2
  )
  np.testing.assert_allclose(leave_one_out.loss, [-6 * -2, -9 * 2], rtol=1e-6)
  to_go = losses.reverse_kl_loss(p, q, mask, estimator="to_go")
  expected = [-1 * -0.5 - 2 * -1.5 - 3 * -2, -4 * 1.5 - 5 * 1]
  np.testing.assert_allclose(to_go.loss, expected, rtol=1e-6)
  # Future KL: 0.6, 0.4, 0 and 1.6, 0, 0.
  alone = losses.rao_blackwell_kl_loss(p, kl, mask)
  expected = [0.7 - 0.6 - 2 * 0.4, 2.4 - 4 * 1.6]
  np.testing.assert_allclose(alone.kl, [0.7, 2.4], rtol=1e-6)
  np.testing.assert_allclose(alone.loss, expected, rtol=1e-6)
  paired = losses.rao_blackwell_kl_loss(p, kl, mask, samples_per_prompt=2)
  expected = [0.7 - (0.6 - 1.6) - 2 * 0.4, 2.4 - 4 * 1.0 - 5 * -0.4]
  np.testing.assert_allclose(paired.loss, expected, rtol=1e-5)


def test_hypo_loss_is_preference_loss_plus_weighted_kl_loss():
  pairs, rollouts = random_pairs(0), random_rollouts(0)
  for estimator in KL_LOSSES:
    loss, metrics = hypo(pairs, rollouts, estimator=estimator)
    term = kl_term(estimator, *rollouts)
    preference = losses.dpo_loss(**pairs, beta=0.1).mean()
    expected = preference + 0.3 * term.loss.mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["preference_loss"], preference)
    np.testing.assert_allclose(metrics["kl_loss"], term.loss.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["kl"], term.kl.mean(), rtol=1e-6)
    assert all(jnp.shape(x) == () for x in metrics.values())


def test_reward_metrics_are_beta_times_log_ratios():
  chosen, rejected = jnp.array([-1.0, -2, -3]), jnp.array([-4.0, -5, -6])
  ref_chosen, ref_rejected = jnp.array([-2.0, -2, -2]), jnp.full(3, -5.0)
  pairs = dict(
    zip(FOUR, (chosen, rejected, ref_chosen, ref_rejected), strict=True)
  )
  # Log-ratios 1, 0, -1 and 1, 0, -1: every margin is a tie, which is no win.
  _, metrics = hypo(pairs, random_rollouts(0), beta=0.5)
  assert metrics["reward_accuracy"] == 0
  pairs["rejected_log_probs"] = jnp.array([-5.0, -5, -4])
  # Rejected log-ratios 0, 0, 1: margins 0.5, 0, -1.
  _, metrics = hypo(pairs, random_rollouts(0), beta=0.5)
  expected = {
    "chosen_rewards": 0.0,
    "rejected_rewards": 0.5 / 3,
    "reward_margin": -0.5 / 3,
    "reward_accuracy": 1 / 3,
    "chosen_log_probs": -2.0,
    "rejected_log_probs": -14 / 3,
    "chosen_log_ratio": 0.0,
    "rejected_log_ratio": 1 / 3,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-6, err_msg=name)


# Identities.


def test_equal_policy_and_reference_give_log_2_and_zeros():
  pairs, (log_probs, _, _, mask) = random_pairs(1), random_rollouts(1)
  pairs["ref_chosen_log_probs"] = pairs["chosen_log_probs"]
  pairs["ref_rejected_log_probs"] = pairs["rejected_log_probs"]
  rollouts = (log_probs, log_probs, jnp.zeros((N, C)), mask)
  for estimator in KL_LOSSES:
    loss, metrics = hypo(pairs, rollouts, estimator=estimator)
    np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)
    for name in ("kl", "kl_loss", "reward_margin", "reward_accuracy"):
      assert metrics[name] == 0, name


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_swapping_chosen_and_rejected_negates_the_margin(seed):
  pairs, rollouts = random_pairs(seed), random_rollouts(0)
  a, b, c, d = (pairs[name] for name in FOUR)
  swapped = dict(zip(FOUR, (b, a, d, c), strict=True))
  _, metrics = hypo(pairs, rollouts)
  _, opposite = hypo(swapped, rollouts)
  np.testing.assert_allclose(
    opposite["reward_margin"], -metrics["reward_margin"], rtol=1e-5, atol=1e-6
  )
  # -log sigmoid(-z) - (-log sigmoid(z)) = z.
  difference = losses.dpo_loss(**swapped, beta=0.1) - losses.dpo_loss(
    **pairs, beta=0.1
  )
  np.testing.assert_allclose(
    difference, 0.1 * ((a - c) - (b - d)), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_zero_kl_coef_is_dpo_bit_for_bit(jit, masked):
  maybe_jit = jax.jit if jit else lambda f: f
  # Rollouts that would turn 0 * kl into nan.
  broken = jnp.full((N, C), jnp.nan)
  rollouts = (broken, broken, broken, jnp.ones((N, C), bool))
  pair_mask = jnp.ones(33, bool) if masked else None

  def hybrid(pairs):
    return hypo(pairs, rollouts, kl_coef=0.0, pair_mask=pair_mask)[0]

  def plain(pairs):
    return losses.dpo_loss(**pairs, beta=0.1).mean()

  for seed in range(5):
    pairs = random_pairs(seed, 33)
    value, gradient = maybe_jit(jax.value_and_grad(hybrid))(pairs)
    expected, expected_gradient = maybe_jit(jax.value_and_grad(plain))(pairs)
    # A mean under a mask divides by a count that is not a constant.
    equal = (
      np.testing.assert_array_equal
      if not masked
      else lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)
    )
    equal(value, expected)
    jax.tree.map(equal, gradient, expected_gradient)


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_preference_losses_agree_eager_jit_and_vmap(name):
  def loss(pairs, beta):
    return PREFERENCE_LOSSES[name](**pairs, beta=beta)

  pairs = random_pairs(2, 6)
  eager = loss(pairs, 0.1)
  np.testing.assert_allclose(jax.jit(loss)(pairs, 0.1), eager, rtol=1e-6)
  rows = jax.tree.map(lambda x: x.reshape(2, 3), pairs)
  mapped = jax.vmap(loss, in_axes=(0, None))(rows, 0.1)
  np.testing.assert_allclose(mapped.reshape(-1), eager, rtol=1e-6)


@pytest.mark.parametrize("name", KL_LOSSES)
def test_hypo_loss_agrees_eager_jit_and_vmap(name):
  def both(pairs, rollouts):
    return hypo(pairs, rollouts, estimator=name)

  batches = [(random_pairs(s), random_rollouts(s)) for s in range(3)]
  eager = [both(*batch) for batch in batches]
  jitted = [jax.jit(both)(*batch) for batch in batches]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
  mapped = jax.vmap(both)(*stacked)

  def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

  jax.tree.map(close, eager, jitted)
  jax.tree.map(close, jax.tree.map(lambda *x: jnp.stack(x), *eager), mapped)


# Masks.


@pytest.mark.parametrize("garbage", [math.nan, -math.inf, math.inf, 1e30])
@pytest.mark.parametrize("name", KL_LOSSES)
def test_masked_content_changes_neither_value_nor_gradient(name, garbage):
  rollouts = random_rollouts(3)
  mask = rollouts[-1]
  assert (~mask).any()

  def total(log_probs, ref_log_probs, token_kl):
    term = kl_term(name, log_probs, ref_log_probs, token_kl, mask)
    return term.loss.sum(), term

  run = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
  clean = run(*rollouts[:3])
  dirty = run(*(jnp.where(mask, x, garbage) for x in rollouts[:3]))
  jax.tree.map(np.testing.assert_array_equal, clean, dirty)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(dirty))
  for gradient in dirty[1]:
    assert not gradient[~mask].any()


@given(seed=seeds, extra=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_longer_padding_changes_nothing(seed, extra):
  short = random_rollouts(seed)
  widths = ((0, 0), (0, extra))
  long = [jnp.pad(x, widths, constant_values=jnp.nan) for x in short[:3]]
  long.append(jnp.pad(short[3], widths))
  for name in KL_LOSSES:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
      kl_term(name, *short),
      kl_term(name, *long),
    )


@pytest.mark.parametrize("name", KL_LOSSES)
def test_an_empty_rollout_is_zero_and_counts_in_the_mean(name):
  log_probs, ref_log_probs, token_kl, _ = random_rollouts(4)
  mask = jnp.ones((N, C), bool).at[0].set(False)
  rollouts = (log_probs, ref_log_probs, token_kl, mask)
  term = kl_term(name, *rollouts)
  assert term.loss[0] == 0 and term.kl[0] == 0
  _, metrics = hypo(random_pairs(4), rollouts, estimator=name)
  np.testing.assert_allclose(metrics["kl"], term.kl.sum() / N, rtol=1e-6)


@pytest.mark.parametrize("name", KL_LOSSES)
def test_left_out_rollouts_count_nowhere(name):
  pairs, rollouts = random_pairs(5), random_rollouts(5)
  first_prompt = [x[:K] for x in rollouts]
  keep = jnp.arange(N) < K
  dirty = [jnp.where(keep[:, None], x, jnp.nan) for x in rollouts[:3]]
  masked = hypo(
    pairs,
    (*dirty, jnp.ones_like(rollouts[3]).at[:K].set(rollouts[3][:K])),
    estimator=name,
    rollout_row_mask=keep,
  )
  alone = hypo(pairs, first_prompt, estimator=name)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), masked, alone
  )


def test_nothing_real_gives_zero_loss_and_gradient():
  pairs, rollouts = random_pairs(6), random_rollouts(6)

  def loss(pairs, log_probs):
    return hypo(
      pairs,
      (log_probs, *rollouts[1:]),
      pair_mask=jnp.zeros(3, bool),
      rollout_row_mask=jnp.zeros(N, bool),
    )[0]

  value, gradient = jax.value_and_grad(loss, argnums=(0, 1))(pairs, rollouts[0])
  assert value == 0
  assert not any(x.any() for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize("garbage", [math.nan, -math.inf, 0.0])
def test_demand_05_masked_pair_gets_zero_weight_and_gradient(garbage):
  # A side truncated to nothing scores 0 under both policies; the pair's other
  # numbers may be anything.
  pairs, rollouts = random_pairs(7), random_rollouts(7)
  pair_mask = jnp.array([True, False, True])
  kept = {k: v[np.array([0, 2])] for k, v in pairs.items()}
  dirty = {k: v.at[1].set(garbage) for k, v in pairs.items()}

  def loss(pairs, **kwargs):
    return hypo(pairs, rollouts, **kwargs)

  run = jax.value_and_grad(loss, has_aux=True)
  (value, metrics), gradient = run(dirty, pair_mask=pair_mask)
  (expected, expected_metrics), expected_gradient = run(kept)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  for name, metric in metrics.items():
    np.testing.assert_allclose(
      metric, expected_metrics[name], rtol=1e-5, err_msg=name
    )
  for name in FOUR:
    assert gradient[name][1] == 0
    np.testing.assert_allclose(
      gradient[name][pair_mask], expected_gradient[name], rtol=1e-6
    )


def test_the_reference_and_the_kl_estimate_carry_no_gradient():
  log_probs, ref_log_probs, token_kl, mask = random_rollouts(8)
  for name in KL_LOSSES:

    def kl(log_probs, token_kl, name=name):
      return kl_term(name, log_probs, ref_log_probs, token_kl, mask).kl.sum()

    def surrogate(ref_log_probs, name=name):
      return kl_term(name, log_probs, ref_log_probs, token_kl, mask).loss.sum()

    for gradient in jax.grad(kl, argnums=(0, 1))(log_probs, token_kl):
      assert not gradient.any()
    assert not jax.grad(surrogate)(ref_log_probs).any()


# Dtypes and refusals.


@pytest.mark.parametrize("name", KL_LOSSES)
def test_bfloat16_token_values_are_summed_in_float32(name):
  # 1,024 tokens of -1.0078125: in bfloat16 the sum would stall long before.
  shape = (2, 1024)
  values = [jnp.full(shape, x, jnp.bfloat16) for x in (-1.0078125, -2, 0.25)]
  term = kl_term(name, *values, jnp.ones(shape, bool))
  expected = 0.25 * 1024 if name == "rao_blackwell" else 0.9921875 * 1024
  assert term.loss.dtype == term.kl.dtype == jnp.float32
  np.testing.assert_array_equal(term.kl, expected)


REFUSED = {
  "bfloat16 sequence log-probs": (
    "ref_chosen_log_probs: expected float32",
    dict(ref_chosen_log_probs=jnp.zeros(3, jnp.bfloat16)),
  ),
  "float16 sequence log-probs": (
    "chosen_log_probs: expected float32",
    dict(chosen_log_probs=jnp.zeros(3, jnp.float16)),
  ),
  "integer sequence log-probs": (
    "rejected_log_probs: expected float32.*int32",
    dict(rejected_log_probs=jnp.zeros(3, jnp.int32)),
  ),
  "unequal counts": (
    r"rejected_log_probs: expected shape \(3,\), got shape \(1,\)",
    dict(rejected_log_probs=jnp.zeros(1)),
  ),
  "token log-probs as sequence log-probs": (
    r"chosen_log_probs: expected shape \[B\], got shape \(3, 2\)",
    dict(chosen_log_probs=jnp.zeros((3, 2))),
  ),
  "beta 0": ("beta: expected > 0 and finite, got 0", dict(beta=0)),
  "beta nan": ("beta: expected > 0", dict(beta=math.nan)),
  "beta a vector": ("beta: expected a scalar", dict(beta=jnp.ones(3))),
  "smoothing 0.5": (
    r"label_smoothing: expected in \[0, 0.5\), got 0.5",
    dict(label_smoothing=0.5),
  ),
  "negative kl_coef": ("kl_coef: expected >= 0", dict(kl_coef=-0.1)),
  "float mask": (
    "rollout_mask: expected dtype bool, got float32",
    dict(rollout_mask=jnp.ones((N, C))),
  ),
  "one mask for all rows": (
    r"rollout_mask: expected shape \[N, C\], got shape \(5,\)",
    dict(rollout_mask=jnp.ones(C, bool)),
  ),
  "other mask shape": (
    "token_log_probs: expected the mask's shape",
    dict(rollout_mask=jnp.ones((N, C + 1), bool)),
  ),
  "integer token values": (
    "token_log_probs: expected a float dtype, got int32",
    dict(rollout_token_log_probs=jnp.zeros((N, C), jnp.int32)),
  ),
  "unknown estimator": (
    "estimator: expected one of .*'rao_blackwell'.*got 'k3'",
    dict(estimator="k3"),
  ),
  "leave_one_out of one": (
    "samples_per_prompt: expected an int >= 2, got 1",
    dict(estimator="leave_one_out", samples_per_prompt=1),
  ),
  "samples that don't divide": (
    "samples_per_prompt: expected a divisor of the 4 rows, got 3",
    dict(samples_per_prompt=3),
  ),
  "rao_blackwell without token KL": (
    "rollout_token_kl: expected float",
    dict(estimator="rao_blackwell"),
  ),
  "token KL for another estimator": (
    "rollout_token_kl: expected None for 'to_go'",
    dict(estimator="to_go", rollout_token_kl=jnp.ones((N, C))),
  ),
  "pair_mask of another length": (
    r"pair_mask: expected shape \(3,\), got shape \(4,\)",
    dict(pair_mask=jnp.ones(4, bool)),
  ),
  "integer row mask": (
    "rollout_row_mask: expected dtype bool",
    dict(rollout_row_mask=jnp.ones(N, jnp.int32)),
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_named(case):
  message, wrong = REFUSED[case]
  log_probs, ref_log_probs, _, mask = random_rollouts(0)
  arguments = random_pairs(0) | dict(
    rollout_token_log_probs=log_probs,
    ref_rollout_token_log_probs=ref_log_probs,
    rollout_mask=mask,
    beta=0.1,
    kl_coef=0.1,
  )
  with pytest.raises(ValueError, match=message):
    losses.hypo_loss(**(arguments | wrong))


def test_beta_and_kl_coef_may_be_traced():
  pairs, rollouts = random_pairs(9), random_rollouts(9)

  @jax.jit
  def loss(beta, kl_coef):
    return hypo(pairs, rollouts, beta=beta, kl_coef=kl_coef)[0]

  expected = hypo(pairs, rollouts, beta=0.2, kl_coef=0.5)[0]
  np.testing.assert_allclose(loss(0.2, 0.5), expected, rtol=1e-6)
