"""Preference training over token trees against TRL: time, memory, and whether they compute alike.

    python benchmarks/training.py ../shared/data/solutions [--workloads abc] [--scale 1]
        [--rounds 3] [--keep 2] [--row-tokens 4096] [--threads 2] [--no-checks] [--gpu]

Pairs of recorded solutions (recorded_pairs.py), a small random policy, and trainings that each
have a process of their own (training_worker.py). In the first round every setting is measured,
in later ones ours, the `--keep` fastest of TRL and its most frugal one; figures are medians.
`--gpu` takes a model of Mistral 7B's shape with an adapter. Needs the extra `dev`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from recorded_pairs import (
    Figures,
    Question,
    bench_policy,
    figures,
    make_pairs,
    read_questions,
    write_pairs,
)
from training_worker import Job, Kind, Order, Outcome, tokens_of

from scdpo.policies import Policy, save_policy
from scdpo.training.config import Checkpointing
from scdpo.training.dpo_config import DPOConfig

WORKER = Path(__file__).with_name("training_worker.py")
SEED = 0
MEMORY_TARGET = 0.6
CURVE = {"batch_size": 6, "learning_rate": 1e-4, "epochs": 4}
CURVE_QUESTIONS = 4


@dataclass(frozen=True, slots=True)
class Workload:
    """`questions` with a naive pair and `branches` step-controlled ones each; `target` is the
    least ratio of TRL's seconds to ours. Rows of `row_tokens` hold the questions' trees whole."""

    name: str
    branches: int
    questions: int
    batch_size: int
    sizes: tuple[int, ...]
    target: float
    row_tokens: int = DPOConfig().row_tokens


WORKLOADS = {
    "a": Workload("1 naive + 2 step-controlled pairs", 2, 16, 24, (1, 2, 4), 2.5),
    "b": Workload("1 naive + 6 step-controlled pairs", 6, 8, 28, (1, 2), 4.0, 4096),
    "c": Workload("1 naive pair", 0, 24, 12, (1, 2, 4), 1.0),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A trainer as it is measured; see `Job`."""

    name: str
    kind: Kind
    size: int = 4
    row_tokens: int = DPOConfig().row_tokens
    order: Order = "planned"
    checkpointing: Checkpointing = False
    bf16_weights: bool = False


class Bench:
    """A policy, pairs of recorded solutions, and trainings of the one on the other."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args = args
        self.folder = folder
        self.questions: list[Question] = read_questions(args.recorded)
        self.policy: Policy = bench_policy(args.recorded, large=args.gpu)
        save_policy(self.policy, folder / "policy")
        self.n_parameters = sum(p.numel() for p in self.policy.model.parameters())
        self.policy.model = None  # type: ignore[assignment]  # only the tokenizer is needed now
        self.done = 0

    def pairs(self, name: str, n_questions: int, branches: int) -> tuple[Path, Figures]:
        """A file of pairs, and what they look like."""
        pairs = make_pairs(self.questions, n_questions, branches, SEED)
        path = write_pairs(pairs, self.folder / f"{name}.jsonl")
        return path, figures(pairs, tokens_of(pairs, self.policy))

    def job(self, setting: Setting, pairs: Path, **options: float) -> Job:
        """The job of a setting; `options` are fields of `Job`."""
        chosen = {k: v for k, v in asdict(setting).items() if k != "name"}
        paths = {"policy": str(self.folder / "policy"), "pairs": str(pairs)}
        job = Job(
            **paths,
            **chosen,
            out="",
            batch_size=int(options["batch_size"]),
            learning_rate=1e-6,
            threads=self.args.threads,
            gpu=self.args.gpu,
            warm_up=int(self.args.gpu),
        )
        return replace(job, **options)

    def run(self, job: Job, what: str) -> Outcome:
        """Do a job in a process of its own, or in several. Exits when it fails."""
        self.done += 1
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            job_file, outcome_file = Path(folder) / "job.json", Path(folder) / "outcome.json"
            job_file.write_text(json.dumps(asdict(replace(job, out=str(Path(folder) / "out")))))
            launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(job.processes)]
            command = [sys.executable, *(launch if job.processes > 1 else []), str(WORKER)]
            threads = {"OMP_NUM_THREADS": str(job.threads)}
            started = time.perf_counter()
            ended = subprocess.run(
                [*command, str(job_file), str(outcome_file)],
                env=os.environ | threads,
                capture_output=True,
                text=True,
            )
            if ended.returncode:
                sys.exit(f"{what}: the training failed\n{ended.stderr[-4000:]}")
            outcome = Outcome(**json.loads(outcome_file.read_text()))
        seconds = time.perf_counter() - started
        measured = f"{outcome.seconds:.1f} s, {outcome.peak_mib:.0f} MiB"
        print(f"{self.done:3} {what}: {measured} ({seconds:.0f} s in all)", file=sys.stderr)
        return outcome


# ---- time and memory


def settings_of(workload: Workload, args: argparse.Namespace) -> list[Setting]:
    """Ours first; `checkpointing` of gradients is TRL's default."""
    ours: list[Setting] = []
    for n in args.row_tokens or [workload.row_tokens]:
        plain = Setting(f"ours, trees in rows of {n}", "tree", row_tokens=n)
        ours += [plain, replace(plain, name=f"{plain.name}, selective", checkpointing="selective")]
    ours.append(Setting("ours, a pair at a time", "pairs", 1))
    trl = [Setting(f"TRL, {n} a device", "trl", n) for n in workload.sizes]
    n = workload.sizes[1]
    trl.append(Setting(f"TRL, {n} a device, sorted in a step", "trl", n, order="sorted"))
    if args.gpu:
        trl += [replace(s, name=f"{s.name}, bf16 weights", bf16_weights=True) for s in trl]
    trl.append(replace(trl[0], name=f"{trl[0].name}, checkpointing", checkpointing=True))
    return ours + trl


