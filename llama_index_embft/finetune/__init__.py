"""Train on a data set: all weights or LoRA, an adapter, moved documents, or a map from a new model to an old index."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
