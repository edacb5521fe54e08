"""A small layer over a frozen embedding model: its modules, its files, and the embedding that applies it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
