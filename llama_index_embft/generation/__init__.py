"""From nodes to a data set: questions written by a language model, or taken from the text itself.

Importing this folder loads neither LlamaIndex nor an LLM client.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
