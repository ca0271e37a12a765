"""Measures the grader: gold answers, labelled pairs, recorded solutions, hostile answers, speed.

    python benchmarks/grading.py ../shared/data [--show] [--only golds,random,…]

`golds`: every gold answer against itself. `random`: 10,000 random pairs of gold answers of
different questions per data set; all accepted ones are counted by why they are equal, and printed
with --show. `pairs`: labelled pairs, in the grader's own table and in Math-Verify's test suite,
beside Math-Verify and the paper's rule. `recorded`: recorded solutions, our verdict beside the
authors' own split, or beside the paper's rule where there is none. `hostile`: answers meant to
hang or crash a grader. `speed`: gold answers against respelled ones, so that strings differ.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from scdpo.formats import get_format, read_recorded
from scdpo.grading import Claim, Grader, GradingConfig, judge
from scdpo.grading.comparing.written import value
from scdpo.problems.benchmarks import load_problems
from scdpo.problems.gold import one_of_several
from scdpo.records import Verdict

console = Console(width=110)
TABLE = Path(__file__).resolve().parents[1] / "tests" / "cases"
FILES: dict[str, tuple[str, ...]] = {
    "gsm8k": ("gsm8k/train.jsonl", "gsm8k/test.jsonl"),
    "math": ("math/train.jsonl", "math/test.jsonl"),
    "math500": ("math/math500.jsonl",),
    "ape210k": ("ape210k/valid.ape.json", "ape210k/test.ape.json"),
    "cmath": ("cmath/deepseek_cmath_test.jsonl",),
    "mgsm_zh": ("mgsm/mgsm_zh.tsv",),
    "mgsm_en": ("mgsm/mgsm_en.tsv",),
    "svamp": ("svamp/SVAMP.json",),
    "asdiv": ("asdiv/qwen_asdiv_test.jsonl",),
    "mawps": ("mawps/test.jsonl",),
    "simuleq": ("mathcoder_ood/simuleq_test_post.jsonl",),
    "mathematics": ("mathcoder_ood/mathematics_test_post.jsonl",),
}
PAIRS = 10_000
CORRECT_FIRST = {"MathCoder-L-13b_GSM8K": 964, "MathCoder-L-7b_GSM8K": 849}
"""Files in which the authors' correct solutions come first, and how many they are."""
ALL_CORRECT = ("MathCoder-L-7b_MATH_correct",)
SECTIONS = ("golds", "random", "pairs", "recorded", "hostile", "speed")
HOSTILE = (
    *("9^{9^{9}}", "9^{9^{9^{9}}}", "{" * 10_240, "(" * 10_240 + ")" * 10_240, "5" + "\x00" * 50),
    *("\u202e5", "\\frac{" * 2_000 + "1" + "}" * 2_000, "\\sqrt{" * 300 + "}" * 300, "1" * 100_000),
    *("99999999!", "10^{99999999}", "((((1,2),3),4),[", "\ud800", "x" * 100_000, "1," * 20_000),
    *("a and " * 10_000, "\\begin{pmatrix}" * 500, "|" * 5_000, "\\binom{10^9}{10^8}"),
    *("(a)" * 3_000, "__import__('os').system('x')", "2^" * 900 + "2", "-" * 9_000),
    "0.\\overline{" + "12" * 5_000 + "}",
)


def main(
    data: Annotated[Path, typer.Argument(help="The folder with the data sets.")],
    show: Annotated[bool, typer.Option(help="Print every case behind a count.")] = False,
    only: Annotated[str, typer.Option(help="Sections, separated by commas.")] = "",
) -> None:
    """Print the tables."""
    wanted = [name.strip() for name in only.split(",") if name.strip()] or list(SECTIONS)
    golds = {name: list(_golds(name, data)) for name in FILES}
    with Grader() as grader:
        for name in wanted:
            match name:
                case "golds":
                    _against_themselves(golds, grader)
                case "random":
                    _against_each_other(golds, grader, show)
                case "pairs":
                    _labelled(data, grader, show)
                case "recorded":
                    _recorded(data / "solutions", grader, show)
                case "hostile":
                    _hostile(grader)
                case "speed":
                    _speed(golds)
                case _:
                    raise typer.BadParameter(f"{name}: known are {', '.join(SECTIONS)}")


def _golds(name: str, data: Path) -> Iterator[str]:
    for file in FILES[name]:
        for problem in load_problems(name, data / file):
            yield problem.answer


