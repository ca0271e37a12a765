"""Run code that a model wrote: no network, no files of yours, under a deadline."""

import scdpo

BLOCKS = ["import sympy\nx = sympy.Symbol('x')", "sympy.solve(x**2 - 4, x)", "while True: pass"]

with scdpo.Sandbox(deadline=1) as box:
    print(box.isolation)
    for block, execution in zip(BLOCKS, box.run(BLOCKS), strict=True):
        print(f"{block!r}: {execution.output!r} {execution.cut}".rstrip())
