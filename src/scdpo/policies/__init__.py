"""Policy folders: a causal language model with its tokenizer, in the Hugging Face layout.

Names are loaded when they are first used; importing this package does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
