"""Naive and step-controlled pairs, their mixture, the data-equal control, the export."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scdpo.errors import DataError, StoreError
from scdpo.pairs import (
    PairConfig,
    PairResult,
    data_equal,
    is_heldout,
    mixture,
    naive_pairs,
    step_controlled_pairs,
    trl_rows,
)
from scdpo.pipeline.opened import manifest_of
from scdpo.pipeline.pairing import PAIR_PARTS, make_pairs
from scdpo.records import Pair, Solution, Step, Verdict
from scdpo.store import RowGroups, RunFolder, read_json_rows, write_jsonl

ALL_TRAIN = PairConfig(heldout_share=0)
LOOSE = PairConfig(heldout_share=0, truncated_is_wrong=True)
FATES = {
    "questions",
    "questions_without_rejected",
    "questions_without_chosen",
    "questions_without_either",
    "solutions",
    "branches",
    "heldout_pairs",
}


def step(text: str, output: str | None = None) -> Step:
    """A step whose token ids are its characters' code points."""
    host = "" if output is None else f"```output\n{output}\n```\n"
    return Step(
        kind="text" if output is None else "code",
        text=text,
        token_ids=tuple(map(ord, text)),
        output=output,
        host_text=host,
        host_ids=tuple(map(ord, host)),
    )


def solution(problem: str, attempt: int, verdict: str = "correct", **changes: Any) -> Solution:
    """An attempt of four steps (text, code, text, text) that no other attempt equals."""
    name = changes.pop("id", f"{problem}-{attempt}")
    fields: dict[str, Any] = {
        "id": name,
        "problem_id": problem,
        "dataset": "gsm8k",
        "question": f"Q {problem}?",
        "format": "fenced",
        "policy": "embedded",
        "prompt": f"Q {problem}?\n",
        "prompt_ids": tuple(map(ord, f"Q {problem}?\n")),
        "steps": (step(f"{name}\n"), step("code", "6"), step("so\n"), step(f"{verdict}\n")),
        "finish": "finished",
        "answer": "6",
        "verdict": Verdict.model_validate({"name": verdict}),
        "attempt": attempt,
        "seed": attempt,
    }
    return Solution(**(fields | changes))


def branch(
    parent: Solution, k: int, attempt: int, verdict: str = "wrong", /, **changes: Any
) -> Solution:
    name = f"{parent.id}/{k}/{attempt}"
    steps = (*parent.steps[:k], step(f"then {name}\n"), step(f"{verdict}\n"))
    return solution(
        parent.problem_id,
        attempt,
        verdict,
        **({"id": name, "parent": parent.id, "branch_step": k, "steps": steps} | changes),
    )


def ids(result: PairResult) -> list[tuple[str, str]]:
    return [(pair.chosen_id, pair.rejected_id) for pair in result.pairs]


# ---- which side a solution may take

SIDES: list[tuple[dict[str, Any], PairConfig, str | None, str]] = [
    ({"verdict": "correct"}, ALL_TRAIN, "chosen", ""),
    ({"verdict": "wrong"}, ALL_TRAIN, "rejected", ""),
    ({"verdict": "undecided"}, ALL_TRAIN, None, "undecided"),
    ({"verdict": "undecided"}, LOOSE, None, "undecided"),
    ({"verdict": "undecided", "answer": None}, ALL_TRAIN, None, "undecided"),
    ({"verdict": "undecided", "answer": None}, LOOSE, "rejected", ""),
    ({"verdict": "wrong", "finish": "max_steps"}, ALL_TRAIN, None, "unfinished"),
    ({"verdict": "correct", "finish": "step_tokens"}, ALL_TRAIN, None, "unfinished"),
    ({"verdict": "correct", "finish": "sandbox"}, LOOSE, "rejected", ""),
    ({"verdict": "wrong", "finish": "context", "flags": ("noise",)}, LOOSE, None, "_flag:noise"),
    ({"flags": ("error_word:apolog",)}, ALL_TRAIN, None, "chosen_flag:error_word:apolog"),
    ({"flags": ("noise",)}, ALL_TRAIN, None, "chosen_flag:noise"),
    ({"verdict": "wrong", "flags": ("error_word:error",)}, ALL_TRAIN, "rejected", ""),
    ({"verdict": "wrong", "flags": ("error_word", "low_logp")}, ALL_TRAIN, None, "_flag:low_logp"),
]


