from .loading import (
    Corpus as Corpus,
)
from .loading import (
    dataset_corpus as dataset_corpus,
)
from .loading import (
    documents_to_nodes as documents_to_nodes,
)
from .loading import (
    load_documents as load_documents,
)
from .stdlib import build_stdlib_dataset as build_stdlib_dataset
