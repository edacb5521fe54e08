"""What every run of a trainer needs: checkpoints, the best state, devices and precision, several processes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
