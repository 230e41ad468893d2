"""Draws the tables of each service's models into docs/DATABASE.md: `just diagram` writes, `--check` only compares.

A box has a table's columns, its keys marked; a line is a foreign key. What no model says, as indexes, it does not show.
"""

import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql
from sqlmodel import SQLModel

FILE = Path("docs/DATABASE.md")
MODELS = {"auth": "auth_service.models", "jobs": "jobs_service.models", "agents": "agent_runner.tables"}


def drawn(tables: Iterable[Table]) -> str:
    """A Mermaid diagram of one database."""
    lines = ["```mermaid", "erDiagram"]
    for table in sorted(tables, key=lambda known: known.name):
        lines.append(f"    {table.name} {{")
        for column in table.columns:
            kind = re.sub(r"\W+", "_", column.type.compile(dialect=postgresql.dialect())).strip("_").lower()
            keys = [name for name, is_key in (("PK", column.primary_key), ("FK", bool(column.foreign_keys))) if is_key]
            nullable = ' "or none"' if column.nullable else ""
            lines.append(f"        {kind} {column.name}{' ' if keys else ''}{', '.join(keys)}{nullable}")
        lines.append("    }")
        lines += sorted(
            f"    {key.column.table.name} ||--o{{ {table.name} : {column.name}"
            for column in table.columns
            for key in column.foreign_keys
        )
    return "\n".join([*lines, "```"])


def with_diagrams(text: str) -> str:
    """The page with each database's diagram between its marks."""
    for database, module in MODELS.items():
        importlib.import_module(module)
        mappers = SQLModel._sa_registry.mappers  # noqa: SLF001  where SQLModel keeps what it has made of classes
        own = [mapper.local_table for mapper in mappers if mapper.class_.__module__ == module]
        start, end = f"<!-- {database}: just diagram -->", "<!-- end -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n{drawn(own)}\n{end}{after}"
    return text


if __name__ == "__main__":
    written = FILE.read_text()
    new = with_diagrams(written)
    if sys.argv[1:] != ["--check"]:
        FILE.write_text(new)
    elif new != written:
        sys.exit(f"{FILE} has an old diagram: run `uv run just diagram`.")
