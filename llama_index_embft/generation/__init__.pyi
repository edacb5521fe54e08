from .assemble import CandidateQuery as CandidateQuery, GeneratedDataset as GeneratedDataset
from .extractive import (
    KINDS as KINDS,
    broken_rules as broken_rules,
    generate_extractive_pairs as generate_extractive_pairs,
    template_questions as template_questions,
)
from .filters import (
    Difficulty as Difficulty,
    Judge as Judge,
    NearDuplicates as NearDuplicates,
    QuestionFilter as QuestionFilter,
    RefersToText as RefersToText,
    RoundTrip as RoundTrip,
    WrongLanguage as WrongLanguage,
    default_filters as default_filters,
)
from .grading import (
    PassageGrades as PassageGrades,
    agrade_passages as agrade_passages,
    estimate_grading as estimate_grading,
    grade_passages as grade_passages,
)
from .llm import (
    agenerate_qa_embedding_pairs as agenerate_qa_embedding_pairs,
    estimate_qa_embedding_pairs as estimate_qa_embedding_pairs,
    generate_qa_embedding_pairs as generate_qa_embedding_pairs,
)
from .negatives import agenerate_negatives as agenerate_negatives, generate_negatives as generate_negatives
from .parse import normalized as normalized, parse_items as parse_items
from .passages import Passage as Passage
from .prompts import PromptStyle as PromptStyle
from .realism import QuestionProfile as QuestionProfile, Realism as Realism, question_realism as question_realism
from .report import GenerationEstimate as GenerationEstimate, GenerationReport as GenerationReport
from .reranking import (
    DEFAULT_QUERY_DOC_RELEVANCE_PROMPT as DEFAULT_QUERY_DOC_RELEVANCE_PROMPT,
    DEFAULT_QUERY_GEN_SYSTEM_PROMPT as DEFAULT_QUERY_GEN_SYSTEM_PROMPT,
    DEFAULT_QUERY_GEN_USER_PROMPT as DEFAULT_QUERY_GEN_USER_PROMPT,
    CohereRerankerFinetuneDataset as CohereRerankerFinetuneDataset,
    CrossEncoderFinetuningDatasetSample as CrossEncoderFinetuningDatasetSample,
    GeneratedQueries as GeneratedQueries,
    LabelledSamples as LabelledSamples,
    RelevanceReport as RelevanceReport,
    agenerate_ce_fine_tuning_dataset as agenerate_ce_fine_tuning_dataset,
    agenerate_synthetic_queries_over_documents as agenerate_synthetic_queries_over_documents,
    dataset_to_samples as dataset_to_samples,
    generate_ce_fine_tuning_dataset as generate_ce_fine_tuning_dataset,
    generate_cohere_reranker_finetuning_dataset as generate_cohere_reranker_finetuning_dataset,
    generate_synthetic_queries_over_documents as generate_synthetic_queries_over_documents,
    samples_to_dataset as samples_to_dataset,
    usable_samples as usable_samples,
)
from .sampling import ChunkSampling as ChunkSampling
from .settings import QUERY_KINDS as QUERY_KINDS, QuestionSettings as QuestionSettings
