"""Step-Controlled DPO (arXiv 2407.00782): sample, branch, pair, train and measure.

    problems = scdpo.load_problems("gsm8k", "train.jsonl", limit=100)
    with scdpo.Engine("my-sft-7b") as engine, scdpo.Sandbox() as box:
        solutions = scdpo.sample(problems, engine, sandbox=box)
        branches = scdpo.branch(solutions, engine, sandbox=box)
    pairs = scdpo.pair(solutions, branches)
    report = scdpo.train("my-sft-7b", pairs, out="scdpo-7b", beta=0.1)

Functions that wait for a policy or a program work with and without a running event loop, and have
a twin `…_async`. Errors are subclasses of `scdpo.errors.ScdpoError`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