@pytest.mark.parametrize(("changes", "config", "expected", "reason"), SIDES)
def test_side(
    changes: dict[str, Any], config: PairConfig, expected: str | None, reason: str
) -> None:
    taken, why = solution("p", 0, **changes).placement(truncated_is_wrong=config.truncated_is_wrong)
    assert taken == expected and why.endswith(reason) and bool(why) == (taken is None)


# ---- naive pairs


def test_a_naive_pair_is_the_first_of_each_side_with_its_trace() -> None:
    attempts = [
        solution("p", 0, "undecided"),
        solution("p", 1, "wrong"),
        solution("p", 2, "correct", flags=("error_word:error",)),
        solution("p", 3, "correct"),
        solution("p", 10, "correct"),
        solution("p", 4, "wrong"),
        solution("q", 0, "correct"),
        solution("r", 0, "wrong"),
        solution("s", 0, "wrong", finish="context"),
    ]
    result = naive_pairs(attempts, ALL_TRAIN)
    chosen, rejected = attempts[3], attempts[1]
    assert result.pairs == (
        Pair(
            id="p-3|p-1",
            problem_id="p",
            dataset="gsm8k",
            question="Q p?",
            kind="naive",
            format="fenced",
            prompt="Q p?\n",
            prompt_ids=chosen.prompt_ids,
            chosen=chosen.steps,
            rejected=rejected.steps,
            chosen_id="p-3",
            rejected_id="p-1",
        ),
    )
    assert {name: n for name, n in result.counts.items() if n} == {
        "questions": 4,
        "questions_without_rejected": 1,
        "questions_without_chosen": 1,
        "questions_without_either": 1,
        "solutions": 9,
        "undecided": 1,
        "unfinished": 1,
        "chosen_flag:error_word:error": 1,
        "chosen": 3,
        "rejected": 3,
        "pairs": 1,
    }


def test_naive_pairs_leave_out_branches_other_prompts_and_repeated_rows() -> None:
    one, two = solution("p", 0), solution("p", 1, "wrong", prompt="Another prompt\n")
    result = naive_pairs([one, one, two, branch(one, 1, 0)], ALL_TRAIN)
    assert result.pairs == () and result.counts["other_prompt"] == 1
    assert result.counts["solutions"] == 2


def test_more_naive_pairs_use_every_solution_before_one_twice() -> None:
    attempts = [solution("p", n, "wrong" if n % 2 else "correct") for n in range(8)]
    result = naive_pairs(attempts, PairConfig(naive_per_question=4, heldout_share=0))
    assert ids(result) == [("p-0", "p-1"), ("p-2", "p-3"), ("p-4", "p-5"), ("p-6", "p-7")]
    every = naive_pairs(attempts[1:], PairConfig(naive_per_question=99, heldout_share=0))
    assert len(set(ids(every))) == len(ids(every)) == 3 * 4


@pytest.mark.parametrize(
    ("duplicates", "texts", "kept"),
    [
        ("exact", ["a", "a", "b"], 2),
        ("exact", ["a" * 100, "b" * 600, "a" * 600], 3),
        ("released-code", ["a" * 100, "b" * 600, "a" * 601], 2),
        ("released-code", ["a", "b", "c"], 1),
    ],
)
def test_duplicates(duplicates: Any, texts: list[str], kept: int) -> None:
    config = PairConfig(duplicates=duplicates, naive_per_question=9, heldout_share=0)
    wrong = [solution("p", n, "wrong", steps=(step(text),)) for n, text in enumerate(texts, 1)]
    result = naive_pairs([solution("p", 0), *wrong], config)
    assert result.counts["pairs"] == kept
    assert result.counts["duplicate_rejected"] == len(texts) - kept
    parent = solution("p", 0)
    branches = [
        branch(parent, 2, n, steps=(*parent.steps[:2], step(text))) for n, text in enumerate(texts)
    ]
    limited = config.model_copy(update={"step_controlled_per_question": 9})
    assert step_controlled_pairs([parent], branches, limited).counts["pairs"] == kept


def test_released_code_counts_an_execution_as_a_block() -> None:
    config = PairConfig(duplicates="released-code", naive_per_question=9, heldout_share=0)
    wrong = [
        solution("p", 1, "wrong", steps=(step("a"), step("b", "1"))),
        solution("p", 2, "wrong", steps=(step("a"), step("b"), step("c"))),
        solution("p", 3, "wrong", steps=(step("a"), step("b"))),
    ]
    assert naive_pairs([solution("p", 0), *wrong], config).counts["pairs"] == 2


