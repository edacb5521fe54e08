from .checks import DropReport as DropReport
from .documents import (
    Corpus as Corpus,
    build_stdlib_dataset as build_stdlib_dataset,
    dataset_corpus as dataset_corpus,
    documents_to_nodes as documents_to_nodes,
    general_guard as general_guard,
    load_documents as load_documents,
)
from .formats import (
    Format as Format,
    Written as Written,
    guess_format as guess_format,
    read_dataset as read_dataset,
    read_qrels as read_qrels,
    read_run as read_run,
    to_datasets as to_datasets,
    write_dataset as write_dataset,
    write_qrels as write_qrels,
    write_run as write_run,
)
from .near_duplicates import near_duplicate_groups as near_duplicate_groups
from .provenance import Provenance as Provenance
from .schema import EmbeddingQAFinetuneDataset as EmbeddingQAFinetuneDataset
from .split import Split as Split, split_dataset as split_dataset
from .stats import DatasetStats as DatasetStats
from .traffic import (
    RetrievalLog as RetrievalLog,
    TrafficDataset as TrafficDataset,
    TrafficReport as TrafficReport,
    dataset_from_clicks as dataset_from_clicks,
)
