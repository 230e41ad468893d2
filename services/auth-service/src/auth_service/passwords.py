"""Password hashes: argon2id, in a small pool of threads of its own, so that a burst of logins stalls nobody else."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from triton_common.errors import Unavailable

MAX_LENGTH: Final = 128  # characters; what is longer is no password of ours and is not hashed

T = TypeVar("T")


class PasswordHashingBusy(Unavailable):
    """Too many logins at once; try again."""


class Passwords:
    """Hashes and verifies. At most `threads` hashes are computed and `queue` wait; beyond that PasswordHashingBusy."""

    def __init__(self, *, memory_kib: int, passes: int, threads: int, queue: int) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._places = BoundedSemaphore(threads + queue)
        self._dummy = self._hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """The password's hash, in PHC format."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password: str, *, password_hash: str | None) -> bool:
        """Whether the hash is this password's. None, for nobody, takes as long and is False."""
        if len(password) > MAX_LENGTH:
            return False
        matches = await self._run(lambda: self._matches(password_hash or self._dummy, password))
        return matches and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Let the threads end; what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (Argon2Error, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise PasswordHashingBusy(retry_after=1)
        future = self._threads.submit(work)
        # the place is free when the thread is, which a cancelled request does not wait for
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)
