"""A request's body as files on disk, streamed, and gone when the request is over. Memory is the same for any size."""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from analytics_service.unpacking import CHUNK, Arriving, Kind, Uploaded, plain_name
from triton_common.errors import BadRequest, ContentTooLarge, UnsupportedContent

MAX_FILES: Final = 16  # no source spreads a dataset over more
MAX_MAPPING: Final = 1 << 17  # bytes; the longest of ours has a tenth
FORM: Final = "multipart/form-data"
MAPPING: Final = "mapping"  # the part that is no file
NO_FIELDS: Final = "Each part is a file with a file name, the mapping too: with curl, -F part=@file."
FOLDER: Final = "triton-uploads-"
ATTEMPTS: Final = 20  # at a folder of our own; each lost one takes another process that starts at this very moment
KINDS: Final[Mapping[str, Kind]] = {
    "text/csv": "csv",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/json-lines": "ndjson",
    "application/vnd.apache.parquet": "parquet",
}
ENDINGS: Final[Mapping[str, Kind]] = {"csv": "csv", "ndjson": "ndjson", "jsonl": "ndjson", "parquet": "parquet"}
PACKED: Final = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd", "identity": "", "": ""}


class UploadTypeNotSupported(UnsupportedContent):
    """Send CSV, NDJSON or Parquet as its type, or as multipart/form-data with a file a part; plain, gzip or zstd."""


class InvalidMultipart(BadRequest):
    """The multipart body cannot be read."""


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


@dataclass(frozen=True)
class Received:
    """What a call brought: files, and the mapping that came with them."""

    files: list[Uploaded]
    mapping: bytes | None = None


@asynccontextmanager
async def received(
    headers: Mapping[str, str],
    body: AsyncIterator[bytes],
    *,
    limit: int,
    count: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[Received]:
    """The files of a body; they are gone when the context ends. `limit` counts unpacked bytes too; `count` is told the
    size of all that comes.

    Raises UploadTypeNotSupported, InvalidGzip, InvalidZstd, InvalidParquet, InvalidMultipart, ContentTooLarge.
    """
    kind, *parameters = (part.strip() for part in headers.get("content-type", "").lower().split(";"))
    charset = next((text[8:].strip('"') for text in parameters if text.startswith("charset=")), "")
    if kind not in (*KINDS, FORM) or charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UploadTypeNotSupported
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in PACKED:
        raise UploadTypeNotSupported(f"Content-Encoding {encoding[:20]} is not supported; gzip and zstd are.")
    chunks = _gathered(body, limit=limit, count=count)
    async with AsyncExitStack() as stack:
        if kind != FORM:
            yield Received([await _file(chunks, Arriving(KINDS[kind], packed=PACKED[encoding], limit=limit), stack)])
            return
        if PACKED[encoding]:
            form = await _file(chunks, Arriving(None, packed=PACKED[encoding], limit=limit), stack)
            chunks = _chunks(stack.enter_context(form.open()))
        yield await _parts(headers, chunks, stack, limit=limit)


async def _file(chunks: AsyncIterator[bytes], arriving: Arriving, stack: AsyncExitStack) -> Uploaded:
    """A file with all that comes; the stack takes it away."""
    stack.callback(arriving.discard)
    async for chunk in chunks:
        await asyncio.to_thread(arriving.write, chunk)
    return await asyncio.to_thread(arriving.finish)


async def _parts(
    headers: Mapping[str, str], chunks: AsyncIterator[bytes], stack: AsyncExitStack, *, limit: int
) -> Received:
    parser = MultiPartParser(Headers(dict(headers)), _generator(chunks), max_files=MAX_FILES, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        no_file = "fields" in error.message
        raise InvalidMultipart(NO_FIELDS if no_file else error.message) from None
    except (KeyError, UnicodeDecodeError):  # no boundary, or one that is no text
        raise InvalidMultipart from None
    stack.push_async_callback(form.close)
    files: list[Uploaded] = []
    mapping: bytes | None = None
    left = limit
    for field, part in form.multi_items():
        assert isinstance(part, UploadFile)  # noqa: S101  the parser refuses fields
        if field == MAPPING:
            mapping = await part.read(MAX_MAPPING + 1)
            if len(mapping) > MAX_MAPPING:
                raise ContentTooLarge(f"A mapping has at most {MAX_MAPPING} bytes.")
            continue
        arriving = Arriving(_kind(part), name=plain_name(part.filename or ""), limit=left)
        files.append(await _file(_chunks(part.file), arriving, stack))
        left -= files[-1].size
    return Received(files, mapping)


def _kind(part: UploadFile) -> Kind:
    """By its type; where that says nothing, by its name's ending; else CSV."""
    kind = (part.content_type or "").partition(";")[0].strip().lower()
    if kind in KINDS:
        return KINDS[kind]
    endings = (part.filename or "").lower().split(".")
    return next((ENDINGS[ending] for ending in reversed(endings) if ending in ENDINGS), "csv")


async def _generator(chunks: AsyncIterator[bytes]) -> Any:
    async for chunk in chunks:
        yield chunk


async def _gathered(body: AsyncIterator[bytes], *, limit: int, count: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The body in chunks of about CHUNK bytes."""
    total = 0
    buffer = bytearray()
    async for chunk in body:
        buffer += chunk
        if len(buffer) >= CHUNK:
            total += len(buffer)
            if total > limit:
                raise ContentTooLarge(f"Send at most {limit} bytes, counted unpacked.")
            count(len(buffer))
            yield bytes(buffer)
            buffer.clear()
    if total + len(buffer) > limit:
        raise ContentTooLarge(f"Send at most {limit} bytes, counted unpacked.")
    if buffer:
        count(len(buffer))
        yield bytes(buffer)


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK):
        yield chunk
