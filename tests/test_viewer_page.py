"""The viewer's page, driven in headless Chromium: its own script runs, and nothing else does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from scdpo.records import CORRECT
from scdpo.store import RunFolder
from scdpo.viewer import Index, write_page
from viewer_runs import HOSTILE, LONG, N_TEST, N_TRAIN, solution, step, write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed, so no page is driven"),
    pytest.mark.xdist_group("browser"),
]
ALL = f"{N_TRAIN + N_TEST} of {N_TRAIN + N_TEST} problems"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("viewer") / "run")


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "scdpo", "view", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "http://127.0.0.1:" in line, line + process.stderr.read()
        yield line.split()[1]
        process.terminate()
        assert process.stderr.read().strip() == "view      ended"
    assert process.returncode == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=sandbox)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    """A new page; whatever it complains about, and each request to elsewhere, fails the test."""
    found = browser.new_page(viewport={"width": 1280, "height": 800})
    found.set_default_timeout(30_000)
    complaints: list[str] = []
    requests: list[str] = []
    found.on("pageerror", lambda error: complaints.append(str(error)))
    ended = "ERR_CONNECTION_REFUSED"  # a server that was ended
    found.on("console", lambda m: None if ended in m.text else complaints.append(m.text))
    found.on("request", lambda request: requests.append(request.url))
    yield found
    found.close()
    assert complaints == []
    allowed = ("http://127.0.0.1:", "file://", "blob:file://", "about:")
    assert [url for url in requests if not url.startswith(allowed)] == []


def note(page: sync_api.Page, text: str) -> None:
    """Wait until the line under the filter says a text."""
    sync_api.expect(page.locator("#filter-note")).to_contain_text(text)


def title(page: sync_api.Page, text: str) -> None:
    sync_api.expect(page.locator("#detail .title")).to_have_text(text)


def test_the_run_is_listed_and_only_what_is_in_sight_is_in_the_page(
    page: sync_api.Page, address: str
) -> None:
    page.goto(address)
    note(page, ALL)
    sync_api.expect(page.locator(".overview h1")).to_have_text("run")
    assert 5 < page.locator(".item").count() < 40
    page.locator("#list").evaluate("(list) => { list.scrollTop = list.scrollHeight; }")
    sync_api.expect(page.locator(".item", has_text="tiny/test/4")).to_be_visible()
    assert page.locator(".item").count() < 40
    sync_api.expect(page.locator("#live")).to_contain_text("at rest")
    sync_api.expect(page.locator(".overview")).to_contain_text("step_controlled")


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ('verdict == "wrong" and k >= 2', f"{N_TRAIN - 1} of {N_TRAIN + N_TEST} problems, 59 rows"),
        ('verdict == "wrong" and k >= 2 and mean_logp < -0.3', "0 of 65 problems, 0 rows"),
        ("k == 2 and temperature > 1 and not (verdict == 'wrong')", "59 rows"),
        ('only("scdpo")', "1 of 65 problems, 3 rows"),
        ('right("dpo") and not right("scdpo")', "1 of 65 problems"),
        ('verdict in ("wrong", "undecided") and policy ~ "SCD"', "2 of 65 problems, 2 rows"),
        ('n_correct == 0 and part == "train"', "1 of 65 problems, 1 rows"),
        ('side == "rejected" and k > 0', "59 of 65 problems, 59 rows"),
        ("temperature * 2 + -k >= 2 - 1 / 2 and credit > 0", "1 of 65 problems, 2 rows"),
        ("answer == none", "0 of 65"),
        ("level != none and k != 0 or credit == 2", "59 of 65 problems, 179 rows"),
        ('verdict = "wrong"', "column 9: write == to compare"),
        ("verdikt == 'wrong'", "column 1: no field verdikt; did you mean verdict?"),
        ('k == "two"', 'column 3: k is a number and "two" a text'),
        ("k", "column 1: a number is no condition; compare it, as in k >= 2"),
        ("k > 2 and", "column 10: the expression is not complete"),
        ("(k > 2", "column 7: ) is missing before the end"),
        ('verdict == "wro', 'column 12: the text has no closing "'),
        ('only("gpt")', 'column 6: no evaluated policy "gpt"; there are sft, dpo, scdpo'),
        ("k > 2 ; k", "column 7: unexpected ;"),
        ("constructor == 1", "column 1: no field constructor"),
        ("(" * 150, "column 102: nested too deeply"),
        ("k > 1 or " * 300, "longer than 2000 characters"),
    ],
)
def test_a_filter_counts_what_fits_or_says_what_is_wrong_in_one_line(
    shared: sync_api.Page, expression: str, says: str
) -> None:
    shared.fill("#filter", expression)
    note(shared, says)
    wrong = says.startswith(("column", "longer"))
    assert shared.get_attribute("#filter", "aria-invalid") == str(wrong).lower()
    assert shared.locator("#filter-note").evaluate("(note) => note.clientHeight") < 40


@pytest.fixture(scope="module")
def shared(browser: sync_api.Browser, address: str) -> Iterator[sync_api.Page]:
    """One page for all filters."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    note(page, ALL)
    yield page
    page.close()


