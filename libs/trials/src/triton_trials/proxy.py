"""A TCP proxy that fails as networks do: it cuts, stalls, loses answers, and leaves connections half open."""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self

CHUNK: Final = 65_536
Address = tuple[str, int]


class Proxy:
    """Passes each connection on to the next backend that takes it. As a context it listens on `port` of 127.0.0.1."""

    def __init__(self, backends: Callable[[], Sequence[Address]]) -> None:
        """`backends` is asked at each connection."""
        self._backends = backends
        self._turn = itertools.count()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.broken = 0
        """Connections that were cut or left half open."""
        self.refused = 0
        self.held = 0
        """Pieces of requests and answers that waited while all was stalled."""
        self.lost = 0
        """Answers."""
        self.lose: float = 0.0
        """Share of answers that are swallowed, their connection with them: the request was carried out."""
        self.refuses = False

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # it is entered
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drop everything."""
        assert self._server is not None  # it was entered
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Break every connection. With `refuses` there are no new ones either."""
        self.broken += len(self._links)
        for link in list(self._links):
            link.abort()

    def stall(self) -> None:
        """Let nothing through, either way, and close nothing."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let all through again, what waited first."""
        self._flowing.set()

    def forget(self) -> None:
        """Leave every present connection half open: both ends believe in it, and nothing passes any more."""
        self.broken += len(self._links)
        for link in self._links:
            link.dead = True

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._take(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = None if self.refuses else await self._reach()
        if there is None:
            self.refused += 1
            writer.transport.abort()
            return
        link = _Link(writer, there[1])
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(link, reader, there[1], answers=False))
                group.create_task(self._pump(link, there[0], writer, answers=True))
        finally:
            link.abort()
            self._links.discard(link)

    async def _reach(self) -> Any:
        backends = list(self._backends())
        first = next(self._turn)
        for number in range(len(backends)):
            with suppress(OSError):
                return await asyncio.open_connection(*backends[(first + number) % len(backends)])
        return None

    async def _pump(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                self.held += not self._flowing.is_set()
                await self._flowing.wait()
                if link.dead:
                    continue
                if answers and random.random() < self.lose:
                    self.lost += 1
                    break
                writer.write(data)
                await writer.drain()
        link.abort()


class _Link:
    """A connection through the proxy: its two ends."""

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self._ends = ends
        self.dead = False

    def abort(self) -> None:
        """Break it."""
        for end in self._ends:
            end.transport.abort()
