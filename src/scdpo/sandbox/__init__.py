"""Runs model-written code in stateful sessions of a separate process, which can be cloned.

`ProcessSandbox` starts the sessions and `SandboxConfig` sets their limits; `same_output` decides
whether a block that was executed again printed what was recorded. docs/sandbox.md describes what
the sandbox promises and how its four wings (`host`, `notebook`, `walls`, `processes`) fit together.
"""

import lazy_loader

# Loaded when first used: the child process imports this package too, and needs neither pydantic
# nor asyncio.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
