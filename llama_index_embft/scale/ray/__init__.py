"""The functions of this package on a Ray cluster (extra ``ray``): same arguments, same results, more machines.

``encode`` writes the vectors of `embeddings.encode`, ``mine_hard_negatives`` finds the negatives of `mining`,
``agenerate_qa_embedding_pairs`` keeps the journal of `generation`, and ``finetune`` trains what ``torchrun`` would.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
