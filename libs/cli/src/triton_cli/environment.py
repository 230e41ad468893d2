"""`triton secrets`: the .env that compose reads, with random values where it demands secrets."""

import os
import re
import secrets
from pathlib import Path
from typing import Annotated, Final

import typer

from triton_cli.command import say, sentences
from triton_cli.state import CHECKOUT, CommandFailed

COMPOSE: Final = CHECKOUT / "compose" / "docker-compose.yml"
DEMANDED: Final = re.compile(r"\$\{(\w+):\?")  # compose's way to say that it does not start without
GIVEN: Final = re.compile(r"^(?:export\s+)?(\w+)=(?=\S)", re.MULTILINE)
VALUE: Final = re.compile(r"^(?:export\s+)?(\w+)=[ \t]*(.*?)(?:[ \t]+#.*)?[ \t]*$", re.MULTILINE)
HEAD: Final = """\
# Secrets of this installation: keep them as safe as its data, and apart from it. .env.example has what else can be set.
"""

app = typer.Typer(no_args_is_help=True, help="The secrets of a compose installation.")


@app.callback()
def group() -> None:
    """A group of one command stays a group."""


@app.command()
@sentences
def init(
    file: Annotated[Path, typer.Option("--file", dir_okay=False, help="The file to write.", show_default=".env")] = (
        CHECKOUT / ".env"
    ),
) -> None:
    """Write strong random values for every secret that compose demands. What the file has stays as it is."""
    demanded = list(dict.fromkeys(DEMANDED.findall(COMPOSE.read_text())))
    try:
        present = file.read_text() if file.exists() else HEAD
        missing = [name for name in demanded if name not in GIVEN.findall(present)]
        if missing:
            lines = "".join(f"{name}={secrets.token_urlsafe(24)}\n" for name in missing)
            _write(file, present + ("" if present.endswith("\n") else "\n") + lines)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{file} could not be written: {error}") from None
    if missing:
        say(f"Wrote {', '.join(missing)} to {file}. `docker compose up` starts the platform.")
    else:
        say(f"{file} has every secret already; nothing was changed.")


def values_of(file: Path) -> dict[str, str]:
    """What a .env gives, as compose reads it: quotes around a value are none of it. Nothing where there is no file."""
    lines = VALUE.findall(file.read_text(errors="replace")) if file.is_file() else []
    return {
        name: value[1:-1] if value[:1] in {'"', "'"} and value[-1:] == value[:1] else value for name, value in lines
    }


def _write(file: Path, text: str) -> None:
    """Whole or not at all, and at no moment for others to read."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
    new.replace(file)
