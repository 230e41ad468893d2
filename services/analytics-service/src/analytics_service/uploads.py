"""A request's body as files on disk: streamed, unpacked, counted. Memory stays the same whatever their size."""

import asyncio
import fcntl
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, Final

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from triton_common.errors import BadRequest, ContentTooLarge, Unprocessable, UnsupportedContent

CHUNK: Final = 1 << 20  # bytes handed to a thread at a time; smaller ones cost more in hops than in work
MAX_FILES: Final = 16  # no source spreads a dataset over more
FOLDER: Final = "triton-uploads-"
ATTEMPTS: Final = 20  # at a folder of our own; each lost one takes another process that starts at this very moment


class UploadTypeNotSupported(UnsupportedContent):
    """Send text/csv, or multipart/form-data with a file a part, plain or with Content-Encoding gzip."""


class InvalidGzip(Unprocessable):
    """The body says it is gzip, and is not, or not to its end."""


class InvalidMultipart(BadRequest):
    """The multipart body cannot be read."""


@dataclass(frozen=True)
class Uploaded:
    """A file of the request. `name` is its file name without folder and ending; empty for a body of its own."""

    name: str
    file: IO[bytes]


@contextmanager
def spool_folder(parent: Path) -> Iterator[Path]:
    """A folder for this process' temporary files, ours and the driver's; those of processes that were killed go.

    What they hold is as sensitive as an upload. A process that lives holds the lock of its folder.
    """
    for left in parent.glob(f"{FOLDER}*"):
        if (lock := _lock(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            lock.close()
    folder, lock = _new_folder(parent)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _new_folder(parent: Path) -> tuple[Path, IO[bytes]]:
    """A folder of our own and its lock.

    Another process that starts may take the folder, not yet locked, for a dead one's and remove it: then the next one
    is ours. Raises OSError when none is.
    """
    for _ in range(ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))
        if (lock := _lock(folder)) is not None:
            return folder, lock
    raise OSError(f"no folder for temporary files in {parent} can be locked")


def _lock(folder: Path) -> IO[bytes] | None:
    """The folder's lock; None when another process has it or removed it, or the folder is not ours to open."""
    file = folder / "lock"
    try:
        lock = file.open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # who had it before may have removed it: a lock on a file without a name keeps nobody out
        if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
            return lock
    except OSError:
        pass
    lock.close()
    return None


@asynccontextmanager
async def received(
    headers: Mapping[str, str], body: AsyncIterator[bytes], *, limit: int
) -> AsyncIterator[list[Uploaded]]:
    """The files of a body; they are gone when the context ends. `limit` counts unpacked bytes too.

    Raises UploadTypeNotSupported, InvalidGzip, InvalidMultipart, ContentTooLarge.
    """
    kind, _, parameters = headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    charset = parameters.lower().partition("charset=")[2].strip(' "')
    if kind not in ("text/csv", "multipart/form-data") or charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UploadTypeNotSupported
    chunks = _counted(_decoded(headers.get("content-encoding", "identity").strip().lower(), body), limit=limit)
    async with AsyncExitStack() as stack:
        if kind == "text/csv":
            file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
            file.seek(0)
            yield [Uploaded("", file)]
        else:
            yield await _parts(headers, chunks, stack)


async def _parts(headers: Mapping[str, str], chunks: AsyncIterator[bytes], stack: AsyncExitStack) -> list[Uploaded]:
    parser = MultiPartParser(Headers(dict(headers)), _generator(chunks), max_files=MAX_FILES, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidMultipart(error.message) from None
    except (KeyError, UnicodeDecodeError):  # no boundary, or one that is no text
        raise InvalidMultipart from None
    stack.push_async_callback(form.close)
    return [
        Uploaded(_name(part.filename or ""), part.file)
        for _, part in form.multi_items()
        if isinstance(part, UploadFile)
    ]


def _name(given: str) -> str:
    """Without folder and ending, and fit to be shown."""
    return re.sub(r"[^\w. -]", "_", PurePath(given.replace("\\", "/")).stem)[:100]


async def _generator(chunks: AsyncIterator[bytes]) -> Any:
    async for chunk in chunks:
        yield chunk


async def _decoded(encoding: str, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    match encoding:
        case "identity" | "":
            async for chunk in _gathered(body):
                yield chunk
        case "gzip" | "x-gzip":
            async for chunk in _gunzipped(_gathered(body)):
                yield chunk
        case _:
            raise UploadTypeNotSupported(f"Content-Encoding {encoding[:20]} is not supported; gzip is.")


async def _gathered(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body in chunks of about CHUNK bytes."""
    buffer = bytearray()
    async for chunk in body:
        buffer += chunk
        if len(buffer) >= CHUNK:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


async def _gunzipped(packed: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Unpacks, no more than CHUNK at a time: a bomb meets the limit before it meets the memory."""
    unpacker = zlib.decompressobj(wbits=31)
    async for chunk in packed:
        left = chunk
        while left:
            if unpacker.eof:  # gzip files may follow one another
                unpacker = zlib.decompressobj(wbits=31)
            try:
                unpacked = await asyncio.to_thread(unpacker.decompress, left, CHUNK)
            except zlib.error:
                raise InvalidGzip from None
            left = unpacker.unconsumed_tail or unpacker.unused_data
            if unpacked:
                yield unpacked
    while not unpacker.eof:
        if not (unpacked := await asyncio.to_thread(unpacker.decompress, b"", CHUNK)):
            raise InvalidGzip("The gzip body ends too early.")
        yield unpacked


async def _counted(chunks: AsyncIterator[bytes], *, limit: int) -> AsyncIterator[bytes]:
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise ContentTooLarge(f"Send at most {limit} bytes, counted unpacked.")
        yield chunk
