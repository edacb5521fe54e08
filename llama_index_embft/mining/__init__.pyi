from .export import (
    flag_embedding_rows as flag_embedding_rows,
)
from .export import (
    labelled_pairs as labelled_pairs,
)
from .export import (
    ntuples as ntuples,
)
from .export import (
    pairs as pairs,
)
from .export import (
    teacher_rows as teacher_rows,
)
from .export import (
    triplets as triplets,
)
from .export import (
    write_jsonl as write_jsonl,
)
from .judge import LLMJudge as LLMJudge
from .miner import DEFAULT_STRATEGIES as DEFAULT_STRATEGIES
from .miner import mine_hard_negatives as mine_hard_negatives
from .parsing import parse_strategy as parse_strategy
from .report import MiningReport as MiningReport
from .strategies import (
    BM25 as BM25,
)
from .strategies import (
    AbsoluteMargin as AbsoluteMargin,
)
from .strategies import (
    LeastSimilar as LeastSimilar,
)
from .strategies import (
    Random as Random,
)
from .strategies import (
    RankWindow as RankWindow,
)
from .strategies import (
    RelativeMargin as RelativeMargin,
)
from .strategies import (
    SameDocument as SameDocument,
)
from .strategies import (
    ScoreWindow as ScoreWindow,
)
from .teachers import CrossEncoder as CrossEncoder
