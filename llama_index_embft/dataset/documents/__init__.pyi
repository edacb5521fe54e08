from .base import ReadingSettings as ReadingSettings
from .finding import SkippedFile as SkippedFile
from .loading import (
    Corpus as Corpus,
    LoadedDocuments as LoadedDocuments,
    dataset_corpus as dataset_corpus,
    documents_to_nodes as documents_to_nodes,
    load_documents as load_documents,
)
from .stdlib import build_stdlib_dataset as build_stdlib_dataset, general_guard as general_guard
