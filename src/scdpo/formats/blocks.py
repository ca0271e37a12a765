"""The code-integrated format with special tokens, as the paper's models write it.

    <|system|><|text|>SYSTEM<|endofblock|><|endofmessage|>
    <|user|><|text|>QUESTION<|endofblock|><|endofmessage|><|assistant|>
    <|text|>…<|endofblock|><|code|>…<|endofblock|><|execution|>…<|endofblock|> … <|endofmessage|>

(without the line breaks; arXiv 2407.00782 and the code released with it). A text block is one
step; a code block and its execution block together are one step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scdpo.formats.cutting import END, checked_end, cut_after, defused, skip_marks
from scdpo.records import Step

TEXT = "<|text|>"
CODE = "<|code|>"
EXECUTION = "<|execution|>"
END_OF_BLOCK = "<|endofblock|>"
EMPTY_EXECUTION = "<empty_execution>"
"""The content of the execution block of a program without output."""

MARKERS = ("<|system|>", "<|user|>", "<|assistant|>", TEXT, CODE, EXECUTION, END_OF_BLOCK, END)
"""All markers of the format, in the order in which a tokenizer should add them."""

SYSTEM = "Below is a math problem. Please solve it step by step."
"""The system prompt of the recorded solutions of the paper's models."""

_MARKER = re.compile("(" + "|".join(re.escape(marker) for marker in MARKERS) + ")")


class Blocks:
    """The `blocks` format.

    `system` None means the paper's system prompt, and an empty string omits the system turn. The
    end marker belongs to the text step before it; after a code step it is its own step.
    """

    def __init__(self, *, system: str | None = None, end: str | Sequence[str] = (END,)):
        self.name = "blocks"
        self.system = SYSTEM if system is None else system
        self.stop: tuple[str, ...] = (END_OF_BLOCK,)
        self.end = checked_end(end)
        self.special_tokens = MARKERS + tuple(e for e in self.end if e not in MARKERS)

    def prompt(self, question: str) -> str:
        """The system and user turns, and the header of the assistant's turn."""
        turns = [("<|system|>", self.system)] if self.system else []
        turns.append(("<|user|>", question))
        text = "".join(f"{role}{TEXT}{content}{END_OF_BLOCK}{END}" for role, content in turns)
        return f"{text}<|assistant|>"

    def code(self, text: str) -> str | None:
        """The program of a complete code block; None for anything else, including a cut block."""
        if not text.startswith(CODE):
            return None
        stop, mark = cut_after(text, len(CODE), (*self.stop, *self.end))
        if stop != len(text) or mark not in self.stop:
            return None
        return text[len(CODE) : -len(mark)]

    def host_text(self, text: str, output: str) -> str:
        """The execution block: `output` without trailing line breaks, its markers defused."""
        shown = defused(output.rstrip("\n"), self.special_tokens) or EMPTY_EXECUTION
        return f"{EXECUTION}{shown}{END_OF_BLOCK}"

    def parse(self, text: str) -> tuple[Step, ...]:
        """Steps of a solution; text outside blocks belongs to the step it appears in."""
        steps: list[Step] = []
        at = 0
        while at < len(text):
            stop, mark = cut_after(text, at, (*self.stop, *self.end))
            program = self.code(text[at:stop])
            if program is not None:
                host_stop = _execution_stop(text, stop)
                steps.append(_code_step(text[at:stop], text[stop:host_stop]))
                stop = host_stop
            else:
                stop = skip_marks(text, stop, self.end) if mark else stop
                steps.append(Step(kind="text", text=text[at:stop]))
            at = stop
        return tuple(steps)

    def render(self, steps: tuple[Step, ...]) -> str:
        """The steps' texts and execution blocks, concatenated."""
        return "".join(step.text + step.host_text for step in steps)

    def plain(self, text: str) -> str:
        """The contents of the text blocks, separated by line breaks.

        Programs and their outputs are left out, so that an answer is found only where the
        solution states it.
        """
        kept, role = [], TEXT
        for piece in _MARKER.split(text):
            if _MARKER.fullmatch(piece):
                role = piece
            elif role not in (CODE, EXECUTION):
                kept.append(piece.strip())
        return "\n".join(piece for piece in kept if piece)

    def finished(self, text: str) -> bool:
        """Whether the text ends with an end marker or, if there are none, with a text step."""
        if self.end:
            return text.endswith(self.end)
        steps = self.parse(text)
        return bool(steps) and steps[-1].kind == "text" and text.endswith(self.stop)


def _execution_stop(text: str, at: int) -> int:
    """The index after the execution block that starts at `at`; `at` if there is none."""
    if not text.startswith(EXECUTION, at):
        return at
    return cut_after(text, at, (END_OF_BLOCK,))[0]


def _code_step(text: str, host_text: str) -> Step:
    if not host_text:
        return Step(kind="code", text=text)
    output = host_text.removeprefix(EXECUTION).removesuffix(END_OF_BLOCK)
    output = "" if output == EMPTY_EXECUTION else output
    return Step(kind="code", text=text, host_text=host_text, output=output)
