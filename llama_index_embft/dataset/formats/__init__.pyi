from .guess import guess_format as guess_format
from .registry import (
    FORMATS as FORMATS,
    Format as Format,
    Written as Written,
    read_dataset as read_dataset,
    to_datasets as to_datasets,
    write_dataset as write_dataset,
)
from .rows import write_rows as write_rows
from .trainer_rows import (
    flag_embedding_rows as flag_embedding_rows,
    labelled_pairs as labelled_pairs,
    ntuples as ntuples,
    pairs as pairs,
    teacher_rows as teacher_rows,
    triplets as triplets,
)
from .trec import (
    read_qrels as read_qrels,
    read_run as read_run,
    write_qrels as write_qrels,
    write_run as write_run,
)
