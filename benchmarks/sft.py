"""Supervised training of the embedded policy's shape: kinds of batches, and optimizers.

    python benchmarks/sft.py [--speed-tokens 60000] [--loss-tokens 150000] [--rounds 2]
                             [--threads 2]

Every training starts from the same random weights and sees the same demonstrations, in the
settings of recipes/embedded-policy.yaml. Tokens a second are of real tokens, padding not counted,
the best of some rounds. Needs the extra `embedded`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

from scdpo.formats import get_format
from scdpo.pipeline.make_policy import load_make_policy, texts, tokenise
from scdpo.policies import Policy
from scdpo.problems.embedded import generate
from scdpo.training.fresh import fresh_policy
from scdpo.training.sft_config import SFTConfig, SFTReport
from scdpo.training.supervised import sft
from scdpo.training.tree import MaskedIds

RECIPE = Path(__file__).resolve().parents[1] / "src" / "scdpo" / "recipes" / "embedded-policy.yaml"
SPEED: dict[str, dict[str, object]] = {
    "a row a solution": {"pack_length": None},
    "packed, 512": {"pack_length": 512},
    "packed, 1024": {"pack_length": 1024},
}
LOSS: dict[str, dict[str, object]] = {
    "AdamW 0.003": {"optimizer": "adamw", "learning_rate": 0.003},
    "Muon 0.02": {"optimizer": "muon", "muon_learning_rate": 0.02},
    "Muon 0.006": {"optimizer": "muon", "muon_learning_rate": 0.006},
}
LAST = 5
"""Optimizer steps at the end of a training whose losses are averaged."""


class Bench:
    """Demonstrations as token ids, and fresh policies to train on them."""

    def __init__(self, n_demonstrations: int):
        self.recipe = load_make_policy(RECIPE)
        self.form = get_format(self.recipe.format, system="")
        self.written = [(self.form, d) for d in generate("demonstrations", n_demonstrations)]
        self.examples = tokenise(self.written, self.policy().tokenizer)

    def policy(self) -> Policy:
        """The recipe's policy before its training."""
        written = ("".join(texts(*one)) for one in self.written)
        return fresh_policy(written, self.form.special_tokens, self.form.end[0], self.recipe.policy)

    def first(self, n_tokens: int) -> Sequence[MaskedIds]:
        """As many examples as hold about `n_tokens` tokens, in whole batches."""
        n = n_tokens * len(self.examples) // sum(len(ids) for ids, _ in self.examples)
        size = self.recipe.sft.batch_size
        return self.examples[: max(n // size, 2) * size]

    def train(
        self, examples: Sequence[MaskedIds], changes: dict[str, object]
    ) -> tuple[SFTReport, float]:
        """The report of one epoch, and the mean loss of its last steps."""
        config = SFTConfig.model_validate(self.recipe.sft.model_dump() | {"epochs": 1} | changes)
        with tempfile.TemporaryDirectory() as folder:
            report = sft(self.policy(), examples, Path(folder), config=config)
            rows = (Path(folder) / "log.jsonl").read_text().splitlines()
        return report, mean(json.loads(row)["loss"] for row in rows[-LAST:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed-tokens", type=int, default=60_000)
    parser.add_argument("--loss-tokens", type=int, default=150_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(max(args.speed_tokens, args.loss_tokens) // 200 + 100)
    n_parameters = sum(p.numel() for p in bench.policy().model.parameters())
    print(f"{n_parameters / 1e6:.2f} M parameters, {args.threads} threads")

    some = bench.first(args.speed_tokens)
    bench.train(some[:64], {})  # warm up
    print(f"\n{'batches':20}{'tokens/s':>10}{'seconds':>10}{'tokens':>10}")
    best: dict[str, SFTReport] = {}
    for _ in range(args.rounds):
        for name, changes in SPEED.items():
            report, _ = bench.train(some, changes)
            if name not in best or report.seconds < best[name].seconds:
                best[name] = report
    for name, report in best.items():
        rate = report.tokens / report.seconds
        print(f"{name:20}{rate:10.0f}{report.seconds:10.1f}{report.tokens:10}")

    more = bench.first(args.loss_tokens)
    print(f"\n{'optimizer':20}{'last loss':>10}{'seconds':>10}{'tokens':>10}{'steps':>10}")
    for name, changes in LOSS.items():
        report, loss = bench.train(more, changes)
        row = f"{loss:10.3f}{report.seconds:10.1f}{report.tokens:10}{report.steps:10}"
        print(f"{name:20}{row}", flush=True)


if __name__ == "__main__":
    main()
