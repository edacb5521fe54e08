from .guess import guess_format as guess_format
from .registry import (
    Format as Format,
)
from .registry import (
    Written as Written,
)
from .registry import (
    read_dataset as read_dataset,
)
from .registry import (
    to_datasets as to_datasets,
)
from .registry import (
    write_dataset as write_dataset,
)
from .rows import write_rows as write_rows
from .trainer_rows import (
    flag_embedding_rows as flag_embedding_rows,
)
from .trainer_rows import (
    labelled_pairs as labelled_pairs,
)
from .trainer_rows import (
    ntuples as ntuples,
)
from .trainer_rows import (
    pairs as pairs,
)
from .trainer_rows import (
    teacher_rows as teacher_rows,
)
from .trainer_rows import (
    triplets as triplets,
)
from .trec import (
    read_qrels as read_qrels,
)
from .trec import (
    read_run as read_run,
)
from .trec import (
    write_qrels as write_qrels,
)
from .trec import (
    write_run as write_run,
)
