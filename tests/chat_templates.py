"""Small tokenizers with chat templates that are built as those of published models are.

Every character is a token of its own, and every marker is one. The templates are our own texts:
each keeps the structure that matters here (roles, BOS, trimming, what it refuses), not the wording.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class Family:
    """A family of chat models: its markers, its template, and what is expected of it.

    `begins` says whether the tokenizer puts BOS before every text. `end` is the end of the
    assistant's turn. `asked` is the prompt for the question Q without a system text, `told` that
    with the system text S, and `silent` that with an empty one.
    """

    markers: tuple[str, ...]
    template: str | None
    eos: str
    end: str
    asked: str
    told: str
    silent: str
    bos: str | None = None
    begins: bool = False


CHATML_TURN = (
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
)
CHATML_HEADER = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
QWEN = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    + CHATML_TURN
    + "{% endfor %}"
    + CHATML_HEADER
)
ASKED_CHATML = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"

FAMILIES = {
    # A system text of its own unless one is given; no BOS.
    "qwen": Family(
        markers=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        template=QWEN,
        eos="<|im_end|>",
        end="<|im_end|>",
        asked=f"<|im_start|>system\nYou help.<|im_end|>\n{ASKED_CHATML}",
        told=f"<|im_start|>system\nS<|im_end|>\n{ASKED_CHATML}",
        silent=f"<|im_start|>system\n<|im_end|>\n{ASKED_CHATML}",
    ),
    # Writes an empty thought before the assistant's text, and drops earlier thoughts from it.
    "qwen thinking": Family(
        markers=("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"),
        template="{% for message in messages %}{% if message.role == 'assistant' %}"
        "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"
        "{{ message.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}"
        "{% else %}" + CHATML_TURN + "{% endif %}{% endfor %}" + CHATML_HEADER,
        eos="<|im_end|>",
        end="<|im_end|>",
        asked=ASKED_CHATML,
        told=f"<|im_start|>system\nS<|im_end|>\n{ASKED_CHATML}",
        silent=ASKED_CHATML,
    ),
    # BOS in the template and from the tokenizer; trims; today's date; EOS is not the turn's end.
    "llama 3": Family(
        markers=(
            *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
            "<|eot_id|>",
        ),
        template="{{- bos_token }}{%- if strftime_now is defined %}"
        '{%- set day = strftime_now("%d %b %Y") %}{%- else %}{%- set day = "never" %}{%- endif %}'
        "{%- if messages[0]['role'] == 'system' %}"
        "{%- set said = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}"
        '{%- else %}{%- set said = "" %}{%- endif %}'
        '{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}'
        '{{- "Today Date: " + day + "\n\n" + said + "<|eot_id|>" }}'
        "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}"
        "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}",
        bos="<|begin_of_text|>",
        begins=True,
        eos="<|end_of_text|>",
        end="<|eot_id|>",
        asked="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Q<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        told="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Today Date: 26 Jul 2024\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Q<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        silent="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Q<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    # Refuses a system role and does not know add_generation_prompt.
    "mistral": Family(
        markers=("<s>", "</s>"),
        template="{{ bos_token }}{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}",
        bos="<s>",
        begins=True,
        eos="</s>",
        end="</s>",
        asked="<s>[INST] Q [/INST]",
        told="<s>[INST] S\n\nQ [/INST]",
        silent="<s>[INST] Q [/INST]",
    ),
    # Refuses a system role; the assistant is called model; trims; runs of line breaks are tokens.
    "gemma": Family(
        markers=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "\n\n"),
        template="{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}"
        "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
        bos="<bos>",
        begins=True,
        eos="<eos>",
        end="<end_of_turn>",
        asked="<bos><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n",
        told="<bos><start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\n",
        silent="<bos><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n",
    ),
    # ChatML after a BOS that the tokenizer adds too; EOS is not the turn's end.
    "internlm2": Family(
        markers=("<s>", "</s>", "<|im_start|>", "<|im_end|>"),
        template="{{ bos_token }}{% for message in messages %}"
        + CHATML_TURN
        + "{% endfor %}"
        + CHATML_HEADER,
        bos="<s>",
        begins=True,
        eos="</s>",
        end="<|im_end|>",
        asked=f"<s>{ASKED_CHATML}",
        told=f"<s><|im_start|>system\nS<|im_end|>\n{ASKED_CHATML}",
        silent=f"<s>{ASKED_CHATML}",
    ),
    # Ignores the system role without a word; a conversation without a header ends in EOS.
    "phi 3": Family(
        markers=("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>"),
        template="{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}"
        "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        eos="<|endoftext|>",
        end="<|end|>",
        asked="<|user|>\nQ<|end|>\n<|assistant|>\n",
        told="<|user|>\nS\n\nQ<|end|>\n<|assistant|>\n",
        silent="<|user|>\nQ<|end|>\n<|assistant|>\n",
    ),
    # The tokenizer adds BOS, the template does not write it; EOS ends every turn.
    "zephyr": Family(
        markers=("<s>", "</s>"),
        template="{% for message in messages %}"
        "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        bos="<s>",
        begins=True,
        eos="</s>",
        end="</s>",
        asked="<|user|>\nQ</s>\n<|assistant|>\n",
        told="<|system|>\nS</s>\n<|user|>\nQ</s>\n<|assistant|>\n",
        silent="<|user|>\nQ</s>\n<|assistant|>\n",
    ),
    # Words instead of markers, and a header only where the assistant speaks.
    "vicuna": Family(
        markers=("<s>", "</s>"),
        template="{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
        "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + '\n' }}"
        "{% else %}{{ 'ASSISTANT: ' + message['content'] + eos_token + '\n' }}{% endif %}"
        "{% endfor %}",
        bos="<s>",
        begins=True,
        eos="</s>",
        end="</s>",
        asked="USER: Q\nASSISTANT:",
        told="S\n\nUSER: Q\nASSISTANT:",
        silent="USER: Q\nASSISTANT:",
    ),
}


def tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """A tokenizer of single characters with the markers and the template of a family."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(m, special=True, normalized=False) for m in family.markers])
    if family.begins and family.bos is not None:
        made.post_processor = TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, made.token_to_id(family.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=family.bos,
        eos_token=family.eos,
        chat_template=family.template,
    )
