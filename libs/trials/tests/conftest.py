"""One platform for all cases: each has clients of its own, and leaves the platform as it found it."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from triton_trials.chaos import platform_in
from triton_trials.platform import Platform


@pytest.fixture(scope="session", autouse=True)
def _at_full_speed() -> Iterator[None]:
    """The processes that trials start are other members' code: measuring what of it runs halves their speed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Not pytest's own, which is closed to the user that Postgres runs as."""
    with tempfile.TemporaryDirectory(prefix="triton-trials-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest_asyncio.fixture(scope="session")
async def platform(folder: Path, _at_full_speed: None) -> AsyncIterator[Platform]:
    """As `just chaos` has it."""
    async with platform_in(folder) as platform:
        yield platform
