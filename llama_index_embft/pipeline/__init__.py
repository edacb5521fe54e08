"""The whole street in one call: documents in; the best retriever for them out, proven and saved."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
