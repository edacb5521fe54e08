"""Train a model, an adapter, moved documents, a reranker, a map from a new model to an old index, or a student."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
