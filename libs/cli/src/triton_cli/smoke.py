"""`triton smoke`: whether a running platform does its main job, asked through its gateway and nothing else."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx2
from rich.console import Console

from triton_cli.api import LOOPBACK, TIMEOUT, Api, Refused, Unreachable
from triton_cli.command import clean
from triton_cli.demo import Outcome, timed, walk
from triton_cli.environment import values_of
from triton_cli.identity import api_of, in_environment, logged_in
from triton_cli.state import ADMIN_EMAIL, CommandFailed, State

SEED: Final = 7
HIDDEN: Final = ("/metrics", "/internal/v1/jobs", "/health/ready")
FORMS: Final = {"json": b"{", "md": b"# ", "html": b"<!doctype html", "pdf": b"%pdf-"}
"""The forms of a document, and how each begins, in lower case."""


def api_for(url: str, state: State, *, env_file: Path) -> Api:
    """The platform at `url`, as whoever a command would be there; on this machine, where that is nobody, as the first
    admin of the file that compose reads. Raises CommandFailed."""
    here = httpx2.URL(Api(url).url).host in LOOPBACK  # raises: what is no URL
    try:
        return api_of(url, state)
    except CommandFailed:
        known = values_of(env_file)
        password = known.get("AUTH_BOOTSTRAP_PASSWORD")
        if in_environment() or not password or not here:
            raise
    account = {"email": known.get("AUTH_BOOTSTRAP_EMAIL") or ADMIN_EMAIL, "password": password}
    return Api(url, renews=partial(logged_in, account), source=str(env_file))


async def smoke(api: Api, *, members: int, within: float, console: Console) -> Outcome:
    """Walk the main job and judge what it made. Raises CommandFailed with the first thing that is wrong, or when it is
    not over within so many seconds."""
    outcome = Outcome()
    began = time.monotonic()
    try:
        async with asyncio.timeout(within), AsyncExitStack() as context:
            await _all_up(api.url)
            with timed(outcome.seconds, "login"):
                await context.enter_async_context(api)
            await _hidden(api)
            kept = Path(context.enter_context(TemporaryDirectory(prefix="triton-smoke-")))
            await walk(api, kept=kept, data=None, members=members, seed=SEED, outcome=outcome, console=console)
            _judge(outcome, kept, members=members)
    except TimeoutError:
        doing = f"job {outcome.job_id} was not over" if outcome.job_id else "no job was submitted yet"
        raise CommandFailed(
            f"{api.url} was not through the main job within {within:.0f} s: {doing}. --timeout gives it longer."
        ) from None
    outcome.document_file = Path()  # gone with its folder
    outcome.seconds["total"] = time.monotonic() - began
    return outcome


async def _all_up(url: str) -> None:
    """What is down has a name in /health, which answers anybody: better than what the walk would stumble over."""
    here = httpx2.URL(url).host in LOOPBACK
    try:
        async with httpx2.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=not here) as http:
            services = (await http.get("/health")).json()["services"]
            wrong = {name: known["message"] or known["status"] for name, known in services.items() if _is_down(known)}
    except httpx2.TransportError as error:
        raise Unreachable(url, error) from error
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CommandFailed(f"{url}/health is not what a Triton platform answers: what listens there?") from None
    if wrong:
        told = "; ".join(f"{clean(name)}: {clean(reason)}" for name, reason in sorted(wrong.items()))
        raise CommandFailed(f"{url} is not ready. {told}")


def _is_down(known: Mapping[str, Any]) -> bool:
    return known["status"] not in ("ok", "degraded")


async def _hidden(api: Api) -> None:
    """What only the inside may see must not be there for an admin either."""
    for path in HIDDEN:
        with suppress(Refused):
            await api.text(path)
            raise CommandFailed(f"{api.url}{path} answers through the gateway: it must not.")


def _judge(outcome: Outcome, kept: Path, *, members: int) -> None:
    for form, start in FORMS.items():
        begins = (kept / f"{outcome.document_id}.{form}").read_bytes()[: len(start)].lower()
        if begins != start:
            raise CommandFailed(f"Document {outcome.document_id} as {form} begins with {begins!r}: that is no {form}.")
    found = int(outcome.facts["members"]["value"])
    if not 0 < found <= members:
        raise CommandFailed(f"The document counts {found} members of {members}.")
