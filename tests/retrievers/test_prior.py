"""The weight that is taken where nobody's questions are known."""

import numpy as np
import pytest

from llama_index_embft.errors import ConfigError
from llama_index_embft.retrievers import prior_weight


def test_a_model_that_finds_more_copied_sentences_gets_more_weight():
    weights = [prior_weight(share) for share in np.linspace(0, 1, 101)]
    assert weights[0] == 0
    assert weights[-1] == 1
    assert (np.diff(weights) > 0).all()


# Weights within two points of nDCG@10 of the best one on questions by people (docs/explanation/human-questions.md).
@pytest.mark.parametrize(
    ("share", "lowest", "highest"),
    [(0.669, 0.0, 0.4), (0.845, 0.35, 0.8), (0.864, 0.05, 0.5), (0.977, 0.6, 1.0)],
)
def test_the_weight_lies_where_questions_by_people_want_it(share, lowest, highest):
    assert lowest <= prior_weight(share) <= highest


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ConfigError, match="`share` is"):
        prior_weight(share)
