"""Training rerankers: cross-encoders that put the hits of a retriever into a better order."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
