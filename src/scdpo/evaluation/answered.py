"""Reads the questions that policies have answered, from any source, and compares policies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast, get_args

from scdpo.errors import DataError, InputError, short
from scdpo.evaluation.accuracy import Comparison, compare, same_questions, status
from scdpo.evaluation.harness import Questions, is_sample, read_samples, sample_files
from scdpo.records import Evaluation, Problem, Record, Verdict, VerdictName
from scdpo.store import Manifest, RunFolder, canonical, read_json_rows, read_jsonl

UNNAMED = "rows"
"""Data set name of rows that do not give one."""
TOGETHER = "all together"


class Disagreement(Record):
    """A question that only one of two policies, `a` or `b`, answered correctly.

    `question` is empty where its text is not known, an answer is None where none was found.
    """

    benchmark: str
    problem_id: str
    only: Literal["a", "b"]
    question: str
    gold: str
    a_answer: str | None
    b_answer: str | None


class Compared(Record):
    """A comparison of two policies on one benchmark, or on all of them together."""

    benchmark: str
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Answered:
    """One side of a comparison: its rows, by data set.

    If `ids` is false, questions have no ids and rows are paired by position. `unfinished` names
    the evaluations that are not finished. `questions` are the texts that are known, by data set
    and problem id.
    """

    name: str
    rows: dict[str, list[Evaluation]]
    ids: bool = True
    unfinished: tuple[str, ...] = ()
    questions: Questions = field(default_factory=dict)


def read_answered(path: Path, *, metric: str | None = None, filter_: str | None = None) -> Answered:
    """The rows of a folder written by `scdpo evaluate`, of one evaluation in a run, of a JSONL
    file with `Evaluation` rows or rows written by `scdpo grade`, or of samples that
    lm-evaluation-harness logged (a file, or the folder of a model).

    `metric` and `filter_` choose among several in such samples. Raises DataError, and InputError
    for a run folder that has evaluations and for samples among which has to be chosen.
    """
    if path.is_file():
        return _of_file(path, metric, filter_)
    if not path.exists():
        raise DataError("no such file or folder", path)
    if samples := sample_files(path):
        sides = [read_samples(file, metric, filter_) for file in samples]
        questions = {key: text for _, known in sides for key, text in known.items()}
        return Answered(
            str(path), _by_dataset(row for rows, _ in sides for row in rows), questions=questions
        )
    if (path / "manifest.json").is_file():
        names = [path.name]
        path = path.parent
    else:
        manifest_files = sorted(path.glob("evaluations/*/manifest.json"))
        names = [f"evaluations/{manifest.parent.name}" for manifest in manifest_files]
        if names and (path / "recipe.yaml").exists():
            raise InputError(
                f"{path} is a run; name one of {', '.join(f'{path}/{n}' for n in names)}"
            )
    if not names:
        raise DataError("no evaluation in it (no manifest.json, no evaluations/)", path)
    with RunFolder(path, write=False) as folder:
        stages = [folder.stage(name) for name in names]
        lines = list(chain.from_iterable(stage.rows(Evaluation) for stage in stages))
        manifests = [cast("Manifest", stage.manifest) for stage in stages]
    questions = _questions(path, lines)
    unfinished = tuple(
        str(path / name)
        for name, manifest in zip(names, manifests, strict=True)
        if manifest.status != "done"
    )
    name = str(path / names[0]) if len(names) == 1 else str(path)
    return Answered(name, _by_dataset(lines), unfinished=unfinished, questions=questions)


def compare_answered(a: Answered, b: Answered, *, common: bool = False) -> list[Compared]:
    """Compare two sides on every data set that both have and, if there are several, on all of
    them together; `common` is that of `pair_answered`. Raises InputError as it does."""
    pairs = pair_answered(a, b, common=common)
    compared = [Compared(benchmark=n, comparison=compare(*pair)) for n, pair in pairs.items()]
    if len(pairs) > 1:
        both = [[row for pair in pairs.values() for row in pair[side]] for side in (0, 1)]
        compared.append(Compared(benchmark=TOGETHER, comparison=compare(both[0], both[1])))
    return compared


def disagreements(a: Answered, b: Answered, *, common: bool = False) -> list[Disagreement]:
    """The questions that only one side answered correctly. Raises InputError as
    `compare_answered` does."""
    a, b = by_text(a, b)
    found: list[Disagreement] = []
    for name, (a_rows, b_rows) in pair_answered(a, b, common=common).items():
        texts = _texts_of(a_rows, a.questions) | _texts_of(b_rows, b.questions)
        other = {row.problem_id: row for row in b_rows}
        for row in a_rows:
            opposite = other[row.problem_id]
            right = [status(one) == "correct" for one in (row, opposite)]
            if right[0] != right[1]:
                found.append(
                    Disagreement(
                        benchmark=name,
                        problem_id=row.problem_id,
                        only="a" if right[0] else "b",
                        question=texts.get(row.problem_id, ""),
                        gold=row.gold,
                        a_answer=row.answer,
                        b_answer=opposite.answer,
                    )
                )
    return sorted(found, key=lambda one: (one.benchmark, one.only))


def pair_answered(
    a: Answered, b: Answered, *, common: bool = False
) -> dict[str, tuple[list[Evaluation], list[Evaluation]]]:
    """The rows of both sides by data set, with the same problem ids on both.

    With `common`, questions that only one side has are left out, and unfinished evaluations are
    accepted; otherwise both are errors. Sides that name questions differently, such as ours and
    lm-evaluation-harness, are paired by the questions' texts. Raises InputError, also if gold
    answers differ or the sides have nothing in common.
    """
    a, b = by_text(a, b)
    shared = [name for name in a.rows if name in b.rows]
    if not shared:
        sides = "; ".join(f"{side.name} has {', '.join(side.rows) or 'none'}" for side in (a, b))
        raise InputError(f"nothing to compare: the sides share no benchmark ({sides})")
    if not common:
        for side in (a, b):
            if side.unfinished:
                raise InputError(
                    f"{', '.join(side.unfinished)}: not finished; run `scdpo evaluate` again, or "
                    "compare what is there, with --common"
                )
    pairs = {name: _paired(name, a, b, common) for name in shared}
    pairs = {name: pair for name, pair in pairs.items() if pair[0]}
    if not pairs:
        raise InputError(f"{a.name} and {b.name} have no question in common")
    for pair in pairs.values():
        same_questions(*pair)
    return pairs


def _paired(
    name: str, a: Answered, b: Answered, common: bool
) -> tuple[list[Evaluation], list[Evaluation]]:
    """The rows of both sides for one data set, with the same problem ids on both."""
    sides = [side.rows[name] for side in (a, b)]
    if not (a.ids and b.ids):
        sides = [_by_place(rows) for rows in sides]
    keys = [{row.problem_id for row in rows} for rows in sides]
    both = keys[0] & keys[1]
    if common:
        sides = [[row for row in rows if row.problem_id in both] for rows in sides]
    elif keys[0] != keys[1]:
        raise InputError(
            f"{name}: different questions: {len(both)} in both, {len(keys[0] - both)} only in "
            f"{a.name} and {len(keys[1] - both)} only in {b.name}; --common compares those in both"
        )
    return sides[0], sides[1]


def by_text(a: Answered, b: Answered) -> tuple[Answered, Answered]:
    """Both sides with the texts of their questions as ids, where their own ids are all different
    and the texts are known; else as they are.

    Two sides with one data set each may give it two names: the first is taken. Gold answers are
    then those of the first side, as each side may write the same one in its own way.
    """
    names = [list(side.rows) for side in (a, b)]
    rename = len(names[0]) == len(names[1]) == 1
    shared = [(names[0][0], names[1][0])] if rename else [(n, n) for n in a.rows if n in b.rows]
    rows = [dict(a.rows), dict(b.rows)]
    texts: list[Questions] = [dict(a.questions), dict(b.questions)]
    for name, other in shared:
        sides = [a.rows[name], b.rows[other]]
        known = [_texts_of(found, s.questions) for found, s in zip(sides, (a, b), strict=True)]
        ids = [{row.problem_id for row in found} for found in sides]
        keys = ids
        if not ids[0] & ids[1]:
            if any(ids[n] != known[n].keys() for n in (0, 1)):
                continue
            sides = [_keyed_by_text(found, known[n]) for n, found in enumerate(sides)]
            keys = [{row.problem_id for row in found} for found in sides]
            known = [{key: key for key in found} for found in keys]
            gold = {row.problem_id: row.gold for row in sides[0]}
            sides[1] = [_with(row, gold=gold.get(row.problem_id, row.gold)) for row in sides[1]]
        if not keys[0] & keys[1]:
            continue
        rows[1].pop(other)
        for n, found in enumerate(sides):
            rows[n][name] = [_with(row, dataset=name) for row in found]
            texts[n] |= {(name, key): text for key, text in known[n].items()}
    return (
        replace(a, rows=rows[0], questions=texts[0]),
        replace(b, rows=rows[1], questions=texts[1]),
    )


def _keyed_by_text(rows: Sequence[Evaluation], texts: Mapping[str, str]) -> list[Evaluation]:
    """Rows whose id is the text of their question; repeated ones are numbered."""
    keyed: list[Evaluation] = []
    times: Counter[str] = Counter()
    for row in rows:
        text = " ".join(texts[row.problem_id].split())
        times[text] += 1
        keyed.append(_with(row, problem_id=text if times[text] == 1 else f"{text} ({times[text]})"))
    return keyed


def _with(row: Evaluation, **changes: str) -> Evaluation:
    return row.model_copy(update=changes)


def _texts_of(rows: Sequence[Evaluation], questions: Questions) -> dict[str, str]:
    """The known texts of rows' questions by problem id."""
    found = {row.problem_id: questions.get((row.dataset, row.problem_id), "") for row in rows}
    return {key: text for key, text in found.items() if text}


