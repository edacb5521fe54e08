from .significance import PairedResult as PairedResult
from .significance import paired_tests as paired_tests