def test_the_filter_lives_in_the_address_and_the_way_back_works(
    page: sync_api.Page, address: str
) -> None:
    page.goto(address + "#/?filter=" + quote('only("scdpo")'))
    note(page, "1 of 65 problems")
    assert page.input_value("#filter") == 'only("scdpo")'
    page.keyboard.press("j")
    title(page, "tiny/test/2")
    answers = page.locator(".answer")
    sync_api.expect(answers).to_have_count(2)
    sync_api.expect(answers.first).to_contain_text("scdpo says 3.")
    sync_api.expect(answers.last).to_contain_text("dpo says 2.")
    page.fill("#filter", "k >= 1")
    note(page, "59 of 65 problems")
    assert "filter=k+%3E%3D+1" in page.url
    page.locator(".item").first.click()
    title(page, "tiny/train/0")
    page.go_back()
    title(page, "tiny/test/2")
    page.click("#clear")
    note(page, ALL)


def test_keys_lead_through_problems_solutions_and_steps(page: sync_api.Page, address: str) -> None:
    page.goto(address)
    note(page, ALL)
    press = page.keyboard.press
    press("j")
    title(page, "tiny/train/0")
    press("j")
    title(page, "tiny/train/1")
    press("k")
    press("G")
    title(page, f"tiny/test/{N_TEST - 1}")
    press("g")
    title(page, "tiny/train/0")
    assert page.locator(".tree .lane").count() == 5
    heading = page.locator(".solution h3")
    press("Enter")
    sync_api.expect(heading).to_have_text("tiny/train/0#0")
    press("n")  # the branch from the latest step lies nearest to its trunk
    sync_api.expect(heading).to_have_text("tiny/train/0#0@1")
    press("]")
    sync_api.expect(heading).to_have_text("tiny/train/0#0@2")
    press("]")
    sync_api.expect(heading).to_have_text("tiny/train/0#0@0")
    press("[")
    press("p")
    sync_api.expect(heading).to_have_text("tiny/train/0#0@1")
    assert page.locator(".step[open]").count() == 2
    press("e")
    sync_api.expect(page.locator(".step[open]")).to_have_count(4)
    press("x")
    sync_api.expect(page.locator(".step[open]")).to_have_count(0)
    press("e")
    sync_api.expect(page.locator(".credit").first).to_have_class("credit columns-2")
    press("c")
    sync_api.expect(page.locator(".credit")).to_have_count(0)
    press("c")
    sync_api.expect(page.locator(".credit").first).to_have_class("credit columns-1")
    press("?")
    sync_api.expect(page.locator("#help")).to_be_visible()
    press("Escape")
    sync_api.expect(page.locator("#help")).to_be_hidden()
    title(page, "tiny/train/0")
    press("Escape")
    sync_api.expect(heading).to_have_count(0)
    press("Escape")
    sync_api.expect(page.locator(".overview")).to_be_visible()
    press("/")
    page.keyboard.type('verdict == "wrong" and k == 1')
    press("Enter")
    title(page, "tiny/train/0")
    press("n")
    sync_api.expect(heading).to_have_text("tiny/train/0#0@0")
    sync_api.expect(page.locator(".lane.missed")).to_have_count(4)


