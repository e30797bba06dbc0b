# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Training steps of methods that learn from rewards of their own rollouts.

Beside `train.make_train_step`: the same rollouts, states and micro-batches.

    rloo, grpo   one update a draw, `policy_gradient`'s losses
    ppo          several epochs of minibatches a draw, `ppo`'s losses, a value
                 head beside the policy: {"policy": ..., "value_head": ...}
    online_dpo   the best and the worst of a prompt's rollouts make a pair,
                 which `train.make_train_step` takes as an offline one

The objective is E[reward] - kl_coef KL(policy || reference). With a
kl_controller (`losses.adapted_kl_coef`, say) the coefficient is the state's,
`TrainState.kl_coef`, and moves after each step.

Shapes: B prompts, k samples of each, N = B * k, C completion tokens.
"""

from hypo_jax.online.draws import make_reward_finisher
from hypo_jax.online.labels import make_labeller
from hypo_jax.online.proximal import make_ppo_step, with_value_head
from hypo_jax.online.reinforce import make_policy_gradient_step

__all__ = [
  "make_labeller",
  "make_policy_gradient_step",
  "make_ppo_step",
  "make_reward_finisher",
  "with_value_head",
]
