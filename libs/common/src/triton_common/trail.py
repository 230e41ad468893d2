"""A process's events on their way to the audit log: on this disk by one fsync for all who wait, then by a stream in
Redis to auth-service, until it has confirmed each one. docs/audit.md tells the whole way."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from loguru import logger
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from triton_common.background import stop
from triton_common.errors import Unavailable
from triton_common.messages import AuditEvent
from triton_common.revocations import SILENCE, redis_client
from triton_common.spool import Segment, Spool
from triton_common.telemetry import AUDIT_OLDEST, AUDIT_WAITING

STORED: Final = "triton:audit:stored"  # auth-service's answers: `id` of an event, or `refused` with one's id
KEPT: Final = 100_000  # entries of the stream, some 60 MB; trimming an unread one costs its being sent again
WINDOW: Final = 1000  # events that are sent and not confirmed; the others wait on disk alone
RESEND: Final = 30.0  # seconds without confirmation
QUEUE: Final = 1000  # requests that wait for the disk
PATIENCE: Final = 10.0  # seconds they wait
LOOK: Final = 30.0  # seconds between looks for what dead processes left
GRACE: Final = 2.0  # seconds in which a process that stops sends what it has
QUICKEST: Final = 0.02  # seconds between looks for confirmations, while there are some; twice that each time there are
SLOWEST: Final = 1.0  # none, up to this

T = TypeVar("T")


class AuditUnavailable(Unavailable):
    """This must be recorded, and cannot be."""


@dataclass
class _Sent:
    segment: Segment
    line: bytes
    due: float = 0.0  # when it is to be sent (again), of the monotonic clock


class Trail:
    """One process's way to the audit log. Memory holds WINDOW events, whatever waits on disk."""

    def __init__(self, folder: Path | None, *, source: str, redis_url: str) -> None:
        """Without a folder events lie in a temporary one and are gone with the process; without Redis none is sent."""
        self.source = source
        self._folder = folder
        self._redis_url = redis_url
        self._queue: list[tuple[bytes, asyncio.Future[None]]] = []
        self._window: dict[str, _Sent] = {}  # by the event's id, the oldest first
        self._wake = asyncio.Event()
        self._committing: asyncio.Task[None] | None = None
        self._last: str | None = None  # entry of STORED that was read
        self._looked = -LOOK
        self._reached = False  # Redis, the last time
        self.writable = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take events, and send them. What is left at the end, the next process on this folder takes over."""
        with ExitStack() as stack:
            folder = self._folder or Path(stack.enter_context(TemporaryDirectory(prefix="triton-audit-")))
            self._thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="audit"))
            self._spool = Spool(folder)
            await self._on_disk(self._spool.open)
            AUDIT_WAITING.labels(self.source).set_function(lambda: self.waiting)
            AUDIT_OLDEST.labels(self.source).set_function(lambda: self.oldest)
            try:
                if self._redis_url:
                    async with redis_client(self._redis_url) as redis, self._sending(redis):
                        yield
                else:
                    yield
            finally:
                await self._on_disk(self._spool.close)

    @property
    def waiting(self) -> int:
        """How many events are not confirmed."""
        return self._spool.waiting

    @property
    def oldest(self) -> float:
        """Age of the oldest event that is not confirmed, in seconds; 0 without one."""
        first = next(iter(self._window.values()), None)
        if first is None:
            return 0.0
        return max(0.0, (datetime.now(UTC) - AuditEvent.model_validate_json(first.line).at).total_seconds())

    async def record(self, event: AuditEvent) -> None:
        """The event is on disk when this returns: by one fsync for all who wait. Raises AuditUnavailable."""
        if len(self._queue) >= QUEUE:
            raise AuditUnavailable(retry_after=5)
        written = asyncio.get_running_loop().create_future()
        self._queue.append((event.model_dump_json().encode() + b"\n", written))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit(), name="audit commit")
        try:
            async with asyncio.timeout(PATIENCE):
                await written
        except OSError as error:  # TimeoutError is one
            raise AuditUnavailable(retry_after=5) from error

    async def _commit(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            error: Exception | None = None
            try:
                await self._on_disk(self._spool.append, [line for line, _ in batch])
            except Exception as caught:  # noqa: BLE001  whatever it is, those who wait are told
                error = caught
            self.writable = error is None
            for _, written in batch:
                if written.done():  # nobody waits any more
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
            self._wake.set()

    async def _on_disk(self, do: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do, *arguments)

    @asynccontextmanager
    async def _sending(self, redis: Redis) -> AsyncIterator[None]:
        sending = asyncio.create_task(self._run(redis), name="audit")
        try:
            yield
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    while self._reached and self.waiting:  # noqa: ASYNC110  it sets no Event
                        await asyncio.sleep(QUICKEST)
            await stop({sending})

    async def _run(self, redis: Redis) -> None:
        pause = QUICKEST
        while True:
            self._wake.clear()
            progress = reached = False
            try:
                progress = await self._turn(redis)
                reached = True
            except (RedisError, OSError) as error:
                if self._reached:
                    logger.bind(error=type(error).__name__).warning("audit events wait: they could not be sent")
            except Exception as error:  # noqa: BLE001  the next turn may go better, and there must be one
                logger.opt(exception=error).error("audit events could not be sent")
            self._reached = reached
            if not reached:
                await asyncio.sleep(SLOWEST)
                continue
            pause = QUICKEST if progress else min(2 * pause, SLOWEST)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause if self._window else LOOK):
                    await self._wake.wait()

    async def _turn(self, redis: Redis) -> bool:
        """Fill the window, send what is due, forget what is confirmed. True when there was something to do."""
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            await self._on_disk(self._spool.adopt)
        while len(self._window) < WINDOW and (found := await self._on_disk(self._spool.read)):
            for segment, line in found:
                try:
                    self._window[str(AuditEvent.model_validate_json(line).id)] = _Sent(segment, line)
                except ValidationError:
                    await self._set_aside([line], reason="it is no event")
                    await self._on_disk(self._spool.forget, [segment])
        due = [sent for sent in self._window.values() if sent.due <= time.monotonic()]
        if due:
            await self._send(redis, due)
        return await self._forget_confirmed(redis) or bool(due)

    async def _send(self, redis: Redis, due: Sequence[_Sent]) -> None:
        async with asyncio.timeout(2 * SILENCE):
            newest: Any = await redis.xrevrange(STORED, count=1)
            end = newest[0][0] if newest else "0-0"
            # behind what we have read is another stream: Redis was emptied
            self._last = end if self._last is None else min(self._last, end, key=_position)
            pipeline = redis.pipeline(transaction=False)
            for sent in due:
                pipeline.xadd(AuditEvent.queue, {"event": sent.line}, maxlen=KEPT, approximate=True)
            await pipeline.execute()
        for sent in due:
            sent.due = time.monotonic() + RESEND

    async def _forget_confirmed(self, redis: Redis) -> bool:
        confirmed: list[Segment] = []
        while self._window:
            async with asyncio.timeout(2 * SILENCE):
                found: Any = await redis.xrange(STORED, min=f"({self._last}", count=WINDOW)
            answers = [fields.get("id") or fields.get("refused", "") for _, fields in found]
            refused = {fields["refused"] for _, fields in found if "refused" in fields} & self._window.keys()
            if refused:
                await self._set_aside([self._window[each].line for each in refused], reason="auth-service refuses it")
            over = [self._window.pop(each, None) for each in answers]
            confirmed += [sent.segment for sent in over if sent is not None]
            self._last = found[-1][0] if found else self._last
            if len(found) < WINDOW:
                break
        if confirmed:
            await self._on_disk(self._spool.forget, confirmed)
        return bool(confirmed)

    async def _set_aside(self, lines: Sequence[bytes], *, reason: str) -> None:
        await self._on_disk(self._spool.set_aside, lines)
        logger.bind(lines=len(lines), reason=reason).error(
            "what the audit log does not take was set aside in the spool"
        )


def _position(entry: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry.split("-"))
