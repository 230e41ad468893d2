"""HTTP as a load generator speaks it: one kept-alive connection that costs a small part of what a server does."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

PATIENCE: Final = 10.0  # seconds for an answer


class NoAnswer(Exception):
    """The connection failed, or nothing came in time: whether the request was carried out, nobody knows."""


class Answer(NamedTuple):
    """Status, head and body of an answer, and how many seconds it took."""

    status: int
    head: bytes
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """One header's value."""
        for line in self.head.split(b"\r\n"):
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.lower().encode():
                return value.strip().decode()
        return None


def encode(method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None) -> bytes:
    """A request as it goes over the wire; made once, it can be sent any number of times."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{key}: {value}" for key, value in (headers or {}).items()),
    ]
    if content:
        lines += ["Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content


class _Protocol(asyncio.Protocol):
    """Answers one request after another; each has a Content-Length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[tuple[int, bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # uvloop's is its own
        self.transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes, bytes]]":
        """Send one; the answer comes in the future."""
        assert self.transport is not None  # it is connected
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        marker = head.lower().find(b"\r\ncontent-length:")
        length = int(head[marker + 17 :].split(b"\r\n", 1)[0]) if marker >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((int(head[9:12]), head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(NoAnswer(f"connection lost: {exc}"))


class Wire:
    """One connection, made when it is needed; one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._protocol: _Protocol | None = None

    async def send(self, request: bytes, *, patience: float = PATIENCE) -> Answer:
        """The answer. Raises NoAnswer; the next call connects anew."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(patience):
                status, head, body = await (await self._connected()).ask(request)
        except (OSError, TimeoutError) as error:
            self.close()
            raise NoAnswer(str(error) or "no answer in time") from error
        except NoAnswer:
            self.close()
            raise
        if b"connection: close" in head.lower():
            self.close()
        return Answer(status, head, body, time.perf_counter() - began)

    async def _connected(self) -> _Protocol:
        if self._protocol is None or self._protocol.transport is None:
            _, self._protocol = await asyncio.get_running_loop().create_connection(_Protocol, *self._address)
        return self._protocol

    def close(self) -> None:
        """Let go of the connection."""
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.abort()
        self._protocol = None


@dataclass
class Load:
    """What a load came to."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


async def closed_loop(
    address: tuple[str, int],
    request: Callable[[], bytes],
    *,
    connections: int,
    seconds: float = float("inf"),
    count: int | None = None,
    seen: Callable[[Answer], None] = lambda _: None,
) -> Load:
    """Each connection sends its next request when the last is answered, for `seconds` or `count` requests in all."""
    load = Load()
    began = time.perf_counter()
    left = count if count is not None else 2**62

    async def one(wire: Wire) -> None:
        nonlocal left
        while left > 0 and time.perf_counter() - began < seconds:
            left -= 1
            answer = await wire.send(request())
            load.latencies.append(answer.seconds)
            load.statuses[answer.status] = load.statuses.get(answer.status, 0) + 1
            seen(answer)

    wires = [Wire(*address) for _ in range(connections)]
    try:
        await asyncio.gather(*(one(wire) for wire in wires))
    finally:
        for wire in wires:
            wire.close()
    load.seconds = time.perf_counter() - began
    return load


async def open_loop(send: Callable[[int], Awaitable[None]], *, rate: float, count: int) -> None:
    """Start `send(n)` for 0 ≤ n < count at an even rate, whether or not those before have ended."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            if (ahead := began + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            group.create_task(send(number))  # type: ignore[arg-type]
