"""Formats made from a policy's tokenizer: chat templates of many families, ends, markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from chat_templates import FAMILIES, Family, tokenizer
from scdpo.errors import InputError
from scdpo.formats import format_notes, get_format, policy_format
from scdpo.policies import encode_text, load_tokenizer
from small_runs import copy_policy, fail, succeed, write_recipe

MADE = {name: tokenizer(family) for name, family in FAMILIES.items()}
EACH = pytest.mark.parametrize("name", FAMILIES)
HEADERLESS = {"vicuna"}
"""Families whose template does not write the assistant's header when asked for it."""

BEGINS_WITH_WORDS = {"vicuna"}
"""Families whose texts begin like any other text, so that the tokenizer's BOS stays before them."""


def chat(name: str, written: str = "fenced", **options: Any) -> Any:
    return policy_format(written, tokenizer=MADE[name], chat_template="auto", **options)


@EACH
def test_the_prompt_is_the_templates_with_the_system_text_in_its_place(name: str) -> None:
    family = FAMILIES[name]
    assert chat(name).prompt("Q") == family.asked
    assert chat(name, system="S").prompt("Q") == family.told
    assert chat(name, system="").prompt("Q") == family.silent
    told = chat(name, template="{question} Use Python.").prompt("Q")
    assert told == family.asked.replace("Q", "Q Use Python.")


