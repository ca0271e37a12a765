"""The documents: their Python runs, their commands exist, and their generated pages are whole."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from scdpo.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "studies").glob("*.md"),
    ]
)
FENCE = re.compile(
    r"(?P<marker><!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHELL = ("", "sh", "text")
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def python_blocks(page: Path) -> tuple[list[str], list[str]]:
    """The blocks of a page that are run, and the reasons why others are not."""
    run, left = [], []
    for fence in FENCE.finditer(page.read_text(encoding="utf-8")):
        if fence["language"] == "python":
            (left if fence["marker"] else run).append(fence["reason"] or fence["body"])
    return run, left


def shell_lines(page: Path) -> Iterator[str]:
    """The commands of a page's blocks: continued lines joined, comments cut off."""
    for fence in FENCE.finditer(page.read_text(encoding="utf-8")):
        if fence["language"] in SHELL:
            for line in fence["body"].replace("\\\n", " ").splitlines():
                yield from (part.strip() for part in re.sub(r"\s#.*", "", line).split(" | "))


def inline_code(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def generated_pages() -> ModuleType:
    script = ROOT / "docs" / "generated_pages.py"
    spec = importlib.util.spec_from_file_location("generated_pages", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)[0]], ids=name_of)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """All blocks of a page in order, as one script in an empty folder."""
    script = tmp_path / "page.py"
    script.write_text("\n".join(python_blocks(page)[0]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_that_are_not_run_say_why(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("```python") == sum(map(len, python_blocks(page)))
    assert text.count("<!-- not run:") == len(python_blocks(page)[1])
    assert all(len(reason) > 10 for reason in python_blocks(page)[1])


def scdpo_arguments(line: str) -> list[str] | None:
    """What follows `scdpo` in a command, or None if it is another command."""
    found = re.match(r"(?:\S*/)?scdpo (.+)|(?:torchrun|accelerate launch) .*-m scdpo (.+)", line)
    return shlex.split(found[1] or found[2]) if found else None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_of_a_page_can_be_given(page: Path) -> None:
    for line in shell_lines(page):
        arguments = scdpo_arguments(line)
        if arguments is None:
            continue
        name, *rest = arguments
        assert name in COMMANDS, f"{line}: no such command"
        try:
            COMMANDS[name].make_context(name, rest)
        except Exception as error:  # typer's own, which it does not export
            pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_the_text_exist(page: Path) -> None:
    for code in inline_code(page):
        found = re.fullmatch(r"scdpo ([a-z][\w-]*)((?: .*)?)", code)
        if found:
            assert found[1] in COMMANDS, f"{code}: no such command"
            known = {option for p in COMMANDS[found[1]].params for option in p.opts}
            assert set(re.findall(r"(?<= )--[\w-]+", found[2])) <= known, code


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    return set(re.findall(r"^([\w-]+):", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_and_extras_exist(page: Path) -> None:
    targets = make_targets()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for code in [*shell_lines(page), *inline_code(page)]:
        for target in re.findall(r"^make ([a-z-]+)$", code):
            assert target in targets, f"{name_of(page)}: no target {target}"
        if code.startswith("pip install"):
            for extras in re.findall(r"(?:\.|scdpo)\[([\w,]+)\]", code):
                assert set(extras.split(",")) <= set(project["optional-dependencies"]), code


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    """Links between pages of the site are checked when it is built."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", text)
    for link in (a or b for a, b in links):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    places = (ROOT, ROOT / "src/scdpo")
    for code in inline_code(page):
        if re.fullmatch(r"(?:src|tests|docs|benchmarks|recipes|sampling|pairs|training|engines"
                        r"|formats|problems|grading|sandbox|pipeline)/[\w/.-]+", code):  # fmt: skip
            assert any((place / code).exists() for place in places), f"{name_of(page)}: {code}"


def test_the_two_pictures_differ_in_their_colours_alone() -> None:
    light, dark = (
        (ROOT / f"docs/assets/branch-{name}.svg").read_text(encoding="utf-8")
        for name in ("light", "dark")
    )
    assert re.sub(r"#[0-9a-f]{6}", "#", light) == re.sub(r"#[0-9a-f]{6}", "#", dark)


def test_the_citation_can_be_read() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert "2407.00782" in citation["references"][0]["url"]


def strict() -> bool:
    """Whether mkdocs.yml asks for a description of every key."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return "every_key_described: true" in text


def test_every_key_of_a_recipe_has_a_description() -> None:
    pages = generated_pages()
    missing = pages.missing_descriptions(pages.recipe_model())
    if missing and not strict():
        pytest.skip(f"{len(missing)} keys without a description: {', '.join(missing)}")
    assert missing == []


def test_the_recipe_reference_has_every_key() -> None:
    pages = generated_pages()
    page = pages.recipe_page(pages.recipe_model())
    assert "| `temperature` | `float`, ≥ 0 | `1.0` |" in page
    assert "## branch.schedule" in page
    assert "| `max_rows` |" in page
    assert "typing." not in page
    assert "<class" not in page


def test_the_api_page_has_every_exported_name() -> None:
    import scdpo

    page = generated_pages().api_page()
    names = {name for name in scdpo.__all__ if not inspect.ismodule(getattr(scdpo, name))}
    assert set(re.findall(r"^::: scdpo\.(\w+)$", page, re.MULTILINE)) == names


def test_the_command_page_has_every_command() -> None:
    page = generated_pages().commands_page()
    assert re.findall(r"^## scdpo (\S+)$", page, re.MULTILINE) == list(COMMANDS)
    assert "| `--deadline` |" in page
