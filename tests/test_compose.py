"""Worked solutions written in each format, and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdpo.errors import InputError
from scdpo.formats import get_format
from scdpo.formats.compose import compose
from scdpo.records import Step, WorkedStep

END = "<|endofmessage|>"
WORKED = (
    WorkedStep(text="Twice 21.", code="a = 2 * 21\na", output="42"),
    WorkedStep(text="", code="b = a / 4", output=""),
    WorkedStep(text="So it goes."),
    WorkedStep(text="The answer is \\boxed{10.5}."),
)


def written(steps: tuple[Step, ...]) -> list[tuple[str, str, str]]:
    return [(step.kind, step.text, step.host_text) for step in steps]


def test_blocks() -> None:
    assert written(compose(WORKED, get_format("blocks"))) == [
        ("text", "<|text|>Twice 21.<|endofblock|>", ""),
        ("code", "<|code|>a = 2 * 21\na<|endofblock|>", "<|execution|>42<|endofblock|>"),
        (
            "code",
            "<|code|>b = a / 4<|endofblock|>",
            "<|execution|><empty_execution><|endofblock|>",
        ),
        ("text", "<|text|>So it goes.<|endofblock|>", ""),
        ("text", f"<|text|>The answer is \\boxed{{10.5}}.<|endofblock|>{END}", ""),
    ]


def test_fenced() -> None:
    assert written(compose(WORKED, get_format("fenced"))) == [
        ("code", "Twice 21.\n```python\na = 2 * 21\na\n```\n```output", "\n42\n```\n"),
        ("code", "```python\nb = a / 4\n```\n```output", "\n\n```\n"),
        ("text", f"So it goes.\nThe answer is \\boxed{{10.5}}.{END}", ""),
    ]


@pytest.mark.parametrize("boundary", ["\n", "\n\n"])
def test_plain(boundary: str) -> None:
    steps = (WORKED[0], *WORKED[2:])
    assert written(compose(steps, get_format("plain", boundary=boundary))) == [
        ("text", f"Twice 21. = 42{boundary}", ""),
        ("text", f"So it goes.{boundary}", ""),
        ("text", f"The answer is \\boxed{{10.5}}.{END}", ""),
    ]


@pytest.mark.parametrize("name", ["blocks", "fenced"])
def test_after_a_program_the_end_marker_is_a_step_of_its_own(name: str) -> None:
    steps = compose(WORKED[:1], get_format(name))
    assert [step.kind for step in steps][-2:] == ["code", "text"]
    assert steps[-1].text == END


def test_a_format_without_end_strings_gets_none() -> None:
    for name in ("blocks", "fenced", "plain"):
        text = "".join(step.text for step in compose(WORKED[2:], get_format(name, end=())))
        assert "So it goes." in text
        assert END not in text


SENTENCE = st.text(st.characters(codec="utf-8", exclude_characters="`<\n"), min_size=1).filter(
    lambda text: bool(text.strip())
)
PROGRAM = st.from_regex(r"[a-z] = \d+( [-+*] \d+)*(\n[a-z])?", fullmatch=True)
OUTPUT = st.from_regex(r"-?\d+(\.\d+)?|\(\d, \d\)|", fullmatch=True)


@given(
    st.lists(
        st.one_of(
            st.builds(WorkedStep, text=SENTENCE),
            st.builds(WorkedStep, text=SENTENCE, code=PROGRAM, output=OUTPUT),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["blocks", "fenced"]),
)
def test_what_is_composed_reads_back(worked: list[WorkedStep], name: str) -> None:
    form = get_format(name)
    steps = compose(worked, form)
    text = form.render(steps)
    assert form.parse(text) == steps
    assert form.finished(text)
    assert text.count(END) == 1
    programs = [(form.code(s.text), s.output) for s in steps if s.kind == "code"]
    assert programs == [(w.code, w.output) for w in worked if w.code is not None]
    for step in worked:
        assert step.text in text
    for step in steps:
        if step.output is not None:
            assert step.host_text == form.host_text(step.text, step.output)


@pytest.mark.parametrize(
    ("name", "step", "message"),
    [
        ("blocks", WorkedStep(text="a<|endofblock|>b"), "reads as a marker"),
        ("blocks", WorkedStep(text=f"a{END}b"), "reads as a marker"),
        ("blocks", WorkedStep(text="", code="x<|endofblock|>", output="1"), "reads as a marker"),
        ("blocks", WorkedStep(text="", code="x", output="<|text|>"), "reads as a marker"),
        ("fenced", WorkedStep(text="", code="'''\n```\n'''", output="1"), "reads as a marker"),
        ("fenced", WorkedStep(text="", code="x", output="```"), "reads as a marker"),
        ("plain", WorkedStep(text="one\ntwo"), "the end of a step"),
        ("plain", WorkedStep(text=""), "the end of a step"),
        ("blocks", WorkedStep(text="a", code="x"), "its program has no output"),
        ("plain", WorkedStep(text="a", code="x"), "its program has no output"),
    ],
)
def test_a_step_that_would_be_read_otherwise_is_refused(
    name: str, step: WorkedStep, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compose((step, WorkedStep(text="The answer is 1.")), get_format(name))


def test_an_unknown_format_is_refused() -> None:
    form = get_format("plain")
    form.name = "table"
    with pytest.raises(InputError, match="format 'table'"):
        compose(WORKED, form)
