"""Questions without an LLM, made from the chunks' own words; what they are worth: `docs/explanation/extractive.md`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
