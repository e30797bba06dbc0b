# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""chi-PO, SimPO and robust DPO: by hand, in their limits, and what they refuse.

`tests/test_losses.py` has DPO, IPO, hinge and what all share.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hypo_jax import losses

FOUR = (
  "chosen_log_probs",
  "rejected_log_probs",
  "ref_chosen_log_probs",
  "ref_rejected_log_probs",
)


def log1pexp(x):
  return np.log1p(np.exp(x))


def random_pairs(seed, count=4, spread=1.0):
  """Log-ratios of the size of `spread` on log-probs of -90 to -10."""
  rng = np.random.default_rng(seed)
  ref = rng.uniform(-90, -10, (2, count))
  policy = ref + spread * rng.normal(size=(2, count))
  values = np.concatenate([policy, ref]).astype(np.float32)
  return dict(zip(FOUR, jnp.asarray(values), strict=True))


# By hand.


def test_chi_po_follows_its_formula():
  # Log-ratios 1 and -1, then 0.5 and 2.
  pairs = dict(
    zip(
      FOUR,
      (
        jnp.array([-9.0, -4.5]),
        jnp.array([-21.0, -4.0]),
        jnp.array([-10.0, -5.0]),
        jnp.array([-20.0, -6.0]),
      ),
      strict=True,
    )
  )

  def phi(log_ratio):
    return math.exp(log_ratio) + log_ratio

  margins = [0.3 * (phi(1) - phi(-1)), 0.3 * (phi(0.5) - phi(2))]
  loss = losses.chi_po_loss(**pairs, beta=0.3, max_margin=100.0)
  np.testing.assert_allclose(loss, log1pexp(-np.array(margins)), rtol=1e-5)
  # 1.305 and -2.172: at a bound of 2 the second is clipped.
  clipped = losses.chi_po_loss(**pairs, beta=0.3, max_margin=2.0)
  np.testing.assert_allclose(
    clipped, log1pexp(np.array([-margins[0], 2.0])), rtol=1e-5
  )


def test_chi_po_gradient_is_dpos_times_one_plus_the_ratio():
  """phi'(z) dz / d log z = z + 1: DPO's gradient has 1 in its place."""
  pairs = random_pairs(0, spread=0.7)
  gradient = jax.grad(
    lambda p: losses.chi_po_loss(**p, beta=0.3, max_margin=50.0).sum()
  )(pairs)
  chosen = pairs["chosen_log_probs"] - pairs["ref_chosen_log_probs"]
  rejected = pairs["rejected_log_probs"] - pairs["ref_rejected_log_probs"]
  margin = 0.3 * ((np.exp(chosen) + chosen) - (np.exp(rejected) + rejected))
  weight = 0.3 / (1 + np.exp(margin))
  np.testing.assert_allclose(
    gradient["chosen_log_probs"], -weight * (1 + np.exp(chosen)), rtol=1e-4
  )
  np.testing.assert_allclose(
    gradient["rejected_log_probs"], weight * (1 + np.exp(rejected)), rtol=1e-4
  )


def test_chi_po_tends_to_dpo_as_both_ratios_vanish():
  """Far below the reference z is 0, and phi is the log-ratio."""
  pairs = random_pairs(1)
  for name in ("chosen_log_probs", "rejected_log_probs"):
    pairs[name] = pairs[name] - 30.0
  np.testing.assert_allclose(
    losses.chi_po_loss(**pairs, beta=0.3, max_margin=50.0),
    losses.dpo_loss(**pairs, beta=0.3),
    rtol=1e-5,
  )


def test_chi_po_is_finite_and_flat_where_it_is_clipped():
  pairs = random_pairs(2, spread=0.0)
  pairs["chosen_log_probs"] += jnp.array([500.0, -500.0, 1e4, 3.0])
  pairs["rejected_log_probs"] += jnp.array([500.0, 500.0, -1e4, 0.0])
  loss, gradient = jax.value_and_grad(
    lambda p: losses.chi_po_loss(**p, beta=0.1, max_margin=2.0).sum()
  )(pairs)
  assert np.isfinite(loss)
  assert all(np.isfinite(x).all() for x in gradient.values())
  # (500, 500) is no difference; the two after it are clipped; the last,
  # 0.1 (e^3 + 3 - 1) = 2.21, too.
  chosen = gradient["chosen_log_probs"]
  assert chosen[0] != 0 and not chosen[1:].any()