def _by_place(rows: Sequence[Evaluation]) -> list[Evaluation]:
    return [
        row.model_copy(update={"problem_id": f"row {place}"}) for place, row in enumerate(rows, 1)
    ]


def _by_dataset(rows: Iterable[Evaluation]) -> dict[str, list[Evaluation]]:
    groups: dict[str, list[Evaluation]] = {}
    for row in rows:
        groups.setdefault(row.dataset, []).append(row)
    return groups


def _of_file(path: Path, metric: str | None, filter_: str | None) -> Answered:
    first = next(iter(read_json_rows(path)), None)
    if first is None:
        raise DataError("no rows in it", path)
    if is_sample(first[1]):
        found, questions = read_samples(path, metric, filter_)
        return Answered(str(path), _by_dataset(found), questions=questions)
    if "problem_id" in first[1]:
        return Answered(str(path), _by_dataset(read_jsonl(path, Evaluation)))
    rows: list[Evaluation] = []
    texts: Questions = {}
    with_id = 0
    for n, row in read_json_rows(path):
        with_id += "id" in row
        rows.append(_graded(row, len(rows) + 1, path, n))
        if isinstance(text := row.get("question"), str):
            texts[rows[-1].dataset, rows[-1].problem_id] = text
    return Answered(str(path), _by_dataset(rows), with_id == len(rows), questions=texts)


