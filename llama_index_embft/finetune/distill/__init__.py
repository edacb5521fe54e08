"""A small model that learns to give a larger one's vectors, and answers queries on its index."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
