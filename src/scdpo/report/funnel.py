"""The yields of a run: from problems over solutions and branches to pairs, with what each filter
left out and why, from the counts of the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scdpo.report import notation
from scdpo.report.blocks import Funnel, FunnelStage, Share
from scdpo.report.table import label
from scdpo.report.words import reason
from scdpo.store import Manifest

Counts = Mapping[str, int | float]

_SIDES = ("chosen", "rejected")
_QUESTIONS = (
    "questions_without_chosen",
    "questions_without_rejected",
    "questions_without_either",
)
_UNDECIDED = ("cut:", "undecided:")
_TOTALS = {
    *("pairs", "heldout_pairs", "questions", "solutions", "branches", "short"),
    *(*_SIDES, *_QUESTIONS),
}
"""Counts of the stages of pairs that are not reasons for leaving something out."""


def funnel(manifests: Sequence[Manifest]) -> Funnel:
    """The stages of a run that lead to pairs and trainings, as far as they were started."""
    found = {manifest.stage: manifest for manifest in manifests}
    stages: list[FunnelStage] = []
    problems = found.get("problems/train")
    if problems is not None:
        stages.append(FunnelStage("Problems", problems.rows))
    for manifest in manifests:
        if manifest.stage == "solutions" or manifest.stage.startswith("imports/"):
            stages.append(_attempts(manifest, problems))
    if naive := found.get("pairs/naive"):
        stages += _naive(naive)
    if "branches" in found:
        stages.append(_attempts(found["branches"], None))
    if controlled := found.get("pairs/step_controlled"):
        stages.append(_pairs("Step-controlled pairs", controlled.counts, _reasons(controlled)))
    if equal := found.get("pairs/data_equal"):
        short = int(equal.counts.get("short", 0))
        note = f"{notation.count(short)} fewer than the mixture has" if short else ""
        stages.append(_pairs("Data-equal naive pairs", equal.counts, (), note))
    stages += [_trained(m) for m in manifests if m.stage.startswith("policies/")]
    return Funnel(tuple(stages))


def _attempts(manifest: Manifest, problems: Manifest | None) -> FunnelStage:
    """Solutions or continuations, by verdict."""
    counts = manifest.counts
    name = {"solutions": "Naive solutions", "branches": "Continuations"}.get(
        manifest.stage, f"Imported solutions, {manifest.stage.partition('/')[2]}"
    )
    shares = tuple(
        Share(tone, int(counts.get(tone, 0)), tone) for tone in ("correct", "wrong", "undecided")
    )
    undecided = [(key, n) for key, n in counts.items() if n and key.startswith(_UNDECIDED)]
    note = ""
    if problems is not None and problems.rows:
        note = f"{manifest.rows / problems.rows:.1f} for each problem"
    dropped = tuple((reason(key), int(n)) for key, n in undecided)
    known = shares if any(share.n for share in shares) else ()
    return FunnelStage(name, manifest.rows, known, dropped, note)


def _naive(manifest: Manifest) -> list[FunnelStage]:
    counts = manifest.counts
    sides = [int(counts.get(side, 0)) for side in _SIDES]
    usable = FunnelStage(
        "Solutions for pairs",
        sum(sides),
        (Share("preferred", sides[0], "correct"), Share("dispreferred", sides[1], "wrong")),
        _reasons(manifest),
    )
    without = [(key, int(n)) for key in _QUESTIONS if (n := counts.get(key))]
    questions = FunnelStage(
        "Questions with both kinds",
        int(counts.get("questions", 0)) - sum(n for _, n in without),
        (),
        tuple((reason(key), n) for key, n in without),
        f"of {notation.count(int(counts.get('questions', 0)))} with a solution",
    )
    return [usable, questions, _pairs("Naive pairs", counts, ())]


def _pairs(
    name: str, counts: Counts, dropped: tuple[tuple[str, int], ...], note: str = ""
) -> FunnelStage:
    pairs, held = int(counts.get("pairs", 0)), int(counts.get("heldout_pairs", 0))
    notes = [*([f"{notation.count(held)} of them held out"] if held else []), *filter(None, [note])]
    return FunnelStage(name, pairs, (), dropped, "; ".join(notes))


def _trained(manifest: Manifest) -> FunnelStage:
    name = f"Trained on: {label(manifest.stage.partition('/')[2])}"
    return FunnelStage(
        name, int(manifest.counts.get("pairs", 0)), (), _reasons(manifest, "dropped:")
    )


def _reasons(manifest: Manifest, beginning: str = "") -> tuple[tuple[str, int], ...]:
    """What a stage left out, by reason, the most common one first."""
    left = {
        reason(key): int(n)
        for key, n in manifest.counts.items()
        if n and key not in _TOTALS and key.startswith(beginning)
    }
    return tuple(sorted(left.items(), key=lambda item: -item[1]))
