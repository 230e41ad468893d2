"""ClickHouse's engine by itself, in a process of its own: what the platform's figures are compared with.

The process reads a statement a line, as a JSON string, and answers each with a line: its seconds, rows, and error.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from triton_trials.platform import PartFailed


class Alone:
    """A running engine. One statement at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._into, self._from = process.stdin, process.stdout

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    async def timed(self, sql: str) -> float:
        """Run a statement; answers its seconds, by the clock of the engine's process. Raises PartFailed."""
        return float((await self._ask(sql))["seconds"])

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        """A query's rows. Raises PartFailed."""
        rows: list[dict[str, Any]] = (await self._ask(sql))["rows"]
        return rows

    async def _ask(self, sql: str) -> dict[str, Any]:
        self._into.write(json.dumps(sql).encode() + b"\n")
        await self._into.drain()
        answer: dict[str, Any] = json.loads(await self._from.readline() or b'{"error": "it ended"}')
        if error := answer.get("error"):
            raise PartFailed(f"the engine: {error}")
        return answer


@asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[Alone]:
    """An engine that keeps its tables in `folder`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        str(folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        yield Alone(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def main(folder: str) -> None:
    """The process: ends with its input."""
    session = import_module("chdb.session").Session(folder)  # 300 MB, which the bench's own process has no use for
    for line in sys.stdin:
        began = time.perf_counter()
        try:
            result = session.query(json.loads(line), "JSONEachRow")
            answer: dict[str, Any] = {"seconds": time.perf_counter() - began}
            answer["rows"] = [json.loads(row) for row in str(result).splitlines()]
        except RuntimeError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    session.close()


if __name__ == "__main__":
    main(sys.argv[1])