def test_a_deep_link_opens_a_step_and_its_credit(page: sync_api.Page, address: str) -> None:
    page.goto(address + "#/q/tiny%2Ftrain%2F0/solution/tiny%2Ftrain%2F0%230%401/step/3")
    sync_api.expect(page.locator(".step.current")).to_contain_text("Step 3")
    lane = page.locator(".lane.current")
    sync_api.expect(lane.locator("title").last).to_contain_text(
        "tiny/train/0#0@1: wrong, finished, leaves its parent after step 2"
    )
    sync_api.expect(lane.locator(".temperature")).to_have_text(["1.1", "1.2"])
    sync_api.expect(page.locator(".step").nth(1)).to_contain_text("shared")
    columns = page.locator(".step.current .column")
    sync_api.expect(columns.first).to_contain_text("scdpo")
    sync_api.expect(columns.last).to_contain_text("dpo")
    columns.first.locator(".token").nth(1).hover()
    sync_api.expect(page.locator(".token-note")).to_contain_text(
        "reward scdpo −0.020, dpo 0.020; log-prob of the reference −0.20"
    )
    sync_api.expect(columns.last.locator(".token.here")).to_have_count(1)
    page.goto(address + "#/q/nothing%2Fof%2Fthe%2Fkind/step/x")
    sync_api.expect(page.locator("#detail")).to_contain_text("No such problem")
    page.goto(address + "#/q/%E0%A4%A/solution")  # no valid percent code
    sync_api.expect(page.locator(".overview")).to_be_visible()


def test_policies_are_compared_question_by_question(page: sync_api.Page, address: str) -> None:
    page.goto(address)
    cells = page.locator(".overview table").nth(1).locator("td button")
    sync_api.expect(cells).to_have_text(["2", "1", "1", "1"])  # scdpo against dpo
    page.select_option("select[aria-label='policy b']", "sft")
    sync_api.expect(cells).to_have_text(["2", "1", "0", "2"])
    cells.nth(1).click()
    note(page, "1 of 65 problems")
    sync_api.expect(page.locator(".item")).to_contain_text("tiny/test/2")
    sync_api.expect(page.locator(".item .marks")).to_contain_text("sft✗dpo✗scdpo✓")


def test_hostile_text_is_shown_as_text(page: sync_api.Page, address: str) -> None:
    page.goto(address + "#/q/tiny%2Ftrain%2F3/solution/tiny%2Ftrain%2F3%230")
    first = page.locator(".step").first.locator("pre")
    sync_api.expect(first).to_contain_text("</script><img src=x")
    shown = first.inner_text()
    expected = (
        HOSTILE.replace("\x1b", "\\x1b")
        .replace("\u202e", "\\u202e")
        .replace("\u202c\u200f", "\\u202c\\u200f")
    )
    assert shown == expected
    assert page.locator(".step").first.locator(".escape").first.get_attribute("title") == (
        "U+001B, escape"
    )
    assert page.locator(".output pre").inner_text() == "\\x1b[31mred\\x1b[0m"
    assert page.locator("main script, main img").count() == 0
    assert page.title() == "tiny/train/3 · scdpo"
    last = page.locator(".step").nth(2).locator("pre")
    assert len(last.inner_text()) < 25_000
    while (more := last.locator(".more")).count():
        more.click()
    assert last.inner_text() == LONG


