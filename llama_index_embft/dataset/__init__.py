"""The data set and what is done to it before training: documents read, formats converted, checked, split."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
