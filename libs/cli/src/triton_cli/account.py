"""`triton login`, `logout` and `whoami`: a session on a platform, kept for the commands that follow."""

import base64
import json
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import typer

from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    PasswordStdinOption,
    StateOption,
    UrlOption,
    asked,
    clean,
    password_of,
    platform,
    say,
    sentences,
    until_signal,
)
from triton_cli.filters import Json
from triton_cli.lists import show
from triton_cli.saved import Login, Logins
from triton_cli.state import CommandFailed, State, WrongUsage

if TYPE_CHECKING:
    from triton_cli.api import Api

AUTH: Final = "/api/v1/auth"
SSO_ERRORS: Final = {
    "sso_denied": "The identity provider, or you, said no.",
    "sso_refused": "The identity provider knows you, and the platform does not let you in: ask its admins.",
    "sso_provider_invalid": "The platform does not believe what the identity provider says: tell its admins.",
    "sso_provider_unavailable": "The identity provider is late or broken: try again.",
}


@sentences
def login(
    *,
    email: Annotated[str | None, typer.Option("--email", help="Who logs in.", show_default="is asked for")] = None,
    stdin: PasswordStdinOption = False,
    sso: Annotated[bool, typer.Option("--sso", help="By single sign-on, in a browser anywhere.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Log in, and stay so: the commands that follow are this user's, on this platform.

    Asks for what is not given, the password unseen. The session is kept in sessions.json of the user's config
    directory, or of TRITON_CONFIG_DIR, readable by its owner alone.
    """
    if sso and (email or stdin):
        raise WrongUsage("--sso asks for neither e-mail address nor password: leave the others out.")
    logins = Logins()
    api = _platform(url, State(state), logins)
    known = logins.get(api.url)
    if api.in_the_clear:
        say(f"warning: {api.url} is not encrypted: whoever is on the way there reads along.", style="yellow")
    if sso:
        path, body = f"{AUTH}/sso/token", {"code": _signed_on(api)}
    else:
        address = email or _email(known)
        path, body = f"{AUTH}/login", {"email": address, "password": password_of("Password", stdin=stdin)}
    who = until_signal(_begin(api, logins, path, body))
    if as_json:
        print(json.dumps(who))
    else:
        say(f"Logged in at {api.url} as {who['email']}, {who['role']}.")
    from triton_cli.identity import in_environment  # noqa: PLC0415  see platform

    if first := in_environment():
        say(f"{', '.join(first)} in the environment still comes first: unset it to use this login.", style="yellow")


@sentences
async def logout(as_json: JsonOption = False, url: UrlOption = None, state: StateOption = DEFAULT_STATE) -> None:
    """End the session on the platform, and forget it here: also when the platform does not answer.

    --json answers {"platform", "ended"}.
    """
    logins = Logins()
    api = _platform(url, State(state), logins)
    async with logins.locked():
        known = logins.get(api.url)
        if known is not None:
            logins.remove(api.url)
    try:
        if known is not None:
            async with api:
                await _end(api, known.refresh_token)
    except CommandFailed as error:
        raise CommandFailed(
            f"The session is forgotten here, and goes on at {api.url}, which was not told: log in again, and end it "
            f"there with `triton sessions end`. {error}"
        ) from None
    if as_json:
        print(json.dumps({"platform": api.url, "ended": known is not None}))
    else:
        say(f"Logged out at {api.url}." if known else f"Nobody is logged in at {api.url}.")


@sentences
async def whoami(as_json: JsonOption = False, url: UrlOption = None, state: StateOption = DEFAULT_STATE) -> None:
    """Show who the commands are run as, on which platform, and until when."""
    async with platform(url, state) as api:
        who = await _who(api)
    show(who, as_json=as_json)


def _platform(url: str | None, state: State, logins: Logins) -> "Api":
    """The platform to log in at, as nobody."""
    from triton_cli.api import Api  # noqa: PLC0415  see platform
    from triton_cli.identity import url_meant  # noqa: PLC0415  same

    return Api(url_meant(url, state, own=(state.running() or {}).get("url"), logins=logins))


def _email(known: Login | None) -> str:
    """Who was logged in before, unless another is typed."""
    suggested = f" [{clean(known.email)}]" if known else ""
    address = asked(f"E-mail address{suggested}").strip() or (known.email if known else "")
    if not address:
        raise CommandFailed("Who logs in? Give an e-mail address.")
    return address


async def _begin(api: "Api", logins: Logins, path: str, body: Json) -> Json:
    """Begin a session and keep it; the one that was kept before ends. One that cannot be kept ends too."""
    async with api:
        asked_at = time.time()
        login = Login.of(await api.post(path, json=body), email="", asked_at=asked_at)
        api.token = login.access_token
        try:
            who = await _who(api)
            async with logins.locked():
                before = logins.get(api.url)
                logins.put(api.url, replace(login, email=str(who["email"])), last=True)
        except BaseException:
            with suppress(CommandFailed):
                await _end(api, login.refresh_token)
            raise
        if before is not None:
            try:
                await _end(api, before.refresh_token)
            except CommandFailed as error:
                say(f"The session before goes on, since its end was not heard of: {error}", style="yellow")
    return who


async def _end(api: "Api", refresh_token: str) -> None:
    await api.call("POST", f"{AUTH}/logout", json={"refresh_token": refresh_token})


async def _who(api: "Api") -> Json:
    """Whose the token is. Its times are null where it has none, as an API key's."""
    me: Json = await api.get(f"{AUTH}/me")
    ends: list[str] = []
    if me["kind"] == "user":
        ends = [one["expires_at"] async for one in api.items(f"{AUTH}/sessions") if one["current"]]
    rest = {"platform": api.url, "by": api.source or "triton login"}
    return me | rest | {"token_expires_at": _expiry(api.token), "session_expires_at": ends[0] if ends else None}


def _expiry(token: str) -> str | None:
    """What a token says of itself (RFC 9068). It is shown, and nothing depends on it."""
    from datetime import UTC, datetime  # noqa: PLC0415

    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC).isoformat()
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None


def _signed_on(api: "Api") -> str:
    """The code of a login at the identity provider, which a browser brings back to the platform's own address: from
    there it is pasted, so that the browser may be on another machine. A random value in the address tells that it is
    this login's."""
    from triton_cli.api import Refused  # noqa: PLC0415  see platform

    ours = secrets.token_urlsafe(16)
    return_to = f"{api.url}/?{urlencode({'triton-login': ours})}"

    async def check() -> None:
        """Raises what the platform has against any single sign-on. Ours begins in the browser: one that begins here
        would count as one that nobody finishes."""
        async with api:
            try:
                await api.text(f"{AUTH}/sso/login", return_to="nowhere")
            except Refused as error:
                if error.code != "return_to_not_allowed":
                    raise

    until_signal(check())
    say(
        f"Open this in a browser, and log in:\n\n  {api.url}{AUTH}/sso/login?{urlencode({'return_to': return_to})}\n\n"
        f"It ends at {api.url}. Copy the whole address from the browser's address bar, and paste it here within a "
        "minute; it is not shown.\nIf the browser shows return_to_not_allowed instead, the platform's "
        f"AUTH_SSO_RETURN_ORIGINS must name {api.url}."
    )
    try:
        parts = urlsplit(asked("Address", hidden=True).strip())
    except ValueError:
        parts = urlsplit("")
    found = parse_qs(parts.fragment)
    if parse_qs(parts.query).get("triton-login") != [ours]:
        raise CommandFailed("That is not the address where this login ended: begin again, and copy all of it.")
    if "code" in found:
        return found["code"][0]
    raise CommandFailed(SSO_ERRORS.get(found.get("error", [""])[0], "The address has no code: copy all of it."))
