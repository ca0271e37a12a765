"""Formats: steps, round trips, what the host writes; and every recorded solution."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdpo.errors import DataError, InputError
from scdpo.formats import get_format, read_recorded
from scdpo.formats.base import Format
from scdpo.records import Step

CASES = json.loads((Path(__file__).parent / "cases" / "steps.json").read_text())
NAMES = ("blocks", "fenced", "plain")
FRAGMENTS = [
    *get_format("blocks").special_tokens,
    *("<empty_execution>", "<|", "|>", "```python\n", "```python", "```output", "```output\n"),
    *("```", "\n```\n", "\n", "\n\n", " ", "\r\n", "x = 1", "print(2)", "\\boxed{2}", "é数"),
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=14).map("".join)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['format']}: {case['why']}")
def test_steps_of_a_text(case: dict[str, Any]) -> None:
    format_ = get_format(case["format"])
    steps = format_.parse(case["text"])
    assert [[s.kind, s.text, s.host_text, s.output] for s in steps] == case["steps"]
    assert format_.render(steps) == case["text"]
    assert format_.plain(case["text"]) == case["plain"]
    assert format_.finished(case["text"]) == case["finished"]


@pytest.mark.parametrize("options", [{}, {"end": ()}, {"end": ("</s>", "<|endofmessage|>")}])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_render_undoes_parse_for_every_text(name: str, options: dict[str, Any], text: str) -> None:
    format_ = get_format(name, **options)
    steps = format_.parse(text)
    assert format_.render(steps) == text
    assert all(step.text for step in steps)
    for step in steps:
        assert (step.kind == "code") == (format_.code(step.text) is not None)


@settings(max_examples=50, deadline=None)
@given(text=TEXTS)
def test_paragraphs_round_trip(text: str) -> None:
    format_ = get_format("plain", boundary="\n\n")
    assert format_.render(format_.parse(text)) == text


def stepwise(format_: Format, text: str) -> list[Step]:
    """What a step loop records when the policy writes `text` and every program prints 7.

    A completion that makes only one step with the text step before it belongs to that.
    """
    steps: list[Step] = []
    marks = [re.escape(mark) for mark in (*format_.stop, *format_.end)]
    for match in re.finditer(f"(.*?)({'|'.join(marks)}|$)", text, re.DOTALL):
        written = match[0]
        if not written:
            break
        if format_.code(written) is not None:
            host_text = format_.host_text(written, "7")
            steps.append(Step(kind="code", text=written, host_text=host_text, output="7"))
        elif (
            steps and steps[-1].kind == "text" and len(format_.parse(steps[-1].text + written)) == 1
        ):
            steps[-1] = Step(kind="text", text=steps[-1].text + written)
        else:
            steps.append(Step(kind="text", text=written))
        if match[2] in format_.end:
            break
    return steps


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=120, deadline=None)
@given(text=TEXTS)
def test_a_rollout_parses_into_the_steps_it_was_written_in(name: str, text: str) -> None:
    format_ = get_format(name)
    steps = stepwise(format_, text.replace("\r\n", "\n"))
    assert list(format_.parse(format_.render(tuple(steps)))) == steps


@pytest.mark.parametrize(
    ("name", "text", "program"),
    [
        ("blocks", "<|code|>x = 1\nx<|endofblock|>", "x = 1\nx"),
        ("blocks", "<|code|><|endofblock|>", ""),
        ("blocks", "<|code|>x", None),
        ("blocks", "<|text|>x<|endofblock|>", None),
        ("blocks", "<|code|>x<|endofblock|><|endofmessage|>", None),
        ("blocks", "", None),
        ("fenced", "So\n```python\nx = 1\nx\n```\n```output", "x = 1\nx"),
        ("fenced", "```python\nx\n```\n```output\n", "x"),
        ("fenced", "```python\na\n```\nNo:\n```python\nb\n```\n```output", "b"),
        ("fenced", "```python\n```\n```output", ""),
        ("fenced", "```python\nx\n```", None),
        ("fenced", "```python x\n```\n```output", None),
        ("fenced", "```python\nx\n```output", None),
        ("fenced", "```output", None),
        ("plain", "```python\nx\n```\n```output", None),
    ],
)
def test_program_of_a_step(name: str, text: str, program: str | None) -> None:
    assert get_format(name).code(text) == program


CODE_STEPS = {
    "blocks": ("<|code|>x<|endofblock|>",),
    "fenced": ("```python\nx\n```\n```output", "```python\nx\n```\n```output\n"),
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, ts in CODE_STEPS.items() for t in ts])
@settings(max_examples=50, deadline=None)
@given(output=TEXTS)
def test_host_text_is_one_step_with_its_code_whatever_was_printed(
    name: str, text: str, output: str
) -> None:
    format_ = get_format(name)
    host_text = format_.host_text(text, output)
    (step,) = format_.parse(text + host_text)
    assert step.kind == "code"
    assert not any(marker in (step.output or "") for marker in format_.special_tokens)
    harmless = "```" not in output and "<|" not in output
    if harmless and output != "<empty_execution>":
        assert step.output == output.rstrip("\n")


def test_empty_execution_reads_so() -> None:
    format_ = get_format("blocks")
    code = "<|code|>x<|endofblock|>"
    assert format_.host_text(code, "") == "<|execution|><empty_execution><|endofblock|>"
    assert format_.host_text(code, "51\n") == "<|execution|>51<|endofblock|>"


def test_prompts() -> None:
    question = "What is 1+1?"
    turn = f"<|user|><|text|>{question}<|endofblock|><|endofmessage|><|assistant|>"
    assert get_format("blocks", system="").prompt(question) == turn
    assert get_format("blocks").prompt(question) == (
        "<|system|><|text|>Below is a math problem. Please solve it step by step."
        "<|endofblock|><|endofmessage|>" + turn
    )
    assert get_format("fenced").prompt(question) == f"Question: {question}\n\nSolution:\n"
    metamath = "### Instruction:\n{question}\n\n### Response: "
    assert get_format("plain", system="Solve.", template=metamath).prompt(question) == (
        f"Solve.\n\n### Instruction:\n{question}\n\n### Response: "
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("xml", {}, "blocks, fenced, plain"),
        ("blocks", {"boundary": "\n"}, "no option 'boundary'"),
        ("plain", {"boundary": "."}, "must be"),
        ("fenced", {"template": "no question"}, "exactly once"),
        ("plain", {"end": ("",)}, "non-empty strings"),
    ],
)
def test_wrong_formats_say_what_is_accepted(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        get_format(name, **options)


def test_plain_has_nothing_to_execute() -> None:
    with pytest.raises(InputError, match="no code steps"):
        get_format("plain").host_text("a\n", "1")


RECORDED = {
    "MathCoder-CL-7b_SVAMP.jsonl": (1000, 978),
    "MathCoder-CL-7b_mathematics.jsonl": (1000, 971),
    "MathCoder-CL-7b_simuleq.jsonl": (514, 487),
    "MathCoder-L-13b_GSM8K.jsonl": (1319, 1297),
    "MathCoder-L-7b_GSM8K.jsonl": (1319, 1280),
    "MathCoder-L-7b_MATH_correct.jsonl": (1179, 1174),
    "ToRA-70b_GSM8K.jsonl": (1319, 1318),
}


@pytest.mark.parametrize("file", RECORDED)
def test_recorded_solutions_lose_no_character(shared_data: Path, file: str) -> None:
    path = shared_data / "solutions" / file
    layout = "tora" if file.startswith("ToRA") else "mathcoder"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    solutions = list(read_recorded(path, layout))
    assert [s.line for s in solutions] == list(range(1, len(rows) + 1))
    for row, solution in zip(rows, solutions, strict=True):
        format_ = get_format(solution.format)
        text = format_.render(solution.steps)
        assert format_.parse(text) == solution.steps
        assert format_.finished(text) == solution.finished
        assert format_.prompt(solution.question) == solution.prompt
        if layout == "tora":
            assert text.removesuffix("<|endofmessage|>") == row["code"][0]
        else:
            assert contents(solution.steps) + [solution.recorded_answer] * solution.finished == [
                block["content"] for block in row["debug_result"][2:]
            ]
    assert (len(solutions), sum(s.finished for s in solutions)) == RECORDED[file]


def contents(steps: tuple[Step, ...]) -> list[str]:
    """The contents of the blocks that the steps were made of."""
    found = []
    for step in steps:
        for text in filter(None, (step.text, step.host_text)):
            content = text.removesuffix("<|endofmessage|>").removesuffix("<|endofblock|>")
            if content:
                found.append(re.sub(r"^<\|(text|code|execution)\|>", "", content))
    return found


def test_oddities_of_recorded_solutions_are_reported(shared_data: Path) -> None:
    counts: Counter[str] = Counter()
    for file in RECORDED:
        layout = "tora" if file.startswith("ToRA") else "mathcoder"
        for solution in read_recorded(shared_data / "solutions" / file, layout):
            counts.update(solution.oddities)
    assert counts == {
        "cut": 145,
        "text after text": 140,
        "code after execution": 14,
        "empty execution": 14,
        "code without execution": 1,
    }


def mathcoder_row(*blocks: tuple[str, str], completion: str) -> dict[str, Any]:
    prompt = [("system", "S"), ("user", "Q")]
    return {
        "messages": [
            {"role": role, "content": [{"type": "text", "content": content}]}
            for role, content in prompt
        ],
        "ground_truth": {"solution": "", "answer": 2.0},
        "debug_result": [{"role": r, "content": c} for r, c in (*prompt, *blocks)],
        "completion": completion,
    }


def test_a_recorded_answer_is_no_step_and_a_cut_block_is_one(tmp_path: Path) -> None:
    whole = mathcoder_row(
        ("code", "x"), ("execution", "2"), ("text", r"\boxed{2}"), ("text", "2"), completion="2"
    )
    cut = mathcoder_row(("code", "x"), ("execution", "2"), ("text", "So we"), completion="So we")
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(whole)}\n\n{json.dumps(cut)}\n")
    first, second = read_recorded(path, "mathcoder")
    assert first.steps[-1].text == r"<|text|>\boxed{2}<|endofblock|><|endofmessage|>"
    assert (first.finished, first.recorded_answer, first.gold, first.line) == (True, "2", "2", 1)
    assert second.steps[-1].text == "<|text|>So we"
    assert (second.finished, second.oddities, second.line) == (False, ("cut",), 3)
    unmarked, _ = read_recorded(path, "mathcoder", end="")
    assert unmarked.steps[-1].text == r"<|text|>\boxed{2}<|endofblock|>"


GOOD = mathcoder_row(("text", r"\boxed{2}"), ("text", "2"), completion="2")


@pytest.mark.parametrize(
    ("layout", "row", "message"),
    [
        ("mathcoder", "{", "line 2: malformed JSON"),
        ("mathcoder", "[]", "line 2: expected a JSON object, found a list"),
        ("mathcoder", json.dumps({**GOOD, "debug_result": []}), "line 2: not in layout"),
        ("mathcoder", json.dumps({k: GOOD[k] for k in GOOD if k != "completion"}), "completion"),
        ("mathcoder", json.dumps({**GOOD, "completion": 2}), "found a number"),
        (
            "mathcoder",
            json.dumps({**GOOD, "ground_truth": {"solution": "", "answer": None}}),
            "no gold answer",
        ),
        (
            "mathcoder",
            json.dumps(mathcoder_row(("tool", "x"), completion="x")),
            "role 'tool'; known roles are text, code, execution",
        ),
        (
            "tora",
            json.dumps({"idx": 1, "question": "Q", "gt": "1", "code": ["a"], "pred": []}),
            "0 answers",
        ),
        ("tora", json.dumps(GOOD), "no 'code'"),
    ],
)
def test_malformed_rows_are_named_with_their_line(
    tmp_path: Path, layout: str, row: str, message: str
) -> None:
    tora = {"idx": 0, "question": "Q", "gt": "1", "code": ["a"], "pred": ["1"]}
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(GOOD if layout == 'mathcoder' else tora)}\n{row}\n")
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        list(read_recorded(path, layout))
    assert caught.value.line == 2


def test_unknown_layouts_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mathcoder, tora"):
        list(read_recorded(tmp_path / "a", "toolalpaca"))
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_recorded(tmp_path / "a", "tora"))
