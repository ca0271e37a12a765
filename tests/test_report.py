"""Tables: what they say, at any width, and that nothing of it is cut off."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from scdpo.errors import InputError
from scdpo.evaluation import BreakdownLine, Difference, PolicyLine
from scdpo.report import notation
from scdpo.report.grid import Grid, as_markdown
from scdpo.report.table import as_json, breakdown_table, policy_table, stage_table
from scdpo.store import Manifest

SUBJECTS = ("Algebra", "Counting & Probability", "Intermediate Algebra", "Precalculus")


def difference(points: float, low: float, high: float, p: float) -> Difference:
    return Difference(difference=points / 100, low=low / 100, high=high / 100, p=p)


LINES = [
    PolicyLine(
        policy="sft",
        n=1962,
        accuracy=0.460,
        low=0.429,
        high=0.492,
        vs_data_equal=difference(-1.4, -2.9, 0, 0.0502),
        unfinished=12,
    ),
    PolicyLine(
        policy="dpo_equal",
        n=1962,
        accuracy=0.474,
        low=0.443,
        high=0.506,
        vs_sft=difference(1.4, 0, 2.9, 0.0502),
        pairs=422,
    ),
    PolicyLine(
        policy="scdpo",
        n=1962,
        accuracy=0.499,
        low=0.467,
        high=0.531,
        vs_sft=difference(3.9, 2.1, 5.6, 0.000012),
        vs_data_equal=difference(2.5, 0.9, 4.1, 0.00312),
        pairs=12440,
        undecided=2,
        unfinished=8,
    ),
]


def manifest(
    stage: str, rows: int, seconds: float, status: str = "done", **counts: int
) -> Manifest:
    return Manifest.model_validate(
        {
            "stage": stage,
            "status": status,
            "config": {},
            "config_hash": "",
            "inputs": {},
            "rows": rows,
            "counts": counts,
            "seconds": seconds,
            "started": "2026-01-01T00:00:00+00:00",
            "updated": "2026-01-01T00:00:00+00:00",
        }
    )


MANIFESTS = [
    manifest("problems", 1400, 0.31),
    manifest("solutions", 5628, 240.2, finished=5500, step_tokens=88, max_steps=40),
    manifest("branches", 4532, 157, undecided=3, too_unlikely=612, duplicate=240, error=0),
    manifest("policies/scdpo", 55, 65, "running", over_long=4),
]
BREAKDOWN = [
    BreakdownLine(policy=policy, group=group, n=1187, accuracy=0.105, low=0.101, high=0.138)
    for policy in ("sft", "dpo", "dpo_equal", "scdpo")
    for group in SUBJECTS
]
GRIDS = {
    "policies": policy_table(LINES),
    "stages": stage_table(MANIFESTS),
    "breakdown": breakdown_table(BREAKDOWN, "subject"),
}


def shown(grid: Grid, width: int) -> str:
    out = StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(grid)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("name", GRIDS)
def test_a_table_fits_its_terminal_and_loses_no_character(name: str, width: int) -> None:
    grid, text = GRIDS[name], shown(GRIDS[name], width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    values = [part for row in grid.rows for cell in row for part in (cell.value, cell.detail)]
    for word in " ".join([*values, *grid.notes]).split():
        assert word in text
    for row in grid.rows:
        for cell in row[1:-1]:
            # Numbers with their intervals are never broken over lines.
            assert cell.value in text
            assert cell.detail in text


def test_a_name_wider_than_the_terminal_is_folded_not_cut() -> None:
    name = "runs/2026-11-23/policies/" + "long-" * 30 + "end"
    text = shown(policy_table([LINES[0].model_copy(update={"policy": name})]), 80)
    column = "".join(line.split()[0] for line in text.splitlines() if line.strip())
    assert name in column
    assert "[42.9, 49.2]" in text


def test_policy_table_at_80_columns_reads_as_it_should() -> None:
    lines = [line.rstrip() for line in shown(GRIDS["policies"], 80).splitlines()]
    assert lines[1:11] == [
        "                                                                vs DPO",
        " policy                n   pairs  accuracy %    vs SFT          (data-equal)",
        lines[3],
        " SFT               1,962          46.0                          −1.4  p=0.050",
        "                                  [42.9, 49.2]                  [−2.9, 0.0]",
        " DPO (data-equal)  1,962     422  47.4          +1.4  p=0.050",
        "                                  [44.3, 50.6]  [0.0, +2.9]",
        " SCDPO             1,962  12,440  49.9          +3.9  p<0.0001  +2.5  p=0.0031",
        "                                  [46.7, 53.1]  [+2.1, +5.6]    [+0.9, +4.1]",
        lines[10],
    ]


def test_policy_table_at_120_columns_has_one_line_a_policy() -> None:
    text = shown(GRIDS["policies"], 120)
    assert "SCDPO             1,962  12,440  49.9 [46.7, 53.1]  +3.9 [+2.1, +5.6]  p<0.0001" in text
    assert "Counted as not correct because unfinished: SFT 12, SCDPO 8." in text
    assert "Counted as not correct because undecided: SCDPO 2." in text


def test_policy_table_leaves_out_columns_that_nothing_fills() -> None:
    line = PolicyLine(policy="mine", n=10, accuracy=0.5, low=0.24, high=0.76)
    assert [column.heading for column in policy_table([line]).columns] == [
        "policy",
        "n",
        "accuracy %",
    ]
    assert "vs" not in shown(policy_table([line]), 80)


def test_stage_table_adds_up_the_time_and_marks_what_is_not_done() -> None:
    text = shown(GRIDS["stages"], 120)
    assert "undecided=3, too_unlikely=612, duplicate=240\n" in "\n".join(
        line.rstrip() + "\n" for line in text.splitlines()
    )
    assert "policies/scdpo (unfinished)" in text
    assert text.rstrip().splitlines()[-1].split() == ["total", "7", "min", "43", "s"]


def test_breakdown_turns_policies_into_columns() -> None:
    grid = breakdown_table(
        [
            BreakdownLine(policy="sft", group="Level 1", n=40, accuracy=0.5, low=0.4, high=0.6),
            BreakdownLine(policy="sft", group="Level 2", n=30, accuracy=0.2, low=0.1, high=0.3),
            BreakdownLine(policy="scdpo", group="Level 2", n=30, accuracy=0.3, low=0.2, high=0.4),
        ],
        "level",
    )
    assert [column.heading for column in grid.columns] == ["level", "n", "SFT", "SCDPO"]
    assert [[cell.value for cell in row] for row in grid.rows] == [
        ["Level 1", "40", "50.0", ""],
        ["Level 2", "30", "20.0", "30.0"],
    ]
    with pytest.raises(InputError, match="subject Algebra occurs twice for policy sft"):
        breakdown_table([BREAKDOWN[0], BREAKDOWN[0]], "subject")


def test_markdown_has_every_number_on_its_row() -> None:
    lines = as_markdown(GRIDS["policies"]).splitlines()
    assert lines[2] == "| policy | n | pairs | accuracy % | vs SFT | vs DPO (data-equal) |"
    assert lines[3] == "| :--- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[6] == (
        "| SCDPO | 1,962 | 12,440 | 49.9 [46.7, 53.1] | +3.9 [+2.1, +5.6] p<0.0001 "
        "| +2.5 [+0.9, +4.1] p=0.0031 |"
    )
    piped = PolicyLine(policy="a|b", n=1, accuracy=1, low=0.2, high=1)
    assert r"| a\|b |" in as_markdown(policy_table([piped]))


def test_markup_in_a_name_is_text() -> None:
    line = PolicyLine(policy="[red]x[/red]", n=1, accuracy=1, low=0.2, high=1)
    assert "[red]x[/red]" in shown(policy_table([line], title="[bold]t"), 80)
    assert "[bold]t" in shown(policy_table([line], title="[bold]t"), 80)


def test_json_gives_the_records_back_unrounded() -> None:
    rows = json.loads(as_json(LINES))
    assert [PolicyLine.model_validate(row) for row in rows] == LINES


def test_colour_only_marks_what_is_significant() -> None:
    styles = [[cell.style for cell in row[-2:]] for row in GRIDS["policies"].rows]
    assert styles == [["", ""], ["", ""], ["bold green", "bold green"]]


@pytest.mark.parametrize(
    "make", [policy_table, stage_table, lambda rows: breakdown_table(rows, "x")]
)
def test_an_empty_table_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(InputError, match="at least one row"):
        make([])


@pytest.mark.parametrize(
    "change", [{"accuracy": 46.0}, {"low": 0.47}, {"n": 0}, {"pairs": -1}, {"vs_sft": 0.1}]
)
def test_a_line_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PolicyLine.model_validate(LINES[0].model_dump() | change)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "p=1.0"),
        (0.996, "p=1.0"),
        (0.994, "p=0.99"),
        (0.23, "p=0.23"),
        (0.0996, "p=0.10"),
        (0.0502, "p=0.050"),
        (0.00031, "p=0.00031"),
        (0.0001, "p=0.00010"),
        (0.0000999, "p<0.0001"),
        (0.0, "p<0.0001"),
    ],
)
def test_p_values_have_two_significant_digits(p: float, text: str) -> None:
    assert notation.p_value(p) == text


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (0.014, "+1.4"),
        (-0.014, "−1.4"),
        (0.0004, "0.0"),
        (-0.0004, "0.0"),
        (0, "0.0"),
        (1, "+100.0"),
    ],
)
def test_differences_carry_their_sign(difference: float, text: str) -> None:
    assert notation.points(difference) == text


@given(st.floats(-1, 1))
def test_points_mirror(difference: float) -> None:
    there, back = notation.points(difference), notation.points(-difference)
    assert there.replace("+", "?").replace("−", "+").replace("?", "−") == back


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (8040, "2 h 14 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert notation.duration(seconds) == text
