"""Counts of stages in words."""

from __future__ import annotations

WORDS = {
    "questions": "questions",
    "questions_without_chosen": "without a preferred solution",
    "questions_without_rejected": "without a dispreferred one",
    "questions_without_either": "without either",
    "solutions": "solutions",
    "branches": "continuations",
    "chosen": "preferred",
    "rejected": "dispreferred",
    "correct": "correct",
    "unfinished": "unfinished",
    "undecided": "undecided",
}
"""What follows a count in a sentence: `3 without a preferred solution`."""

_REASONS = {
    "correct": "ended in a right answer",
    "unfinished": "cut by a limit before their end",
    "undecided": "the answer cannot be judged",
    "duplicate_chosen": "same text as an earlier preferred solution",
    "duplicate_rejected": "same text as an earlier dispreferred solution",
    "other_prompt": "written after another prompt",
    "over_limit": "more than a question may have",
    "parent_missing": "the solution they continue is missing",
    "parent_not_preferred": "the solution they continue is not preferred",
    "prefix_differs": "their shared steps differ",
    "nothing_after_branch": "nothing after the branch step",
    "questions_without_chosen": "no preferred solution",
    "questions_without_rejected": "no dispreferred solution",
    "questions_without_either": "neither a preferred nor a dispreferred solution",
    "dropped:too_long": "longer than train.max_length",
    "replay_differs": "programs before the branch step printed something else when rerun",
    "cut:context": "cut at the context length",
    "cut:max_steps": "cut at the largest number of steps",
    "cut:sandbox": "cut by a sandbox that was lost",
    "cut:step_tokens": "cut at the tokens of a step",
    "unlikely": "less likely than branch.min_mean_logp",
}
_BEGINNINGS = {
    "cut:": "cut:",
    "chosen_flag:": "right, but with the flag",
    "rejected_flag:": "wrong, but with the flag",
    "error_word:": "a step says",
    "noise:": "garbled:",
    "undecided:": "undecided:",
    "dropped:": "",
}


def reason(key: str) -> str:
    """Why rows were left out, in words, from the name of a count; other names stay as they are."""
    if key in _REASONS:
        return _REASONS[key]
    for beginning, words in _BEGINNINGS.items():
        if key.startswith(beginning):
            return f"{words} {key.removeprefix(beginning)}".strip()
    return key
