"""One platform for all cases: each has clients of its own, and leaves the platform as it found it."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from triton_trials.chaos import platform_in
from triton_trials.platform import Platform


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Not pytest's own, which is closed to the user that Postgres runs as."""
    with tempfile.TemporaryDirectory(prefix="triton-trials-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest_asyncio.fixture(scope="session")
async def platform(folder: Path) -> AsyncIterator[Platform]:
    """As `just chaos` has it."""
    async with platform_in(folder) as platform:
        yield platform
