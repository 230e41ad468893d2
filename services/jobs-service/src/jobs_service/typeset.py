"""Run as `python -m jobs_service.typeset`: JSON from standard input, through document.typ, as PDF to standard output.

What a document says is data to the template, which evaluates none of it, opens no file and imports no package.
"""

import json
import resource
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

MEMORY: Final = 2 * 1024**3  # bytes of address space; the fonts and Rust's threads reserve much and use little
SECONDS: Final = 20  # of processor time
PLAIN: Final = 0x250  # letters below are Latin ones, which the template's font has
# an archive's PDF may have no character without a font, so that typst says when there is one
WORDS: Final = b"""#set document(title: "words")
#set text(font: "Libertinus Serif")
#sys.inputs.words"""


def main() -> None:
    """Exits with a traceback when the document cannot be typeset."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    import typst  # noqa: PLC0415  under the limits; and nobody else need load 80 MB

    made, _, data = sys.stdin.buffer.read().partition(b"\n")
    timestamp = datetime.fromisoformat(made.decode())

    def is_shown(words: str) -> bool:
        try:
            typst.compile(WORDS, format="pdf", pdf_standards=["a-2b"], sys_inputs={"words": words}, timestamp=timestamp)
        except typst.TypstError as error:
            if "could not be displayed" not in str(error):
                raise
            return False
        return True

    document = json.loads(data)
    unusual = {word for text in _texts(document) for word in text.split() if any(ord(c) >= PLAIN for c in word)}
    document["lacks_fonts"] = not is_shown(" ".join(sorted(unusual)))
    if document["lacks_fonts"]:
        sys.stderr.write("no font here has some of its characters")
    templates = Path(__file__).parent / "templates"
    content = typst.compile(
        templates / "document.typ",
        root=templates,
        format="pdf",
        sys_inputs={"document": json.dumps(document)},
        timestamp=timestamp,
    )
    sys.stdout.buffer.write(content)


def _texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    match value:
        case str():
            yield value
        case dict() | list():
            for item in value.values() if isinstance(value, dict) else value:
                yield from _texts(item)


if __name__ == "__main__":
    main()
