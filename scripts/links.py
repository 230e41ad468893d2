"""Checks that every relative link in the Markdown files leads to a file, and every #anchor to a heading."""

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a file's headings."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(file: Path) -> list[str]:
    """What is wrong with a file's links, a line each."""
    found: list[str] = []
    for target in LINK.findall(FENCE.sub("", file.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        if not there.exists():
            found.append(f"{file}: {target}: no such file")
        elif anchor and there.suffix == ".md" and anchor not in anchors(there.read_text()):
            found.append(f"{file}: {target}: no such heading")
    return found


if __name__ == "__main__":
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],  # noqa: S607  git is git
        check=True,
        capture_output=True,
        text=True,
    )
    broken = [line for name in listed.stdout.split() for line in broken_links(Path(name))]
    sys.exit("\n".join(broken) or None)  # an empty text would count as a failure
