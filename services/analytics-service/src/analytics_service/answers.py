"""What queries answered, kept for the next who asks the same; who asks while one is under way waits for its answer."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
from typing import Any, Final

Rows = list[dict[str, Any]]

KEPT: Final = timedelta(minutes=5)  # the engine deletes rows past their retention when it likes, and tells nobody
LARGEST: Final = 1000  # rows of an answer that is kept
ROOM: Final = 20_000  # rows of all that are, about 20 MB


class Answers:
    """Rows by whatever decides them. They are shared: nobody changes them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[float, Rows]] = OrderedDict()
        self._under_way: dict[Hashable, asyncio.Task[Rows]] = {}
        self._rows = 0

    async def of(self, key: Hashable, ask: Callable[[], Awaitable[Rows]]) -> Rows:
        """What is kept under the key, else what `ask` answers. Its errors reach all who wait, and are not kept.

        A caller that is cancelled leaves the question under way: others may wait for its answer.
        """
        until, rows = self._kept.get(key, (0.0, []))
        if time.monotonic() < until:
            self._kept.move_to_end(key)
            return rows
        if key not in self._under_way:
            self._under_way[key] = task = asyncio.create_task(self._ask(key, ask))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting any more
        return await asyncio.shield(self._under_way[key])

    async def _ask(self, key: Hashable, ask: Callable[[], Awaitable[Rows]]) -> Rows:
        try:
            rows = await ask()
        finally:
            del self._under_way[key]
        self._drop(key)
        if len(rows) <= LARGEST:
            self._kept[key] = (time.monotonic() + KEPT.total_seconds(), rows)
            self._rows += 1 + len(rows)
        while self._rows > ROOM:
            self._drop(next(iter(self._kept)))
        return rows

    def _drop(self, key: Hashable) -> None:
        if kept := self._kept.pop(key, None):
            self._rows -= 1 + len(kept[1])
