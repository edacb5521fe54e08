"""TruLens (extra ``trulens``): score a query engine's answers, watch one in use, read what was recorded."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
