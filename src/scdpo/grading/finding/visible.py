"""What of a solution's text can state its answer: no thinking, no programs, no further turns."""

from __future__ import annotations

import re

_TURN = re.compile(
    r"(?P<end><\|(?:im_end|endoftext|eot_id|eom_id|end_of_text|end)\|>|</s>|<eos>|<end_of_turn>"
    r"|<｜end▁of▁sentence｜>)"
    r"|(?:<\|im_start\|>\s*|<start_of_turn>\s*|<\|start_header_id\|>\s*)"
    r"(?P<role>[a-z]+)(?:<\|end_header_id\|>)?"
    r"|(?P<user>\[INST\].*?(?:\[/INST\]|\Z))",
    re.DOTALL,
)
"""The end of a message, or the header of the next."""
_MARK = re.compile(r"<[|/\w｜]|\[/?[IiTt]|◁")
"""What every mark of a turn and of a block of thinking begins with."""
_ASKING = frozenset(("user", "system", "tool", "ipython", "function"))
_THOUGHT = re.compile(
    r"<(?P<close>/)?(?:think|thinking|thought|thoughts|reasoning|scratchpad|reflection)>"
    r"|<\|(?:begin|(?P<ended>end))_of_thought\|>|\[(?P<bracket>/)?THINK\]|◁(?P<square>/)?think▷",
    re.IGNORECASE,
)
_FENCED = re.compile(
    r"^[ \t]*(?:```|~~~)[ \t]*([\w+#-]*)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.M | re.S
)
_TAGGED = re.compile(
    r"<(code|python|execution|output|interpreter|tool_call|tool_response|tool)>.*?(?:</\1>|\Z)"
    r"|<\|(?:code|execution)\|>.*?(?:<\|endofblock\|>|\Z)",
    re.DOTALL,
)
_PROSE = frozenset(
    ("", "text", "txt", "latex", "tex", "math", "markdown", "md", "json", "plaintext")
)
"""The languages of fenced blocks that may state an answer, unless they hold a program."""
_PROGRAM = re.compile(
    r"\n[ \t]*(?:import \w|from \w[\w.]* import |def \w+\(|print\(|class \w+[:(]"
    r"|for \w+(?:, ?\w+)* in .+:[ \t]*$|(?:while|elif|with) .+:[ \t]*$|return\b|try:)",
    re.MULTILINE,
)
"""The start of a program's line, behind a line break: `^` would be tried at every character."""
_STATEMENT = re.compile(
    r"^(?:[ \t]*(?:import \w|from \w[\w.]* import |def \w+\(|print\(|class \w+[:(]|return\b|try:"
    r"|#(?!#)|[a-z_]\w*(?:\[[^\]\n]*\])?[ \t]*[-+*/]?=(?!=))[^\n]*"
    r"|[ \t]{4,}(?![^\n]*boxed)[^\n]*)$",
    re.MULTILINE,
)
"""A line of a program."""
_C_PROGRAM = re.compile(r"^#include\b.*?(?:^\}[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
LEAST_LINES = 2
"""Lines of a program that show that a text without fences is one."""


def visible(text: str) -> str:
    """A solution's text without what cannot state its answer.

    Left out are what follows the end of the model's turn, blocks of thinking (all of them up to
    the last one's end; where one is not closed, everything from its start), and programs with
    their comments and outputs. An answer in a think block that nothing follows is not stated.
    """
    if _MARK.search(text) is not None:
        text = _after_thinking(_turn(text))
    return _without_programs(text)


def _turn(text: str) -> str:
    """The model's first message; messages between its tool calls belong to it."""
    kept: list[str] = []
    at, asking, ended = 0, False, False
    for mark in _TURN.finditer(text):
        piece = text[at : mark.start()]
        if not asking and piece.strip():
            if ended:
                return "\n".join(kept)  # text after an end marker, without a header
            kept.append(piece)
        at = mark.end()
        role = mark.group("role") or ("user" if mark.group("user") else "")
        if role in ("assistant", "model") and ended and not asking:
            return "\n".join(kept)  # a second message
        if role in ("user", "system") and any(map(str.strip, kept)):
            return "\n".join(kept)
        asking = role in _ASKING and not mark.group("user")
        ended = mark.group("end") is not None and bool(kept)
    rest = "" if asking or ended else text[at:]
    return "\n".join([*kept, rest])


def _after_thinking(text: str) -> str:
    start: int | None = None
    end = 0
    for mark in _THOUGHT.finditer(text):
        if any(mark.groupdict().values()):
            start, end = None, mark.end()
        elif start is None:
            start = mark.start()
    return text[end:start]


def _without_programs(text: str) -> str:
    if "```" in text or "~~~" in text:
        text = _FENCED.sub(_unfenced, text)
    if "<" in text:
        text = _TAGGED.sub("\n", text)
    if "#include" in text:
        text = _C_PROGRAM.sub("\n", text)
    if len(_PROGRAM.findall(f"\n{text}")) >= LEAST_LINES:
        text = _STATEMENT.sub("", text)
    return text


def _unfenced(block: re.Match[str]) -> str:
    """The content of a fenced block that may state an answer, otherwise nothing."""
    if not block.group().rstrip().endswith(("```", "~~~")):  # not closed: prose may follow
        return f"\n{_STATEMENT.sub('', block.group(2))}"
    prose = block.group(1).lower() in _PROSE and not _PROGRAM.search(f"\n{block.group(2)}")
    return f"\n{block.group(2)}\n" if prose else "\n"
