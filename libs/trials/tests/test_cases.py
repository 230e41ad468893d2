"""Every accident in its short form."""

import asyncio

import pytest

from triton_trials.cases import CASES, SHORT
from triton_trials.chaos import run_case, table_of

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


async def test_a_case_that_breaks_off_is_a_violation(platform):
    async def broken(trial, size):
        async with asyncio.TaskGroup() as group:
            group.create_task(trial.call("GET", "/jobs/nothing"))

    case = CASES["redis-flushed"]
    verdict = await run_case(type(case)("broken", broken), SHORT, platform)
    assert verdict.violations
    assert "GET /jobs/nothing answers 422" in verdict.violations[0]
    assert table_of([verdict]).row_count == 1
