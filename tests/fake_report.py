# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A report as a run of some minutes gives it, for tests of hypo_jax.report.

HyPO rises and stays near the reference; DPO peaks early and then collapses.
"""

import math

import numpy as np

from hypo_jax import statistics

STEPS = (0, 5, 10, 15, 20, 30, *range(40, 401, 20))
KINDS = ("best", "best_pair_loss")
JUDGED = ("reward_mean", "reward_stderr", "win_rate", "win_rate_stderr")


def entry(step, *, win_rate, kl, invalid):
  """An evaluation, with every field that the reader knows."""
  return {
    "step": step,
    "tokens": step * 6144,
    "reward_mean": 2 * win_rate - 1.05,
    "reward_stderr": 0.012,
    "win_rate": win_rate,
    "win_rate_stderr": 0.011,
    "win_rate_length_matched": win_rate - 0.02,
    "kl": kl + 0.03,
    "kl_stderr": 0.08 * math.sqrt(kl),
    "kl_rao_blackwell": kl,
    "kl_rao_blackwell_stderr": 0.04 * math.sqrt(kl),
    "kl_per_token": kl / 16,
    "kl_long": kl * 1.1,
    "kl_train_prompts": kl * 0.95,
    "invalid_rate": invalid,
    "eos_rate": 1.0 - invalid / 4,
    "length_mean": 15.3,
    "pair_accuracy": 0.5 + 0.2 * (1 - math.exp(-step / 30)),
    "pair_accuracy_stderr": 0.02,
    "pair_loss": 0.69 - 0.1 * (1 - math.exp(-step / 30)),
    "outside_support": 0.03 + invalid / 3,
    "ref_log_prob": -18.0 - kl / 2,
    "ref_log_prob_stderr": 0.2,
    "ref_log_prob_per_token": -1.2 - kl / 30,
    "ref_log_prob_per_token_stderr": 0.01,
    "ref_unlikely_tokens": 0.01 + invalid / 6,
    "ref_unlikely_rollouts": 0.05 + invalid / 2,
    "effective_sample_share": math.exp(-kl),
    "chosen_log_ratio": -0.4 * kl,
    "rejected_log_ratio": -0.9 * kl,
  }


def hypo_at(step):
  share = 1 - math.exp(-step / 90)
  wobble = 0.15 * math.sin(step / 17) * share
  kl = 2.6 * share + wobble
  return entry(step, win_rate=0.5 + 0.335 * share, kl=kl, invalid=0.045)


def dpo_at(step):
  rise = 0.19 * (step / 30) * math.exp(1 - step / 30)
  fall = 0.27 * (1 - math.exp(-step / 160))
  return entry(
    step,
    win_rate=0.5 + rise - fall * step / (step + 60),
    kl=15 * (step / 400) ** 0.8,
    invalid=0.05 + 0.74 * (step / 400) ** 1.5,
  )


def checkpoint(at, step, *, seen):
  """A measurement on the test prompts, with what the plots show of it."""
  result = at(step)
  invalid = result["invalid_rate"]
  centres = np.linspace(-0.95, 0.95, 20)
  shape = np.exp(-((centres - result["reward_mean"]) ** 2) / 0.2)
  counts = 4096 * (1 - invalid) * shape / shape.sum()
  counts[0] += 4096 * invalid
  return result | {
    "reward_histogram": {
      "edges": np.linspace(-1, 1, 21).round(6).tolist(),
      "counts": counts.round().astype(int).tolist(),
    },
    "coverage": {
      "seen": seen * (1 - invalid),
      "unseen_valid": (1 - seen) * (1 - invalid),
      "invalid": invalid,
    },
  }


VERDICTS = {
  "dpo": "coverage is being lost since step 40: raise kl_coef or stop at step "
  "30 (9.0% of rollout tokens are outside the pairs' support, 3.0% at the "
  "start; KL 16.9 nats)",
  "hypo": "coverage is kept up to step 400",
}


def policy(at, *, best, pair_best, seen):
  return checkpoint(at, 400, seen=seen / 2) | {
    "coverage_verdict": VERDICTS["dpo" if at is dpo_at else "hypo"],
    "coverage_lost_since": 40 if at is dpo_at else None,
    "history": [at(step) for step in STEPS],
    "best": checkpoint(at, best, seen=seen),
    "best_pair_loss": checkpoint(at, pair_best, seen=seen),
  }


def reference_at(step):
  result = entry(0, win_rate=0.5, kl=0.0, invalid=0.05)
  return result | {"win_rate_stderr": 0.0, "reward_mean": -0.05}


def matched(kl, hypo, dpo, difference, stderr):
  names = ("kl", "hypo", "dpo", "difference", "stderr")
  return dict(zip(names, (kl, hypo, dpo, difference, stderr), strict=True))


def speed(seconds_per_step, seconds):
  return {
    "steps": 400,
    "seconds_per_step": seconds_per_step,
    "seconds": seconds,
    "tokens_per_second": 6144 / seconds_per_step,
    "mfu": None,
    "compilations": 7,
    "compilations_after_warmup": 0,
    "peak_memory_bytes": 1.2e9,
  }


def make_report():
  reference = checkpoint(reference_at, 0, seen=0.8)
  reference["history"] = [reference_at(0)]
  return {
    "policies": {
      "reference": reference,
      "dpo": policy(dpo_at, best=30, pair_best=100, seen=0.55),
      "hypo": policy(hypo_at, best=400, pair_best=360, seen=0.6),
    },
    "matched_kl": [
      matched(1.0, 0.642, 0.671, -0.0293, 0.0113),
      matched(2.0, 0.713, 0.622, 0.0912, 0.0214),
      matched(3.0, None, 0.561, None, None),
      matched(4.0, None, 0.483, None, None),
    ],
    "comparisons": {
      "hypo - dpo best": {
        "difference": 0.148,
        "stderr": 0.013,
        "kl": 2.6,
        "other_kl": 1.9,
        "other_step": 30,
      }
    },
    "wall_seconds": {"sft": 41.2, "pairs": 7.5, "dpo": 66.0, "hypo": 203.4},
    "speed": {
      "sft": speed(0.021, {"data": 0.002, "train": 0.018, "other": 0.001}),
      "dpo": speed(0.220, {"train": 0.16, "evaluation": 0.06}),
      "hypo": speed(
        0.677,
        {
          "data": 0.002,
          "rollout": 0.27,
          "reference": 0.06,
          "train": 0.28,
          "checkpoint": 0.003,
          "evaluation": 0.06,
          "other": 0.002,
        },
      ),
    },
    "versions": {"hypo_jax": "0.1.0", "jax": "0.10.2"},
    "seed": 0,
  }


def without_judge():
  report = make_report()
  for name in report["policies"]:
    policy = report["policies"][name]
    for e in (policy, *policy["history"], *map(policy.get, KINDS)):
      if e:
        e.update(dict.fromkeys(JUDGED))
        e.update(invalid_rate=None, win_rate_length_matched=None)
        e.pop("reward_histogram", None)
  for row in report["matched_kl"]:
    row.update(dict.fromkeys(("hypo", "dpo", "difference", "stderr")))
  del report["comparisons"]
  return report


def make_samples(count=12):
  texts = {
    "reference": ["the plot was dull, the music was fine.", "the plot was ok."],
    "dpo": ["the the superb superb superb plot plot was", ""],
    "hypo": ["the plot was superb, the music was lovely.", "a great film."],
  }
  rewards = {"reference": [-0.1, 0.0], "dpo": [-1.0, -1.0], "hypo": [0.9, None]}
  return [
    {"prompt": f"Harbour {i}: plot, music", "completions": texts}
    | {"rewards": rewards}
    for i in range(count)
  ]


def with_reward_model():
  """Labels drawn from margins half as large as the model's: it is too sure."""
  rng = np.random.default_rng(0)
  margins = rng.normal(scale=1.5, size=512)
  right = rng.uniform(size=512) < 1 / (1 + np.exp(-margins / 2))
  held_out = statistics.reliability(np.where(right, margins, -margins))
  return make_report() | {"reward_model": {"held_out": held_out}}


CONFIG = {
  "seed": 0,
  "model": {"path": "", "width": 64},
  "preference": {"method": "hypo", "learning_rate": 1e-3, "beta": 0.1},
}


def with_matched(*rows):
  return make_report() | {"matched_kl": [matched(*row) for row in rows]}
