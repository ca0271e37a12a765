"""The embedded problems and the worked solutions made of them."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from scdpo.errors import InputError, RecipeError
from scdpo.formats import get_format
from scdpo.formats.compose import compose
from scdpo.grading import Grader, final_answer
from scdpo.pipeline.make_policy import load_make_policy, make_policy, texts, tokenise
from scdpo.policies import load_policy
from scdpo.problems.embedded import (
    DRAWS,
    SEEDS,
    EmbeddedSplit,
    demonstrate,
    generate,
    load_embedded,
    pack_splits,
)
from scdpo.problems.worked import computed, evaluate
from scdpo.records import Demonstration, Problem
from scdpo.sandbox import ProcessSandbox, SandboxConfig
from scdpo.training.fresh import FreshPolicyConfig, fresh_policy

N = 50


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Problem]]:
    return {split: load_embedded(split) for split in get_args(EmbeddedSplit)}


@pytest.fixture(scope="module")
def gym() -> Any:
    return pytest.importorskip("reasoning_gym", reason="reasoning-gym (extra embedded) is absent")


@pytest.fixture(scope="module")
def demonstrations(gym: Any, shipped: dict[str, list[Problem]]) -> list[Demonstration]:
    known = {problem.question for problems in shipped.values() for problem in problems}
    return list(generate("demonstrations", N, skip=known, start=5_000))


# ---- shipped problems


def test_no_question_is_in_two_splits_or_twice_in_one(shipped: dict[str, list[Problem]]) -> None:
    problems = [problem for split in shipped.values() for problem in split]
    assert min(len(split) for split in shipped.values()) >= 400
    assert len({problem.question for problem in problems}) == len(problems)
    assert len({problem.id for problem in problems}) == len(problems)


def test_every_shipped_problem_is_whole(shipped: dict[str, list[Problem]]) -> None:
    for split, problems in shipped.items():
        for problem in problems:
            assert problem.id.startswith(f"gsm_symbolic/{split}/")
            float(problem.answer)
            assert problem.question.strip() == problem.question != ""
            assert problem.level is not None
            assert 1 <= int(problem.level) <= 26
            assert "Give the result as" not in problem.question
        assert len({problem.subject for problem in problems}) > 50


def test_a_limit_takes_the_first_ones(shipped: dict[str, list[Problem]]) -> None:
    assert load_embedded("test", 3) == shipped["test"][:3]
    with pytest.raises(InputError, match=r"validation has only \d+, fewer than the limit 1000000"):
        load_embedded("validation", 1_000_000)
    with pytest.raises(InputError, match=r"no split 'dev' \(known: train, validation, test\)"):
        load_embedded("dev")  # type: ignore[arg-type]


# ---- the generator


def test_no_two_splits_draw_from_the_same_stream() -> None:
    for one, other in itertools.pairwise(sorted(SEEDS.values())):
        assert one + DRAWS <= other


def test_seeds_that_lie_close_together_share_questions(gym: Any) -> None:
    """Why the seeds of the splits do not."""
    asked = [
        {item["question"] for item in gym.create_dataset("gsm_symbolic", size=400, seed=seed)}
        for seed in (1_000_000, 1_000_001)
    ]
    assert asked[0] & asked[1]


def test_the_shipped_problems_can_be_drawn_again(
    gym: Any, shipped: dict[str, list[Problem]]
) -> None:
    splits: tuple[EmbeddedSplit, ...] = ("test", "validation", "train")
    packed = pack_splits({split: len(shipped[split]) for split in splits})
    for split in splits:
        lines = gzip.decompress(packed[split]).splitlines()
        assert [Problem.model_validate_json(line) for line in lines] == shipped[split]


def test_generating_skips_and_goes_on(gym: Any) -> None:
    first = list(generate("demonstrations", 6))
    assert list(generate("demonstrations", 6)) == first
    skipped = list(generate("demonstrations", 5, skip={first[0].problem.question}))
    assert skipped == first[1:]
    index = int(first[2].problem.id.rpartition("/")[2])
    assert list(generate("demonstrations", 4, start=index)) == first[2:]
    assert list(generate("demonstrations", 0)) == []
    with pytest.raises(InputError, match="test yielded only 0 of 1"):
        list(generate("test", 1, start=DRAWS))
    with pytest.raises(InputError, match="no stream 'dev'"):
        list(generate("dev", 1))


def test_demonstrations_ask_no_shipped_question(
    demonstrations: list[Demonstration], shipped: dict[str, list[Problem]]
) -> None:
    known = {problem.question for problems in shipped.values() for problem in problems}
    asked = {demonstration.problem.question for demonstration in demonstrations}
    assert len(asked) == N
    assert not asked & known


def test_programs_print_in_the_sandbox_what_the_demonstrations_say(
    demonstrations: list[Demonstration],
) -> None:
    async def outputs(sandbox: ProcessSandbox, demonstration: Demonstration) -> list[str]:
        session = await sandbox.session()
        form = get_format("blocks")
        programs = [form.code(step.text) for step in compose(demonstration.steps, form)]
        ran = [await session.run(program) for program in programs if program is not None]
        await session.close()
        assert all(execution.cut == "" for execution in ran)
        return [execution.output.rstrip("\n") for execution in ran]

    async def everything() -> list[list[str]]:
        with ProcessSandbox(SandboxConfig(deadline=60, preload=())) as sandbox:
            return [await outputs(sandbox, one) for one in demonstrations]

    said = [[s.output for s in one.steps if s.code is not None] for one in demonstrations]
    assert asyncio.run(everything()) == said
    assert sum(map(len, said)) > 2 * N


@pytest.mark.parametrize("name", ["blocks", "fenced", "plain"])
def test_the_final_answer_is_graded_correct(demonstrations: list[Demonstration], name: str) -> None:
    form = get_format(name)
    with Grader() as grader:
        for one in demonstrations:
            text = form.plain(form.render(compose(one.steps, form)))
            verdict = grader.grade(one.problem.answer, final_answer(text))
            assert verdict.name == "correct", (one.problem.id, text)


# ---- items to demonstrations


def item(worked: str, answer: str = "42", **changes: object) -> dict[str, object]:
    question = "How many? Give the result as your final answer. Do not include units."
    metadata = {"answer_cot": worked, "variables": {"n": 1, "name": "Jo"}}
    return {"question": question, "answer": answer, "metadata": metadata} | changes


def test_a_worked_solution_becomes_programs_that_build_on_each_other() -> None:
    worked = "Costs:\nA box has 2 x 6 = 12 eggs.\n3 boxes: 12*3=36\nSo $36 + $6 = $42.\n#### 42"
    made = demonstrate(item(worked), "p")
    assert made is not None
    assert made.problem.question == "How many?"
    assert made.problem.level == "3"
    assert [(step.text, step.code, step.output) for step in made.steps] == [
        ("A box has 2*6 eggs.", "a = 2 * 6\na", "12"),
        ("3 boxes: 12*3", "b = 12 * 3\nb", "36"),
        ("So 36 + 6.", "c = b + 6\nc", "42"),
        ("The answer is \\boxed{42}.", None, None),
    ]


def test_sentences_without_an_equation_join_the_next_and_equations_of_a_line_one_program() -> None:
    worked = "He is old.\nFirst 20 + 1 = 21, twice that is 21 * 2 = 42 years."
    made = demonstrate(item(worked, "42"), "p")
    assert made is not None
    assert made.steps[0].text == "He is old. First 20 + 1, twice that is 21 * 2 years."
    assert made.steps[0].code == "a = 20 + 1\nb = a * 2\na, b"
    assert made.steps[0].output == "(21, 42)"


@pytest.mark.parametrize(
    ("worked", "answer"),
    [
        ("6 * 7 = 42 eggs and 2 + 2 = 5 hens.\n40 + 2 = 42", "42"),
        ("6 * 7 = 41", "41"),
        ("6 * 7 = 42", "43"),
        ("6 * 7 = 42", "forty-two"),
        ("6 * 7 = 42", "42 eggs"),
        ("There are 42 eggs.", "42"),
        ("x = 42", "42"),
        ("6 * 7 = many", "42"),
        ("\n".join(f"{n} + 1 = {n + 1}" for n in range(14, 42)), "42"),
    ],
)
def test_an_unusable_item_is_dropped(worked: str, answer: str) -> None:
    assert demonstrate(item(worked, answer), "p") is None


# ---- equations


@pytest.mark.parametrize(
    ("line", "sentence", "expressions", "values"),
    [
        ("No equation, 12 of 30.", "No equation, 12 of 30.", (), ()),
        ("He has 12 x 4 = 48 seats.", "He has 12*4 seats.", ("12 * 4",), (48,)),
        ("12 × $4 = $48", "12*4", ("12 * 4",), (48,)),
        ("- 1,200 ÷ 4 = 300", "1200 / 4", ("1200 / 4",), (300.0,)),
        ("1. So 7−5=2", "So 7-5", ("7 - 5",), (2,)),
        ("3 apples + 4 pears = 7 fruits", "3 apples + 4 pears fruits", ("3 + 4",), (7,)),
        ("Area 2(33+12) = 90", "Area 2(33+12)", ("2 * (33 + 12)",), (90,)),
        ("He drove 60 km/h*2 = 120 km", "He drove 60 km/h*2 km", ("60 * 2",), (120,)),
        ("120 km / 2 = 60 km/h", "120 km / 2 km/h", ("120 / 2",), (60.0,)),
        ("5% + 10% = 15% of it", "5% + 10% of it", ("(5 / 100) + (10 / 100)",), None),
        ("80*5/100 = 4.0.", "80*5/100.", ("80 * 5 / 100",), (4.0,)),
        (".5*8=4", ".5*8", ("0.5 * 8",), (4.0,)),
        ("21 * 0.34 = 7.14", "21 * 0.34", ("21 * 0.34",), (21 * 0.34,)),
        ("On page 1 19 + 1 = 20 words", "On page 1 19 + 1 words", ("19 + 1",), (20,)),
        ("2+3=5, 5*2=10", "2+3, 5*2", ("2 + 3", "5 * 2"), (5, 10)),
        ("box 007 - 2 = 5", "box 007 - 2", ("7 - 2",), (5,)),
        ("on day 3 he made 4 * 5 = 20", "on day 3 he made 4 * 5", ("4 * 5",), (20,)),
    ],
)
def test_equations_of_a_line(
    line: str, sentence: str, expressions: tuple[str, ...], values: tuple[float, ...] | None
) -> None:
    found = computed(line)
    assert found is not None
    assert (found.sentence, found.expressions) == (sentence, expressions)
    assert found.values == (pytest.approx((0.15,)) if values is None else values)
    for expression, value in zip(found.expressions, found.values, strict=True):
        assert evaluate(expression) == value


@pytest.mark.parametrize(
    "line",
    [
        "2 + 2 = 5",
        "2000000000 + 2 = 2000000001",
        "2 + 2 = 4 and 2 + 3 = 4",
        "x = 5",
        "5 = 5",
        "2+3=5*4=20",
        "On page 1 9 + 1 = 20 words",
        "2 * 3 = x",
        "2 * 3 =",
        "5 / 0 = 0",
        "66.02 - 6.02 = 59",
        "99 - 100 = -1",
        "13/65 = 1/5",
        "2 * 1/4 = 1/2",
    ],
)
def test_a_line_with_a_false_or_unreadable_equation_is_not_used(line: str) -> None:
    assert computed(line) is None


@given(st.integers(0, 10**6), st.integers(1, 10**4), st.sampled_from("+-*/"), st.integers(1, 50))
def test_true_equations_are_found_and_false_ones_refused(a: int, b: int, op: str, off: int) -> None:
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[op]
    assume(value >= 0)
    stated = f"{value:.12f}" if isinstance(value, float) else f"{value:,}"
    assume(abs(float(stated.replace(",", "")) - value) <= 1e-9)
    found = computed(f"In all {a:,} {op} {b} = {stated} of them")
    assert found is not None
    assert found.sentence == f"In all {a} {op} {b} of them"
    assert found.expressions == (f"{a} {op} {b}",)
    assert found.values == (value,)
    assert computed(f"In all {a} {op} {b} = {int(value) + off + 1}") is None


Arithmetic = tuple[str, float]


def combined(pieces: st.SearchStrategy[Arithmetic]) -> st.SearchStrategy[Arithmetic]:
    def join(left: Arithmetic, op: str, right: Arithmetic) -> Arithmetic:
        (one, x), (other, y) = left, right
        value = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else 0}[op]
        return f"({one} {op} {other})", value

    joined = st.builds(join, pieces, st.sampled_from("+-*/"), pieces)
    return st.one_of(joined, pieces.map(lambda piece: (f"-{piece[0]}", -piece[1])))


NUMBERS = st.one_of(st.integers(0, 10**9), st.floats(0, 1e9)).map(lambda n: (repr(n), n))


@given(st.recursive(NUMBERS, combined, max_leaves=12))
def test_an_expression_is_computed_as_python_computes_it(arithmetic: Arithmetic) -> None:
    text, value = arithmetic
    try:
        found = evaluate(text)
    except ValueError:
        assume(False)  # a division by zero somewhere
    assert (found, type(found)) == (value, type(value))


def test_names_stand_for_their_values() -> None:
    assert evaluate("a * (b - 2)", {"a": 3, "b": 4.5}) == 7.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 +",
        "1 / 0",
        "2 ** 9",
        "7 // 2",
        "7 % 2",
        "1 < 2",
        "True",
        "1j",
        "'1'",
        "a",
        "[1][0]",
        "abs(1)",
        "2(3)",
        "().__class__",
        "__import__('os').getpid()",
        "(lambda: 1)()",
        "x := 1",
        "1; 2",
        "\x00",
        "(" * 500 + "1" + ")" * 500,
        "1" + "+1" * 100_000,
        "1" + "0" * 10_000,
        f"{10**400} / 3",
        f"{10**400} * 0.5",
    ],
)
def test_anything_but_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="arithmetic"):
        evaluate(text)


# ---- a policy made of them

TINY = """
demonstrations: 40
plain_every: 4
tokenizer_texts: 30
weights: fp16
policy: {vocab_size: 400, hidden_size: 16, layers: 1, heads: 2, intermediate_size: 16}
sft: {optimizer: muon, epochs: 1, batch_size: 8, micro_batch_size: 8, save_steps: 2}
"""


def test_a_policy_is_made_from_a_recipe_and_stored_in_half_the_size(
    gym: Any, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(TINY)
    config = load_make_policy(recipe)
    report = make_policy(config, tmp_path / "out")
    assert (report.n_examples, report.dropped) == (40, {"too_long": 0, "nothing_counts": 0})
    assert report.steps == 5
    path = tmp_path / "out" / "policy"
    stored = (path / "model.safetensors").stat().st_size
    policy = load_policy(path, device="cpu")
    n_parameters = sum(p.numel() for p in policy.model.parameters())
    assert 2 * n_parameters < stored < 2.5 * n_parameters
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}

    whole = make_policy(config.model_copy(update={"weights": "fp32"}), tmp_path / "whole")
    assert (whole.first_loss, whole.final_loss) == (report.first_loss, report.final_loss)
    exact = load_policy(tmp_path / "whole" / "policy", device="cpu")
    for rounded, kept in zip(policy.model.parameters(), exact.model.parameters(), strict=True):
        assert torch.equal(rounded, kept.half().float())
    assert make_policy(config, tmp_path / "out") == report


@pytest.mark.parametrize("form", ["blocks", "fenced", "plain"])
def test_demonstrations_become_the_token_ids_of_their_text(
    demonstrations: list[Demonstration], form: str
) -> None:
    written = [(get_format(form), one) for one in demonstrations[:8]]
    markers = get_format("blocks").special_tokens
    shape = FreshPolicyConfig(vocab_size=400, hidden_size=16, heads=2, layers=1)
    policy = fresh_policy(("".join(texts(*one)) for one in written), markers, markers[-1], shape)
    for (format_, one), (ids, mask) in zip(
        written, tokenise(written, policy.tokenizer), strict=True
    ):
        prompt = format_.prompt(one.problem.question)
        steps = compose(one.steps, format_)
        assert policy.decode(ids) == prompt + format_.render(steps)
        counted = policy.decode([i for i, counts in zip(ids, mask, strict=True) if counts])
        assert counted == "".join(step.text for step in steps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("demonstrations: 0", "demonstrations: input should be greater than or equal to 1"),
        ("demonstrations: 1\ndemos: 3", "unknown key 'demos'; known here: demonstrations, format"),
        ("demonstrations: 3\nweights: int8", "weights: input should be 'fp32', 'fp16' or 'bf16'"),
        ("demonstrations: [", "not YAML"),
        ("", "recipe.yaml: "),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        load_make_policy(recipe)
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="no such recipe"):
        load_make_policy(tmp_path / "none.yaml")
