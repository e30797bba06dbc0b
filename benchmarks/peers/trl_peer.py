# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""A peer: TRL's DPOTrainer, and the HyPO step that its user would write.

    .venv-peers/trl/bin/python -m benchmarks.peers.trl_peer --case=...

DPO is the trainer's own loop, timed between its two step callbacks: batches are
made outside. The reference's log-probs of pairs are computed beforehand, which
TRL offers (precompute_ref_log_probs). What differs from TRL's defaults makes
the work equal: float32, or float32 weights under autocast to bfloat16 where the
case computes so; no gradient checkpointing, no log at the timed steps. A GPU is
used where there is one.

HyPO overrides compute_loss, as TRL's users extend a trainer: generate() draws
the rollouts, policy and reference score them in forwards of their own, through
the same head in chunks as TRL's own losses, and the KL term is added to what
the trainer returns. `gen` is transformers' generate() alone.
"""

import os
import tempfile

import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from trl import DPOConfig, DPOTrainer

from benchmarks import cases, measure


class TokenTrainer(DPOTrainer):
  """The trainer on rows that are tokens already; it keeps what is checked."""

  check: measure.Check = {}

  def _prepare_dataset(self, dataset, *args, **kwargs):
    return dataset

  def compute_loss(self, *args, **kwargs):
    loss = super().compute_loss(*args, **kwargs)
    metrics = self._metrics["train"]
    self.check = {"loss": loss.item()} | {
      f"{name}_log_probs": metrics[f"logps/{name}"][-1]
      for name in ("chosen", "rejected")
    }
    return loss


class HypoTrainer(TokenTrainer):
  """DPO on pairs, and the exact sequence-level KL surrogate on rollouts."""

  def compute_loss(self, model, inputs, *args, **kwargs):
    length = int(inputs["completion_mask"][0].sum())
    rows = len(inputs["input_ids"]) // 2
    prompts = inputs["input_ids"][:rows, :-length]
    model.eval()
    tokens = generate(model, prompts, length)
    model.train()
    loss = super().compute_loss(model, inputs, *args, **kwargs)
    scored = _log_probs(model, tokens, length)
    with torch.no_grad():
      ratio = scored - _log_probs(self.ref_model, tokens, length)
    self.check["kl"] = ratio.mean().item()
    self.check["rollout_log_probs"] = scored.mean().item()
    return loss + cases.KL_COEF * (ratio * scored).mean()


class StepCallback(transformers.TrainerCallback):
  """Drives the clock."""

  def __init__(self, clock: measure.Clock):
    self._clock = clock
    self.trainer: TokenTrainer | None = None

  def on_step_begin(self, *args, **kwargs):
    self._clock.begin()

  def on_step_end(self, *args, **kwargs):
    _wait()
    self._clock.end(self.trainer.check)


def _wait() -> None:
  """Waits for a GPU to finish."""
  if torch.cuda.is_available():
    torch.cuda.synchronize()


def generate(model, prompts: torch.Tensor, length: int) -> torch.Tensor:
  """Returns prompts [N, P] with completions: int64 [N, P + length]."""
  tokens = model.generate(
    input_ids=prompts,
    attention_mask=torch.ones_like(prompts),
    do_sample=True,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    max_new_tokens=length,
    pad_token_id=0,
  )
  if tokens.shape[1] != prompts.shape[1] + length:
    raise ValueError(
      f"rollouts: expected {length} tokens a row, got "
      f"{tokens.shape[1] - prompts.shape[1]}"
    )
  return tokens


def _log_probs(model, tokens: torch.Tensor, length: int) -> torch.Tensor:
  """Returns [N]: log-probs of the last `length` of tokens [N, T]."""
  labels = tokens.clone()
  labels[:, :-length] = -100
  scored = model(
    input_ids=tokens,
    attention_mask=torch.ones_like(tokens),
    labels=labels,
    use_cache=False,
    fused_lm_head=True,
  )
  return scored.log_probs.sum(dim=1)


def run(case: cases.Case, clock: measure.Clock) -> dict:
  """Times the case; returns a GPU's peak of memory."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.manual_seed(0)
  batch, model = cases.make_batch(case), _load(case)
  if case.kind == "gen":
    model = model.eval().to(_compute_dtype(case))
    prompts = torch.from_numpy(batch["prompt"]).long().to(model.device)

    def sample() -> measure.Check:
      generate(model, prompts, case.completion_length)
      _wait()
      return {}

    clock.loop(sample)
    return _memory()
  callback = StepCallback(clock)
  trainer_class = HypoTrainer if case.kind == "hypo" else TokenTrainer
  with tempfile.TemporaryDirectory() as folder:
    trainer = trainer_class(
      model=model,
      ref_model=_load(case) if case.kind == "hypo" else None,
      args=_settings(case, folder, clock.num_calls),
      train_dataset=Dataset.from_dict(
        {f"{name}_ids": tokens.tolist() for name, tokens in batch.items()}
      ),
      processing_class=_tokenizer(case),
      callbacks=[callback],
    )
    callback.trainer = trainer
    _keep_gradient_norm(trainer)
    trainer.train()
  return _memory()


def _memory() -> dict:
  if not torch.cuda.is_available():
    return {}
  return {"device_peak_bytes": torch.cuda.max_memory_allocated()}


def _compute_dtype(case: cases.Case) -> torch.dtype:
  return getattr(torch, case.size.compute_dtype)


def _load(case: cases.Case):
  model = transformers.AutoModelForCausalLM.from_pretrained(
    str(cases.checkpoint(case)), dtype=torch.float32
  )
  return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _settings(case: cases.Case, folder: str, num_steps: int) -> DPOConfig:
  return DPOConfig(
    output_dir=folder,
    beta=cases.BETA,
    precompute_ref_log_probs=True,
    per_device_train_batch_size=case.rows,
    max_steps=num_steps,
    max_length=None,
    learning_rate=cases.LEARNING_RATE,
    lr_scheduler_type="constant",
    weight_decay=0.0,
    max_grad_norm=cases.MAX_GRAD_NORM,
    bf16=_compute_dtype(case) == torch.bfloat16,
    gradient_checkpointing=False,
    use_cpu=not torch.cuda.is_available(),
    dataloader_pin_memory=False,
    save_strategy="no",
    logging_strategy="no",
    report_to="none",
    disable_tqdm=True,
    seed=0,
  )


def _tokenizer(case: cases.Case):
  """Returns a tokenizer of that many words; the trainer asks for one."""
  words = {str(i): i for i in range(case.size.vocab_size)}
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(WordLevel(words, unk_token="0")),
    pad_token="0",
  )


def _keep_gradient_norm(trainer: TokenTrainer) -> None:
  """Notes the norm that the trainer clips by; it hands it to its log only."""
  clip = trainer.accelerator.clip_grad_norm_

  def clip_and_note(*args, **kwargs):
    norm = clip(*args, **kwargs)
    trainer.check["grad_norm"] = float(norm)
    return norm

  trainer.accelerator.clip_grad_norm_ = clip_and_note


if __name__ == "__main__":
  measure.main("trl", run, ("trl", "transformers", "torch", "accelerate"))
