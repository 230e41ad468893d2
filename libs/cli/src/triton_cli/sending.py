"""Files on their way to the platform, and the bar that shows how far they have come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from triton_cli.command import progress
from triton_cli.filters import Json
from triton_cli.state import CommandFailed

if TYPE_CHECKING:
    from triton_cli.api import Api

CHUNK: Final = 1 << 20  # bytes read and sent at a time
ASKED_EVERY: Final = 0.3  # seconds, for how far a load has come
LONGEST_LOAD: Final = 3600.0  # seconds
KINDS: Final = {
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
PACKED: Final = {"gz", "gzip", "zst", "zstd"}


async def send(
    api: "Api",
    path: str,
    files: Sequence[Path],
    mapping: Path | None,
    *,
    params: dict[str, str],
    headers: dict[str, str] | None = None,
) -> Json:
    """One file of our own columns as the body; else a part each, for a source knows its files by their names."""
    import httpx2  # noqa: PLC0415  see platform

    await api.get("/api/v1/auth/me")  # which gets another token where this one is refused: a body is sent but once
    timeout = httpx2.Timeout(30.0, read=LONGEST_LOAD)
    with ExitStack() as opened:
        if len(files) == 1 and mapping is None and params["source"] == "triton":
            file = opened.enter_context(files[0].open("rb"))
            kind = {"Content-Type": _kind(files[0]), "Content-Length": str(files[0].stat().st_size)}
            body: Json = {"content": _chunks(file.read), "headers": kind | (headers or {})}
        else:
            parts = [
                (one.name, (one.name, opened.enter_context(one.open("rb")), _kind(one, "application/octet-stream")))
                for one in files
            ]
            if mapping is not None:
                parts.append(("mapping", (mapping.name, opened.enter_context(mapping.open("rb")), "application/toml")))
            body = {"files": parts, "headers": headers}
        answer: Json = await api.post(path, params=params, timeout=timeout, **body)
    return answer


def _kind(file: Path, otherwise: str = "text/csv") -> str:
    endings = [ending for ending in file.name.lower().split(".") if ending not in PACKED]
    return KINDS.get(endings[-1], otherwise)


async def _chunks(read: Callable[[int], bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(read, CHUNK):
        yield chunk


@asynccontextmanager
async def with_bar(api: "Api", path: str) -> AsyncIterator[None]:
    """Meanwhile a bar on a terminal, of what the platform says that it has: bytes, then rows."""
    if not progress.is_terminal:
        yield
        return
    with _bar() as update:

        async def look() -> None:
            while True:
                await asyncio.sleep(ASKED_EVERY)
                with suppress(CommandFailed):  # it has not begun, or is over
                    update(await api.get(path))

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()


@contextmanager
def _bar() -> Iterator[Callable[[Json], None]]:
    words = TextColumn("  {task.description}")
    with Progress(words, BarColumn(bar_width=30), DownloadColumn(), TimeElapsedColumn(), console=progress) as bar:
        task = bar.add_task("sending", total=None)

        def update(batch: Json) -> None:
            came, total = batch["bytes"], batch.get("bytes_total")
            what = "sending" if total is None or came < total else f"storing, {batch['rows']:,} rows"
            bar.update(task, completed=came, total=total, description=what)

        yield update
