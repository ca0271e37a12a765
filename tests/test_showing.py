"""Rows for reading: what is printed of them, safely, at any width; and the dry look."""

from __future__ import annotations

import io
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hand_made import make_paired, solution, write_tiny_recipe
from scdpo import terminal
from scdpo.records import WRONG, Evaluation, Pair, Problem, Step, undecided
from scdpo.report.showing import (
    PARTS_HERE,
    PairSides,
    show_evaluation,
    show_pair,
    show_problem,
    show_solutions,
)
from scdpo.terminal import Terminal, visible
from small_runs import fail, succeed

Capture = pytest.CaptureFixture[str]
HOSTILE = (
    "a\x1b[31mred\x1b[0m \x1b]0;title\x07 b\r\tc\x00 \x9b2J \u202eabc\u202c \u2066x\u200b\u2028"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with pairs, that is only read."""
    return make_paired(tmp_path_factory.mktemp("showing"), questions=2)


def printed(shown: Any, width: int = 80) -> str:
    """What a console without colours prints."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in shown if isinstance(shown, list) else [shown]:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# ---- safety


def hidden(text: str) -> set[str]:
    kinds = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return {c for c in text if c != "\n" and unicodedata.category(c) in kinds}


@given(st.text(st.characters(codec=None)))
def test_nothing_that_a_terminal_obeys_is_left_of_a_text(text: str) -> None:
    shown = visible(text).plain
    assert not hidden(shown)
    assert shown.count("\n") == text.count("\n")
    if not hidden(text):
        assert shown == text


def test_escapes_say_what_stood_there() -> None:
    assert visible(HOSTILE).plain == (
        r"a\x1b[31mred\x1b[0m \x1b]0;title\x07 b\r\tc\x00 "
        r"\x9b2J \u202eabc\u202c \u2066x\u200b\u2028"
    )
    assert visible("né 你好 שלום 😀 [bold]x[/bold]\nb").plain == "né 你好 שלום 😀 [bold]x[/bold]\nb"


def hostile() -> list[Any]:
    """Every kind of row with text from a hostile model, program and user everywhere."""
    step = Step(kind="code", text=HOSTILE, output=HOSTILE, host_text=HOSTILE, cut="deadline")
    text: dict[str, Any] = {"id": HOSTILE, "problem_id": HOSTILE, "prompt": HOSTILE}
    row = solution(0, 0, undecided(HOSTILE)).model_copy(
        update=text | {"steps": (step,), "answer": HOSTILE, "flags": (HOSTILE,), "parent": HOSTILE}
    )
    problem = Problem(
        id=HOSTILE,
        dataset="d",
        question=HOSTILE,
        answer=HOSTILE,
        alternatives=(HOSTILE,),
        solution=HOSTILE,
        level=HOSTILE,
        subject=HOSTILE,
    )
    pair = Pair(
        **text,
        dataset="d",
        question=HOSTILE,
        kind="naive",
        format="plain",
        shared=(step,),
        chosen=(step,),
        rejected=(step.model_copy(update={"text": HOSTILE + "x"}),),
        chosen_id=HOSTILE,
        rejected_id=HOSTILE,
    )
    evaluation = Evaluation(
        problem_id=HOSTILE,
        dataset="d",
        policy=HOSTILE,
        gold=HOSTILE,
        answer=HOSTILE,
        verdict=undecided(HOSTILE),
        finish="finished",
        n_steps=1,
        n_tokens=1,
        text=HOSTILE,
    )
    return [
        show_problem(problem),
        *show_solutions([row], {HOSTILE: problem}),
        show_pair(pair, PairSides(row, row, problem)),
        show_evaluation(evaluation, {}),
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_hostile_rows_are_printed_without_a_single_control_character(width: int) -> None:
    out = printed(hostile(), width)
    assert not hidden(out)
    assert max(map(len, out.splitlines())) <= width
    assert r"\x1b" in out


def test_rows_can_be_printed_where_the_encoding_is_ascii(run: Path) -> None:
    command = [sys.executable, "-m", "scdpo", "show", str(run), "--kind", "pairs", "--limit", "1"]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert rb"\u25b8" in done.stdout


# ---- what is printed


def test_a_solution_has_prompt_steps_executions_and_verdict() -> None:
    code = Step(kind="code", text="<|code|>1+3", output="4", host_text="<|execution|>4")
    row = solution(0, 0).model_copy(update={"steps": (code, *solution(0, 0).steps)})
    problem = Problem(id=row.problem_id, dataset="d", question="?", answer="4")
    out = printed(list(show_solutions([row, solution(0, 1, WRONG)], {problem.id: problem})))
    assert out.count(row.prompt.strip()) == 1, "once for the solutions of a problem"
    for part in ("gold    4", "correct, answer 4", "wrong, answer 5", "finished, 3 steps"):
        assert part in out
    assert "1 code\n  <|code|>1+3<|execution|>4\n  2 text, T 1, log-prob -0.50\n" in squeezed(out)


def test_the_style_of_a_heading_ends_with_it() -> None:
    row = solution(0, 0)
    console = Console(width=80, color_system="standard", force_terminal=True)
    styles = {
        segment.text.strip(): segment.style
        for shown in show_solutions([row], {})
        for segment in console.render(shown)
        if segment.text.strip() and segment.style is not None
    }
    (heading,) = [style for text, style in styles.items() if text.startswith("1 text")]
    step = styles[row.steps[0].text.strip()]
    assert heading.italic
    assert not (step.italic or step.dim or step.bold)
    assert styles["correct"].bold
    assert not styles[", answer 4"].bold


def squeezed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_a_branch_names_what_it_shares(run: Path, capsys: Capture) -> None:
    succeed("show", run, "--kind", "branches", "--limit", "1")
    out = capsys.readouterr().out
    assert "shares  step 1 with gsm_symbolic/train/0#0" in out
    assert "1 text" not in out
    assert "2 text" in out


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_pair_stands_side_by_side_and_is_marked_where_it_parts(width: int) -> None:
    def step(text: str) -> Step:
        return Step(kind="text", text=text)

    chosen = (step("They eat. "), step("In a week 7. "), step("So 91."))
    rejected = (step("They eat. "), step("In a month 30. "))
    known = {"chosen_id": "c", "rejected_id": "r", "dataset": "d", "question": "?"}
    pair = Pair(
        id="p",
        problem_id="q",
        kind="step_controlled",
        format="plain",
        prompt="Q",
        shared=(step("First. "),),
        chosen=chosen,
        rejected=rejected,
        branch_step=1,
        **known,
    )
    out = printed(show_pair(pair, PairSides()), width)
    lines = out.splitlines()
    (parting,) = [line for line in lines if PARTS_HERE in line]
    assert parting.split() == f"In a {PARTS_HERE}week 7. In a {PARTS_HERE}month 30.".split()
    column = parting.index("In a", 10)
    assert abs(column - width / 2) <= 1, "both sides have half of the width"
    assert "step_controlled, train, 1 shared step" in out
    assert next(line for line in lines if "chosen c" in line).index("rejected r") == column
    assert lines.index(parting) > next(n for n, line in enumerate(lines) if "First." in line)
    assert "4 text" in out


PARTINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...], list[str]]] = {
    "at once": (("a",), ("b",), ["▸a", "▸b"]),
    "in the second step": (("a", "bc"), ("a", "bd"), ["b▸c", "b▸d"]),
    "one goes on": (("a", "b"), ("a",), ["▸b", "▸ ends here"]),
    "one is longer": (("ab",), ("a",), ["a▸b", "a▸"]),
}