def test_simpo_follows_its_formula():
  chosen, rejected = jnp.array([-6.0, -8.0]), jnp.array([-10.0, -3.0])
  lengths = jnp.array([3, 4]), jnp.array([5, 1])
  # Means -2, -2 and -2, -3: differences 0 and 1.
  loss = losses.simpo_loss(
    chosen, rejected, *lengths, beta=2.5, target_margin=0.5
  )
  np.testing.assert_allclose(
    loss, log1pexp(np.array([0.5, 0.5 - 2.5])), rtol=1e-6
  )


def test_simpo_gradient_is_shared_by_a_completions_tokens():
  chosen, rejected = jnp.array([-6.0, -8.0]), jnp.array([-10.0, -3.0])
  lengths = jnp.array([3, 4]), jnp.array([5, 1])
  gradient = jax.grad(
    lambda c, r: losses.simpo_loss(
      c, r, *lengths, beta=2.5, target_margin=0.5
    ).sum(),
    argnums=(0, 1),
  )(chosen, rejected)
  weight = 2.5 / (1 + np.exp([-0.5, 2.0]))
  np.testing.assert_allclose(gradient[0], -weight / [3, 4], rtol=1e-5)
  np.testing.assert_allclose(gradient[1], weight / [5, 1], rtol=1e-5)


def test_simpo_takes_an_empty_completion_as_one_token():
  loss = losses.simpo_loss(
    jnp.zeros(1),
    jnp.full(1, -2.0),
    jnp.zeros(1, jnp.int32),
    jnp.ones(1, jnp.int32),
    beta=1.0,
    target_margin=0.0,
  )
  np.testing.assert_allclose(loss, [log1pexp(-2.0)], rtol=1e-6)


def test_robust_dpo_follows_its_formula():
  four = [jnp.array(x) for x in ([-10.0, -5], [-20.0, -6], [-12.0, -5])]
  four.append(jnp.array([-19.0, -4]))
  # As in test_losses: beta h = 1.5 and 1.
  loss = losses.robust_dpo_loss(*four, beta=0.5, label_smoothing=0.2)
  expected = [
    (0.8 * log1pexp(-z) - 0.2 * log1pexp(z)) / 0.6 for z in (1.5, 1.0)
  ]
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
def test_robust_dpo_is_unbiased_under_flipped_labels(rate):
  """Both labels enumerated: the mean is the clean loss, in value and gradient.

  Conservative DPO, which isn't divided by 1 - 2s, fails the same check.
  """
  pairs = random_pairs(3, spread=5.0)
  swap = dict(zip(FOUR, (FOUR[i] for i in (1, 0, 3, 2)), strict=True))

  def expected(function):
    def mean(pairs):
      other = {swap[name]: value for name, value in pairs.items()}
      return ((1 - rate) * function(**pairs) + rate * function(**other)).sum()

    return jax.value_and_grad(mean)(pairs)

  def robust(**pairs):
    return losses.robust_dpo_loss(**pairs, beta=0.3, label_smoothing=rate)

  def conservative(**pairs):
    return losses.dpo_loss(**pairs, beta=0.3, label_smoothing=rate)

  clean = jax.value_and_grad(lambda p: losses.dpo_loss(**p, beta=0.3).sum())(
    pairs
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    expected(robust),
    clean,
  )
  if rate:
    gap = abs(float(expected(conservative)[0] - clean[0]))
    assert gap > 0.05 * float(clean[0])


@pytest.mark.parametrize("name", ["dpo_loss", "robust_dpo_loss"])
def test_a_pair_that_is_past_doubt_has_no_loss_and_no_gradient(name):
  """The rejected, then the chosen completion is impossible under the policy."""
  function = getattr(losses, name)
  zeros, never = jnp.zeros(1), jnp.full(1, -jnp.inf)

  def loss(chosen, rejected):
    return function(
      chosen, rejected, zeros, zeros, beta=0.3, label_smoothing=0.0
    ).sum()

  value, gradient = jax.value_and_grad(loss, argnums=(0, 1))(zeros, never)
  assert value == 0
  jax.tree.map(lambda x: np.testing.assert_array_equal(x, 0.0), gradient)
  assert loss(never, zeros) == jnp.inf


