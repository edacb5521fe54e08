"""Texts to vectors: batches by length, many calls at once to a hosted model, a cache on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