def _against_themselves(golds: dict[str, list[str]], grader: Grader) -> None:
    table = _table("Gold answers against themselves", "data set", "answers", "correct", "not")
    for name, answers in golds.items():
        verdicts = grader.grade_many([(gold, gold) for gold in answers])
        off = [g for g, v in zip(answers, verdicts, strict=True) if v.name != "correct"]
        table.add_row(name, f"{len(answers):,}", f"{len(answers) - len(off):,}", str(off[:3] or 0))
    console.print(table)


def _against_each_other(golds: dict[str, list[str]], grader: Grader, show: bool) -> None:
    table = _table(
        f"{PAIRS:,} random pairs of different gold strings",
        *("data set", "accepted", "same number", "unit or sign left out", "other", "undecided"),
    )
    for name, answers in golds.items():
        draw, pairs = random.Random(0), set[tuple[str, str]]()
        while len(pairs) < PAIRS:
            first, second = draw.choice(answers), draw.choice(answers)
            if first != second:
                pairs.add((first, second))
        ordered = sorted(pairs)
        verdicts = grader.grade_many(ordered)
        accepted = [p for p, v in zip(ordered, verdicts, strict=True) if v.name == "correct"]
        why = Counter(_why(*pair) for pair in accepted)
        undecided = sum(v.name == "undecided" for v in verdicts)
        columns = (len(accepted), why["value"], why["digits"], why["other"], undecided)
        table.add_row(name, *map(str, columns))
        if show:
            for pair in accepted:
                console.print(
                    f"  {name}: {_why(*pair)}: {pair[0]!r} = {pair[1]!r}",
                    markup=False,
                    soft_wrap=True,
                )
    console.print(table)


def _why(first: str, second: str) -> str:
    """Why two accepted strings are equal: their exact value, or their digits alone."""
    values = value(first), value(second)
    if None not in values and values[0] == values[1]:
        return "value"
    digits = ["".join(c for c in text if c.isdigit() or c in "-.") for text in (first, second)]
    return "digits" if digits[0].strip(".") == digits[1].strip(".") else "other"


def _labelled(data: Path, grader: Grader, show: bool) -> None:
    theirs = json.loads((data / "math_verify_pairs.json").read_text(encoding="utf-8"))
    sets: dict[str, list[dict[str, Any]]] = {
        "Math-Verify's tests": [
            {**row, "answer": row["pred"], "label": "correct" if row["label"] else "wrong"}
            for row in theirs
        ],
        "own table": json.loads((TABLE / "answers.json").read_text(encoding="utf-8")),
        "own, still open": json.loads((TABLE / "open_answers.json").read_text(encoding="utf-8")),
        "kinds that graders misjudge": [
            {**row, "label": row["expected"]}
            for row in json.loads((TABLE / "kinds.json").read_text(encoding="utf-8"))
        ],
    }
    for title, rows in sets.items():
        table = _table(
            f"{title}: {len(rows)} pairs",
            *("rule", "right accepted", "wrong accepted"),
            *("right refused", "right undecided", "agree"),
        )
        claims = [
            Claim(row.get("answer", row.get("solution")), (row["gold"],), is_answer="answer" in row)
            for row in rows
        ]
        labels = [row["label"] for row in rows]
        ours = [found.verdict for found in judge(claims, grader)]
        _add(table, "scdpo", labels, ours)
        with Grader(GradingConfig(compat="paper")) as paper:
            _add(table, "the paper's", labels, [one.verdict for one in judge(claims, paper)])
        _add(table, "Math-Verify 0.9.0", labels, list(map(_math_verify, claims)))
        console.print(table)
        if show:
            for row, claim, verdict in zip(rows, claims, ours, strict=True):
                if not _agrees(row["label"], verdict.name):
                    texts = f"{row['gold'][-60:]!r} | {(claim.text or '')[-60:]!r}"
                    console.print(
                        f"  {row['label']} → {verdict.name}: {texts}", markup=False, soft_wrap=True
                    )


def _math_verify(claim: Claim) -> Verdict:
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it prints the texts that it gives up
    try:
        answer = f"${claim.text}$" if claim.is_answer else claim.text
        first, second = parse(f"${claim.golds[0]}$"), parse(answer)
        equal = verify(first, second)
    except Exception:
        equal = False
    return Verdict(name="correct" if equal else "wrong")


def _agrees(label: str, name: str) -> bool:
    """Math-Verify's own pairs are right or wrong; not accepting a wrong one is what they ask."""
    return label == name or (label == "wrong" and name == "undecided")


