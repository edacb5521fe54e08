from .dataset import (
    EmbeddingQAFinetuneDataset as EmbeddingQAFinetuneDataset,
    load_documents as load_documents,
    read_dataset as read_dataset,
    split_dataset as split_dataset,
    write_dataset as write_dataset,
)
from .embeddings import (
    AdapterEmbedding as AdapterEmbedding,
    load_embed_model as load_embed_model,
    load_exported as load_exported,
)
from .evaluation import (
    Comparison as Comparison,
    RetrievalReport as RetrievalReport,
    aevaluate_retriever as aevaluate_retriever,
    compare as compare,
    compare_systems as compare_systems,
    evaluate_embed_model as evaluate_embed_model,
    evaluate_retriever as evaluate_retriever,
)
from .export import export_model as export_model, push_to_hub as push_to_hub
from .finetune import (
    CrossEncoderFinetuneEngine as CrossEncoderFinetuneEngine,
    DistillationEngine as DistillationEngine,
    DriftAdapter as DriftAdapter,
    EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine,
    NudgeFinetuneEngine as NudgeFinetuneEngine,
    RerankerFinetuneEngine as RerankerFinetuneEngine,
    SentenceTransformersFinetuneEngine as SentenceTransformersFinetuneEngine,
)
from .generation import (
    CohereRerankerFinetuneDataset as CohereRerankerFinetuneDataset,
    CrossEncoderFinetuningDatasetSample as CrossEncoderFinetuningDatasetSample,
    agenerate_qa_embedding_pairs as agenerate_qa_embedding_pairs,
    generate_ce_fine_tuning_dataset as generate_ce_fine_tuning_dataset,
    generate_cohere_reranker_finetuning_dataset as generate_cohere_reranker_finetuning_dataset,
    generate_extractive_pairs as generate_extractive_pairs,
    generate_qa_embedding_pairs as generate_qa_embedding_pairs,
    generate_synthetic_queries_over_documents as generate_synthetic_queries_over_documents,
)
from .index import (
    check_index as check_index,
    checked_retriever as checked_retriever,
    reembed_index as reembed_index,
    rollback_index as rollback_index,
    stamp_index as stamp_index,
    update_index as update_index,
)
from .integrations.trulens import evaluate_app as evaluate_app
from .mining import mine_hard_negatives as mine_hard_negatives
from .pipeline import TuneResult as TuneResult, TuneSettings as TuneSettings, tune as tune
from .retrievers import (
    LateInteractionReranker as LateInteractionReranker,
    StackRetriever as StackRetriever,
    load_reranker as load_reranker,
    load_retriever as load_retriever,
    save_retriever as save_retriever,
)

__version__: str
