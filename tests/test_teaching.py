"""Rows to learn from: layouts, GSM8K's marks, and how solutions are written in a format."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from scdpo.errors import DataError, InputError
from scdpo.formats import get_format, rewrite, worked_steps, write_text, write_worked
from scdpo.grading import Grader
from scdpo.problems.gold import RowError
from scdpo.problems.marked import marked_steps, without_marks
from scdpo.records import Solution, WorkedStep
from scdpo.sampling.demonstrations import BATCH, count_demonstrations, demonstrations, reason_of
from scdpo.sampling.teaching import SFTData, read_taught
from scdpo.sandbox import ProcessSandbox, SandboxConfig

CLIPS = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nThat is 48+24 = $<<48+24=72>>72.\n#### 72"
FENCED = "Add.\n```python\nx = 1 + 1\nx\n```\n```output\n2\n```\nThe answer is \\boxed{2}."
UNRUN = "Add.\n```python\nx = 1 + 1\nx\n```\nThe answer is \\boxed{2}."
SAID = "One and one.\nThe answer is \\boxed{2}."


def taught(tmp_path: Path, rows: list[Any], format: str, **options: Any) -> list[Solution]:
    """The solution rows that a file of these rows gives."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = SFTData(path=str(file), **options)
    written = get_format(format, end=("<end>",) if format != "blocks" else None)
    return asyncio.run(_made(data, written))


async def _made(data: SFTData, format: Any, existing: set[str] | None = None) -> list[Solution]:
    rows = read_taught(data, format)
    made: list[Solution] = []
    with Grader() as grader:
        sandbox = ProcessSandbox(SandboxConfig(deadline=20)) if data.execute else None
        try:
            async for batch in demonstrations(
                rows, data, format, grader, sandbox, existing=existing or set()
            ):
                made += batch
        finally:
            if sandbox:
                sandbox.close()
    return made


# ---- GSM8K's marks


def test_marks_become_programs_that_use_earlier_results() -> None:
    assert marked_steps(CLIPS) == (
        WorkedStep(text="Natalia sold 48/2 clips in May.", code="a = 48 / 2\na", output="24.0"),
        WorkedStep(text="That is 48+24.", code="b = 48 + a\nb", output="72.0"),
        WorkedStep(text="The answer is \\boxed{72}."),
    )
    assert without_marks(CLIPS).splitlines() == [
        "Natalia sold 48/2 = 24 clips in May.",
        "That is 48+24 = $72.",
        "The answer is \\boxed{72}.",
    ]


