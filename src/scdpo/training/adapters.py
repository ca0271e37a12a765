"""Low-rank adapters (peft): put on for a training, saved, and merged into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from scdpo.errors import InputError, MissingDependency
from scdpo.policies import Policy, load_policy, save_policy
from scdpo.training.dpo_config import LoraSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_in_four_bits(policy: str | Path, device: str | None) -> Policy:
    """A policy whose linear layers hold their weights in 4 bits (nf4).

    Raises MissingDependency without bitsandbytes, PolicyError as `load_policy` does.
    """
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingDependency("bitsandbytes (lora.quantize)", "qlora") from error
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    four_bits = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    loaded = load_policy(policy, device=device, quantization=four_bits)
    for module in loaded.model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            # On CPUs with AVX-512 a forward pass in evaluation would repack the weights, and
            # from then on no gradient would reach the adapter, without a word.
            module.support_avx512bf16_for_cpu = False
    return loaded


def with_adapter(policy: Policy, settings: LoraSettings, seed: int) -> PreTrainedModel:
    """The policy's model with a fresh adapter that alone is trained; it changes nothing yet.

    Raises MissingDependency without peft, InputError for targets that the model does not have.
    """
    try:
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    except ImportError as error:
        raise MissingDependency("peft (lora)", "peft") from error

    model: Any = policy.model
    if settings.quantize:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = settings.targets
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        lora_dropout=0.0,  # policy and reference have to be the same function
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        return cast("PreTrainedModel", get_peft_model(model, config))
    except ValueError as error:
        raise InputError(f"lora.targets: {' '.join(str(error).split())[:200]}") from error


def save_merged(policy: str | Path, adapter: Path, out: Path) -> None:
    """Write the initial policy with a trained adapter merged into its weights, in fp32.

    One process does it alone, so the weights are loaded whole, whatever the training did.
    """
    from peft import PeftModel
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]  # it would have all processes load shards

    loaded = load_policy(policy, device="cpu")
    merged: Any = PeftModel.from_pretrained(loaded.model, adapter).merge_and_unload()
    save_policy(Policy(loaded.name, merged, loaded.tokenizer), out)
