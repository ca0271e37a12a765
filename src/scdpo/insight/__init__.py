"""What a policy's training did: credit assignment, branch quality, the temperature study."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
