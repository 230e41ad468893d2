"""The parts' logs for people: the services write a JSON object a line."""

import json
from typing import Final

BESIDE: Final = frozenset({"time", "level", "message", "service", "trace_id", "logger"})
"""Fields of a line that have their own place, or say nothing to somebody who reads one part's log."""


def readable(lines: str) -> str:
    """Log lines as text: time, level, message and what else is in them. What is no JSON object stays as it is."""
    return "\n".join(_readable(line) for line in lines.splitlines())


def _readable(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "message" not in entry:
        return line
    time = str(entry.get("time", ""))[11:23]
    rest = " ".join(f"{name}={value}" for name, value in entry.items() if name not in BESIDE)
    words = (time, str(entry.get("level", "")).upper().ljust(7), str(entry["message"]).rstrip(), rest)
    return " ".join(word for word in words if word).rstrip()