def _add(table: Table, rule: str, labels: Sequence[str], verdicts: Sequence[Verdict]) -> None:
    counts = Counter(zip(labels, (v.name for v in verdicts), strict=True))
    right = sum(label == "correct" for label in labels)
    wrong = sum(label == "wrong" for label in labels)
    agree = sum(_agrees(label, v.name) for label, v in zip(labels, verdicts, strict=True))
    table.add_row(
        rule,
        f"{counts['correct', 'correct']} of {right}",
        f"{counts['wrong', 'correct']} of {wrong}",
        str(counts["correct", "wrong"]),
        str(counts["correct", "undecided"]),
        f"{agree} ({100 * agree / max(1, len(labels)):.1f} %)",
    )


def _recorded(folder: Path, grader: Grader, show: bool) -> None:
    table = _table(
        "Recorded solutions: our verdict (columns) beside the authors' or the paper's rule",
        *("file", "beside", "said correct: c / w / u", "said wrong: c / w / u", "disagree"),
    )
    for path in sorted(folder.glob("*.jsonl")):
        recorded = list(read_recorded(path, "tora" if "ToRA" in path.stem else "mathcoder"))
        form = get_format(recorded[0].format)
        texts = [form.plain(form.render(r.steps)) if r.finished else None for r in recorded]
        dataset = "simuleq" if "simuleq" in path.stem else "other"
        claims = [
            Claim(text, (r.gold,), one_of_several(dataset, r.question))
            for r, text in zip(recorded, texts, strict=True)
        ]
        found = judge(claims, grader)
        said, beside = _said(path.stem, recorded, form)
        counts = Counter(zip(said, (verdict.name for _, verdict in found), strict=True))
        names = ("correct", "wrong", "undecided")
        off = counts[True, "wrong"] + counts[True, "undecided"] + counts[False, "correct"]
        table.add_row(
            path.stem,
            beside,
            *(" / ".join(str(counts[one, name]) for name in names) for one in (True, False)),
            str(off),
        )
        if show:
            for r, (answer, verdict), one in zip(recorded, found, said, strict=True):
                if one != (verdict.name == "correct"):
                    line = f"  {path.stem}: gold {r.gold!r}, answer {answer!r}: {verdict.name}"
                    console.print(
                        f"{line} {verdict.reason}, said {one}", markup=False, soft_wrap=True
                    )
    console.print(table)


def _said(name: str, recorded: Sequence[Any], form: Any) -> tuple[list[bool], str]:
    """Whether each solution was said to be correct, and by whom."""
    if name in CORRECT_FIRST:
        return [at < CORRECT_FIRST[name] for at in range(len(recorded))], "authors"
    if name in ALL_CORRECT:
        return [True] * len(recorded), "authors"
    with Grader(GradingConfig(compat="paper")) as paper:
        answers = [paper.answer_in(form.plain(form.render(r.steps[-1:]))) for r in recorded]
        verdicts = paper.grade_many([(r.gold, a) for r, a in zip(recorded, answers, strict=True)])
    return [verdict.name == "correct" for verdict in verdicts], "paper's rule"


def _hostile(grader: Grader) -> None:
    table = _table("Hostile answers against 5 and x^2", "answer", "verdict", "reason", "seconds")
    for answer in HOSTILE:
        for gold in ("5", "x^2"):
            start = time.perf_counter()
            verdict = grader.grade(gold, answer)
            seconds = time.perf_counter() - start
            shown = ascii(answer[:24]) + f" … {len(answer):,}" * (len(answer) > 24)
            table.add_row(shown, verdict.name, verdict.reason[:36], f"{seconds:.2f}")
    after = grader.grade("x^2", "x \\cdot x").name
    console.print(table)
    console.print(f"  afterwards, x · x against x²: {after}")


def _speed(golds: dict[str, list[str]]) -> None:
    table = _table("Throughput, strings that differ", "data set", "pairs", "seconds", "per second")
    spellings = {"gsm8k": "\\${}.00", "math": "$ {} $."}
    for name, spelling in spellings.items():
        answers = [a for a in dict.fromkeys(golds[name]) if name != "gsm8k" or a.isdigit()]
        respelled = [
            spelling.format(a.replace("\\frac", "\\dfrac").replace(",", ", ")) for a in answers
        ]
        with Grader() as fresh:
            fresh.grade("\\int x", "y")  # starts a worker before the clock does
            start = time.perf_counter()
            fresh.grade_many(list(zip(answers, respelled, strict=True)))
            fresh.grade_many(list(zip(answers, answers[1:] + answers[:1], strict=True)))
            seconds = time.perf_counter() - start
        n = 2 * len(answers)
        table.add_row(name, f"{n:,}", f"{seconds:.1f}", f"{n / seconds:,.0f}")
    console.print(table)


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


if __name__ == "__main__":
    typer.run(main)
