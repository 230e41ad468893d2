"""Lines on disk that outlive their process, in segments of a megabyte; whoever comes next takes them over."""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loguru import logger
from uuid_utils.compat import uuid7

SEGMENT: Final = 2**20  # bytes from which another is begun
CHUNK: Final = 2**18  # bytes read at once


@dataclass(eq=False)
class Segment:
    """A file of lines: `size` bytes are safe, `read` of them were given out, `waiting` lines are not forgotten."""

    path: Path
    size: int = 0
    read: int = 0
    waiting: int = 0
    sealed: bool = False


class Spool:
    """Lines that wait, in a folder that processes share. To be called by one thread, since every call is of the disk.

    Each process has a folder of its own below, and a lock on it while it lives; the lock on the shared folder is held
    while one is made, taken over or removed.
    """

    def __init__(self, folder: Path) -> None:
        self._shared = folder
        self._own = folder
        self._lock: int | None = None
        self._segments: list[Segment] = []
        self._active: Segment | None = None
        self._file = -1

    @property
    def waiting(self) -> int:
        """How many lines are not forgotten."""
        return sum(segment.waiting for segment in self._segments)

    def open(self) -> None:
        """Begin, with what dead processes left. Raises OSError."""
        self._shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._settle()
        self.adopt()

    def close(self) -> None:
        """End; what waits is left to another."""
        self._seal()
        with suppress(OSError), _locked(self._shared):
            self._own.rmdir()  # unless something waits
        if self._lock is not None:
            os.close(self._lock)

    def append(self, lines: Sequence[bytes]) -> None:
        """Lines, each with its end, are safe when this returns. Raises OSError, and has written none of them."""
        active = self._active
        if active is None or active.size >= SEGMENT:
            active = self._begin()
        data = b"".join(lines)
        try:
            _write(self._file, data)
        except OSError:
            mended = False
            with suppress(OSError):
                os.ftruncate(self._file, active.size)  # no line may follow half of another
                mended = active.path.exists()
            if not mended:
                self._seal()
            raise
        active.size += len(data)
        active.waiting += len(lines)

    def read(self) -> list[tuple[Segment, bytes]]:
        """The next lines that were not given out, of the oldest segment that has some; none when there are none."""
        for segment in list(self._segments):
            while segment.read < segment.size:
                try:
                    with segment.path.open("rb") as file:
                        file.seek(segment.read)
                        data = file.read(min(CHUNK, segment.size - segment.read))
                except FileNotFoundError:
                    data = b""
                if not data:
                    logger.bind(lines=segment.waiting).error("a segment of the spool is gone")
                    self._segments.remove(segment)
                    break
                whole = data.rfind(b"\n") + 1
                segment.read += whole or len(data)
                if whole:
                    return [(segment, line) for line in data[:whole].split(b"\n")[:-1]]
                logger.warning("a torn line of the spool was dropped: its request was not answered")
        self._remove_finished()
        return []

    def forget(self, segments: Iterable[Segment]) -> None:
        """One line of each is done with. A segment whose lines all are is removed."""
        for segment in segments:
            segment.waiting -= 1
        self._remove_finished()

    def adopt(self) -> None:
        """Take over the segments of processes that hold no lock on their folder, and so are dead. Raises OSError."""
        with _locked(self._shared):
            for folder in self._shared.glob("*.spool"):
                if folder == self._own:
                    continue
                with suppress(BlockingIOError), _locked(folder, fcntl.LOCK_NB):
                    for path in list(folder.glob("*.ndjson")):
                        mine = path.rename(self._own / path.name)
                        lines = mine.read_bytes()
                        self._segments.append(Segment(mine, len(lines), waiting=lines.count(b"\n"), sealed=True))
                        logger.bind(lines=lines.count(b"\n")).info("a segment of a dead process was taken over")
                    with suppress(OSError):  # something of somebody else's
                        folder.rmdir()
        if self._lock is not None:
            os.fsync(self._lock)
        self._segments.sort(key=lambda segment: segment.path.name)  # UUIDv7: by age

    def _settle(self) -> None:
        """Make this process's own folder, under its lock."""
        with _locked(self._shared) as shared:
            self._own = self._shared / f"{uuid7()}.spool"
            self._own.mkdir(mode=0o700)
            if self._lock is not None:
                os.close(self._lock)
            self._lock = os.open(self._own, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.fsync(shared)

    def _begin(self) -> Segment:
        self._seal()
        if not self._own.is_dir():  # somebody has removed it
            self._settle()
        assert self._lock is not None  # noqa: S101  since it was opened
        path = self._own / f"{uuid7()}.ndjson"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._active = Segment(path)
        self._segments.append(self._active)
        os.fsync(self._lock)
        return self._active

    def _seal(self) -> None:
        if self._active is not None:
            os.close(self._file)
            self._active.sealed, self._active = True, None
        self._remove_finished()

    def _remove_finished(self) -> None:
        for segment in [each for each in self._segments if each.sealed and not each.waiting and each.read >= each.size]:
            segment.path.unlink(missing_ok=True)
            self._segments.remove(segment)


def _write(file: int, data: bytes) -> None:
    if os.write(file, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file)
    if os.fstat(file).st_nlink == 0:
        raise OSError(errno.ENOENT, "the segment was removed")


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[int]:
    """The folder's descriptor, locked. Raises BlockingIOError when it shall not wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield descriptor
    finally:
        os.close(descriptor)
