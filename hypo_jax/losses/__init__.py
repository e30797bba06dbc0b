# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Preference losses on pairs, and the reverse KL on the policy's own samples.

HyPO minimises, over a policy pi with a frozen reference,

    mean over offline pairs of -log sigmoid(beta h)
      + kl_coef * KL(policy || reference),

where h is the chosen completion's log-ratio minus the rejected one's. The first
term is DPO. The second needs completions drawn from the policy itself: offline
pairs cannot tell where else the policy has put its mass.

Differentiating a mean log-ratio over samples drops the sampling distribution's
own gradient, and what is left has expectation zero. `reverse_kl_loss` and
`rao_blackwell_kl_loss` therefore return surrogates, whose expected *gradient*
is that of KL(policy || reference) and whose value means nothing.

Everything here is a function of arrays. What no code can check: rollouts must
be drawn from the policy being differentiated, at temperature 1, untruncated.
Nothing here runs a model or reduces over devices.

Shapes: B pairs, N rollouts, C completion tokens, k samples per prompt. All
log-probs are in nats; sums are float32 (float64 for float64 input under x64).
"""

from hypo_jax.losses.hybrid import hypo_loss
from hypo_jax.losses.kl import (
  KLTerm,
  adapted_kl_coef,
  importance_weights,
  rao_blackwell_kl_loss,
  reverse_kl_loss,
)
from hypo_jax.losses.pairs import (
  bradley_terry_loss,
  chi_po_loss,
  dpo_loss,
  hinge_loss,
  ipo_loss,
  robust_dpo_loss,
  simpo_loss,
)

__all__ = [
  "KLTerm",
  "adapted_kl_coef",
  "bradley_terry_loss",
  "chi_po_loss",
  "dpo_loss",
  "hinge_loss",
  "hypo_loss",
  "importance_weights",
  "ipo_loss",
  "rao_blackwell_kl_loss",
  "reverse_kl_loss",
  "robust_dpo_loss",
  "simpo_loss",
]
