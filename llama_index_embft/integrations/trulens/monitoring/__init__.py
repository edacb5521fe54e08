"""Watching an app in use: scoring of live traffic, and TruLens' dashboard on this machine alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
