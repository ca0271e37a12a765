"""Solutions from a policy: the step loop, naive sampling, and branching at rising temperatures.

Everything here works on records in memory; `pipeline` stores them on disk.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
