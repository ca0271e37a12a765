"""Why there is nothing to train on, said as soon as that is known: in a line, with the figures and
the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from scdpo.pipeline.recipe import Recipe
from scdpo.records import Solution
from scdpo.report.words import WORDS


def solutions_lack(solutions: Iterable[Solution], recipe: Recipe) -> str:
    """Why no question has both a preferred and a dispreferred solution; empty if one has."""
    truncated_is_wrong = recipe.sample.truncated_is_wrong
    sides: dict[str | None, set[str]] = {"chosen": set(), "rejected": set()}
    counts: Counter[str] = Counter()
    questions: set[str] = set()
    n = 0
    for solution in solutions:
        if solution.parent is not None:
            continue
        side, reason = solution.placement(truncated_is_wrong=truncated_is_wrong)
        n += 1
        questions.add(solution.problem_id)
        counts[side or reason] += 1
        if side is not None:
            sides[side].add(solution.problem_id)
    chosen, rejected = sides["chosen"], sides["rejected"]
    if chosen & rejected:
        return ""
    lacking = "a preferred" if not chosen else "a dispreferred" if not rejected else "both kinds of"
    return (
        f"no question has {lacking} solution{'s' if chosen and rejected else ''}, so there are no "
        f"pairs: {n} solutions of {len(questions)} questions, {_listed(counts)}; "
        f"{_way_out(bool(chosen), counts, recipe)}"
    )


def _way_out(chosen: bool, counts: Counter[str], recipe: Recipe) -> str:
    config = recipe.sample
    most = f"sample.max_attempts ({config.max_attempts})"
    if chosen and counts["rejected"]:
        return f"raise {most}"
    if chosen:
        return (
            f"take harder problems, or raise sample.temperature ({config.temperature:g}) or {most}"
        )
    reason = counts.most_common(1)[0][0] if counts else ""
    if reason == "unfinished":
        return (
            "they were cut before their end: raise sample.limits, or let format.end be what the "
            "policy ends a solution with"
        )
    if reason == "undecided":
        return "their answers cannot be judged: is format the one that the policy writes?"
    if reason.startswith("chosen_flag:"):
        return f"right ones are flagged {reason.partition(':')[2]}, which keeps them from pairs"
    return f"fine-tune the policy first (scdpo sft), take easier problems, or raise {most}"


def pairs_lack(part: str, counts: Mapping[str, int | float], recipe: Recipe) -> str:
    """Why a set of pairs (`naive`, `step_controlled`, `data_equal`) has none to train on, from
    the counts of its stage; empty if it has some."""
    held_out = int(counts.get("heldout_pairs", 0))
    if counts.get("pairs", 0) > held_out:
        return ""
    what = f"no {part.replace('_', '-')} pairs to train on"
    if held_out:
        share = recipe.pairs.heldout_share
        return f"{what}: all {held_out} are held out; lower pairs.heldout_share ({share:g})"
    if part != "step_controlled":
        return f"{what}: {_listed(counts)}; scdpo show prints the solutions"
    if not counts.get("branches"):
        return (
            f"{what}: there are no continuations (scdpo branch makes them of preferred solutions)"
        )
    config = recipe.branch
    return (
        f"{what}: {_listed(counts)}; raise branch.max_attempts ({config.max_attempts}) or "
        f"branch.schedule ({config.schedule.start:g} to {config.schedule.cap:g})"
    )


def _listed(counts: Mapping[str, int | float]) -> str:
    """Counts that are not zero, in words: `24 questions, 3 without a preferred solution`."""
    known = [key for key in WORDS if counts.get(key)]
    others = [key for key in counts if key not in WORDS and counts[key] and key != "pairs"]
    return ", ".join(f"{counts[key]:g} {WORDS.get(key, key)}" for key in (*known, *others))
