"""Prompts from a tokenizer's own chat template.

Only the prompt is rendered with the template: the system text, the question as the user's turn,
and the header of the assistant's turn. The solution follows it as it is, since templates strip,
trim or rewrite what the assistant says, and a continuation must begin with exactly the steps that
it shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]

_ANSWER = "scdpo-answer"
"""Stands for the assistant's text where only what surrounds it is of interest."""
_TODAY = {
    "%d": "26",
    "%b": "Jul",
    "%B": "July",
    "%m": "07",
    "%Y": "2024",
    "%y": "24",
    "%A": "Friday",
}
"""The day that templates print as today's: that of Llama 3's own default."""


class ChatPrompt:
    """A prompt as a tokenizer's chat template writes it; call it with a question.

    `template` is what the user says, with `{question}` in it. `system` None leaves the system text
    to the template. An empty one asks for none, not even the template's own. Any other takes the
    system turn or, if the template has no such role, stands before the question in the user's turn.
    The header of the assistant's turn is that of `add_generation_prompt`; for a template that
    ignores it, what the template writes before an assistant's text. Templates that print today's
    date print 26 July 2024, so that a run can be resumed the next day.

    Raises InputError if the tokenizer has no chat template, or if it cannot be rendered.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        system: str | None = None,
        template: str = "{question}",
    ):
        self._tokenizer = tokenizer
        self._template = template
        try:
            self._source = _with_fixed_date(tokenizer.get_chat_template())
        except (ValueError, AttributeError, NotImplementedError) as error:
            raise InputError(
                "format.chat_template: the policy's tokenizer has no chat template; write the "
                "prompt as format.template"
            ) from error
        self._system, self._before = self._placed(system)
        self._header = self._missing_header()
        self.end = self._ends()
        """The string that ends the assistant's turn, and the tokenizer's EOS if it is another."""

    def __call__(self, question: str) -> str:
        """The text up to where the policy starts to write, BOS included if the template has it."""
        return self._rendered(self._messages(question), header=True) + self._header

    def _messages(self, question: str) -> Messages:
        said = self._before + self._template.replace("{question}", question)
        turns = [] if self._system is None else [{"role": "system", "content": self._system}]
        return [*turns, {"role": "user", "content": said}]

    def _rendered(self, messages: Messages, *, header: bool) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=header,
            )
        except Exception as error:  # whatever the template itself or its engine raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"chat template of the policy's tokenizer: {reason[:200]}") from error
        assert isinstance(text, str)
        return text

    def _placed(self, system: str | None) -> tuple[str | None, str]:
        """The text of the system turn (None: no such turn), and what precedes the user's text."""
        if system is None:
            return None, ""
        user = {"role": "user", "content": _ANSWER}
        try:
            with_turn = self._rendered([{"role": "system", "content": system}, user], header=False)
        except InputError:
            return (None, "") if not system else (None, f"{system}\n\n")
        if system:
            return (system, "") if system.strip() in with_turn else (None, f"{system}\n\n")
        # Without a system turn, many templates write a text of their own; an empty turn is shorter.
        without_turn = self._rendered([user], header=False)
        return ("", "") if len(with_turn) < len(without_turn) else (None, "")

    def _missing_header(self) -> str:
        """The header of the assistant's turn, if the template does not write it when asked."""
        messages = self._messages(_ANSWER)
        prompt = self._rendered(messages, header=True)
        if prompt != self._rendered(messages, header=False):
            return ""
        whole = self._answered()
        header = whole[len(prompt) : whole.rindex(_ANSWER)] if whole.startswith(prompt) else ""
        # A space before the text is part of the text's first token.
        return header.rstrip(" ") if header.strip() else ""

    def _answered(self) -> str:
        said = [*self._messages(_ANSWER), {"role": "assistant", "content": _ANSWER}]
        return self._rendered(said, header=False)

    def _ends(self) -> tuple[str, ...]:
        whole = self._answered()
        if _ANSWER not in whole:
            raise InputError("chat template of the policy's tokenizer: it leaves out the assistant")
        after = whole[whole.rindex(_ANSWER) + len(_ANSWER) :]
        # Some tokenizers have runs of spaces or line breaks as added tokens.
        markers = [token for token in self._tokenizer.get_added_vocab() if token.strip()]
        found = [(after.index(m), -len(m), m) for m in markers if m in after]
        eos = self._tokenizer.eos_token
        ends = [min(found)[2]] if found else []
        return tuple(dict.fromkeys([*ends, *([str(eos)] if eos else [])]))


def has_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def _with_fixed_date(source: str) -> str:
    """A template whose `strftime_now` gives a fixed day instead of today."""
    if "strftime_now" not in source:
        return source
    filters = "".join(f' | replace("{key}", "{value}")' for key, value in _TODAY.items())
    macro = f"{{%- macro strftime_now(form) -%}}{{{{- form{filters} -}}}}{{%- endmacro %}}"
    return macro + source
