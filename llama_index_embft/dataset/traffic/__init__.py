"""Logs of real use, turned into data sets: clicks and thumbs, and what LlamaIndex retrieved."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
