"""Judge answers in three values: correct, wrong or undecided."""

import scdpo

ROWS = [
    ("So it is \\boxed{0.5}.", "1/2"),
    ("The answer is \\boxed{\\frac{\\sqrt{8}}{2}}.", "\\sqrt{2}"),
    ("It must be \\boxed{7}.", "8"),
    ("I do not know.", "8"),
]

for solution, gold in ROWS:
    answer, verdict = scdpo.grade(solution, gold)
    print(f"{answer} against {gold}: {verdict.name} {verdict.reason}".rstrip())
