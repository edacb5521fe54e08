from .cluster import ScaleError as ScaleError, connected as connected
from .encoding import EncodeResult as EncodeResult, encode as encode
from .generate import (
    agenerate_qa_embedding_pairs as agenerate_qa_embedding_pairs,
    generate_qa_embedding_pairs as generate_qa_embedding_pairs,
)
from .manifest import Embeddings as Embeddings, iter_embeddings as iter_embeddings, read_embeddings as read_embeddings
from .mine import mine_hard_negatives as mine_hard_negatives
from .settings import MiningWorkers as MiningWorkers
from .training import finetune as finetune
