"""A map from a new model's query vectors to an index that an old model filled."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
