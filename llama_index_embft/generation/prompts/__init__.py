"""What the LLM is asked: the words of the prompts, and which passages are asked about for what."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