@pytest.mark.parametrize(("chosen", "rejected", "marked"), PARTINGS.values(), ids=PARTINGS)
def test_where_two_sides_part(
    chosen: tuple[str, ...], rejected: tuple[str, ...], marked: list[str]
) -> None:
    sides = {
        name: tuple(Step(kind="text", text=text) for text in texts)
        for name, texts in (("chosen", chosen), ("rejected", rejected))
    }
    (pair,) = [Pair.model_validate({**BARE, **sides})]
    out = printed(show_pair(pair, PairSides()))
    (line,) = [line for line in out.splitlines() if PARTS_HERE in line]
    assert line.split() == " ".join(marked).split()


BARE = {
    "id": "p",
    "problem_id": "q",
    "dataset": "d",
    "question": "?",
    "kind": "naive",
    "format": "plain",
    "prompt": "Q",
    "chosen_id": "c",
    "rejected_id": "r",
}


# ---- what is chosen


def test_rows_are_chosen_by_part_id_and_verdict(run: Path, capsys: Capture) -> None:
    def shown(*arguments: str) -> str:
        capsys.readouterr()
        succeed("show", run, *arguments)
        return capsys.readouterr().out

    wrong = shown("--verdict", "wrong")
    assert wrong.count("wrong, answer 5") == 2
    assert "correct" not in wrong
    assert shown("--id", "gsm_symbolic/train/1").count("finished, 2 steps") == 2
    naive = shown("--kind", "pairs", "--part", "naive")
    assert (naive.count("naive, train"), naive.count("step_controlled")) == (2, 0)
    both = shown("--kind", "pairs", "--id", "gsm_symbolic/train/0#0")
    assert both.count("correct, answer 4") == 3, "naive, step-controlled and data-equal"
    assert "gold" in shown("--kind", "problems", "--limit", "1")
    assert "of the first" not in naive


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kind", "x"), "unknown kind 'x'; known: problems, solutions, imports, branches, "),
        (("--kind", "imports"), "RUN: no imports yet; scdpo import makes them"),
        (("--kind", "evaluations"), "RUN: no evaluations yet; scdpo evaluate makes them"),
        (("--kind", "pairs", "--part", "x"), "--part x: pairs here has naive, step_controlled, "),
        (("--part", "x"), "--part x: solutions here has no parts"),
        (("--id", "x"), "RUN: no row with id x in solutions"),
        (("--verdict", "undecided"), "RUN: no row with verdict undecided in solutions"),
        (("--verdict", "right"), "--verdict right: expected correct, wrong or undecided"),
        (
            ("--kind", "pairs", "--verdict", "wrong"),
            "--verdict is for solutions, imports, branches, evaluations, not for pairs",
        ),
        (("--kind", "evaluations", "--flag", "x"), "--flag is for solutions, imports, branches"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_shown(
    arguments: tuple[str, ...], message: str, run: Path, capsys: Capture
) -> None:
    found = fail(capsys, "show", run, *arguments)
    assert found.startswith(message.replace("RUN", str(run)))


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: Capture) -> None:
    assert fail(capsys, "show", tmp_path / "x") == f"{tmp_path}/x: no run folder there"
    assert (
        fail(capsys, "show", tmp_path) == f"{tmp_path}: no solutions yet; scdpo sample makes them"
    )


