"""Closed forms of ranking against enumeration."""

import itertools

import numpy as np
import pytest

from lc_pytorch.utils import chance


@pytest.mark.parametrize("num_choices", [2, 3, 5])
def test_matching_with_ties_equals_the_enumeration_of_all_sets_of_distractors(num_choices):
    for lower, equal, higher in itertools.product(range(4), repeat=3):
        negatives = [0] * lower + [1] * equal + [2] * higher
        if len(negatives) < num_choices - 1:
            assert np.isnan(chance.match_share([lower], [equal], [len(negatives)], num_choices))[0]
            continue
        wins = [
            0.0 if 2 in drawn else 1 / (1 + drawn.count(1))
            for drawn in itertools.combinations(negatives, num_choices - 1)
        ]
        found = chance.match_share([lower], [equal], [len(negatives)], num_choices)
        assert found[0] == pytest.approx(np.mean(wins), abs=1e-12)
