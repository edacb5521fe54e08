"""Tune a LlamaIndex retriever on your own documents, prove that it retrieves better, and plug it in.

Importing this package loads neither torch nor transformers nor LlamaIndex; each public name is imported when it is
first used. The names stand in ``__init__.pyi``.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
