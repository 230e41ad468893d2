"""Every accident in its short form."""

import pytest

from triton_trials.cases import CASES, SHORT
from triton_trials.chaos import run_case

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
