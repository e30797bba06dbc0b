# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Coverage coefficients against closed forms, search, and the paper's cases."""

import numpy as np
import pytest

from hypo_jax import coverage
from hypo_jax.coverage import coefficients, optimum


def beside(unseen):
  """A reference with one rare completion."""
  return np.array([(1 - unseen) / 2, (1 - unseen) / 2, unseen])


@pytest.mark.parametrize(
  "unseen, expected, digits",
  [(1e-2, 36, 0.5), (1e-4, 1.6e3, 50), (1e-8, 6.8e6, 5e4)],
)
def test_local_coefficient_grows_as_the_reference_falls(
  unseen, expected, digits
):
  reference = beside(unseen)
  value = coverage.local_coefficient(reference, reference, 1.0)
  assert value == pytest.approx(expected, abs=digits)


def test_local_coefficient_jumps_to_finite_at_zero():
  reference = beside(0.0)
  # At KL <= 1 all mass may go to one of two halves.
  assert coverage.local_coefficient(reference, reference, 1.0) == 2.0
  tabular = coverage.Tabular(3)
  assert coverage.global_coefficient(tabular, reference) == np.inf


def test_pairs_that_omit_what_the_reference_says_make_both_infinite():
  reference, pairs = beside(0.1), beside(0.0)
  assert coverage.local_coefficient(reference, pairs, 1e-6) == np.inf
  assert coverage.global_coefficient(coverage.Tabular(3), pairs) == np.inf


def test_the_denominator_is_what_it_is_given():
  reference = np.array([0.5, 0.5])
  local = coverage.local_coefficient(reference, np.array([0.9, 0.1]), 0.0)
  assert local == pytest.approx(0.5 / 0.1, rel=1e-7)
  same = coverage.local_coefficient(reference, reference, 0.0)
  # Near 0 the KL is quadratic: rounding of 1e-16 in it is 1e-8 in the mass.
  assert same == pytest.approx(1.0, abs=1e-7)


def test_global_coefficient_of_all_policies_is_the_inverse_minimum():
  data = np.array([[0.2, 0.8], [0.5, 0.5]])
  value = coverage.global_coefficient(coverage.Tabular(2), data)
  np.testing.assert_allclose(value, [5.0, 2.0])


def test_listed_policies_are_searched():
  policies = np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0]])
  data = np.array([0.5, 0.5, 0.0])
  value = coverage.global_coefficient(coverage.Listed(policies), data)
  assert value == pytest.approx(1.8)


def test_largest_mass_is_on_the_sphere_and_beats_other_policies():
  rng = np.random.default_rng(0)
  reference = rng.dirichlet(np.full(5, 0.5), size=300)
  radius = rng.uniform(0, 3, size=(300, 1))
  mass = coefficients.largest_mass(reference, radius)
  rest = (1 - mass) / (1 - reference)
  nearest = np.where(
    np.eye(5, dtype=bool), mass[:, None], rest[..., None] * reference[:, None]
  )
  kl = optimum.kl(nearest, reference[:, None])
  full = -np.log(reference) <= radius
  np.testing.assert_allclose(
    np.where(full, radius, kl), np.broadcast_to(radius, kl.shape), atol=1e-9
  )
  np.testing.assert_array_equal(mass[full], 1.0)
  policy = rng.dirichlet(np.full(5, 0.5), size=(4000, 300))
  inside = optimum.kl(policy, reference) <= radius[:, 0]
  assert inside.mean() > 0.1
  assert (policy <= np.where(inside[..., None], mass, 1.0)).all()


def test_log_linear_supremum_is_approached_and_never_passed():
  rng = np.random.default_rng(1)
  features = rng.normal(size=(12, 2))
  reference = rng.dirichlet(np.ones(12))
  largest = coverage.LogLinear(reference, features).largest_probabilities()
  radius, angle = np.meshgrid(
    np.geomspace(1e-2, 1e5, 300), np.linspace(0, 2 * np.pi, 1500)
  )
  theta = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
  logits = np.log(reference) + theta.reshape(-1, 2) @ features.T
  logits -= logits.max(axis=-1, keepdims=True)
  policies = np.exp(logits)
  policies /= policies.sum(axis=-1, keepdims=True)
  searched = policies.max(axis=0)
  assert (searched <= largest + 1e-9).all()
  np.testing.assert_allclose(searched, largest, rtol=5e-3)
  assert (largest < 0.9).any() and (largest > 0.999).any()


def test_log_linear_supremum_on_edges_and_doubles():
  # The middle of an edge keeps company at both ends, and a double its share.
  features = np.array([[0.0, 0], [2, 0], [1, 0], [1, 3], [1, 3]])
  reference = np.array([0.1, 0.3, 0.2, 0.3, 0.1])
  largest = coverage.LogLinear(reference, features).largest_probabilities()
  # On the edge: 0.2 / (0.2 + 0.1 e^-t + 0.3 e^t), least at e^2t = 1/3.
  middle = 0.2 / (0.2 + 2 * np.sqrt(0.1 * 0.3))
  np.testing.assert_allclose(largest, [1.0, 1.0, middle, 0.75, 0.25], rtol=1e-8)


def test_log_linear_class_never_says_what_its_reference_doesnt():
  reference = beside(0.0)
  policies = coverage.LogLinear(reference, np.eye(3))
  # Infinite for all policies (see above), but this class can't say the third.
  assert coverage.global_coefficient(policies, reference) == 2.0


@pytest.mark.parametrize(
  "call, message",
  [
    (
      lambda: coverage.local_coefficient([0.5, 0.4], [0.5, 0.5], 1.0),
      "reference: expected sums of 1",
    ),
    (
      lambda: coverage.local_coefficient([0.5, 0.5], [-0.5, 1.5], 1.0),
      "data_distribution: expected probabilities",
    ),
    (
      lambda: coverage.local_coefficient([0.5, 0.5], [1.0], 1.0),
      "data_distribution: expected 2 completions",
    ),
    (
      lambda: coverage.local_coefficient([0.5, 0.5], [0.5, 0.5], -1.0),
      "kl_radius: expected >= 0",
    ),
    (
      lambda: coverage.global_coefficient(coverage.Tabular(3), [0.5, 0.5]),
      "data_distribution: expected 3 completions",
    ),
    (
      lambda: coverage.LogLinear(
        [0.5, 0.5], np.ones((3, 1))
      ).largest_probabilities(),
      r"features: expected \[2, D\], got",
    ),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