# ---- step-controlled pairs


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_a_step_controlled_pair_starts_after_the_shared_steps(k: int) -> None:
    parent = solution("p", 3)
    wrong = branch(parent, k, 0)
    (pair,) = step_controlled_pairs([parent], [wrong], ALL_TRAIN).pairs
    assert (pair.kind, pair.branch_step, pair.id) == ("step_controlled", k, f"p-3|p-3/{k}/0")
    assert (pair.chosen_id, pair.rejected_id) == (parent.id, wrong.id)
    assert (pair.prompt, pair.prompt_ids) == (parent.prompt, parent.prompt_ids)
    assert len(pair.shared) == k
    assert pair.shared + pair.chosen == parent.steps
    assert pair.shared + pair.rejected == wrong.steps


def retokenized(parent: Solution) -> Solution:
    return branch(
        parent,
        1,
        0,
        steps=(parent.steps[0].model_copy(update={"token_ids": (1,)}), step("x")),
    )


MISFITS: list[tuple[str, Callable[[Solution], Solution]]] = [
    ("correct", lambda p: branch(p, 1, 0, "correct")),
    ("correct", lambda p: branch(p, 1, 0, "correct", flags=("error_word",))),
    ("undecided", lambda p: branch(p, 1, 0, "undecided")),
    ("unfinished", lambda p: branch(p, 1, 0, finish="max_steps")),
    ("unfinished", lambda p: branch(p, 1, 0, "correct", finish="max_steps")),
    ("rejected_flag:noise", lambda p: branch(p, 1, 0, flags=("noise",))),
    ("parent_missing", lambda p: branch(p, 1, 0, parent="another")),
    ("parent_not_preferred", lambda p: branch(solution("p", 7, "wrong"), 1, 0)),
    ("prefix_differs", retokenized),
    ("prefix_differs", lambda p: branch(p, 2, 0, branch_step=3)),
    ("prefix_differs", lambda p: branch(p, 2, 0, branch_step=9)),
    ("prefix_differs", lambda p: branch(p, 2, 0, prompt_ids=(1,))),
    ("nothing_after_branch", lambda p: branch(p, 4, 0)),
    ("nothing_after_branch", lambda p: branch(p, 2, 0, steps=p.steps[:2])),
]


@pytest.mark.parametrize(("reason", "make"), MISFITS)
def test_branches_that_give_no_pair_are_counted(
    reason: str, make: Callable[[Solution], Solution]
) -> None:
    parent = solution("p", 0)
    result = step_controlled_pairs([parent, solution("p", 7, "wrong")], [make(parent)], ALL_TRAIN)
    assert result.pairs == ()
    assert {name: n for name, n in result.counts.items() if n} == {"branches": 1, reason: 1}


def test_limits_per_dataset_spread_over_branch_steps() -> None:
    solutions, branches = [], []
    for dataset in ("gsm8k", "math", "ape210k", "cmath"):
        parent = solution(dataset, 0, dataset=dataset)
        solutions.append(parent)
        branches += [
            branch(parent, k, n, dataset=dataset) for k in (1, 2, 3) for n in range(1 + 4 * (k < 3))
        ]
    result = step_controlled_pairs(solutions, branches, ALL_TRAIN)
    taken = {
        name: [pair.branch_step for pair in result.pairs if pair.dataset == name]
        for name in ("gsm8k", "math", "ape210k", "cmath")
    }
    assert [len(set(steps)) for steps in taken.values()] == [2, 3, 1, 2]
    assert [len(steps) for steps in taken.values()] == [2, 3, 1, 2]
    assert result.counts["over_limit"] == 4 * 11 - 8
    more = step_controlled_pairs(
        solutions, branches, PairConfig(step_controlled_per_question=5, heldout_share=0)
    )
    per_step = [sum(p.branch_step == k and p.dataset == "math" for p in more.pairs) for k in (1, 2)]
    assert per_step == [2, 2]


