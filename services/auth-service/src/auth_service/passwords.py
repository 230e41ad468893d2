"""Password hashes: argon2id, in a small pool of threads of its own, so that a burst of logins stalls nobody else."""

import asyncio
import os
import re
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from triton_common.errors import Unavailable, Unprocessable

NICENESS: Final = 5  # a third of what others weigh
MAX_LENGTH: Final = 128  # characters; what is longer is no password of ours and is not hashed

_COMMON: Final = frozenset(FREQUENCY_LISTS["passwords"])  # the 30,000 most used of public leaks, lower case
_EDGES: Final = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_LOOKALIKES: Final = str.maketrans("@4301!5$7", "aaeoiisst")

T = TypeVar("T")


class PasswordHashingBusy(Unavailable):
    """Too many logins at once; try again."""


class PasswordTooCommon(Unprocessable):
    """The password is one of those that are tried first."""


def check_strength(password: str, *, email: str) -> None:
    """Raises PasswordTooCommon for a password that many use, bare, padded with digits and signs, spelled with them, or
    repeated; for one that is little else than the e-mail address; and for one of one or two characters.

    Nothing else is asked of it but its length (NIST SP 800-63B §3.1.1.2).
    """
    plain = unicodedata.normalize("NFKC", password).casefold()
    name, _, domain = email.partition("@")
    for word in (plain, plain.translate(_LOOKALIKES)):
        core = _unit(_EDGES.sub("", word))
        if word in _COMMON or core in _COMMON or core in {"", name, domain, email, "triton"} or len(set(word)) <= 2:
            raise PasswordTooCommon("Choose one that is not well known: several words that do not belong together.")


def _unit(text: str) -> str:
    """What a text repeats, or the text."""
    again = (text + text).find(text, 1)  # the smallest rotation that is the text itself
    return text[:again] if text and again < len(text) else text


def _yield_to_others() -> None:
    """Hash when nobody else wants the core: requests take a millisecond of it now and then, hashes all there is."""
    with suppress(OSError):  # elsewhere than on Linux a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


class Passwords:
    """Hashes and verifies. At most `threads` hashes are computed and `queue` wait; beyond that PasswordHashingBusy."""

    def __init__(self, *, memory_kib: int, passes: int, threads: int, queue: int) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2", initializer=_yield_to_others)
        self._places = threading.BoundedSemaphore(threads + queue)
        self._dummy = self._hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """The password's hash, in PHC format. Spellings that look alike are one (NFKC, as NIST SP 800-63B has it)."""
        plain = unicodedata.normalize("NFKC", password)
        return await self._run(lambda: self._hasher.hash(plain))

    async def verify(self, password: str, *, password_hash: str | None) -> bool:
        """Whether the hash is this password's. None, for nobody, takes as long and is False."""
        if len(password) > MAX_LENGTH:
            return False
        plain = unicodedata.normalize("NFKC", password)
        matches = await self._run(lambda: self._matches(password_hash or self._dummy, plain))
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
