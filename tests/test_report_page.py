"""The report of a run as a page: what is in it, that texts stay texts, and how it looks."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand_made import make_paired
from scdpo.cli.app import opened
from scdpo.evaluation import Difference, PolicyLine
from scdpo.insight.resampling import Estimate
from scdpo.insight.schedules import ScheduleFigures
from scdpo.insight.study import STUDY, ScheduleLine, TemperatureStudy
from scdpo.insight.suggestion import Rule
from scdpo.insight.temperature import Origin, TemperatureLine
from scdpo.pipeline.report_page import report_page
from scdpo.pipeline.tables import run_tables
from scdpo.records import WRONG
from scdpo.report.blocks import Charts, Fold, Page, Section, Text
from scdpo.report.charts import (
    Chart,
    Interval,
    Intervals,
    Point,
    Scale,
    Series,
    averaged,
    draw_intervals,
    draw_lines,
)
from scdpo.report.cost import pair_cost_table
from scdpo.report.curves import Curve, HeldOut, preference_charts, read_log, verdicts
from scdpo.report.funnel import funnel
from scdpo.report.grid import Cell, Column, Grid
from scdpo.report.page import LONGEST, render, write_report
from scdpo.report.samples import chosen_for_reading, pair_view
from scdpo.report.showing import PairSides
from scdpo.report.words import reason
from scdpo.sampling import Schedule
from scdpo.store import RunFolder, write_atomic
from small_runs import fail, succeed
from test_report import manifest
from viewer_runs import ANSI, HOSTILE, LONG, SCRIPT, pair, rewards, samples, solution, step

SECTIONS = (
    "accuracy",
    "curves",
    "yields",
    "cost",
    "temperature",
    "credit",
    "branches",
    "pairs",
    "origin",
)
MEGABYTES = 5e6
Capture = pytest.CaptureFixture[str]


class Reader(HTMLParser):
    """What a browser would see of a page: elements, addresses, and text by element."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.anchors: set[str] = set()
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "srcset", "action", "data", "xlink:href"):
                self.addresses.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)
            if name == "id":
                self.anchors.add(value or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def check_harmless(page: str) -> Reader:
    """No script, no handler, no address but of the page's own sections."""
    seen = Reader(page)
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & set(seen.tags)
    assert seen.handlers == []
    assert {address[:1] for address in seen.addresses} <= {"#"}
    assert {address[1:] for address in seen.addresses} <= seen.anchors
    assert not re.search(r"url\(|@import|https?:", page.partition("</style>")[0])
    assert "default-src 'none'; style-src 'sha256-" in page.replace("&#39;", "'")
    return seen


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny policy, trained and evaluated, by `scdpo run`."""
    folder = tmp_path_factory.mktemp("page")
    path = make_paired(folder, questions=3, methods=["scdpo"])
    succeed("run", path / "recipe.yaml", "--out", path)
    return path


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


# ---- the page of a run


def test_run_ends_by_naming_its_report(run: Path, page: str, capsys: Capture) -> None:
    succeed("run", run / "recipe.yaml", "--out", run)  # everything is done: only the report
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"report +{re.escape(str(run / 'report.html'))} \(0\.\d\d MB\)", last)
    assert (run / "report.html").stat().st_size < MEGABYTES
    assert Reader(page).tags


def test_a_page_has_every_section_and_nothing_else_loads(page: str) -> None:
    seen = check_harmless(page)
    assert [name for name in SECTIONS if name not in seen.anchors] == []
    assert {f"#{name}" for name in SECTIONS} == set(seen.addresses)
    for words in (
        "Preference accuracy on training pairs",
        "SCDPO: rewards of chosen and rejected",
        "Naive solutions 6 2.0 for each problem",
        "A step-controlled pair, 1 shared step",
        "Seed 0, in every stage.",
        "scdpo credit",
        "preset: paper",
        "Continuations 3",
    ):
        assert words in seen.words, words


def test_every_chart_has_a_title_axes_and_a_text(page: str) -> None:
    charts = re.findall(r'<svg viewBox="[^"]+" role="img".*?</svg>', page, re.DOTALL)
    assert len(charts) >= 4
    for chart in charts:
        title, text = re.findall(r"<(?:title|desc) id=[^>]*>(.*?)</", chart, re.DOTALL)
        assert title
        assert len(text) > 40
        assert 'class="name"' in chart


def test_figures_are_those_of_the_terminal(run: Path, page: str, capsys: Capture) -> None:
    succeed("report", run)
    printed = capsys.readouterr().out
    words = Reader(page).words
    with opened(run, None, write=False) as (opened_run, _):
        tables = run_tables(opened_run)
    assert tables.accuracy
    for grid in tables.all:
        assert grid.title in printed
        assert grid.title in words
        for row in grid.rows:
            line = " ".join(part for c in row for part in (c.value, c.after, c.detail) if part)
            assert line in words
            for part in line.split():
                assert part in printed


def test_a_page_is_written_where_it_is_wanted(run: Path, tmp_path: Path, capsys: Capture) -> None:
    before = (run / "report.html").stat().st_mtime_ns
    succeed("report", run, "--html", "--out", tmp_path / "my.html")
    assert "my.html" in capsys.readouterr().err
    check_harmless((tmp_path / "my.html").read_text(encoding="utf-8"))
    assert (run / "report.html").stat().st_mtime_ns == before
    assert fail(capsys, "report", run, "--out", "x.html").startswith(
        "--out is the file of the page"
    )


def test_a_run_that_was_only_begun_says_what_is_missing(tmp_path: Path) -> None:
    path = make_paired(tmp_path, questions=1)
    shutil.rmtree(path / "pairs")
    succeed("report", path, "--html")
    words = Reader((path / "report.html").read_text(encoding="utf-8")).words
    for command in ("evaluate", "train", "pilot", "credit", "quality", "pair"):
        assert f"scdpo {command} {path}" in words, command


# ---- texts of others


def hostile_page() -> Page:
    """A page on which every kind of block says something hostile."""
    right = solution(1, 0, WRONG, (step(HOSTILE), step("x = 1", output=ANSI)))
    wrong = solution(1, 1, WRONG, (step(HOSTILE + "!"), step(LONG)))
    made = pair(right, wrong).model_copy(update={"question": HOSTILE, "id": SCRIPT})
    line = Series(HOSTILE, (Point(0, 0), Point(1, 1)))
    grid = Grid(
        HOSTILE, (Column(HOSTILE, "left"),), ((Cell(HOSTILE, HOSTILE, HOSTILE),),), (HOSTILE,)
    )
    blocks = (
        Text(HOSTILE, "warning", HOSTILE),
        Charts(
            (
                Chart(HOSTILE, HOSTILE, HOSTILE, (line,), (), (0.5, HOSTILE), HOSTILE),
                Intervals(HOSTILE, HOSTILE, (Interval(HOSTILE, 1, 0, 2, HOSTILE),)),
            )
        ),
        grid,
        pair_view(made, PairSides(right, wrong)),
        Fold(HOSTILE, LONG + HOSTILE),
        funnel([manifest("solutions", 1, 1.0, **{f"cut:{SCRIPT}": 1})]),
    )
    return Page(HOSTILE, (HOSTILE,), (Section("accuracy", HOSTILE, blocks),))


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    size = write_report(hostile_page(), tmp_path / "hostile.html")
    assert size < MEGABYTES / 10
    html = (tmp_path / "hostile.html").read_text(encoding="utf-8")
    seen = check_harmless(html)
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", html
    )
    assert seen.words.count("<script>document.title = 'owned'</script>") > 10
    assert "\\x1b[31mred\\x1b[0m" in seen.words
    assert "abc\\u202edcba\\u202c\\u200f" in seen.words
    assert f"… and {len(LONG) - LONGEST:,} more characters" in seen.words


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_whatever_a_model_writes_is_text(text: str) -> None:
    section = Section("a", "A", (Text(text), Fold(text, text)))
    seen = check_harmless(render(Page(text, (text,), (section,))))
    assert set(seen.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "p", "nav", "ul", "li"),
        *("a", "main", "section", "h2", "details", "summary", "pre", "span"),
    }


# ---- charts


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(lambda p: Point(*p)),
        min_size=1,
        max_size=30,
    )
)
def test_all_points_are_inside_the_plot_between_round_ticks(points: list[Point]) -> None:
    drawn = draw_lines(Chart("t", "x", "y", (Series("s", tuple(points)),)))
    left, top, right, bottom = drawn.plot
    for mark in drawn.lines[0].marks:
        assert left - 0.1 <= mark.x <= right + 0.1
        assert top - 0.1 <= mark.y <= bottom + 0.1
    for ticks in (drawn.across, drawn.up):
        assert 1 <= len(ticks) <= 8
        assert len({tick.text for tick in ticks}) == len(ticks)


def test_ticks_are_round() -> None:
    assert [tick.text for tick in Scale(0.47, 1.02, 0, 100).ticks(5)] == ["0.6", "0.8", "1.0"]
    assert [tick.text for tick in Scale(-0.03, 0.031, 0, 100).ticks(6)] == [
        *("−0.02", "0.00", "0.02"),
    ]
    assert [tick.text for tick in Scale(0, 27, 0, 100).ticks(6)] == [
        *("0", "5", "10", "15", "20", "25"),
    ]


def test_intervals_have_their_limits_where_the_axis_says() -> None:
    rows = (Interval("a", 2, 1, 4, "2 [1, 4]"), Interval("b", 3, 3, 3, "3 [3, 3]", 1))
    drawn = draw_intervals(Intervals("t", "x", rows, (0.0, "zero")))
    ticks = {tick.text: tick.at for tick in drawn.across}
    assert drawn.level == ticks["0"]
    assert drawn.lines[0].path.startswith(f"M{ticks['1']},")
    assert drawn.lines[0].marks[0].x == ticks["2"]
    assert f"H{ticks['4']}M" in drawn.lines[0].path


def test_long_curves_are_averaged() -> None:
    points = [Point(n, float(n % 2)) for n in range(1000)]
    found = averaged(points)
    assert len(found) <= 120
    assert found[0] == Point(4.0, 4 / 9)
    assert averaged(points[:50]) == tuple(points[:50])


# ---- what charts and tables are made of


def curve(end: float, held: HeldOut | None = None) -> Curve:
    accuracy = [Point(n, min(end, 0.5 + n / 20)) for n in range(1, 31)]
    return Curve("scdpo", {"accuracy": accuracy}, held)


def line(difference: float, p: float) -> PolicyLine:
    found = Difference(difference=difference, low=difference - 0.01, high=difference + 0.01, p=p)
    return PolicyLine(policy="scdpo", n=600, accuracy=0.6, low=0.5, high=0.7, vs_sft=found)


RISEN = HeldOut(20, (0.693, 0.9), (0.5, 0.6), (0.5, 0.4))
FALLEN = HeldOut(20, (0.693, 0.6), (0.5, 0.7), (0.5, 0.6))


@pytest.mark.parametrize(
    ("end", "held", "against", "mark", "said"),
    [
        (0.99, None, line(-0.02, 0.001), "warning", "but greedy accuracy is −2.0 points against"),
        (0.99, None, line(-0.02, 0.4), "warning", "p=0.40, within chance"),
        (0.99, RISEN, line(0.02, 0.01), "warning", "20 held-out pairs goes from 0.693 to 0.900"),
        (0.99, FALLEN, line(0.02, 0.01), "fine", "ends at 99.0 % on training pairs; greedy"),
        (0.80, RISEN, line(-0.02, 0.001), "fine", "ends at 80.0 %"),
        (0.99, None, None, "fine", "no policy has been evaluated yet"),
    ],
)
def test_the_warning_comes_where_accuracy_saturates_and_answers_get_worse(
    end: float, held: HeldOut | None, against: PolicyLine | None, mark: str, said: str
) -> None:
    found = verdicts([curve(end, held)], [against] if against else [])
    assert [text.mark for text in found] == [mark]
    assert said in found[0].text


def test_a_log_becomes_curves_of_each_kind(run: Path) -> None:
    log = read_log(run / "policies" / "scdpo" / "log.jsonl")
    assert {"loss", "accuracy", "naive/margin", "step_controlled/chosen_reward"} <= log.keys()
    charts = [chart for block in preference_charts([Curve("scdpo", log)]) for chart in block.charts]
    assert [chart.title for chart in charts] == [
        "Loss on training pairs",
        "Preference accuracy on training pairs",
        "SCDPO: margin by kind of pair",
        "SCDPO: rewards of chosen and rejected",
    ]
    rewards_chart = charts[-1]
    assert isinstance(rewards_chart, Chart)
    assert [(s.label, s.dashed) for s in rewards_chart.series] == [
        ("chosen, naive", True),
        ("chosen, step-controlled", False),
        ("rejected, naive", True),
        ("rejected, step-controlled", False),
    ]
    margin, chosen, rejected = (
        log[f"naive/{name}"] for name in ("margin", "chosen_reward", "rejected_reward")
    )
    for m, c, r in zip(margin, chosen, rejected, strict=True):
        assert m.y == pytest.approx(c.y - r.y, abs=1e-6)


def test_a_funnel_adds_up_and_gives_the_reasons() -> None:
    counts = {"correct": 5, "wrong": 8, "undecided": 2, "cut:step_tokens": 2}
    naive = {
        "questions": 6,
        "solutions": 15,
        "chosen": 4,
        "rejected": 7,
        "unfinished": 2,
        "duplicate_rejected": 1,
        "chosen_flag:error_word:error": 1,
        "questions_without_chosen": 2,
        "pairs": 4,
        "heldout_pairs": 1,
    }
    made = funnel(
        [
            manifest("problems/train", 6, 0.1),
            manifest("solutions", 15, 1.0, **counts),
            manifest("pairs/naive", 4, 0.1, **naive),
            manifest("policies/scdpo", 1, 0.1, **{"pairs": 3, "dropped:too_long": 1}),
        ]
    )
    names = {stage.name: stage for stage in made.stages}
    assert made.widest == 15
    assert sum(share.n for share in names["Naive solutions"].shares) == 15
    usable = names["Solutions for pairs"]
    assert usable.n + sum(n for _, n in usable.dropped) == 15
    assert usable.dropped[0] == ("cut by a limit before their end", 2)
    assert ("right, but with the flag error_word:error", 1) in usable.dropped
    both = names["Questions with both kinds"]
    assert (both.n, both.dropped) == (4, (("no preferred solution", 2),))
    assert names["Naive pairs"].note == "1 of them held out"
    assert names["Trained on: SCDPO"].dropped == (("longer than train.max_length", 1),)
    assert reason("undecided:units differ") == "undecided: units differ"


def test_the_cost_of_a_pair() -> None:
    manifests = [
        manifest("solutions", 40, 20.0),
        manifest("pairs/naive", 10, 0.1, pairs=10),
        manifest("pairs/step_controlled", 0, 0.1, pairs=0),
    ]
    table = pair_cost_table(manifests, {"solutions": 5000})
    assert table is not None
    assert [[cell.value for cell in row] for row in table.rows] == [
        ["naive", "10", "40", "4.0", "500", "2.0 s"]
    ]
    assert pair_cost_table(manifests[:1], {}) is None


def test_pairs_to_read_are_of_the_middle_length_and_part_where_they_differ() -> None:
    right, wrong = samples(1)
    pairs = [pair(right, wrong), *(pair(*samples(n)) for n in (22, 333))]
    assert chosen_for_reading(pairs) == [pairs[1].id]
    branch = solution(1, 5, WRONG, (*right.steps[:1], step("First, guess.")), parent=right, k=1)
    view = pair_view(pair(right, branch), PairSides(right, branch))
    assert view.title == "A step-controlled pair, 1 shared step"
    assert [one.same for one in view.shared] == ["First, think."]
    first = [side.steps[0] for side in view.sides]
    assert [(one.same, one.own, one.parts_here) for one in first] == [
        ("", "print(1 + 1)", True),
        ("", "First, guess.", True),
    ]


# ---- in a browser

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def files(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The report of a run, and a hostile one."""
    out = tmp_path_factory.mktemp("hostile") / "hostile.html"
    write_report(hostile_page(), out)
    return [run / "report.html", out]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed, so no page is looked at")
@pytest.mark.xdist_group("browser")
def test_a_page_fits_its_window_in_light_and_dark(files: list[Path]) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=sandbox)
        for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")):
            context = chromium.new_context(color_scheme=scheme, offline=True)
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda message: complaints.append(message.text))
            for file in files:
                page.goto(file.as_uri())
                for width in (390, 1280):
                    page.set_viewport_size({"width": width, "height": 800})
                    assert page.evaluate("document.documentElement.scrollWidth") <= width, file
                assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
                assert page.title().endswith(" · scdpo report")
                # A style that the policy refused would leave the charts without lines.
                stroke = "(line) => getComputedStyle(line).stroke"
                assert page.locator(".chart .line").first.evaluate(stroke) != "none"
            context.close()
        chromium.close()
    assert complaints == []


