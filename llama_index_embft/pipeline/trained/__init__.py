"""What is trained on the way to the best retriever: candidates, rerankers, and one way of training on trial."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
