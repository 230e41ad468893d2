"""Documents as PDF, typeset in a process of its own (typeset.py): bounded in time and memory, and nothing of it runs in
the event loop."""

import asyncio
import sys
from typing import Final

from loguru import logger
from pydantic_core import to_json

from jobs_service import documents
from jobs_service.schemas.documents import DocumentPublic
from triton_common.errors import Internal, Unavailable

AT_ONCE: Final = 2  # processes; each takes about a third of a second of one core, and 50 MB
WAITING: Final = 8  # requests behind them
TIMEOUT: Final = 20.0  # seconds; a document of a megabyte takes two


class PdfBusy(Unavailable):
    """Too many documents are being typeset."""


class PdfFailed(Internal):
    """The document could not be typeset."""


class Press:
    """Makes PDFs, a few at a time."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._asked = 0

    async def pdf(self, document: DocumentPublic) -> bytes:
        """The document as a tagged PDF. Raises PdfBusy or PdfFailed."""
        if self._asked >= AT_ONCE + WAITING:
            raise PdfBusy(retry_after=2)
        self._asked += 1
        try:
            async with self._slots:
                made = document.created_at.isoformat(timespec="seconds").encode()
                return await _typeset(made + b"\n" + to_json(documents.printed(document)))
        finally:
            self._asked -= 1


async def _typeset(data: bytes) -> bytes:
    # isolated (-I), with an empty environment: no proxy, no home, no cache of packages, no path but the service's own
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "jobs_service.typeset"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={},
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            content, trouble = await process.communicate(data)
    except TimeoutError:
        logger.error("a document took too long to typeset")
        raise PdfFailed from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status := process.returncode:
        said = trouble[-500:].decode(errors="replace")
        logger.bind(status=status, said=said).error("typesetting failed")
        raise PdfFailed
    if trouble:
        logger.bind(said=trouble[-500:].decode(errors="replace")).warning("a PDF is not as it should be")
    return content
