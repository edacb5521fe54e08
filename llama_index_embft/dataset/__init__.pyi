from .checks import DropReport as DropReport
from .documents import (
    Corpus as Corpus,
    LoadedDocuments as LoadedDocuments,
    ReadingSettings as ReadingSettings,
    SkippedFile as SkippedFile,
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
from .inspection import (
    Duplicates as Duplicates,
    Inspection as Inspection,
    Leak as Leak,
    Sample as Sample,
    inspect_dataset as inspect_dataset,
)
from .near_duplicates import near_duplicate_groups as near_duplicate_groups
from .provenance import Provenance as Provenance
from .schema import EmbeddingQAFinetuneDataset as EmbeddingQAFinetuneDataset
from .split import Split as Split, split_dataset as split_dataset
from .stats import DatasetStats as DatasetStats
from .ties import TiedDocuments as TiedDocuments, tied_documents as tied_documents
from .traffic import (
    RetrievalLog as RetrievalLog,
    TrafficDataset as TrafficDataset,
    TrafficReport as TrafficReport,
    dataset_from_clicks as dataset_from_clicks,
)
