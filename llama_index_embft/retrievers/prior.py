"""How much weight the dense part gets where no questions by people are known."""

from __future__ import annotations

from typing import Final

import numpy as np

from llama_index_embft._core.checks import check_number

# Share of chunks that the model finds by a copied sentence -> best weight beside BM25 on questions that people asked.
_SHARES: Final = (0.5, 0.68, 0.88, 0.94, 0.96)
_WEIGHTS: Final = (0.1, 0.2, 0.45, 0.6, 0.9)


def prior_weight(share: float) -> float:
    """The share of the dense part in a mixture with BM25, guessed from how well the model knows the texts.

    A model that finds few chunks by a sentence copied from them does not know their language or field, and BM25 is the
    better part; one that finds nearly all is. Between the points that were measured, see
    docs/explanation/human-questions.md, the weight rises evenly.

    Args:
        share: Share of chunks that the model finds among the first ten by a sentence copied from them, 0 to 1.

    Raises:
        ConfigError: It is no share.
    """
    check_number("share", share, at_least=0, at_most=1)
    return float(np.interp(share, _SHARES, _WEIGHTS))