def test_nothing_but_the_pages_own_script_can_run(browser: sync_api.Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    tried = page.evaluate(
        """async () => {
            const script = document.createElement("script");
            const made = [];
            // What is called from outside may evaluate; what the page does later may not.
            await new Promise((resolve) => { setTimeout(resolve); });
            for (const use of [
                () => { document.body.innerHTML = "<b>made</b>"; },
                () => { script.textContent = "document.title = 'owned'"; },
                () => new Function("return 1")(),
            ]) {
                try { use(); made.push("done"); } catch (error) { made.push(error.name); }
            }
            try { await fetch("http://example.invalid/"); } catch (error) { made.push(error.name); }
            return made;
        }"""
    )
    assert tried == ["TypeError", "TypeError", "EvalError", "TypeError"]
    page.close()


def test_a_page_follows_a_run_that_is_being_written(
    page: sync_api.Page, browser: sync_api.Browser, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "growing", train=2)
    command = [sys.executable, "-m", "scdpo", "view", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            page.goto(process.stderr.readline().split()[1] + "#/q/tiny%2Ftrain%2F1")
            title(page, "tiny/train/1")
            sync_api.expect(page.locator(".lane")).to_have_count(5)
            with RunFolder(run) as folder:
                stage = folder.stage("imports/more").open({})
                stage.append([solution(1, 9, CORRECT, (step("Arrived late."),))])
                sync_api.expect(page.locator(".lane")).to_have_count(6)
                sync_api.expect(page.locator("#live")).to_contain_text("being written")
                stage.append([solution(70, 0, CORRECT, (step("A new problem."),))])
                note(page, "8 of 8 problems")
            # The stage is done again: what was indexed of it is gone.
            with RunFolder(run) as folder:
                folder.stage("imports/more").open({}, redo=True).finish()
            note(page, "7 of 7 problems")
            sync_api.expect(page.locator(".lane")).to_have_count(5)
        finally:
            process.terminate()
    sync_api.expect(page.locator("#live")).to_contain_text("no answer from the server")


def test_one_file_works_without_a_server(
    browser: sync_api.Browser, run: Path, tmp_path: Path
) -> None:
    index = Index(run)
    whole = write_page(index, tmp_path / "whole.html")
    write_page(index, tmp_path / "cut.html", whole.bytes - 1000)
    context = browser.new_context(offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(
        (tmp_path / "whole.html").as_uri() + "#/q/tiny%2Ftrain%2F3/solution/tiny%2Ftrain%2F3%230"
    )
    sync_api.expect(page.locator(".step").first).to_contain_text("</script><img src=x")
    sync_api.expect(page.locator("#live")).to_have_text("a copy")
    page.fill("#filter", "credit > 0")
    note(page, "1 of 65 problems, 5 rows")
    page.goto((tmp_path / "cut.html").as_uri() + "#/q/tiny%2Ftest%2F4")
    sync_api.expect(page.locator("#detail .error")).to_contain_text("no room for the texts")
    assert page.title() == "tiny/test/4 · scdpo"
    assert complaints == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_fits_its_window_and_can_be_read(
    browser: sync_api.Browser, address: str, scheme: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(address)
    page.locator(".item").first.click()
    page.locator(".tree .ground").nth(1).click(position={"x": 5, "y": 5})
    sync_api.expect(page.locator(".solution")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"
    )
    for name in ("body", "#live", ".badge.wrong", ".step-head"):
        assert page.locator(name).first.evaluate(CONTRAST) >= 4.5, name
    if width < 760:
        assert page.locator("#list").is_hidden()
        page.click(".back")
        page.click(".back")
        sync_api.expect(page.locator("#list")).to_be_visible()
    page.close()


CONTRAST = """(node) => {
    const light = (color) => {
        const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    let ground = node;
    while (/rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) {
        ground = ground.parentElement;
    }
    const colors = [getComputedStyle(node).color, getComputedStyle(ground).backgroundColor];
    const pair = colors.map(light);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""
