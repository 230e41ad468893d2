"""Delivers every message twice: listens to what Redis is told, and pushes again what somebody pushed."""

import ast
import asyncio
import re
from typing import Final, Self

from redis.asyncio import Redis

PUSHED: Final = re.compile(rb'^\+?\d+\.\d+ \[\d+ (?P<who>[^\]]+)\] "[lL][pP][uU][sS][hH]" (?P<words>.*)$')
WORD: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')


class Doubling:
    """As a context: each LPUSH of anybody else's is repeated at once."""

    def __init__(self, url: str, address: tuple[str, int]) -> None:
        self._redis = Redis.from_url(url, single_connection_client=True)
        self._password = Redis.from_url(url).connection_pool.connection_kwargs["password"]
        self._address = address
        self._task: asyncio.Task[None] | None = None
        self.messages = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        reader, writer = await asyncio.open_connection(*self._address, limit=2**24)
        writer.write(f"AUTH {self._password}\r\nMONITOR\r\n".encode())
        for _ in range(2):
            await reader.readline()
        own = str((await self._redis.client_info())["addr"]).encode()
        self._task = asyncio.create_task(self._listen(reader, writer, own))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        assert self._task is not None  # it was entered
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._redis.aclose()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own: bytes) -> None:
        try:
            while line := await reader.readline():
                pushed = PUSHED.match(line.rstrip())
                if pushed and pushed["who"] != own:
                    key, *messages = (ast.literal_eval(f"b{word.decode()}") for word in WORD.findall(pushed["words"]))
                    await self._redis.lpush(key, *messages)
                    self.messages += len(messages)
        finally:
            writer.close()
