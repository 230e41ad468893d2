"""Writes a service's next migration: what its models have and its migrations have not, as a Postgres of its own tells.
To be read, and completed, before it is committed. In the service's environment: `just revision jobs-service "add x"`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from triton_common.embedded import Postgres
from triton_common.testing import free_port


def next_number(versions: Path) -> str:
    """The revision after the last, as 0007."""
    numbers = [int(found[1]) for file in versions.glob("*.py") if (found := re.match(r"(\d{4})_", file.name))]
    return f"{max(numbers, default=0) + 1:04}"


def main() -> int:
    """Answers alembic's status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the service")
    parser.add_argument("message", help="what it does, in a few words: they become its file's name")
    asked = parser.parse_args()
    versions = asked.folder / "migrations" / "versions"
    if not versions.is_dir():
        sys.exit(f"{asked.folder} has no migrations/versions; docs/MIGRATIONS.md says who has.")
    if not re.search(r"\w", asked.message):
        sys.exit('Say what the migration does: just revision SERVICE "add a column".')
    with tempfile.TemporaryDirectory(prefix="triton-revision-") as folder:
        server = Postgres(Path(folder) / "data", port=free_port(), durable=False)
        server.start()
        try:
            return _alembic(asked.folder, server.url("postgres"), "upgrade", "head") or _alembic(
                asked.folder,
                server.url("postgres"),
                *("revision", "--autogenerate", "--rev-id", next_number(versions), "-m", asked.message),
            )
        finally:
            server.stop()


def _alembic(folder: Path, url: str, *command: str) -> int:
    return subprocess.run(  # noqa: S603  our own command
        [sys.executable, "-m", "alembic", *command], cwd=folder, env=os.environ | {"DATABASE_URL": url}, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
