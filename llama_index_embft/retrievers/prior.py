"""How much weight the dense part gets where no questions by people are known."""

from __future__ import annotations

from typing import Final

from llama_index_embft._core.checks import check_number

# Where the model finds as many chunks by a copied sentence as it misses, BM25 deserves ten times its weight.
_ODDS: Final = 0.1


def prior_weight(share: float) -> float:
    """The share of the dense part in a mixture with BM25, guessed from how well the model knows the texts.

    A model that finds few chunks by a sentence copied from them does not know their language or field, and BM25, which
    finds nearly all of them, is the better part; a model that finds nearly all as well is the better one on questions
    in other words. Measured on questions by people, the best odds of the dense part are about a tenth of the odds of
    being found::

        weight / (1 - weight) = 0.1 * share / (1 - share)

    One number was fitted, for z-scores (`fuse`), by the mean loss of nDCG@10 against the best weight of each data set.
    What it costs on data it was not fitted on stands in docs/explanation/human-questions.md; measured by
    ``python benchmarks/fusion.py``. Fifty real questions tell more, see `learn_weight`.

    Args:
        share: Share of chunks that the model finds among the first ten by a sentence copied from them, 0 to 1.

    Raises:
        ConfigError: It is no share.
    """
    check_number("share", share, at_least=0, at_most=1)
    return _ODDS * share / (_ODDS * share + (1 - share))
