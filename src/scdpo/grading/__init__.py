"""Final answers: finding them in a solution's text, and judging them against the gold answer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