def study() -> TemperatureStudy:
    """A temperature study whose accuracy falls from 90 to 50 %."""

    def near(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.05, high=value + 0.05)

    shares = ("negatives", "garbled", "unfinished", "undecided", "lost")
    others = ("distinct_solutions", "distinct_answers", "distinct_2", "tokens", "negatives_logp")
    lines = tuple(
        TemperatureLine(
            origin=origin,
            temperature=temperature,
            n_questions=9,
            n_solutions=36,
            draws=4,
            accuracy=near(accuracy),
            **{name: near(0.1) for name in (*shares, *others)},
        )
        for origin in get_args(Origin)
        for temperature, accuracy in ((0.5, 0.9), (1.3, 0.5))
    )
    figures = ScheduleFigures(
        **dict.fromkeys(("per_attempt", "per_parent", "attempts", "tokens", "lost"), near(0.5)),
        logp=None,
    )
    schedule = Schedule(1.2, 0.05, 1.3)
    suggested = ScheduleLine(role="suggested", schedule=schedule, predicted=figures)
    limits = {"floor": -0.7, "most_lost": 0.1, "tried": 9, "allowed": 4, "rule": Rule()}
    return TemperatureStudy(
        policy="tiny",
        sampling=1.0,
        questions=9,
        parents=5,
        draws=4,
        lines=lines,
        schedules=(suggested,),
        **limits,
    )