def measure(
    bench: Bench, letter: str, workload: Workload, pairs: Path
) -> Mapping[Setting, Outcome]:
    """The medians of every setting, whose trainings take turns."""
    settings = settings_of(workload, bench.args)
    outcomes: dict[Setting, list[Outcome]] = {setting: [] for setting in settings}
    for n in range(bench.args.rounds):
        for setting in settings:
            job = bench.job(setting, pairs, batch_size=workload.batch_size)
            outcomes[setting].append(bench.run(job, f"{letter}, round {n + 1}, {setting.name}"))
        if n == 0:
            settings = _kept({s: found[0] for s, found in outcomes.items()}, bench.args.keep)
    for setting, found in outcomes.items():
        assert len({one.tokens for one in found}) == 1, setting
    return {setting: _medians(found) for setting, found in outcomes.items()}


def _kept(first: Mapping[Setting, Outcome], keep: int) -> list[Setting]:
    trl = [setting for setting in first if setting.kind == "trl"]
    fastest = sorted(trl, key=lambda s: first[s].seconds)[:keep]
    frugal = min(trl, key=lambda s: first[s].peak_mib)
    return [s for s in first if s.kind != "trl" or s in fastest or s == frugal]


def _medians(found: Sequence[Outcome]) -> Outcome:
    names = ("seconds", "cpu_seconds", "reference_seconds", "before_mib", "peak_mib")
    return replace(found[0], **{n: median(getattr(one, n) for one in found) for n in names})


def print_speed(letter: str, workload: Workload, about: Figures, args: argparse.Namespace) -> None:
    """What a workload is, and the head of its table."""
    print(f"\n{letter}  {workload.name} a question, {workload.batch_size} pairs a step")
    print(
        f"   {about.questions} questions, {about.pairs} pairs; means: {about.question_tokens:.0f}"
        f" tokens a question, {about.solution_tokens:.0f} tokens and {about.steps:.1f} steps a"
        f" preferred solution\n   {about.tokens:,} tokens in all sequences, of which trees save"
        f" {about.saved:.1%}"
    )
    peak = f"peak {'GPU' if args.gpu else 'RSS'}"
    print(
        f"\n   {'':38}{'seconds':>9}{'CPU s':>8}{'tokens/s':>10}{'reference':>11}"
        f"{peak:>10}{'before':>8}{'passes':>8}"
    )


def print_results(measured: Mapping[Setting, Outcome], workload: Workload) -> None:
    """The table and, against TRL's fastest and most frugal settings, the ratios."""
    for setting, o in measured.items():
        print(
            f"   {setting.name:38}{o.seconds:9.1f}{o.cpu_seconds:8.1f}{o.tokens / o.seconds:10.0f}"
            f"{o.reference_seconds:9.1f} s{o.peak_mib:10.0f}{o.before_mib:8.0f}"
            f"{o.micro_batches:8}"
        )
    trl = {setting: o for setting, o in measured.items() if setting.kind == "trl"}
    fastest = min(trl, key=lambda s: trl[s].seconds)
    frugal = min(trl, key=lambda s: trl[s].peak_mib)
    print(f"\n   fastest of TRL: {fastest.name}; most frugal: {frugal.name}")
    for setting, o in measured.items():
        if setting.kind != "tree":
            continue
        ratio = trl[fastest].seconds / o.seconds
        print(f"   {setting.name}:")
        print(_line("TRL's seconds / ours", ratio, ">=", workload.target))
        for against, other in (("fastest", trl[fastest]), ("most frugal", trl[frugal])):
            share = o.peak_mib / other.peak_mib
            print(_line(f"our peak memory / TRL's {against}", share, "<=", MEMORY_TARGET))
            grown = (o.peak_mib - o.before_mib) / (other.peak_mib - other.before_mib)
            print(_line("   of what training adds", grown, "<=", MEMORY_TARGET))
    sys.stdout.flush()