def test_the_seed_draws_which_branch_steps_come_first() -> None:
    parents = [solution(f"p{n}", 0) for n in range(60)]
    branches = [branch(parent, k, 0) for parent in parents for k in (0, 1, 2, 3)]
    firsts = [
        [
            pair.branch_step
            for pair in step_controlled_pairs(
                parents,
                branches,
                PairConfig(step_controlled_per_question=1, seed=seed, heldout_share=0),
            ).pairs
        ]
        for seed in (0, 0, 1)
    ]
    assert firsts[0] == firsts[1] != firsts[2]
    assert all(5 <= firsts[0].count(k) <= 25 for k in (0, 1, 2, 3))


# ---- hold-out, mixture, data-equal


def run_of(questions: int, seed: int = 0) -> tuple[list[Solution], list[Solution]]:
    draw = random.Random(seed)
    solutions, branches = [], []
    for q in range(questions):
        for attempt in range(draw.randint(1, 6)):
            verdict = draw.choice(["correct", "wrong", "wrong", "undecided"])
            one = solution(f"p{q}", attempt, verdict)
            solutions.append(one)
            if verdict == "correct":
                branches += [
                    branch(one, k, n, draw.choice(["wrong", "correct"]))
                    for k in range(4)
                    for n in range(2)
                ]
    return solutions, branches


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_question_is_never_on_both_sides_of_the_hold_out(share: float) -> None:
    solutions, branches = run_of(300)
    config = PairConfig(heldout_share=share, naive_per_question=2)
    naive = naive_pairs(solutions, config)
    controlled = step_controlled_pairs(solutions, branches, config)
    equal = data_equal(solutions, 400, config)
    splits: dict[str, set[str]] = {}
    for pair in (*naive.pairs, *controlled.pairs, *equal.pairs):
        splits.setdefault(pair.problem_id, set()).add(pair.split)
    assert all(len(split) == 1 for split in splits.values())
    found = sum(split == {"heldout"} for split in splits.values()) / len(splits)
    assert abs(found - share) < 0.1 and (share > 0) == (found > 0)
    assert naive.counts["heldout_pairs"] == sum(p.split == "heldout" for p in naive.pairs)
    held = [{p.id for p in r.pairs if p.split == "heldout"} for r in (naive, equal)]
    assert held[0] == held[1]


def test_the_hold_out_depends_on_the_seed() -> None:
    drawn = [
        {n for n in range(2000) if is_heldout(f"p{n}", PairConfig(seed=seed))} for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1] and all(5 <= len(questions) <= 40 for questions in drawn)


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_pairs_do_not_depend_on_the_order_of_rows(seed: int, questions: int) -> None:
    solutions, branches = run_of(questions, seed)
    config = PairConfig(naive_per_question=2, seed=seed)

    def everything() -> tuple[object, ...]:
        naive = naive_pairs(solutions, config)
        controlled = step_controlled_pairs(solutions, branches, config)
        mixed = mixture(naive.pairs, controlled.pairs, seed)
        return naive, controlled, mixed, data_equal(solutions, len(mixed), config)

    before = everything()
    random.Random(seed).shuffle(solutions)
    random.Random(seed).shuffle(branches)
    assert everything() == before
    for result in before[:2]:
        assert isinstance(result, PairResult)
        fates = {name: n for name, n in result.counts.items() if name not in FATES}
        if "branches" in result.counts:
            assert sum(fates.values()) == result.counts["branches"]
        elif "solutions" in result.counts:
            assert sum(fates.values()) - fates["pairs"] == result.counts["solutions"]


@pytest.mark.parametrize("per_question", [1, 2])
def test_pairs_from_files_are_those_made_in_memory(per_question: int, tmp_path: Path) -> None:
    solutions, branches = run_of(60, 3)
    config = PairConfig(naive_per_question=per_question)
    parts = random.Random(0).sample(solutions, len(solutions))
    with RunFolder(tmp_path) as run:
        sources = [run.stage(name).open({}) for name in ("solutions", "imports/more")]
        sources[0].append(parts[:70])
        sources[1].append([*parts[70:], parts[3]])  # a row twice
        branched = [run.stage("branches").open({})]
        branched[0].append(random.Random(1).sample(branches, len(branches)))
        stages = [run.stage(f"pairs/{part}").open({}) for part in PAIR_PARTS]
        # As if it had been killed between two of them, and within one.
        done = naive_pairs(solutions, config)
        stages[1].append(step_controlled_pairs(solutions, branches, config).pairs[:4])
        make_pairs(stages, sources, branched, config)
        found = [
            PairResult(tuple(stage.rows(Pair)), manifest_of(stage).counts)  # type: ignore[arg-type]
            for stage in stages
        ]
    controlled = step_controlled_pairs(solutions, branches, config)
    size = sum(pair.split == "train" for pair in (*done.pairs, *controlled.pairs))
    assert found == [done, controlled, data_equal(solutions, size, config)]
    assert len(found[0].pairs) > 20 < len(found[1].pairs)