def test_what_other_commands_have_kept_is_on_the_page(tmp_path: Path) -> None:
    path = make_paired(tmp_path, questions=1)
    succeed("quality", path)
    write_atomic(path / STUDY, study().model_dump_json())
    about = {"problem_id": "gsm_symbolic/test/0", "prompt": HOSTILE}
    solutions = [row.model_copy(update=about) for row in samples(0)]
    with RunFolder(path) as folder:
        rows = {
            "credit/solutions": solutions,
            "credit/rewards": [
                rewards(row, policy, sign)
                for row in solutions
                for policy, sign in (("scdpo", -1), ("dpo", 1))
            ],
        }
        for name, made in rows.items():
            stage = folder.stage(name).open({})
            stage.append(made)
            stage.finish()
    with opened(path, None, write=False) as (run, _):
        html = render(report_page(run))
    seen = check_harmless(html)
    for words in (
        "Where rewards put the blame",
        "· lowest reward",
        "first wrong step",
        "Suggested schedule for branching: 1.2 + 0.05 per step up to 1.3.",
        "from the question: 90 at 0.5, 50 at 1.3, between 50 and 90.",
        "Schedules of branching",
        "Branches by branch step k",
        "How continuations end, by branch step",
    ):
        assert words in seen.words, words
    assert html.count('class="columns columns-2"') == 1
    assert "has not been" not in seen.words


def test_the_lines_of_a_page_are_its_own(page: str) -> None:
    """The policy allows the style sheet that stands in the page, and no other."""
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"sha256-{digest}" in page
