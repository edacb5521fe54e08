"""Hard negatives: strategies that find them, rules that keep false ones out, and a report of what was done."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