def test_more_rows_than_were_asked_for_are_announced(run: Path, capsys: Capture) -> None:
    succeed("show", run, "--limit", "3")
    assert "the first 3; --limit prints more" in capsys.readouterr().err
    succeed("show", run, "--limit", "4")
    assert "the first" not in capsys.readouterr().err


# ---- the dry look


def test_a_dry_look_draws_what_the_run_will_draw_and_keeps_nothing(
    tmp_path: Path, capsys: Capture
) -> None:
    limits = {"max_steps": 3, "step_tokens": 8, "context": 300}
    path = write_tiny_recipe(tmp_path, sample={"correct": 2, "wrong": 2, "limits": limits})
    succeed("sample", tmp_path / "out", "--recipe", path, "--show", "--limit", "1")
    out, err = capsys.readouterr()
    assert not (tmp_path / "out").exists()
    assert "2 solutions in " in err
    assert "nothing is kept" in err
    assert out.count("prompt  ") == 1
    assert out.count("undecided (unfinished: ") == 2

    succeed("sample", tmp_path / "out", "--recipe", path)
    rows = tree(tmp_path / "out")
    capsys.readouterr()
    succeed("show", tmp_path / "out", "--limit", "2")
    assert capsys.readouterr().out == out
    succeed("sample", tmp_path / "out", "--show", "--limit", "1")
    assert capsys.readouterr().out == out
    assert tree(tmp_path / "out") == rows, "nor does it change a run that has begun"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_options_of_the_dry_look_alone(tmp_path: Path, capsys: Capture) -> None:
    assert fail(capsys, "sample", "x", "--recipe", "smoke", "--limit", "2") == (
        "--limit goes with --show; a run's problems are problems.train.limit"
    )
    assert fail(capsys, "sample", "x", "--recipe", "smoke", "--show", "--redo") == (
        "--show only looks, so there is nothing to --redo"
    )


def test_lines_of_progress_say_how_long_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 40.0, 100.0, 160.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    report = Terminal().progress("credit")
    for done in (300, 310, 330):  # an earlier process had done 300
        report(done, 330)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "credit: 300 of 330 after 0:40",
        "credit: 310 of 330 after 1:40, 2:00 left",
        "credit: 330 of 330 after 2:40",
    ]