def _questions(path: Path, rows: Sequence[Evaluation]) -> Questions:
    """The questions of a folder's evaluations, from its stages of problems."""
    place = next((p for p in (path, path.parent) if (p / "problems").is_dir()), None)
    if place is None:
        return {}
    wanted = {(row.dataset, row.problem_id) for row in rows}
    texts: Questions = {}
    with RunFolder(place, write=False) as folder:
        for manifest in sorted(place.glob("problems/*/manifest.json")):
            for problem in folder.stage(f"problems/{manifest.parent.name}").rows(Problem):
                if (problem.dataset, problem.id) in wanted:
                    texts[problem.dataset, problem.id] = problem.question
    return texts


def _graded(row: dict[str, Any], place: int, path: Path, n: int) -> Evaluation:
    """A row written by `scdpo grade`, as an `Evaluation`."""
    verdict, reason, dataset = (row.get(key) for key in ("verdict", "reason", "dataset"))
    if verdict not in get_args(VerdictName):
        expected = ", ".join(get_args(VerdictName))
        raise DataError(f"verdict: expected one of {expected}; found {short(verdict)}", path, n)
    if "answer" not in row:
        raise DataError("no 'answer' (the gold answer, which both sides must share)", path, n)
    gold = row["answer"]
    identity = row.get("id", f"row {place}")
    return Evaluation(
        problem_id=identity if isinstance(identity, str) else canonical(identity),
        dataset=dataset if isinstance(dataset, str) and dataset else UNNAMED,
        policy=path.stem,
        gold=gold if isinstance(gold, str) else canonical(gold),
        answer=None,
        verdict=Verdict(name=verdict, reason=reason if isinstance(reason, str) else ""),
        finish="finished",
        n_steps=0,
        n_tokens=0,
        text="",
    )