@pytest.mark.parametrize(
    ("line", "text", "code", "output"),
    [
        ("10/3 = <<10/3=3.33>>3.33 each", "10/3 each", "a = round(10 / 3, 2)\na", "3.33"),
        ("1,000*2 = <<1,000*2=2000>>2,000", "1,000*2", "a = 1000 * 2\na", "2000"),
        ("20% of 5 = <<20%*5=1>>1 cent", "20% of 5 cent", "a = (20 / 100) * 5\na", "1.0"),
        ("2(3) = <<2*(3+.5)=7>>7", "2(3)", "a = 2 * (3 + 0.5)\na", "7.0"),
        ("<<5=5>>5 of 2+2 = <<2+2=4>>4", "5 of 2+2", "a = 2 + 2\na", "4"),
        ("1+1=<<1+1=2>>2, 2+2=<<2+2=4>>4", "1+1, 2+2", "a = 1 + 1\nb = 2 + 2\na, b", "(2, 4)"),
    ],
)
def test_a_mark(line: str, text: str, code: str, output: str) -> None:
    step = marked_steps(f"{line}\n#### 1")[0]
    assert (step.text, step.code, step.output) == (text, code, output)
    scope: dict[str, Any] = {}
    *program, shown = code.splitlines()
    exec("\n".join(program), scope)
    assert repr(eval(shown, scope)) == output


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        ("2+2 = <<2+2=5>>5\n#### 5", "a false equation"),
        ("2//2 = <<2//2=1>>1\n#### 1", "cannot be read"),
        ("It is five.\n#### 5", "no computation"),
        ("2+2 = <<2+2=4>>4", "no answer"),
    ],
)
def test_a_solution_that_is_not_used(solution: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        marked_steps(solution)


def test_nearly_all_of_gsm8k_has_marks_that_compute(shared_data: Path) -> None:
    lines = (shared_data / "gsm8k" / "train.jsonl").read_text().splitlines()[:500]
    reasons = []
    for line in lines:
        try:
            marked_steps(json.loads(line)["answer"])
        except RowError as error:
            reasons.append(str(error))
    assert len(reasons) <= 0.04 * len(lines), reasons
    assert "a false equation" not in reasons


# ---- writing in a format


def test_a_text_is_taken_as_it_stands_where_the_format_can_hold_it() -> None:
    fenced = get_format("fenced", end=("<end>",))
    steps = write_text(FENCED, fenced)
    assert fenced.render(steps) == FENCED + "<end>"
    assert [step.output for step in steps] == ["2", None]
    plain = get_format("plain", end=("<end>",))
    assert [step.text for step in write_text(SAID, plain)] == [
        "One and one.\n",
        "The answer is \\boxed{2}.<end>",
    ]


def test_a_text_becomes_blocks() -> None:
    blocks = get_format("blocks")
    written = blocks.render(write_text(FENCED, blocks))
    assert written == (
        "<|text|>Add.<|endofblock|><|code|>x = 1 + 1\nx<|endofblock|><|execution|>2<|endofblock|>"
        "<|text|>The answer is \\boxed{2}.<|endofblock|><|endofmessage|>"
    )
    assert [step.text for step in worked_steps(SAID)] == SAID.splitlines()
    assert [step.text for step in worked_steps(f"a\nb\n\n{SAID}")] == ["a\nb", SAID]


def test_a_sentence_between_a_program_and_its_output_is_not_lost() -> None:
    """The program runs and the text stays as it is; in other formats the output comes first."""
    text = FENCED.replace("```\n```output", "```\n\nSo we add.\n```output")
    assert text != FENCED
    fenced, blocks = get_format("fenced", end=("<end>",)), get_format("blocks")
    steps = write_text(text, fenced)
    assert fenced.render(steps) == text + "<end>"
    assert [(fenced.code(step.text), step.output) for step in steps] == [
        ("x = 1 + 1\nx", "2"),
        (None, None),
    ]
    written = (
        "<|text|>Add.<|endofblock|><|code|>x = 1 + 1\nx<|endofblock|><|execution|>2<|endofblock|>"
        "<|text|>So we add.\nThe answer is \\boxed{2}.<|endofblock|><|endofmessage|>"
    )
    bare = get_format("fenced", end=())
    assert blocks.render(rewrite(bare.parse(text), bare, blocks)) == written
    assert blocks.render(write_text(text, blocks)) == written
    last = text.partition("The answer")[0]
    for said in (rewrite(bare.parse(last), bare, blocks), write_text(last, blocks)):
        assert blocks.render(said).endswith("<|text|>So we add.<|endofblock|><|endofmessage|>")


@pytest.mark.parametrize(("source", "target"), [("blocks", "fenced"), ("fenced", "blocks")])
def test_a_solution_survives_being_rewritten_and_back(source: str, target: str) -> None:
    first, second = get_format(source), get_format(target)
    bare = get_format(source, end=())
    steps = write_text(FENCED, first)
    without_end = bare.parse(first.render(steps).removesuffix(first.end[0]))
    there = rewrite(without_end, bare, second)
    back = rewrite(
        get_format(target, end=()).parse(second.render(there).removesuffix(second.end[0])),
        get_format(target, end=()),
        first,
    )
    assert first.render(back) == first.render(steps)
    cut = rewrite(without_end, bare, second, finished=False)
    assert second.render(cut) + second.end[0] == second.render(there)


@pytest.mark.parametrize(
    ("text", "format", "reason"),
    [
        (UNRUN, "fenced", "a program without output"),
        (FENCED, "plain", "without code"),
        ("so <end> it is", "plain", "end marker"),
    ],
)
def test_what_a_format_cannot_hold(text: str, format: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        write_text(text, get_format(format, end=("<end>",)))


def test_steps_in_plain() -> None:
    plain = get_format("plain", end=())
    steps = write_worked([WorkedStep(text="a"), WorkedStep(text="b")], plain)
    assert [step.text for step in steps] == ["a\n", "b"]


# ---- layouts

QUESTION = "What is 1 + 1?"
STEPS = [
    {"text": "Add.", "code": "x = 1 + 1\nx", "output": "2"},
    {"text": "The answer is \\boxed{2}."},
]
BLOCKS = [
    {"type": "text", "content": "Add."},
    {"type": "code", "content": "x = 1 + 1\nx"},
    {"type": "execution", "content": "2"},
    {"type": "text", "content": "The answer is \\boxed{2}."},
]
ASKED = {"role": "user", "content": QUESTION}
ROWS: dict[str, tuple[str, Any]] = {
    "text": ("question-solution", {"question": QUESTION, "solution": FENCED, "answer": 2}),
    "steps": ("question-steps", {"question": QUESTION, "steps": STEPS}),
    "chat": ("messages", {"messages": [ASKED, {"role": "assistant", "content": FENCED}]}),
    "sharegpt": (
        "messages",
        {
            "messages": [
                {"from": "human", "value": QUESTION},
                {"from": "gpt", "value": FENCED},
            ]
        },
    ),
    "MathCodeInstruct": (
        "messages",
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "content": ""}]},
                {"role": "user", "content": [{"type": "text", "content": QUESTION}]},
                {"role": "assistant", "content": BLOCKS},
            ]
        },
    ),
    "tora": ("tora", {"question": QUESTION, "gt": 2, "code": [FENCED], "pred": ["2"]}),
    "mathcoder": (
        "mathcoder",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "content": QUESTION}]}],
            "ground_truth": {"answer": "2", "solution": ""},
            "debug_result": [
                {"role": "system", "content": "Solve."},
                {"role": "user", "content": QUESTION},
                *({"role": b["type"], "content": b["content"]} for b in BLOCKS),
                {"role": "text", "content": "2"},
            ],
            "completion": "2",
        },
    ),
}


