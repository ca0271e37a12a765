r"""The embedded problems: GSM-Symbolic questions, which need no download.

`reasoning-gym` (extra `embedded`) generates GSM-Symbolic problems (arXiv 2410.05229): templates
of GSM8K questions with fresh names and numbers. A few thousand ship with the package. The
generator is needed only to make more, for example to retrain the embedded policy.
"""

from __future__ import annotations

import gzip
import json
import re
import string
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Literal, get_args

from scdpo.errors import InputError, MissingDependency
from scdpo.problems.worked import Computed, computed, evaluate
from scdpo.records import Demonstration, Problem, WorkedStep

EMBEDDED = "embedded"
"""The name under which these problems are loaded."""
DATASET = "gsm_symbolic"
EmbeddedSplit = Literal["train", "validation", "test"]

# The generator draws item i of seed s from the random stream s + i, so seeds must be further apart
# than any split is long, or splits would share questions.
SEEDS: dict[str, int] = {
    "test": 1_000_000,
    "validation": 2_000_000,
    "train": 3_000_000,
    "demonstrations": 10_000_000,
}
DRAWS = 1_000_000
"""Maximum items a split may draw; no two splits then reach the same random stream."""
_BOILERPLATE = " Give the result as your final answer. Do not include units."


def load_embedded(split: EmbeddedSplit | str, limit: int | None = None) -> list[Problem]:
    """The packaged problems of a split, at most `limit` of them.

    Raises InputError for an unknown split, or if the split has fewer than `limit` problems.
    """
    if split not in get_args(EmbeddedSplit):
        known = ", ".join(get_args(EmbeddedSplit))
        raise InputError(f"embedded problems: no split {split!r} (known: {known})")
    packed = resources.files("scdpo") / "embedded" / f"{split}.jsonl.gz"
    lines = gzip.decompress(packed.read_bytes()).decode().splitlines()
    if limit is not None and limit > len(lines):
        raise InputError(
            f"embedded problems: {split} has only {len(lines)}, fewer than the limit {limit}"
        )
    return [Problem.model_validate_json(line) for line in lines[:limit]]


def generate(
    split: str, size: int, *, skip: Iterable[str] = (), start: int = 0
) -> Iterator[Demonstration]:
    """Generate `size` usable demonstrations from a split's random stream, beginning at `start`.

    Items are dropped if their worked solution has a false or unreadable equation or does not end
    in the stated answer, or if their question is in `skip` or was seen before in this call. Raises
    InputError for an unknown split or if the stream runs out, and MissingDependency without the
    extra `embedded`.
    """
    if split not in SEEDS:
        raise InputError(f"embedded problems: no stream {split!r} (known: {', '.join(SEEDS)})")
    try:
        import reasoning_gym
    except ImportError as error:
        raise MissingDependency("reasoning-gym", "embedded") from error
    source = reasoning_gym.create_dataset(DATASET, size=DRAWS, seed=SEEDS[split])
    seen = set(skip)
    made = 0
    for index in range(start, DRAWS):
        if made == size:
            break
        item = source[index]
        demonstration = demonstrate(item, f"{DATASET}/{split}/{index}")
        if demonstration is None or demonstration.problem.question in seen:
            continue
        seen.add(demonstration.problem.question)
        made += 1
        yield demonstration
    if made < size:
        raise InputError(f"embedded problems: {split} yielded only {made} of {size}")


def demonstrate(item: dict[str, object], problem_id: str) -> Demonstration | None:
    """Turn a generated item into a demonstration; None if its worked solution is unusable."""
    metadata = item["metadata"]
    assert isinstance(metadata, dict)
    answer = str(item["answer"]).replace(",", "")
    worked = str(metadata["answer_cot"])
    lines = [computed(line) for line in worked.split("\n") if _says_something(line)]
    if any(line is None for line in lines):
        return None
    steps, last = _steps([line for line in lines if line is not None])
    if not re.fullmatch(r"-?\d+(\.\d+)?", answer) or last is None:
        return None
    if abs(last - float(answer)) > 1e-6:
        return None
    problem = Problem(
        id=problem_id,
        dataset=DATASET,
        question=_question(str(item["question"])),
        answer=answer,
        level=str(sum(len(line.values) for line in lines if line is not None)),
        subject=_template(metadata["variables"]),
        solution="\n".join(line.strip() for line in worked.split("\n") if _says_something(line)),
    )
    final = WorkedStep(text=f"The answer is \\boxed{{{answer}}}.")
    return Demonstration(problem=problem, steps=(*steps, final))


def pack_splits(sizes: dict[EmbeddedSplit, int]) -> dict[EmbeddedSplit, bytes]:
    """The gzipped JSONL of each split as it ships; no question is in two splits.

    The same sizes always give the same bytes.
    """
    packed: dict[EmbeddedSplit, bytes] = {}
    taken: set[str] = set()
    for split, size in sizes.items():
        problems = [d.problem for d in generate(split, size, skip=taken)]
        taken |= {problem.question for problem in problems}
        rows = [problem.model_dump(exclude_none=True) for problem in problems]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        packed[split] = gzip.compress(text.encode(), mtime=0)
    return packed


def _says_something(line: str) -> bool:
    line = line.strip()
    return bool(line) and not line.startswith("####") and not line.endswith(":")


def _question(text: str) -> str:
    return text.removesuffix(_BOILERPLATE).strip()


def _template(variables: object) -> str:
    """A short name shared by all items of one template."""
    import hashlib

    assert isinstance(variables, dict)
    return hashlib.sha256(" ".join(sorted(variables)).encode()).hexdigest()[:8]


def _steps(lines: list[Computed]) -> tuple[list[WorkedStep], float | None]:
    """Worked steps with code whose variables carry over, and the last value computed."""
    names = iter(string.ascii_lowercase)
    values: dict[str, float] = {}
    steps: list[WorkedStep] = []
    sentences: list[str] = []
    for line in lines:
        sentences.append(line.sentence)
        if not line.expressions:
            continue
        assigned: list[str] = []
        code: list[str] = []
        for expression in line.expressions:
            name = next(names, None)
            if name is None:
                return [], None
            with_names = _with_names(expression, values)
            values[name] = evaluate(with_names, values)
            assigned.append(name)
            code.append(f"{name} = {with_names}")
        shown = ", ".join(assigned)
        output = ", ".join(repr(values[name]) for name in assigned)
        output = f"({output})" if len(assigned) > 1 else output
        program = "\n".join([*code, shown])
        steps.append(WorkedStep(text=" ".join(sentences), code=program, output=output))
        sentences = []
    return steps, values[assigned[-1]] if steps else None


def _with_names(expression: str, values: dict[str, float]) -> str:
    """Replace numbers with variables that hold them; the latest variable wins.

    Numbers below 13 stay: they are more often months, days or a dozen than an earlier result.
    """
    held = {value: name for name, value in values.items() if abs(value) >= 13}

    def name_of(match: re.Match[str]) -> str:
        return held.get(float(match[0]), match[0])

    return re.sub(r"\d+(?:\.\d+)?", name_of, expression)
