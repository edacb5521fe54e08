"""Training data for rerankers: labelled pairs of query and passage, made by an LLM or from a data set.

The names and arguments are those of the rerankers of llama-index-finetuning.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
