from .assemble import CandidateQuery as CandidateQuery, GeneratedDataset as GeneratedDataset
from .extractive import KINDS as KINDS, generate_extractive_pairs as generate_extractive_pairs
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
    CrossEncoderFinetuningDatasetSample as CrossEncoderFinetuningDatasetSample,
    dataset_to_samples as dataset_to_samples,
    samples_to_dataset as samples_to_dataset,
)
from .settings import QUERY_KINDS as QUERY_KINDS, QuestionSettings as QuestionSettings
