from .judge import LLMJudge as LLMJudge
from .mined import MinedDataset as MinedDataset
from .miner import mine_hard_negatives as mine_hard_negatives
from .parsing import DEFAULT_STRATEGIES as DEFAULT_STRATEGIES
from .parsing import parse_strategy as parse_strategy
from .report import MiningReport as MiningReport
from .settings import MiningSettings as MiningSettings
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
