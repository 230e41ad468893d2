"""Bounded lanes: a few clients that block, a thread each, and a line of so many callers in front of them."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from triton_common.errors import TooManyRequests, Unavailable


class Client(Protocol):
    """Serves one caller at a time."""

    def close(self) -> None:
        """Serve nobody any more."""
        ...


C = TypeVar("C", bound=Client)
T = TypeVar("T")


class ClickhouseUnavailable(Unavailable):
    """The analytics database does not answer; try again."""


class AnalyticsBusy(TooManyRequests):
    """Too many analytics requests are waiting; try again."""


class Lane(Generic[C]):
    """A few clients, a thread each, and a bounded line of work in front of them.

    A client serves one caller at a time; the embedded engine knows no other way. `patience` is how long a caller waits
    for its turn and its answer; for ever without it.
    """

    def __init__(
        self,
        clients: Iterable[C],
        *,
        name: str,
        waiting: int,
        patience: timedelta | None = None,
    ) -> None:
        self._patience = patience.total_seconds() if patience else None
        self._clients = list(clients)
        self._free: SimpleQueue[C] = SimpleQueue()
        for client in self._clients:
            self._free.put(client)
        self._threads = ThreadPoolExecutor(max_workers=len(self._clients), thread_name_prefix=name)
        self._room = len(self._clients) + waiting

    async def run(self, work: Callable[[C], T]) -> T:
        """Run `work` in a thread. Raises AnalyticsBusy when the line is full or the turn does not come in time, and
        ClickhouseUnavailable when the answer does not.

        A caller that is cancelled leaves its work running: a statement cannot be taken back.
        """
        if self._room == 0:
            raise AnalyticsBusy(retry_after=2)
        self._room -= 1
        loop = asyncio.get_running_loop()
        future = self._threads.submit(self._work, work)
        future.add_done_callback(lambda done: self._leave(loop, done))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._patience)
        except TimeoutError:
            if future.cancelled():
                raise AnalyticsBusy(retry_after=2) from None
            raise ClickhouseUnavailable(retry_after=10) from None

    def _work(self, work: Callable[[C], T]) -> T:
        client = self._free.get()
        try:
            return work(client)
        finally:
            self._free.put(client)

    def _leave(self, loop: asyncio.AbstractEventLoop, _: "Future[Any]") -> None:
        def leave() -> None:
            self._room += 1

        if not loop.is_closed():
            loop.call_soon_threadsafe(leave)

    def close(self) -> None:
        """Wait for the work that runs, and close the clients."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for client in self._clients:
            client.close()
