"""Everything that asks a web API: one queue, one journal, one retry loop, and limits for every server."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
