from .judge import LLMJudge as LLMJudge
from .mined import MinedDataset as MinedDataset
from .miner import mine_hard_negatives as mine_hard_negatives
from .parsing import (
    DEFAULT_STRATEGIES as DEFAULT_STRATEGIES,
    STRATEGY_FORMS as STRATEGY_FORMS,
    parse_strategy as parse_strategy,
)
from .report import MiningReport as MiningReport
from .settings import MiningSettings as MiningSettings
from .strategies import (
    BM25 as BM25,
    AbsoluteMargin as AbsoluteMargin,
    LeastSimilar as LeastSimilar,
    Random as Random,
    RankWindow as RankWindow,
    RelativeMargin as RelativeMargin,
    SameDocument as SameDocument,
    ScoreWindow as ScoreWindow,
)
from .teachers import CrossEncoder as CrossEncoder
