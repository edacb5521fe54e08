"""Vectors in an index that exists: stamped with their model's identity, updated, moved to a new model, rolled back."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
