"""Small recipes, files and folders that several tests make runs of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from scdpo.cli import main
from scdpo.policies import policy_path

LIMITS = {"max_steps": 8, "step_tokens": 48, "context": 512}


def recipe(**changes: Any) -> dict[str, Any]:
    """A recipe of a few embedded problems; `changes` replace or extend its sections."""
    base: dict[str, Any] = {
        "policy": "embedded",
        "threads": 1,
        "format": {"name": "blocks", "system": ""},
        "problems": {
            "train": {"source": "embedded", "split": "train", "limit": 3},
            "test": {"source": "embedded", "split": "test", "limit": 2},
        },
        "sandbox": {"deadline": 20},
        "sample": {"max_attempts": 2, "chunk": 1, "limits": LIMITS},
        "branch": {"negatives": 1, "max_attempts": 2, "chunk": 1, "limits": LIMITS},
        "train": {
            "learning_rate": 2e-5,
            "epochs": 1,
            "batch_size": 2,
            "micro_batch_size": 2,
            "max_length": 768,
            "checkpoint_steps": 1,
        },
        "evaluate": {"limits": LIMITS, "rows": 1},
    }
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = base[key] | value if both else value
    return base


def write_recipe(path: Path, **changes: Any) -> str:
    """Write `recipe(**changes)` as YAML; returns the path as an argument."""
    path.write_text(yaml.safe_dump(recipe(**changes)))
    return str(path)


def write_recorded(path: Path, questions: int) -> str:
    """Recorded solutions in the layout `tora`: for each question a right and a wrong one."""

    def solution(n: int, answer: int) -> str:
        code = f"```python\nprint({n} + {answer - n})\n```\n```output\n{answer}\n```\n"
        return f"There are {n} and 2 more.\n{code}So we have $\\boxed{{{answer}}}$."

    rows = [
        {
            "idx": n,
            "question": f"Ann has {n} apples and finds 2 more. How many does she have?",
            "gt": n + 2,
            "code": [solution(n, n + 2), solution(n, n + 3)],
            "pred": [str(n + 2), str(n + 3)],
        }
        for n in range(1, questions + 1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def copy_policy(path: Path) -> Path:
    """The embedded policy in a folder of its own, to be damaged."""
    shutil.copytree(policy_path("embedded"), path)
    return path


def succeed(*arguments: object) -> None:
    """Run a command of the console script in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert not end.value.code


def fail(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that ends in exit code 2; returns the one line that says why."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    err = capsys.readouterr().err
    assert end.value.code == 2, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("scdpo: ")]
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0], err
    return lines[0].removeprefix("scdpo: ")