@pytest.mark.parametrize("name", ["dpo_loss", "robust_dpo_loss"])
def test_no_label_smoothing_is_its_formula_bit_for_bit(name):
  """The number 0 drops a term, which a traced 0 multiplies."""
  pairs = random_pairs(5, count=64, spread=30.0)

  def loss(pairs, smoothing):
    function = getattr(losses, name)
    return function(**pairs, beta=0.3, label_smoothing=smoothing).sum()

  run = jax.value_and_grad(loss)
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.jit(lambda pairs: run(pairs, 0.0))(pairs),
    jax.jit(run)(pairs, 0.0),
  )


# What all three share.

NEW = {
  "chi_po": lambda **p: losses.chi_po_loss(**p, beta=0.3, max_margin=3.0),
  "robust_dpo": lambda **p: losses.robust_dpo_loss(
    **p, beta=0.3, label_smoothing=0.2
  ),
  "simpo": lambda **p: losses.simpo_loss(
    p["chosen_log_probs"],
    p["rejected_log_probs"],
    jnp.full(jnp.shape(p["chosen_log_probs"]), 9),
    jnp.full(jnp.shape(p["chosen_log_probs"]), 7),
    beta=2.0,
    target_margin=0.3,
  ),
}


@pytest.mark.parametrize("name", NEW)
def test_new_losses_agree_eager_jit_and_vmap(name):
  pairs = random_pairs(5, 6)
  eager = NEW[name](**pairs)
  assert eager.shape == (6,) and eager.dtype == jnp.float32
  run = jax.jit(lambda p: NEW[name](**p))
  np.testing.assert_allclose(run(pairs), eager, rtol=1e-5)
  rows = jax.tree.map(lambda x: x.reshape(2, 3), pairs)
  mapped = jax.vmap(lambda p: NEW[name](**p))(rows)
  np.testing.assert_allclose(mapped.reshape(-1), eager, rtol=1e-5)


@pytest.mark.parametrize("name", ["chi_po", "robust_dpo"])
def test_equal_policy_and_reference_give_log_2(name):
  pairs = random_pairs(6, spread=0.0)
  np.testing.assert_allclose(NEW[name](**pairs), math.log(2), rtol=1e-5)


CHI = {"beta": 0.1, "max_margin": 2.0}
SIMPO = {"beta": 2.0, "target_margin": 0.5}
ROBUST = {"beta": 0.1, "label_smoothing": 0.1}
REFUSED = [
  ("chi_po", CHI | {"beta": 0.0}, "beta: expected > 0"),
  ("chi_po", CHI | {"max_margin": 0.0}, "max_margin: expected > 0"),
  ("chi_po", CHI | {"max_margin": jnp.ones(2)}, "max_margin: .* a scalar"),
  ("robust_dpo", ROBUST | {"label_smoothing": 0.5}, r"in \[0, 0.5\), got 0.5"),
  ("robust_dpo", ROBUST | {"beta": -1.0}, "beta: expected > 0"),
  ("simpo", SIMPO | {"beta": math.inf}, "beta: expected > 0"),
  ("simpo", SIMPO | {"target_margin": -0.1}, "target_margin: expected >= 0"),
]


@pytest.mark.parametrize(("name", "settings", "message"), REFUSED)
def test_wrong_coefficients_are_named(name, settings, message):
  pairs = random_pairs(0)
  with pytest.raises(ValueError, match=message):
    if name == "simpo":
      lengths = jnp.ones(4, jnp.int32)
      losses.simpo_loss(
        *(pairs[n] for n in FOUR[:2]), lengths, lengths, **settings
      )
    else:
      getattr(losses, f"{name}_loss")(**pairs, **settings)


@pytest.mark.parametrize(
  ("lengths", "message"),
  [
    (jnp.ones(4), "chosen_lengths: expected an integer dtype, got float32"),
    (jnp.ones(3, jnp.int32), r"chosen_lengths: expected shape \(4,\)"),
  ],
)
def test_simpo_names_wrong_lengths(lengths, message):
  pairs = random_pairs(0)
  good = jnp.ones(4, jnp.int32)
  with pytest.raises(ValueError, match=message):
    losses.simpo_loss(*(pairs[n] for n in FOUR[:2]), lengths, good, **SIMPO)


def test_half_precision_log_probs_are_refused():
  pairs = random_pairs(0)
  pairs["ref_rejected_log_probs"] = jnp.zeros(4, jnp.bfloat16)
  for name in ("chi_po", "robust_dpo"):
    with pytest.raises(ValueError, match="ref_rejected_log_probs: .* float32"):
      NEW[name](**pairs)