@pytest.mark.parametrize(("layout", "row"), ROWS.values(), ids=ROWS)
def test_every_layout_gives_the_same_solution(layout: str, row: Any, tmp_path: Path) -> None:
    for format in ("fenced", "blocks"):
        (made,) = taught(tmp_path, [row], format, layout=layout, dataset="toy")
        end = "<end>" if format == "fenced" else "<|endofmessage|>"
        written = get_format(format, end=(end,))
        assert made.text == written.render(write_text(FENCED, written))
        assert made.prompt == written.prompt(QUESTION)
        assert made.side() == "chosen"
        graded = layout in ("question-solution", "tora", "mathcoder")
        assert made.verdict.reason == ("" if graded else "not graded")


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    right = {"question": QUESTION, "solution": SAID, "answer": "2"}
    rows = [
        right,
        right,
        right | {"solution": "The answer is \\boxed{3}."},
        right | {"solution": "It is what it is."},
        right | {"question": None},
        right | {"solution": " "},
        right | {"solution": UNRUN},
        right | {"solution": FENCED},
        right | {"solution": f"{SAID}<end>"},
        right | {"question": "What is <end>?"},
    ]
    made = taught(tmp_path, rows, "plain")
    assert [reason_of(row).removeprefix("unusable:") for row in made] == [
        "",
        "duplicate",
        "wrong answer",
        "undecided answer (no answer)",
        "no question",
        "no solution",
        "a program without output",
        "code in a format without code",
        "an end marker inside the solution",
        "a marker in the question",
    ]
    counts = count_demonstrations(made)
    assert (counts["rows"], counts["used"], counts["graded"]) == (10, 1, 1)
    assert sum(n for name, n in counts.items() if name.startswith("unusable:")) == 9
    ungraded = taught(tmp_path, rows[2:4], "plain", grade=False)
    assert [row.side() for row in ungraded] == ["chosen", "chosen"]


def test_programs_run_where_it_is_asked_for(tmp_path: Path) -> None:
    rows = [
        {"question": "a?", "solution": UNRUN},
        {"question": "b?", "solution": FENCED.replace("output\n2", "output\n3")},
        {"question": "c?", "solution": FENCED},
        {"question": "d?", "solution": UNRUN.replace("x = 1 + 1", "import os; os._exit(1)")},
    ]
    made = taught(tmp_path, rows, "fenced", execute=True)
    assert [reason_of(row) for row in made] == [
        "",
        "unusable:output differs (other text)",
        "",
        "unusable:a program was cut (died)",
    ]
    assert made[0].text == made[2].text == FENCED + "<end>"


def test_batches_that_exist_are_not_made_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = {"question": QUESTION, "solution": SAID}
    file.write_text("".join(json.dumps(row) + "\n" for _ in range(BATCH + 2)))
    data = SFTData(path=str(file))
    plain = get_format("plain", end=())
    whole = asyncio.run(_made(data, plain))
    first = {row.id for row in whole[:BATCH]}
    assert asyncio.run(_made(data, plain, first)) == whole[BATCH:]
    assert [row.flags for row in whole[-2:]] == [("unusable:duplicate",)] * 2
    assert whole[-1].attempt == BATCH + 1


def test_part_of_a_file_with_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"problem": f"{n}?", "answer": SAID} for n in range(6)]
    columns = {"question": "problem", "solution": "answer"}
    made = taught(tmp_path, rows, "plain", columns=columns, offset=2, limit=3)
    assert [row.question for row in made] == ["2?", "3?", "4?"]
    assert all(row.verdict.reason == "not graded" for row in made)  # answer is no gold answer here


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([], {}, "no rows in it"),
        ([{"question": "a", "solution": "b"}], {"offset": 3}, "no rows in it after the first 3"),
        (
            [{"problem": "a", "output": "b"}],
            {},
            "needs the columns question, solution; the rows have problem, output; name them with "
            r"columns: {question: COLUMN, solution: COLUMN}",
        ),
        ([{"question": "a", "answer": "b"}], {"layout": "gsm8k"}, "none of 1 rows .*: no answer"),
        ([{"messages": [ASKED]}], {"layout": "messages"}, "not one user and one assistant turn"),
        ([{"question": "a", "steps": [{}]}], {"layout": "question-steps"}, "without text and code"),
    ],
)
def test_data_that_cannot_be_read(rows: list[Any], options: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        taught(tmp_path, rows, "plain", **options)


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    file = tmp_path / "train.parquet"
    parquet.write_table(arrow.table({"question": [QUESTION], "solution": [SAID]}), file)
    plain = get_format("plain", end=())
    assert read_taught(SFTData(path=str(file)), plain)[0].text == SAID
    file.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a parquet file"):
        read_taught(SFTData(path=str(file)), plain)
