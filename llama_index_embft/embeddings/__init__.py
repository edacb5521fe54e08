"""Embedding models for LlamaIndex: every saved result loaded, wrapped, encoded fast and cached by its identity."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
