from .dataset import (
    EmbeddingQAFinetuneDataset as EmbeddingQAFinetuneDataset,
)
from .dataset import (
    load_documents as load_documents,
)
from .dataset import (
    read_dataset as read_dataset,
)
from .dataset import (
    split_dataset as split_dataset,
)
from .dataset import (
    write_dataset as write_dataset,
)
from .embeddings import (
    AdapterEmbedding as AdapterEmbedding,
)
from .embeddings import (
    load_embed_model as load_embed_model,
)
from .embeddings import (
    load_exported as load_exported,
)
from .evaluation import (
    Comparison as Comparison,
)
from .evaluation import (
    RetrievalReport as RetrievalReport,
)
from .evaluation import (
    aevaluate_retriever as aevaluate_retriever,
)
from .evaluation import (
    compare as compare,
)
from .evaluation import (
    compare_systems as compare_systems,
)
from .evaluation import (
    evaluate_embed_model as evaluate_embed_model,
)
from .evaluation import (
    evaluate_retriever as evaluate_retriever,
)
from .export import export_model as export_model
from .export import push_to_hub as push_to_hub
from .finetune import (
    DriftAdapter as DriftAdapter,
)
from .finetune import (
    EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine,
)
from .finetune import (
    NudgeFinetuneEngine as NudgeFinetuneEngine,
)
from .finetune import (
    SentenceTransformersFinetuneEngine as SentenceTransformersFinetuneEngine,
)
from .generation import (
    agenerate_qa_embedding_pairs as agenerate_qa_embedding_pairs,
)
from .generation import (
    generate_extractive_pairs as generate_extractive_pairs,
)
from .generation import (
    generate_qa_embedding_pairs as generate_qa_embedding_pairs,
)
from .index import (
    check_index as check_index,
)
from .index import (
    checked_retriever as checked_retriever,
)
from .index import (
    reembed_index as reembed_index,
)
from .index import (
    rollback_index as rollback_index,
)
from .index import (
    stamp_index as stamp_index,
)
from .index import (
    update_index as update_index,
)
from .integrations.trulens import evaluate_app as evaluate_app
from .mining import mine_hard_negatives as mine_hard_negatives

__version__: str
