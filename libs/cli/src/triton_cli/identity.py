"""Which platform a command means, and as whom: what the environment names, the session that `triton login` saved, or
the admin of the platform that runs here."""

import asyncio
import os
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import httpx2

from triton_cli.api import LOST, Api, Refused, Unreachable
from triton_cli.command import DEFAULT_STATE
from triton_cli.saved import Login, Logins
from triton_cli.state import ADMIN_EMAIL, DEFAULT_PORT, CommandFailed, State, url_of

T = TypeVar("T")

REFRESH: Final = "/api/v1/auth/refresh"
RENEWED_BEFORE: Final = 60.0  # seconds before its end: what a command asks is answered with a good token
REFRESH_TIMEOUT: Final = 4.0  # seconds for each of two tries, both within AUTH_REFRESH_GRACE: 10 s by default
TOKENS: Final = ("TRITON_TOKEN", "TRITON_API_KEY")
ACCOUNT: Final = ("TRITON_EMAIL", "TRITON_PASSWORD")


class LoginNeeded(CommandFailed):
    """The saved session is over."""

    def __init__(self, url: str) -> None:
        super().__init__(f"The session at {url} is over: log in again with `triton login --url {url}`.")


def api_of(url: str | None, state: State) -> Api:
    """The platform that a command means, as the user that the environment names, else the one who is logged in there,
    else, on this machine's own platform and nowhere else, as its admin.

    Raises CommandFailed when there is nobody to log in as.
    """
    named = in_environment()
    own = (state.running() or {}).get("url")
    at = Api(url_meant(url, state, own=own, logins=None if named else Logins())).url  # raises: what is no URL
    match named:
        case ["TRITON_TOKEN" | "TRITON_API_KEY" as name, *_]:
            token = os.environ[name]
            if not (token.isascii() and token.isprintable()):
                raise CommandFailed(f"{name} is no token: it has characters that no header takes.")
            return Api(at, token=token, source=name)
        case ["TRITON_EMAIL", "TRITON_PASSWORD"]:
            account = {"email": os.environ["TRITON_EMAIL"], "password": os.environ["TRITON_PASSWORD"]}
            return Api(at, renews=partial(logged_in, account), source="TRITON_EMAIL")
        case [_, *_]:
            raise CommandFailed("Set TRITON_EMAIL and TRITON_PASSWORD both, or TRITON_TOKEN.")
    logins = Logins()
    if logins.get(at) is not None:
        return Api(at, renews=partial(_of_saved, logins), source="triton login")
    if own and _same(at, own) and (secrets := state.known_secrets()) is not None:
        account = {"email": ADMIN_EMAIL, "password": secrets.admin_password}
        return Api(own, renews=partial(logged_in, account), source="triton up")
    here = "" if own else f" No platform runs from {state.folder}: `triton up` starts one, whose admin you then are."
    raise CommandFailed(
        f"Nobody to log in as at {at}: `triton login --url {at}`, or set TRITON_TOKEN, TRITON_API_KEY, or TRITON_EMAIL "
        f"and TRITON_PASSWORD.{here}"
    )


def in_environment() -> list[str]:
    """The variables that name the user, those that come first before the others."""
    return [name for name in (*TOKENS, *ACCOUNT) if os.environ.get(name)]


def url_meant(url: str | None, state: State, *, own: str | None, logins: Logins | None) -> str:
    """The platform that is named; else the one of a state that is named; else that of the last login; else the one
    that runs here. Without `logins` it is never that of a login: what the environment has is not sent there."""
    if url:
        return url
    last = logins.last() if logins and state.folder == DEFAULT_STATE.absolute() else None
    return last or own or url_of(DEFAULT_PORT)


async def logged_in(account: dict[str, str], api: Api, _: str) -> str:
    """A token of a new session, by password."""
    await api.log_in(account["email"], account["password"])
    return api.token


async def _of_saved(logins: Logins, api: Api, refused: str) -> str:
    """A token of the saved session that is good for a while and is not the one that was refused. Of commands that need
    a new one at once, one asks for it: a refresh token is good for one use. Raises LoginNeeded."""
    if token := _good(logins.get(api.url), api, refused):
        return token
    async with logins.locked():
        login = logins.get(api.url)
        if token := _good(login, api, refused):
            return token
        assert login is not None  # noqa: S101  else _good has raised
        return await _to_its_end(_refreshed(logins, login, api))


def _good(login: Login | None, api: Api, refused: str) -> str | None:
    if login is None:  # another command has logged out
        raise LoginNeeded(api.url)
    fresh = login.expires_at - time.time() > RENEWED_BEFORE
    return login.access_token if fresh and login.access_token != refused else None


async def _refreshed(logins: Logins, login: Login, api: Api) -> str:
    for last in (False, True):
        asked_at = time.time()
        try:
            pair = await api.post(REFRESH, json={"refresh_token": login.refresh_token}, timeout=REFRESH_TIMEOUT)
        except Unreachable as error:
            if last or error.refused:
                raise
        except Refused as error:
            if error.status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.UNPROCESSABLE_CONTENT):
                raise LoginNeeded(api.url) from None
            if last or error.status not in LOST:
                raise
        else:
            break
    renewed = Login.of(pair, email=login.email, asked_at=asked_at)
    logins.put(api.url, renewed)
    return renewed.access_token


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What `work` answers; who is cancelled meanwhile waits for it. A refresh that nobody writes down is the last."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # which is no news any more
        raise


def _same(url: str, own: str) -> bool:
    """Whether `url` means this machine's own platform. Its admin's password goes to that alone, at the address where it
    listens: behind another of the machine's names or addresses somebody else may."""
    asked, ours = httpx2.URL(url.rstrip("/")), httpx2.URL(own)
    return asked.host in {"localhost", ours.host} and asked.copy_with(host=ours.host) == ours
