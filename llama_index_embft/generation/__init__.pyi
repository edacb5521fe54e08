from .extractive import KINDS as KINDS
from .extractive import generate_extractive_pairs as generate_extractive_pairs
from .filters import (
    Difficulty as Difficulty,
)
from .filters import (
    Judge as Judge,
)
from .filters import (
    NearDuplicates as NearDuplicates,
)
from .filters import (
    QuestionFilter as QuestionFilter,
)
from .filters import (
    RefersToText as RefersToText,
)
from .filters import (
    RoundTrip as RoundTrip,
)
from .filters import (
    WrongLanguage as WrongLanguage,
)
from .filters import (
    default_filters as default_filters,
)
from .llm import (
    agenerate_qa_embedding_pairs as agenerate_qa_embedding_pairs,
)
from .llm import (
    generate_qa_embedding_pairs as generate_qa_embedding_pairs,
)
from .negatives import agenerate_negatives as agenerate_negatives
from .negatives import generate_negatives as generate_negatives
from .prompts import PromptStyle as PromptStyle
from .report import GenerationEstimate as GenerationEstimate
from .report import GenerationReport as GenerationReport
