"""What all commands share: where they print, the options they have in common, their failures as sentences."""

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from functools import wraps
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, ParamSpec, TypeVar

import typer
from rich.console import Console

from triton_cli.state import CHECKOUT, CommandFailed, State, WrongUsage

if TYPE_CHECKING:
    from triton_cli.api import Api

P = ParamSpec("P")
T = TypeVar("T")

progress = Console(stderr=True)
output = Console()

SAME_SIGNAL: Final = 1.0  # seconds in which a second signal is the first once more: `uv run` passes on what we got too
INTERRUPTED: Final = 130  # what shells answer for a command that SIGINT ended
LONGEST_PASSWORD: Final = 1024  # bytes, far over what a platform takes
DEFAULT_STATE: Final = CHECKOUT / ".triton"

StateOption = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="TRITON_STATE",
        file_okay=False,
        help="Folder of this stack's data, logs and documents.",
        show_default=".triton",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer as JSON on stdout.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="TRITON_URL", help="The platform.", show_default="of the last login, else what runs here"
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PasswordStdinOption = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin, one line.")]
JobArgument = Annotated[uuid.UUID, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)]


def sentences(command: Callable[P, Coroutine[Any, Any, None] | None]) -> Callable[P, None]:
    """A command whose failures are sentences, not tracebacks. One whose reader has gone, as `head` does, is silent.

    One that is a coroutine runs until a signal.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            try:
                if (coroutine := command(*args, **kwargs)) is not None:
                    until_signal(coroutine)
            finally:
                sys.stdout.flush()  # here: at the interpreter's end a reader that has gone would be a traceback
        except CommandFailed as error:
            say(f"error: {error}", style="red")
            raise typer.Exit(error.exit_status) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None

    return run


def platform(url: str | None, state: Path) -> "Api":
    """The platform that a command means, as the user that it is for. Raises CommandFailed where there is neither."""
    from triton_cli.identity import api_of  # noqa: PLC0415  its HTTP client takes a while to import

    return api_of(url, State(state))


def say(text: str, *, console: Console = progress, style: str | None = None) -> None:
    """Lines for people, as they are: no markup, no colours of their own, never broken; control characters as blanks."""
    shown = "\n".join(clean(line) for line in text.split("\n"))
    console.print(shown, style=style, highlight=False, markup=False, soft_wrap=True)


def clean(value: Any) -> str:
    """Text of others, safe for a terminal and one line: no control characters."""
    return "".join(char if char.isprintable() else " " for char in str(value))


def columns(values: Iterable[Any]) -> str:
    """Values between tabs; what is absent is empty."""
    return "\t".join("" if value is None else clean(value) for value in values)


def confirmed(question: str) -> bool:
    """Ask, on stderr. Raises CommandFailed where nobody answers."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        say("")  # the question's line ends here
        raise CommandFailed("Nobody answered, and nothing was done. Where nobody can be asked, use --yes.") from None


def asked(question: str, *, hidden: bool = False) -> str:
    """What somebody at the terminal types. Raises CommandFailed where nobody does, KeyboardInterrupt at Ctrl-C."""
    if not sys.stdin.isatty():
        raise CommandFailed(f"Nobody can be asked for the {question.lower()}: stdin is no terminal.")
    try:
        if hidden:
            return getpass(f"{question}: ")
        print(f"{question}: ", end="", file=sys.stderr, flush=True)
        return input()
    except (EOFError, KeyboardInterrupt) as error:
        say("")  # the question's line ends here
        if isinstance(error, KeyboardInterrupt):
            raise
        raise CommandFailed("Nobody answered, and nothing was done.") from None
    except UnicodeDecodeError:
        raise CommandFailed(f"The {question.lower()} is no UTF-8.") from None


def password_of(question: str, *, stdin: bool, twice: bool = False) -> str:
    """A password: the first line of stdin, else what somebody types, unseen; `twice` where it is a new one."""
    if not stdin:
        typed = asked(question, hidden=True)
        if twice and asked(f"{question} again", hidden=True) != typed:
            raise CommandFailed("The two are not the same, and nothing was done.")
        return typed
    if sys.stdin.isatty():
        raise WrongUsage("--password-stdin reads what is piped in: leave it out to be asked.")
    try:
        line = sys.stdin.buffer.readline(LONGEST_PASSWORD).decode()
    except UnicodeDecodeError:
        raise CommandFailed("The password on stdin is no UTF-8.") from None
    return line.removesuffix("\n").removesuffix("\r")


def until_signal(main: Coroutine[Any, Any, T]) -> T:
    """Run `main`; SIGINT, SIGTERM and SIGHUP cancel it, and a second one cancels what it does about the first.

    Raises KeyboardInterrupt when it was cancelled.
    """

    async def run() -> T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(main)
        last = 0.0

        def interrupt() -> None:
            nonlocal last
            if time.monotonic() - last > SAME_SIGNAL:
                task.cancel()
            last = time.monotonic()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
