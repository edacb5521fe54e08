"""The stack as a LlamaIndex retriever: a dense and a lexical part over the same nodes, their mixture, a reranker."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
