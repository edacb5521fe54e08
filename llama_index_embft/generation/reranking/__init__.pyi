from .cohere import (
    CohereRerankerFinetuneDataset as CohereRerankerFinetuneDataset,
    generate_cohere_reranker_finetuning_dataset as generate_cohere_reranker_finetuning_dataset,
)
from .queries import (
    DEFAULT_QUERY_GEN_SYSTEM_PROMPT as DEFAULT_QUERY_GEN_SYSTEM_PROMPT,
    DEFAULT_QUERY_GEN_USER_PROMPT as DEFAULT_QUERY_GEN_USER_PROMPT,
    GeneratedQueries as GeneratedQueries,
    agenerate_synthetic_queries_over_documents as agenerate_synthetic_queries_over_documents,
    generate_synthetic_queries_over_documents as generate_synthetic_queries_over_documents,
)
from .relevance import (
    DEFAULT_QUERY_DOC_RELEVANCE_PROMPT as DEFAULT_QUERY_DOC_RELEVANCE_PROMPT,
    LabelledSamples as LabelledSamples,
    RelevanceReport as RelevanceReport,
    agenerate_ce_fine_tuning_dataset as agenerate_ce_fine_tuning_dataset,
    generate_ce_fine_tuning_dataset as generate_ce_fine_tuning_dataset,
)
from .samples import (
    CrossEncoderFinetuningDatasetSample as CrossEncoderFinetuningDatasetSample,
    dataset_to_samples as dataset_to_samples,
    samples_to_dataset as samples_to_dataset,
    usable_samples as usable_samples,
)