def test_a_row_that_cannot_be_grouped_is_named(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        stage = run.stage("solutions").open({})
        stage.append([solution("p", 0)])
        with stage.shards[0].open("a") as file:
            file.write('{"id": "x"}\n')
        with pytest.raises(
            DataError, match=r"rows-00000.jsonl, line 2: Solution: key 'problem_id' is missing"
        ):
            RowGroups([stage], Solution)
        with pytest.raises(StoreError, match="stage branches has not been run"):
            RowGroups([run.stage("branches")], Solution)


def test_the_mixture_is_a_shuffled_union() -> None:
    solutions, branches = run_of(60)
    naive = naive_pairs(solutions, ALL_TRAIN).pairs
    controlled = step_controlled_pairs(solutions, branches, ALL_TRAIN).pairs
    mixed = mixture(naive, controlled, seed=1)
    assert {p.id for p in mixed} == {p.id for p in (*naive, *controlled)}
    assert len(mixed) == len(naive) + len(controlled)
    assert mixed == mixture(controlled[::-1], naive, seed=1) != mixture(naive, controlled, seed=2)
    first = sum(p.kind == "naive" for p in mixed[: len(mixed) // 2]) / (len(mixed) // 2)
    assert abs(first - len(naive) / len(mixed)) < 0.2


def test_data_equal_grows_naive_pairs_round_by_round() -> None:
    solutions, _ = run_of(80)
    naive = naive_pairs(solutions, ALL_TRAIN)
    most = len(naive_pairs(solutions, PairConfig(naive_per_question=99, heldout_share=0)).pairs)
    for size in (len(naive.pairs), len(naive.pairs) + 7, most, most + 5):
        equal = data_equal(solutions, size, ALL_TRAIN)
        assert len(set(ids(equal))) == len(equal.pairs) == min(size, most)
        assert set(ids(naive)) <= set(ids(equal))
        assert equal.counts["short"] == max(0, size - most)
        assert all(pair.kind == "naive" for pair in equal.pairs)
    grown = data_equal(solutions, len(naive.pairs) + 7, ALL_TRAIN)
    per_question = [sum(p.problem_id == q.problem_id for p in grown.pairs) for q in naive.pairs]
    assert sorted(set(per_question)) == [1, 2]


def test_data_equal_counts_training_pairs() -> None:
    solutions, _ = run_of(200)
    config = PairConfig(heldout_share=0.2)
    equal = data_equal(solutions, 150, config)
    assert sum(pair.split == "train" for pair in equal.pairs) == 150
    assert equal.counts["heldout_pairs"] == naive_pairs(solutions, config).counts["heldout_pairs"]


@pytest.mark.parametrize(
    "bad",
    [
        {"naive_per_question": 0},
        {"step_controlled_per_question": {"gsm8k": 2}},
        {"step_controlled_per_question": {"default": 0}},
        {"heldout_share": 1.0},
        {"duplicates": "near"},
        {"limit": 3},
    ],
)
def test_configs_that_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PairConfig(**bad)


# ---- export


def test_the_export_is_a_data_set_of_three_string_columns(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    solutions, branches = run_of(20)
    pairs = mixture(
        naive_pairs(solutions, ALL_TRAIN).pairs,
        step_controlled_pairs(solutions, branches, ALL_TRAIN).pairs,
    )
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, trl_rows(pairs))
    loaded = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert sorted(loaded.column_names) == ["chosen", "prompt", "rejected"]
    assert {feature.dtype for feature in loaded.features.values()} == {"string"}
    assert list(loaded) == [row for _, row in read_json_rows(path)]
    texts = {one.id: one.prompt + one.text for one in (*solutions, *branches)}
    for row, pair in zip(loaded, pairs, strict=True):
        assert row["prompt"] + row["chosen"] == texts[pair.chosen_id]
        assert row["prompt"] + row["rejected"] == texts[pair.rejected_id]
        assert row["prompt"].startswith(pair.prompt) and row["chosen"] and row["rejected"]
