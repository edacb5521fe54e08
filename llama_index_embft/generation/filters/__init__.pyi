from .base import (
    NearDuplicates as NearDuplicates,
)
from .base import (
    QuestionFilter as QuestionFilter,
)
from .base import (
    RefersToText as RefersToText,
)
from .base import (
    WrongLanguage as WrongLanguage,
)
from .base import (
    default_filters as default_filters,
)
from .judge import Judge as Judge
from .retrieval import Difficulty as Difficulty
from .retrieval import RoundTrip as RoundTrip
