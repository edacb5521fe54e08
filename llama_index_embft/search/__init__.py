"""Exact nearest-neighbour search, used by mining, evaluation and the adapters; approximate search by extra."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
