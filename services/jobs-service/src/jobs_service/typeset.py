"""Run as `python -m jobs_service.typeset`: JSON from standard input, through document.typ, as PDF to standard output.

What a document says is data to the template, which evaluates none of it, opens no file and imports no package.
"""

import resource
import sys
from datetime import datetime
from pathlib import Path
from typing import Final

MEMORY: Final = 2 * 1024**3  # bytes of address space; the fonts and Rust's threads reserve much and use little
SECONDS: Final = 20  # of processor time


def main() -> None:
    """Exits with a traceback when the document cannot be typeset."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    import typst  # noqa: PLC0415  under the limits; and nobody else need load 80 MB

    made, _, data = sys.stdin.buffer.read().partition(b"\n")
    templates = Path(__file__).parent / "templates"
    content = typst.compile(
        templates / "document.typ",
        root=templates,
        format="pdf",
        sys_inputs={"document": data.decode()},
        timestamp=datetime.fromisoformat(made.decode()),
    )
    sys.stdout.buffer.write(content)


if __name__ == "__main__":
    main()
