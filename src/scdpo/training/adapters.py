"""Low-rank adapters (peft): added for a training, saved, and merged into the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from scdpo.errors import InputError, MissingDependency
from scdpo.policies import Policy, load_policy, save_policy
from scdpo.training.checkpoints import TrainingFolder, save_trained
from scdpo.training.dpo_config import LoraSettings
from scdpo.training.scoring import model_inside

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from scdpo.training.planned_trainer import PlannedTrainer


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
            # from then on no gradient would reach the adapter, without any error.
            module.support_avx512bf16_for_cpu = False
    return loaded


def with_adapter(
    policy: Policy, settings: LoraSettings | None, seed: int, new_tokens: Sequence[int] = ()
) -> PreTrainedModel:
    """The policy's model with a new adapter, which alone is trained and changes nothing yet.

    Without `settings` the model as it is. The adapter also trains the embeddings of `new_tokens`,
    at the input and at the output. Raises MissingDependency without peft, InputError for
    targets that the model does not have.
    """
    if settings is None:
        return policy.model
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
        trainable_token_indices=_embeddings_of(model, new_tokens),
    )
    torch.manual_seed(seed)
    try:
        return cast("PreTrainedModel", get_peft_model(model, config))
    except ValueError as error:
        raise InputError(f"lora.targets: {' '.join(str(error).split())[:200]}") from error


def _embeddings_of(model: Any, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """The tokens by the name of each embedding that has a row for them."""
    if not tokens:
        return None
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tied = outputs is None or outputs.weight is inputs.weight  # peft sees to tied embeddings
    modules = [inputs] if tied else [inputs, outputs]
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    return {names[id(module)]: list(tokens) for module in modules}


def save_adapter_and_merged(
    trainer: PlannedTrainer[Any], source: object, policy: Policy, folder: TrainingFolder
) -> Mapping[str, torch.Tensor]:
    """Write the trained adapter to `adapter`, and the policy with the adapter merged to `policy`.

    Where `source`, what the policy was made from, is a folder or hub name, the initial weights
    are loaded again and the merged ones written in fp32; else the adapter of the loaded model is
    merged in place. Every process has to call it. Returns the weights before merging.
    """
    adapter = folder.path / "adapter"
    weights = save_trained(trainer, policy, adapter)
    if not isinstance(source, (str, Path)):
        merged = cast(Any, model_inside(trainer.model_wrapped)).merge_and_unload()
        if trainer.is_world_process_zero():
            save_policy(Policy(policy.name, merged, policy.tokenizer), folder.policy)
    elif trainer.is_world_process_zero():
        save_merged(source, adapter, folder.policy)
    return weights


def save_merged(policy: str | Path, adapter: Path, out: Path) -> None:
    """Write a policy with an adapter merged into its weights, which are loaded again in fp32.

    The main process does it alone, so the weights are loaded whole, however they were sharded
    in training."""
    from peft import PeftModel
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    # With this set, all processes would load shards.
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    loaded = load_policy(policy, device="cpu")
    merged: Any = PeftModel.from_pretrained(loaded.model, adapter).merge_and_unload()
    save_policy(Policy(loaded.name, merged, loaded.tokenizer), out)
