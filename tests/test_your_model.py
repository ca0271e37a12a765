"""The recipes of the pages on one's own model can be loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from scdpo.pipeline.recipe import make_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/your-model.md", "docs/sft.md", "docs/formats.md", "studies/smollm2.md")
PROBLEMS = {"problems": {"train": {"source": "embedded"}, "test": {"source": "embedded"}}}


def recipes(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    indented = re.findall(r"^( *)```yaml\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [body for _, body in indented]


@pytest.mark.parametrize("page", PAGES)
def test_the_recipes_of_a_page_are_valid(page: str) -> None:
    bodies = recipes(page)
    assert bodies
    for body in bodies:
        data = yaml.safe_load(body)
        make_recipe(PROBLEMS | data | {"problems": PROBLEMS["problems"] | data.get("problems", {})})
