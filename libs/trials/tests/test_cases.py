"""Every accident in its short form."""

from itertools import islice
from random import Random

import pytest

from triton_trials.accidents import together
from triton_trials.cases import CASES
from triton_trials.chaos import run_case
from triton_trials.load import SHORT

pytestmark = pytest.mark.timeout(180)

LONG_ONLY = {
    "redis-half-open",  # ten seconds until a worker notices
    "all-at-random",
}


@pytest.mark.parametrize("name", sorted(CASES.keys() - LONG_ONLY))
async def test_nothing_is_lost_doubled_or_left_hanging(platform, name):
    verdict = await run_case(CASES[name], SHORT, platform)
    assert not verdict.violations, (verdict, platform.logs)
    assert verdict.jobs >= SHORT.jobs


def test_a_seed_throws_the_same_dice_again():
    hands = [[*islice(together.drawn(Random(seed)), 30)] for seed in ("7/all", "7/all", "8/all")]
    assert hands[0] == hands[1] != hands[2]
    assert set(hands[0][: len(together.DECK)]) == set(together.DECK)
