"""The functions of this package on a Ray cluster (extra ``ray``): same arguments, same results, more machines.

``encode`` writes the vectors of `embeddings.encode`, ``mine_hard_negatives`` finds the negatives of `mining`,
``agenerate_qa_embedding_pairs`` keeps the journal of `generation`, and ``finetune`` trains what ``torchrun`` would.
"""

from llama_index_embft.scale.ray_cluster import ScaleError, connected
from llama_index_embft.scale.ray_encode import EncodeResult, encode
from llama_index_embft.scale.ray_finetune import finetune
from llama_index_embft.scale.ray_generate import agenerate_qa_embedding_pairs, generate_qa_embedding_pairs
from llama_index_embft.scale.ray_manifest import Embeddings, iter_embeddings, read_embeddings
from llama_index_embft.scale.ray_mine import mine_hard_negatives

__all__ = [
    "Embeddings",
    "EncodeResult",
    "ScaleError",
    "agenerate_qa_embedding_pairs",
    "connected",
    "encode",
    "finetune",
    "generate_qa_embedding_pairs",
    "iter_embeddings",
    "mine_hard_negatives",
    "read_embeddings",
]
