"""What arrives becomes a file on disk: unpacked, counted, and known by its content whatever it was wrapped in."""

import hashlib
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from analytics_service import parquet
from triton_common.errors import ContentTooLarge, Unprocessable

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

Kind = Literal["csv", "ndjson", "parquet"]

CHUNK: Final = 1 << 20  # bytes handled at a time; smaller ones cost more in hops than in work
MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
BOM: Final = b"\xef\xbb\xbf"


class InvalidGzip(Unprocessable):
    """The file says it is gzip, and is not, or not to its end."""


class InvalidZstd(Unprocessable):
    """The file says it is zstd, and is not, or not to its end."""


@dataclass(frozen=True)
class Uploaded:
    """A file of the request, on disk. `name` is its file name without folder and endings; empty for a plain body.

    `kind` None is a form in one piece. `sha256` is of the content: of text without byte order mark, with LF for CRLF
    and without empty lines at the end.
    """

    name: str
    path: Path
    kind: Kind | None
    sha256: str
    size: int

    def open(self) -> IO[bytes]:
        """From its beginning."""
        return self.path.open("rb")


class Arriving:
    """A file on its way in: give it chunks in order, then `finish` it. `packed` is what it must be packed with.

    Raises InvalidGzip, InvalidZstd, ContentTooLarge, InvalidParquet.
    """

    def __init__(self, kind: Kind | None, *, name: str = "", packed: str = "", limit: int) -> None:
        self.kind = kind
        self.name = name
        self._limit = limit
        self._size = 0
        self._begun = False
        self._packed = packed
        self._unpacker: Any = None
        self._head = b""
        self._return = b""  # a CR that the next part's LF may belong to
        self._first = True
        self._digest = hashlib.sha256()
        self._known = self._digest.copy()  # without the line ends that may turn out to be the file's last
        self._file = tempfile.NamedTemporaryFile(delete=False, suffix=f".{kind}")  # noqa: SIM115  its name outlives it
        self.path = Path(self._file.name)

    def write(self, chunk: bytes) -> None:
        """The next bytes, as they came."""
        if not self._begun:
            self._head += chunk
            if len(self._head) < max(map(len, MAGIC)):
                return
            chunk, self._head = self._head, b""
            self._begin(chunk)
        self._feed(chunk)

    def finish(self) -> Uploaded:
        """All has come."""
        if not self._begun:
            self._begin(self._head)
            self._feed(self._head)
        if self._unpacker is not None and not self._unpacker.eof:
            raise self._broken(f"The {self._packed} data ends too early.")
        self._file.close()
        if self.kind == "parquet":
            parquet.footer(self.path).check(limit=self._limit)
        return Uploaded(self.name, self.path, self.kind, self._known.hexdigest(), self._size)

    def discard(self) -> None:
        """The file goes."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _begin(self, head: bytes) -> None:
        found = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")
        if self._packed and self._packed != found:
            raise self._broken()
        self._begun = True
        self._packed = found
        self._unpacker = self._new() if found else None

    def _feed(self, chunk: bytes) -> None:
        for part in self._unpacked(chunk) if self._unpacker is not None else (chunk,):
            self._take(part)

    def _new(self) -> Any:
        return zlib.decompressobj(wbits=31) if self._packed == "gzip" else ZstdDecompressor()

    def _unpacked(self, chunk: bytes) -> Iterator[bytes]:
        """No more than CHUNK at a time: a bomb meets the limit before it meets the memory."""
        left, more = chunk, True
        while left or more:
            if self._unpacker.eof:  # packed files may follow one another
                if not left:
                    return
                self._unpacker = self._new()
            try:
                part = self._unpacker.decompress(left, CHUNK)
            except (zlib.error, ZstdError):
                raise self._broken() from None
            more = len(part) == CHUNK
            # zstd keeps what it has not yet unpacked, zlib gives it back
            left = self._unpacker.unused_data if self._unpacker.eof else getattr(self._unpacker, "unconsumed_tail", b"")
            yield part

    def _broken(self, message: str = "") -> Unprocessable:
        return (InvalidZstd if self._packed == "zstd" else InvalidGzip)(message)

    def _take(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise ContentTooLarge(f"Send at most {self._limit} bytes, counted unpacked.")
        self._file.write(part)
        if self.kind in (None, "parquet"):
            self._known.update(part)
            return
        text = self._return + (part.removeprefix(BOM) if self._first else part)
        self._first = False
        self._return = text[-1:] if text.endswith(b"\r") else b""
        text = text[: len(text) - len(self._return)]
        text = text.replace(b"\r\n", b"\n") if b"\r" in text else text
        kept = len(text.rstrip(b"\r\n"))
        self._digest.update(text[:kept])
        if kept:
            self._known = self._digest.copy()
        self._digest.update(text[kept:])


def plain_name(given: str) -> str:
    """A file's name without folder and endings, and fit to be shown."""
    name = given.replace("\\", "/").rpartition("/")[2]
    name = re.sub(r"(?i)\.(gz|gzip|zst|zstd)$", "", name)
    return re.sub(r"[^\w. -]", "_", name.rpartition(".")[0] or name)[:100]
