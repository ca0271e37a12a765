"""The model card of a trained policy: README.md in its folder, with the hub's metadata in front.

A training writes what it knows: base policy, data, settings. `pipeline.card` adds what a run
knows: the source of its problems, and accuracies. A card is not part of a policy's hash.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from scdpo.records import Pair, Solution
from scdpo.store import versions, write_atomic
from scdpo.training.config import TrainingConfig
from scdpo.training.dpo_config import DPOConfig, TrainingReport
from scdpo.training.sft_config import SFTConfig, SFTReport

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD = "README.md"
OURS = "scdpo"
"""The tag of a card that this package wrote and may therefore change."""
PAPER = "https://arxiv.org/abs/2407.00782"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_IN_CACHE = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/")


def preference_card(
    folder: Path, pairs: Iterable[Pair], report: TrainingReport, config: DPOConfig
) -> None:
    """Write the card of a policy that was trained on `pairs`; `folder` is the policy's."""
    kinds = f"{report.n_naive} naive and {report.n_step_controlled} step-controlled pairs"
    method = (
        f"Direct preference optimization over {kinds} ({_many(config.epochs, 'epoch')},"
        f" {_many(report.steps, 'step')}, β {config.beta:g}). A step-controlled pair shares its"
        f" first steps; only the steps after them enter the loss (Eq. 4 of"
        f" [arXiv 2407.00782]({PAPER})). The base policy"
        f" is also the reference policy. Loss from {report.first_loss:.4f} to"
        f" {report.final_loss:.4f}."
    )
    used = [pair for pair in pairs if pair.split == "train"]
    counts = Counter((pair.dataset, pair.kind) for pair in used)
    questions = {name: {p.problem_id for p in used if p.dataset == name} for name, _ in counts}
    rows = [
        (name, str(len(asked)), str(counts[name, "naive"]), str(counts[name, "step_controlled"]))
        for name, asked in sorted(questions.items())
    ]
    data = _table(("data set", "questions", "naive pairs", "step-controlled pairs"), rows)
    heldout = report.heldout_after.n_pairs if report.heldout_after else 0
    data += _dropped("pairs", report.dropped)
    if heldout:
        data += f"\n\nHeld out: {_many(heldout, 'pair')} of other questions."
    _write(folder, report.initial_policy, "dpo", method, data, config)


def sft_card(
    folder: Path,
    base: str,
    examples: Sequence[object],
    report: SFTReport,
    config: SFTConfig,
) -> None:
    """Write the card of a policy that was fine-tuned on `examples`, `Solution`s or token ids."""
    method = (
        f"Supervised fine-tuning on {report.n_examples} solutions"
        f" ({_many(config.epochs, 'epoch')}, {_many(report.steps, 'step')}, {report.tokens:,}"
        f" tokens). Loss from {report.first_loss:.4f} to {report.final_loss:.4f} nats a token."
    )
    counts = Counter(
        row.dataset for row in examples if isinstance(row, Solution) and row.side() == "chosen"
    )
    rows = [(name, str(n)) for name, n in sorted(counts.items())]
    if not rows:
        rows = [("given as token ids", str(report.n_examples))]
    data = _table(("data set", "solutions"), rows) + _dropped("solutions", report.dropped)
    _write(folder, base, "sft", method, data, config)


def read_card(folder: Path) -> ModelCard | None:
    """The card in a policy's folder; None if there is none or this package did not write it."""
    from huggingface_hub import ModelCard

    path = folder / CARD
    if not path.is_file():
        return None
    try:
        card = ModelCard.load(path)
    except Exception:  # whatever its reader raises for a file that somebody else wrote
        return None
    return card if OURS in (card.data.get("tags") or ()) else None


def save_card(folder: Path, card: ModelCard) -> None:
    """Write a card into a policy's folder, whole or not at all."""
    write_atomic(folder / CARD, str(card))


def with_section(text: str, title: str, body: str, *, before: str = "") -> str:
    """The text of a card with its section `title` replaced; a new one is put before the section
    `before`, or at the end."""
    section = f"## {title}\n\n{body.strip()}\n"
    start, stop = _place(text, title) or (_place(text, before) or (len(text),))[:1] * 2
    rest = text[stop:]
    return f"{text[:start].rstrip()}\n\n{section}" + (f"\n{rest}" if rest else "")


def _place(text: str, title: str) -> tuple[int, int] | None:
    """Where a section begins and ends."""
    whole = rf"^## {re.escape(title)}\n.*?(?=^## |\Z)"
    found = re.search(whole, text, re.MULTILINE | re.DOTALL)
    return (found.start(), found.end()) if found else None


def policy_label(name: str) -> str:
    """A policy's name for readers elsewhere: a hub name, or the last distinctive part of a path."""
    if cached := _IN_CACHE.search(name):
        return f"{cached[1]}/{cached[2]}"
    if _HUB_NAME.fullmatch(name) and not Path(name).exists():
        return name
    parts = [part for part in Path(name).parts if part not in ("policy", "/")]
    return parts[-1] if parts else name


def _write(
    folder: Path, base: str, kind: str, method: str, data: str, config: TrainingConfig
) -> None:
    from huggingface_hub import ModelCard, ModelCardData

    label = policy_label(base)
    metadata = ModelCardData(
        base_model=_on_hub(base, label),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[OURS, kind],
    )
    settings = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    sections: Mapping[str, str] = {
        "Base policy": f"`{label}`",
        "Method": method,
        "Data": data,
        "Settings": f"```yaml\n{settings}```\n\nMade with {made_with}.",
    }
    text = f"\n# {policy_label(str(folder.resolve()))}\n"
    for title, body in sections.items():
        text = with_section(text, title, body)
    save_card(folder, ModelCard(f"---\n{metadata.to_yaml()}\n---\n{text}"))


def _on_hub(base: str, label: str) -> str | None:
    """The model on the hub that a policy comes from, itself or by way of its own base."""
    if Path(base).is_dir() and (card := read_card(Path(base))):
        above = card.data.get("base_model")
        return above if isinstance(above, str) else None
    return label if _HUB_NAME.fullmatch(label) else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _many(n: float, what: str) -> str:
    return f"{n:g} {what}{'' if n == 1 else 's'}"


def _dropped(what: str, reasons: Mapping[str, int]) -> str:
    listed = ", ".join(f"{n} {reason}" for reason, n in reasons.items() if n)
    return f"\n\nNot trained on: {listed} (of the {what})." if listed else ""
