"""Other projects' formats: one file a family, and a registry of them; see `registry`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
