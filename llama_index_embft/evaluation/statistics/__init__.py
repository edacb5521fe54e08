"""Numbers about two reports: paired tests by document, intervals, what a test set could have shown."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
