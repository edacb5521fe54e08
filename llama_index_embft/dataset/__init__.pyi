from .checks import DropReport as DropReport
from .documents import (
    Corpus as Corpus,
)
from .documents import (
    build_stdlib_dataset as build_stdlib_dataset,
)
from .documents import (
    dataset_corpus as dataset_corpus,
)
from .documents import (
    documents_to_nodes as documents_to_nodes,
)
from .documents import (
    load_documents as load_documents,
)
from .formats import (
    Format as Format,
)
from .formats import (
    Written as Written,
)
from .formats import (
    guess_format as guess_format,
)
from .formats import (
    read_dataset as read_dataset,
)
from .formats import (
    read_qrels as read_qrels,
)
from .formats import (
    read_run as read_run,
)
from .formats import (
    to_datasets as to_datasets,
)
from .formats import (
    write_dataset as write_dataset,
)
from .formats import (
    write_qrels as write_qrels,
)
from .formats import (
    write_run as write_run,
)
from .near_duplicates import near_duplicate_groups as near_duplicate_groups
from .provenance import Provenance as Provenance
from .schema import EmbeddingQAFinetuneDataset as EmbeddingQAFinetuneDataset
from .split import Split as Split
from .split import split_dataset as split_dataset
from .stats import DatasetStats as DatasetStats
from .traffic import (
    RetrievalLog as RetrievalLog,
)
from .traffic import (
    TrafficDataset as TrafficDataset,
)
from .traffic import (
    TrafficReport as TrafficReport,
)
from .traffic import (
    dataset_from_clicks as dataset_from_clicks,
)