def _line(what: str, value: float, relation: str, target: float) -> str:
    met = value >= target if relation == ">=" else value <= target
    number = f"{value:.2f}" if relation == ">=" or target > 1e-2 else f"{value:.1e}"
    return f"      {what:48}{number:>9}   target {relation} {target:g}{'' if met else '   MISSED'}"


# ---- whether they compute alike


def check(bench: Bench) -> None:
    """Loss, gradient and curves of ways to compute the same training, next to their targets."""
    pairs, about = bench.pairs("curve", CURVE_QUESTIONS, WORKLOADS["a"].branches)
    print(
        f"\nThe same training in several ways: {about.pairs} pairs of {about.questions} questions"
    )

    def run(name: str, setting: Setting, **options: float) -> Outcome:
        return bench.run(bench.job(setting, pairs, **(CURVE | options)), f"curve, {name}")

    gradient = run("gradient", Setting("", "gradient", size=1))
    tree, alone = gradient.losses
    trees = run("trees", Setting("", "tree", size=1))
    narrow = run("rows of 1024", Setting("", "tree", size=1, row_tokens=1024))
    wide = run("rows of 8192", Setting("", "tree", size=1, row_tokens=8192))
    one = run("all pairs at a time", Setting("", "pairs", size=int(CURVE["batch_size"])))
    many = run("a pair at a time", Setting("", "pairs", size=1))
    trl = run("TRL", Setting("", "trl", size=1))
    two = run("two processes", Setting("", "tree", size=1, row_tokens=1024), processes=2, threads=1)
    assert wide.micro_batches == one.micro_batches == 1
    assert narrow.micro_batches >= 4 and many.micro_batches >= 4
    assert trees.tokens == many.tokens == trl.tokens

    losses = trees.losses
    print(f"   {len(losses)} steps, loss {losses[0]:.4f} to {losses[-1]:.4f}\n")
    print("   one batch, trees and pairs, relative difference")
    print(_line("loss", abs(tree - alone) / abs(alone), "<=", 1e-5))
    print(_line("gradient (L2)", gradient.apart, "<=", 1e-5))
    print("   loss curves, largest difference")
    for what, a, b, target in (
        ("trees, pairs", trees, many, 1e-4),
        ("trees, TRL", trees, trl, 1e-4),
        ("pairs, TRL", many, trl, 1e-4),
        (f"rows of 8192 (1), of 1024 ({narrow.micro_batches} passes)", wide, narrow, 1e-5),
        (f"pairs in 1 pass, in {many.micro_batches}", one, many, 1e-5),
        ("one process, two (rows of 1024)", narrow, two, 1e-5),
    ):
        apart = max(abs(x - y) for x, y in zip(a.losses, b.losses, strict=True))
        print(_line(what, apart, "<=", target))


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recorded", type=Path, help="folder of recorded solutions")
    parser.add_argument("--workloads", default="abc", help="letters of those to measure")
    parser.add_argument("--scale", type=float, default=0.0, help="times as many questions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=int, default=2, help="settings of TRL after round 1")
    parser.add_argument("--row-tokens", type=int, nargs="+", metavar="N")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-checks", action="store_true", help="measure time and memory alone")
    parser.add_argument("--gpu", action="store_true", help="Mistral 7B's shape, LoRA, bf16")
    args = parser.parse_args()
    # A GPU needs more steps after the one that compiles.
    args.scale = args.scale or (4.0 if args.gpu else 1.0)
    return args


def scaled(workload: Workload, scale: float) -> Workload:
    """With as many times the questions, in whole optimizer steps."""
    a_step = workload.batch_size // (1 + workload.branches)
    steps = max(round(scale * workload.questions / a_step), 1)
    return replace(workload, questions=steps * a_step)


def chosen_workloads(args: argparse.Namespace) -> Iterator[tuple[str, Workload]]:
    """Those of the command line, by their letters."""
    for letter in args.workloads:
        yield letter, scaled(WORKLOADS[letter], args.scale)


def main() -> None:
    args = options()
    if args.gpu and not torch.cuda.is_available():
        sys.exit("--gpu: there is no GPU that torch can use here")
    with tempfile.TemporaryDirectory(prefix="bench-training-") as folder:
        bench = Bench(args, Path(folder))
        where = torch.cuda.get_device_name() if args.gpu else f"CPU, {args.threads} threads, fp32"
        packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "trl"))
        print(f"{bench.n_parameters / 1e6:.1f} M parameters; {where}; {packages}")
        print(
            f"Medians of {args.rounds} rounds; memory in MiB; execution output counts in the loss."
        )
        for letter, workload in chosen_workloads(args):
            pairs, about = bench.pairs(letter, workload.questions, workload.branches)
            measured = measure(bench, letter, workload, pairs)
            print_speed(letter, workload, about, args)
            print_results(measured, workload)
        if not args.no_checks and not args.gpu:
            check(bench)


if __name__ == "__main__":
    main()
