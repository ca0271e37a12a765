"""A random policy of a few thousand weights, and pairs for it to be trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scdpo.policies import Policy, save_policy
from scdpo.records import Pair, Step

EOS = "<eos>"
WORDS = [*(f"w{i}" for i in range(62)), "<unk>", EOS]


def make_policy(path: Path, **shape: int) -> Path:
    """A random Llama with a tokenizer that makes a token of every word."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token=EOS, pad_token=EOS
    )
    torch.manual_seed(5)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            **{"hidden_size": 32, "intermediate_size": 48} | shape,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            attention_dropout=0.1,
            eos_token_id=len(WORDS) - 1,
            pad_token_id=len(WORDS) - 1,
            bos_token_id=None,
        )
    )
    save_policy(Policy("tiny", model, tokenizer), path)
    return path


def text(seed: int, n: int) -> str:
    """n random words."""
    draw = torch.randint(62, (n,), generator=torch.Generator().manual_seed(seed))
    return "".join(f"w{i} " for i in draw.tolist())


def make_pair(i: int, *, branch: int = 0, **changes: object) -> Pair:
    """A pair of two solutions of different lengths that end with the end-of-solution token."""
    fields: dict[str, object] = {
        "id": f"p{i}",
        "problem_id": f"q{i}",
        "dataset": "d",
        "question": "?",
        "kind": "step_controlled" if branch else "naive",
        "format": "plain",
        "prompt": text(1000 + i, 3 + i % 4),
        "shared": tuple(Step(kind="text", text=text(50 * i + j, 4)) for j in range(branch)),
        "chosen": (Step(kind="text", text=text(2000 + i, 5 + i % 7) + EOS),),
        "rejected": (Step(kind="text", text=text(3000 + i, 6 + i % 3) + EOS),),
        "branch_step": branch,
        "chosen_id": f"c{i}",
        "rejected_id": f"r{i}",
    }
    return Pair.model_validate(fields | changes)


def question_pairs(i: int, branches: int) -> list[Pair]:
    """A question's pairs, all with one preferred solution of `branches` + 1 steps: a naive one,
    and one from each of its steps."""
    steps = [Step(kind="text", text=text(50 * i + j, 4 + j % 3)) for j in range(branches)]
    steps.append(Step(kind="text", text=text(2000 + i, 5) + EOS))
    pairs = []
    for k in range(branches + 1):
        rejected = (Step(kind="text", text=text(3000 + 50 * i + k, 6 + k % 3) + EOS),)
        kind = "step_controlled" if k else "naive"
        front, rest = tuple(steps[:k]), tuple(steps[k:])
        changes = {"id": f"p{i}.{k}", "branch_step": k, "kind": kind, "rejected": rejected}
        pairs.append(make_pair(i, shared=front, chosen=rest, **changes))
    return pairs