@EACH
@pytest.mark.parametrize("system", [None, "S"])
def test_prompt_ids_are_those_of_the_template(name: str, system: str | None) -> None:
    """No second BOS where the template has one, none at all where it has none."""
    made = MADE[name]
    prompt = chat(name, system=system).prompt("How many eggs?")
    messages = [{"role": "user", "content": "How many eggs?"}]
    if system and name in ("mistral", "gemma", "phi 3"):
        messages[0]["content"] = f"{system}\n\nHow many eggs?"
    elif system:
        messages.insert(0, {"role": "system", "content": system})
    source = made.chat_template.replace('strftime_now("%d %b %Y")', '"26 Jul 2024"')
    expected = made.apply_chat_template(
        messages, chat_template=source, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    ids = list(encode_text(made, prompt, start=True))
    if name in HEADERLESS:
        expected += list(encode_text(made, "ASSISTANT:"))
    if name in BEGINS_WITH_WORDS:
        expected.insert(0, made.bos_token_id)
    assert ids == expected
    assert ids.count(made.bos_token_id) <= 1


@EACH
def test_the_turns_end_ends_solutions(name: str) -> None:
    family = FAMILIES[name]
    format_ = chat(name)
    assert format_.end == tuple(dict.fromkeys([family.end, family.eos]))
    for end in format_.end:
        assert format_.finished(f"It is 4.{end}")
        assert format_.plain(f"It is 4.{end}") == "It is 4."
    assert not format_.finished("It is 4.")
    assert chat(name, end="STOP").end == ("STOP",)


@EACH
@pytest.mark.parametrize("written", ["fenced", "plain"])
def test_what_the_policy_wrote_survives_as_it_is(name: str, written: str) -> None:
    """Templates trim and rewrite the assistant's text; a prefix of steps must not change."""
    format_ = chat(name, written)
    text = f"  <think>a</think>\n\nFirst.\n\nSecond.  \n So 4.  {format_.end[0]}"
    if written == "fenced":
        text = f" Add.\n```python\nprint(2 + 2)\n```\n```output\n4\n```\n So 4.  {format_.end[0]}"
    steps = format_.parse(text)
    assert format_.render(steps) == text
    assert len(steps) > 1
    prompt = format_.prompt("Q")
    for k in range(1, len(steps)):
        prefix = format_.render(steps[:k])
        whole = encode_text(MADE[name], prompt + text, start=True)
        shared = encode_text(MADE[name], prompt + prefix, start=True)
        assert whole[: len(shared)] == shared
        assert (prompt + prefix).endswith(prefix)


def test_a_prompt_by_hand_on_a_chat_models_tokenizer_keeps_its_bos() -> None:
    """Only a text that begins as the template's do is left without."""
    for name in ("zephyr", "mistral", "vicuna"):
        made = MADE[name]
        assert encode_text(made, "Question: Q", start=True)[0] == made.bos_token_id
    by_hand = "[INST] Q [/INST]"
    assert encode_text(MADE["mistral"], by_hand, start=True)[0] == MADE["mistral"].bos_token_id
    ids = encode_text(MADE["zephyr"], "<|user|>\nQ</s>\n<|assistant|>\n", start=True)
    assert ids[0] != MADE["zephyr"].bos_token_id


def test_program_output_cannot_end_a_solution() -> None:
    format_ = chat("llama 3")
    assert "<|eot_id|>" not in format_.host_text("x", "<|eot_id|>")


# ---- without a chat template


def base(**changes: Any) -> PreTrainedTokenizerFast:
    settings: dict[str, Any] = {
        "markers": ("<s>", "</s>"),
        "template": None,
        "eos": "</s>",
        "end": "</s>",
        "asked": "",
        "told": "",
        "silent": "",
        "bos": "<s>",
        "begins": True,
    }
    return tokenizer(Family(**settings | changes))


def test_the_end_of_a_base_model_is_its_eos() -> None:
    for name in ("fenced", "plain"):
        format_ = policy_format(name, tokenizer=base())
        assert format_.end == ("</s>",)
        assert format_.prompt("Q") == get_format(name).prompt("Q")
        assert format_notes(format_, base(), None) == []
    ids = encode_text(base(), policy_format("plain", tokenizer=base()).prompt("Q"), start=True)
    assert ids[0] == base().bos_token_id
    assert policy_format("plain", tokenizer=base(), end=["a", "b"]).end == ("a", "b")
    assert policy_format("plain", tokenizer=base(), end="ab").end == ("ab",)
    with pytest.raises(InputError, match=r"format\.end is needed: the policy's tokenizer has no E"):
        policy_format("plain", tokenizer=base(eos=None))


def test_the_embedded_policys_formats_are_as_ever() -> None:
    embedded = load_tokenizer("embedded")
    for name in ("blocks", "fenced", "plain"):
        for system in (None, "", "S"):
            ours = policy_format(name, tokenizer=embedded, system=system)
            old = get_format(name, system=system)
            assert ours.prompt("Q") == old.prompt("Q")
            assert (ours.stop, ours.end) == (old.stop, old.end)
            assert ours.special_tokens == old.special_tokens
            assert format_notes(ours, embedded, None) == []


def test_blocks_need_their_markers_as_single_tokens() -> None:
    with pytest.raises(InputError, match=r"does not have <\|system\|>") as error:
        policy_format("blocks", tokenizer=base())
    assert "and 5 more as single tokens" in str(error.value)
    assert "add_tokens: true" in str(error.value)
    made = base()
    made.add_tokens(list(get_format("blocks").special_tokens), special_tokens=True)
    assert policy_format("blocks", tokenizer=made).end == ("<|endofmessage|>",)


def test_a_chat_template_that_is_missing_or_cannot_be_rendered() -> None:
    with pytest.raises(InputError, match="the policy's tokenizer has no chat template"):
        policy_format("plain", tokenizer=base(), chat_template="auto")
    with pytest.raises(InputError, match="the policy's tokenizer is not at hand"):
        policy_format("plain", tokenizer=None, chat_template="auto")
    with pytest.raises(InputError, match="'blocks' has no option 'chat_template'"):
        policy_format("blocks", tokenizer=base(), chat_template="auto")
    broken = base(template="{{ messages[0].content + nothing.there }}")
    with pytest.raises(InputError, match="chat template of the policy's tokenizer: 'nothing'"):
        policy_format("plain", tokenizer=broken, chat_template="auto")
    with pytest.raises(InputError, match=r"must contain \{question\} exactly once"):
        chat("qwen", template="no question")


# ---- notes


def test_a_chat_template_that_is_not_used_is_named() -> None:
    made = MADE["qwen"]
    by_hand = policy_format(
        "fenced", tokenizer=made, template="<|im_start|>user\n{question}<|im_end|>\nAnswer: "
    )
    for format_ in (policy_format("fenced", tokenizer=made), by_hand):
        [note] = format_notes(format_, made, None)
        assert "has a chat template, which the recipe does not use" in note
    assert format_notes(chat("qwen"), made, "auto") == []
    same = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    assert format_notes(policy_format("plain", tokenizer=made, template=same), made, None) == []


def test_an_end_that_is_no_token_is_named() -> None:
    made = base()
    format_ = policy_format("plain", tokenizer=made, end=["<|im_end|>", "Question:"])
    [note] = format_notes(format_, made, None)
    assert note.startswith("<|im_end|>: no single token of the policy's tokenizer")


# ---- whole runs

CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{{ '<|endofmessage|>' if m['role'] == 'assistant' else '<|endofblock|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SHORT = {"max_steps": 1, "step_tokens": 4, "context": 512}


def chat_policy(path: Path) -> Path:
    """The embedded policy with a chat template."""
    config = copy_policy(path) / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": CHAT}))
    return path


def sampled(tmp_path: Path, **format: Any) -> Path:
    policy = chat_policy(tmp_path / "policy")
    sample = {"max_attempts": 1, "limits": SHORT}
    made = write_recipe(
        tmp_path / "my.yaml",
        policy=str(policy),
        format={"name": "plain", **format},
        problems={"train": {"source": "embedded", "split": "train", "limit": 1}},
        sample=sample,
    )
    succeed("sample", tmp_path / "run", "--recipe", made)
    return tmp_path / "run"


def test_a_run_of_a_chat_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sampled(tmp_path, chat_template="auto", system="S")
    [row] = [
        json.loads(line) for line in (run / "solutions/rows-00000.jsonl").read_text().splitlines()
    ]
    asked = f"<|system|>S<|endofblock|><|user|>{row['question']}<|endofblock|><|assistant|>"
    assert row["prompt"] == asked
    expected = load_tokenizer(tmp_path / "policy").apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": row["question"]}],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert row["prompt_ids"] == expected
    assert "chat template" not in capsys.readouterr().err


def test_a_run_names_a_chat_template_that_it_does_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampled(tmp_path, system=None)
    err = capsys.readouterr().err
    assert err.count("format    the policy's tokenizer has a chat template, which the recipe") == 1


def test_a_run_in_blocks_without_their_markers_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = copy_policy(tmp_path / "policy") / "tokenizer.json"
    file.write_text(file.read_text().replace("<|code|>", "<|kode|>"))
    made = write_recipe(tmp_path / "my.yaml", policy=str(tmp_path / "policy"))
    line = fail(capsys, "sample", tmp_path / "run", "--recipe", made)
    assert line.startswith(
        "format 'blocks': the policy's tokenizer does not have <|code|> as single"
    )
    assert "sft: {add_tokens: true}" in line
    other = write_recipe(
        tmp_path / "my.yaml",
        policy=str(tmp_path / "policy"),
        format={"name": "plain"},
        sample={"max_attempts": 1, "limits": SHORT},
    )
    succeed("sample", tmp_path / "run", "--recipe", other)  # nothing is in its way
