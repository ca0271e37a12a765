"""Preference rows of other projects: layouts, chat templates, ends, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scdpo.errors import DataError
from scdpo.pairs import pairs_from_rows, trl_rows
from scdpo.policies import encode_text, load_tokenizer
from scdpo.records import Step
from scdpo.training.tokens import pair_tokens
from tiny_pairs import make_pair

TEMPLATE = (
    "{{ bos_token or '' }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "<|endofmessage|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STEP_DPO = {
    "dataset": "gsm8k",
    "prompt": "How many eggs?\n",
    "initial_reason_steps": "Let's think step by step.\n"
    "Step 1: 3 boxes.\nStep 2: 12 each.\nStep 3:",
    "chosen": " 36.",
    "rejected": " 15.",
    "answer": "36",
}


@pytest.fixture
def tokenizer() -> Any:
    loaded = load_tokenizer("embedded")
    loaded.chat_template = TEMPLATE
    return loaded


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_strings_end_with_the_eos_token_once(tokenizer: Any) -> None:
    row = {"prompt": "2+2=", "chosen": "4", "rejected": "5<|endofmessage|>", "extra": 1}
    (pair,) = pairs_from_rows([row], tokenizer=tokenizer)
    assert (pair.prompt, pair.kind, pair.branch_step) == ("2+2=", "naive", 0)
    assert pair.chosen == (Step(kind="text", text="4<|endofmessage|>"),)
    assert pair.rejected[0].text == "5<|endofmessage|>"
    assert pairs_from_rows([row], end="never")[0].chosen[0].text == "4"
    with pytest.raises(DataError, match="row 1: completions end with the tokenizer's EOS"):
        pairs_from_rows([row])


def test_messages_are_rendered_with_the_chat_template(tokenizer: Any) -> None:
    explicit = {"prompt": [user("2+2=")], "chosen": [said("4")], "rejected": [said("5")]}
    implicit = {"chosen": [user("2+2="), said("4")], "rejected": [user("2+2="), said("5")]}
    one, other = pairs_from_rows([explicit, implicit], tokenizer=tokenizer)
    assert one.prompt == "<|user|>2+2=<|endofmessage|><|assistant|>"
    assert one.chosen[0].text == "4<|endofmessage|>"
    assert one.rejected[0].text == "5<|endofmessage|>"
    assert one.question == "2+2="
    same = {"id", "chosen_id", "rejected_id"}
    assert one.model_dump(exclude=same) == other.model_dump(exclude=same)


def test_a_text_that_begins_with_bos_gets_no_second_one(tokenizer: Any) -> None:
    tokenizer.bos_token = "<|system|>"
    tokenizer.backend_tokenizer.post_processor = None

    class WithBos:
        """A tokenizer that begins every text with BOS."""

        bos_token_id = tokenizer.bos_token_id
        chat_template = None

        def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            return {"input_ids": [self.bos_token_id, *ids] if add_special_tokens else ids}

    row = {"prompt": [user("2")], "chosen": [said("4")], "rejected": [said("5")]}
    (pair,) = pairs_from_rows([row], tokenizer=tokenizer)
    assert pair.prompt.startswith("<|system|>")
    ids = encode_text(WithBos(), pair.prompt, start=True)  # type: ignore[arg-type]
    assert ids.count(tokenizer.bos_token_id) == 1
    plain = encode_text(WithBos(), "2", start=True)  # type: ignore[arg-type]
    assert plain[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(
    ("given", "before", "shared"),
    [
        (
            STEP_DPO["initial_reason_steps"],
            "",
            ["Let's think step by step.\nStep 1: 3 boxes.\n", "Step 2: 12 each.\nStep 3:"],
        ),
        ("Let's think step by step.\nStep 1:", "Let's think step by step.\nStep 1:", []),
        ("", "", []),
        ("3 boxes.\n\n12 each.\n", "", ["3 boxes.\n", "\n12 each.\n"]),
        (["3 boxes.\n", "12 each.\n"], "", ["3 boxes.\n", "12 each.\n"]),
    ],
)
def test_correct_first_steps_of_step_dpo_are_shared(
    given: str | list[str], before: str, shared: list[str]
) -> None:
    (pair,) = pairs_from_rows([STEP_DPO | {"initial_reason_steps": given}])
    assert pair.prompt == STEP_DPO["prompt"] + before
    assert [step.text for step in pair.shared] == shared
    assert pair.branch_step == len(shared)
    assert pair.kind == ("step_controlled" if shared else "naive")
    assert (pair.chosen[0].text, pair.rejected[0].text) == (" 36.", " 15.")
    assert pair.dataset == "gsm8k"


ROWS: list[tuple[dict[str, Any], str]] = [
    ({"question": "2+2=", "answer": 4}, r"question \(str\), answer \(int\)"),
    ({"prompt": "2", "chosen": [said("4")], "rejected": "5"}, "accepted are prompt, chosen, rej"),
    ({"prompt": "2", "chosen": [said("4")], "rejected": [said("5")]}, "unknown layout"),
    (STEP_DPO | {"initial_reason_steps": 3}, "unknown layout"),
    ({}, "unknown layout with no keys"),
    ({"chosen": [user("1")], "rejected": [user("2")]}, "differ from the first message on"),
    ({"chosen": [user("1")], "rejected": [user("1")]}, "differ only in their length"),
]


@pytest.mark.parametrize(("row", "message"), ROWS)
def test_a_row_in_no_known_layout_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"row 2: .*{message}"):
        pairs_from_rows([STEP_DPO, row])


def test_messages_need_a_template_that_begins_with_the_prompt(tokenizer: Any) -> None:
    row = {"prompt": [user("2")], "chosen": [said("4")], "rejected": [said("5")]}
    with pytest.raises(DataError, match="row 1: messages need a chat template"):
        pairs_from_rows([row])
    tokenizer.chat_template = "{{ messages | length }}"
    with pytest.raises(DataError, match="row 1: the chat template renders chosen so that"):
        pairs_from_rows([row], tokenizer=tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="row 1: the chat template cannot render it"):
        pairs_from_rows([row], tokenizer=tokenizer)


def test_exported_rows_come_back_with_the_same_ids_and_masks(tokenizer: Any) -> None:
    """The shared steps become part of the prompt, everything after them is as it was."""
    code = Step(
        kind="code",
        text="<|code|>print(3*12)<|endofblock|>",
        output="36",
        host_text="<|execution|>36<|endofblock|>",
    )
    text = Step(kind="text", text="<|text|>Each box holds 12.<|endofblock|>")
    end = Step(kind="text", text="<|text|>It is 36.<|endofblock|><|endofmessage|>")
    wrong = Step(kind="text", text="<|text|>It is 15.<|endofblock|><|endofmessage|>")
    prompt = "<|user|><|text|>How many?<|endofblock|><|endofmessage|><|assistant|>"
    parts = {"format": "blocks", "prompt": prompt}
    pairs = [
        make_pair(1, chosen=(text, code, end), rejected=(code, wrong), **parts),
        make_pair(2, branch=1, shared=(text,), chosen=(code, end), rejected=(wrong,), **parts),
        make_pair(3, branch=2, shared=(text, code), chosen=(end,), rejected=(wrong,), **parts),
    ]

    def encode(text: str, /, *, start: bool = False) -> tuple[int, ...]:
        return encode_text(tokenizer, text, start=start)

    rows = list(trl_rows(pairs))
    back = pairs_from_rows(rows, tokenizer=tokenizer, format="blocks")
    for pair, same in zip(pairs, back, strict=True):
        before, after = pair_tokens(pair, encode), pair_tokens(same, encode)
        assert after.prompt_ids == before.prompt_ids + before.shared_ids
        assert (after.chosen, after.rejected) == (before.chosen, before.rejected)
    whole = pairs_from_rows(rows, tokenizer=tokenizer)
    for pair, same in zip(pairs, whole, strict=True):
        before, after = (pair_tokens(p, encode, score_output=True) for p in (pair, same))
        assert (after.chosen, after.rejected) == (before.chosen, before.rejected)


def test_rows_and_records_train_alike(tmp_path: Path) -> None:
    from scdpo.training import train

    rows = [{"prompt": "2+2=", "chosen": "4", "rejected": "5"}, STEP_DPO]
    settings = {"learning_rate": 1e-4, "epochs": 1}
    one = train("embedded", rows, tmp_path / "rows", **settings)
    records = pairs_from_rows(rows, tokenizer=load_tokenizer("embedded"))
    other = train("embedded", records, tmp_path / "records", **settings)
    assert (one.n_naive, one.n_step_controlled) == (1, 1)
    assert one.final_loss == other.final_loss
