"""Token ids of pairs and solutions, and which of them count."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from scdpo.records import Pair, Step
from scdpo.training.tokens import PairTokens, pair_tokens, solution_tokens, tokenise

BOS = 1


def encode(text: str, /, *, start: bool = False) -> Sequence[int]:
    """A character is a token; ids from 100."""
    return [BOS] * start + [100 + ord(character) for character in text]


def only_prompts(text: str, /, *, start: bool = False) -> Sequence[int]:
    raise AssertionError(f"{text!r} has ids and must not be encoded again")


def text_step(text: str) -> Step:
    return Step(kind="text", text=text)


def code_step(text: str, output: str) -> Step:
    return Step(kind="code", text=text, output=output, host_text=output)


def pair(**changes: object) -> Pair:
    fields: dict[str, object] = {
        "id": "p",
        "problem_id": "q",
        "dataset": "d",
        "question": "?",
        "kind": "step_controlled",
        "format": "plain",
        "prompt": "Q",
        "shared": (text_step("s"),),
        "chosen": (text_step("good"),),
        "rejected": (text_step("ba"),),
        "branch_step": 1,
        "chosen_id": "c",
        "rejected_id": "r",
    }
    return Pair.model_validate(fields | changes)


def counted(tokens: PairTokens) -> tuple[list[int], list[int]]:
    chosen = [i for i, counts in zip(*tokens.chosen, strict=True) if counts]
    rejected = [i for i, counts in zip(*tokens.rejected, strict=True) if counts]
    return chosen, rejected


def test_only_what_follows_the_prefix_counts_and_every_token_of_it_once() -> None:
    tokens = pair_tokens(pair(), encode)
    assert counted(tokens) == (list(encode("good")), list(encode("ba")))
    assert tokens.chosen[0] == tuple(encode("Qsgood", start=True))
    assert tokens.chosen[1].index(True) == len(encode("Qs", start=True))
    assert tokens.length == len(tokens.chosen[0]) == 1 + len("Qsgood")


def test_both_branches_have_the_same_prefix_ids() -> None:
    tokens = pair_tokens(pair(shared=(code_step("x=1", "1"), text_step("so"))), encode)
    n = len(tokens.prompt_ids) + len(tokens.shared_ids)
    assert tokens.chosen[0][:n] == tokens.rejected[0][:n]


def test_k_at_the_last_step_leaves_that_step_alone_to_count() -> None:
    chosen = (text_step("answer"),)
    shared = tuple(text_step(part) for part in "abcd")
    tokens = pair_tokens(pair(shared=shared, chosen=chosen, branch_step=4), encode)
    assert counted(tokens)[0] == list(encode("answer"))


@pytest.mark.parametrize(("score_output", "expected"), [(False, "codeend"), (True, "codeOUTend")])
def test_execution_output_counts_only_when_asked(score_output: bool, expected: str) -> None:
    chosen = (code_step("code", "OUT"), text_step("end"))
    tokens = pair_tokens(pair(chosen=chosen), encode, score_output=score_output)
    assert counted(tokens)[0] == list(encode(expected))
    ids, mask = solution_tokens("Q", (), chosen, encode, score_output)
    assert [i for i, m in zip(ids, mask, strict=True) if m] == list(encode(expected))
    assert ids == list(encode("QcodeOUTend", start=True))


def test_sampled_ids_are_used_as_they_are() -> None:
    sampled = Step(kind="code", text="go", token_ids=(7, 8), host_text="5", host_ids=(9,))
    tokens = pair_tokens(
        pair(prompt_ids=(3,), shared=(sampled,), chosen=(sampled,), rejected=(sampled,)),
        only_prompts,
    )
    assert tokens.chosen == ((3, 7, 8, 9, 7, 8, 9), (False,) * 4 + (True, True, False))
    assert solution_tokens("Q", (3,), (sampled,), only_prompts)[0] == [3, 7, 8, 9]


def test_nothing_is_appended_to_an_unfinished_solution() -> None:
    tokens = pair_tokens(pair(rejected=(text_step("cut of"),)), encode)
    assert tokens.rejected_ids == tuple(encode("cut of"))


def test_the_end_of_a_solution_is_there_once_where_it_is_finished() -> None:
    finished = (code_step("x", "1"), text_step("so 1#"))
    tokens = pair_tokens(pair(chosen=finished, rejected=(text_step("so 2#"),)), encode)
    (end,) = encode("#")
    for ids, mask in (tokens.chosen, tokens.rejected):
        assert ids.count(end) == 1
        assert ids[-1] == end
        assert mask[-1]


def test_shared_steps_count_when_asked_but_never_the_prompt() -> None:
    tokens = pair_tokens(pair(), encode, score_shared=True)
    assert counted(tokens) == (list(encode("sgood")), list(encode("sba")))


@pytest.mark.parametrize(
    ("changes", "max_length", "reason"),
    [
        ({}, 7, None),
        ({}, 6, "too_long"),
        ({"rejected": (text_step("longer"),)}, 7, "too_long"),
        ({"chosen": ()}, 7, "nothing_counts"),
        ({"rejected": (Step(kind="code", text="", host_text="x"),)}, 7, "nothing_counts"),
        ({"prompt_ids": (), "prompt": "", "shared": ()}, 7, None),
    ],
)
def test_pairs_that_cannot_be_trained_on_are_dropped_and_counted(
    changes: dict[str, object], max_length: int, reason: str | None
) -> None:
    result = tokenise([pair(**changes)], encode, max_length=max_length)
    assert len(result.pairs) == (reason is None)
    assert {name for name, count in result.dropped.items() if count} == ({reason} - {None})


def test_a_text_of_one_token_has_nothing_to_predict() -> None:
    lone = pair(prompt="", shared=(), chosen=(text_step("a"),), rejected=(text_step("b"),))

    def without_start(text: str, /, *, start: bool = False) -> Sequence[int]:
        return encode(text)

    result = tokenise([lone], without_start, max_length=9)
    assert (len(result.pairs), result.dropped["nothing_counts"]) == (0, 1)
