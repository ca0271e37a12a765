"""A run in the browser: an index of its rows, a server that only reads, one file for others."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
