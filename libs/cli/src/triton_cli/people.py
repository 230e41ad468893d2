"""`triton users` and `triton sessions`: who may log in, and where somebody is."""

import json
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    PasswordStdinOption,
    StateOption,
    UrlOption,
    YesOption,
    clean,
    columns,
    output,
    password_of,
    platform,
    sentences,
    until_signal,
)
from triton_cli.filters import ClientOption, Json, id_of, is_id, quoted, resolved
from triton_cli.lists import (
    AllOption,
    CursorOption,
    Extent,
    LimitOption,
    Noun,
    ask,
    changing,
    given,
    list_of,
    listing,
    listing_of,
    show,
    showing,
)
from triton_cli.machines import API_KEYS
from triton_cli.state import CommandFailed, WrongUsage

if TYPE_CHECKING:
    from triton_cli.api import Api

Role = Literal["admin", "editor", "viewer"]
STAFF: Final = "none"


async def user_id(api: "Api", text: str) -> str:
    """The id of a user, by it or by the e-mail address. Raises CommandFailed when there is none."""
    if is_id(text):
        return text
    async for found in api.items(USERS.path, email=text):
        return str(found["id"])
    raise CommandFailed(f"There is no user {text}.")


USERS: Final = Noun(
    path="/api/v1/auth/users",
    columns=("id", "email", "role", "client_id", "created_at", "last_login_at", "deactivated_at"),
    shown=("id", "email", "role", "client_id", "last_login_at", "deactivated_at"),
    find=user_id,
    metavar="ID|EMAIL",
)
SESSIONS: Final = Noun(
    path="/api/v1/auth/sessions",
    columns=("id", "method", "address", "user_agent", "created_at", "last_used_at", "expires_at", "current"),
    shown=("id", "address", "user_agent", "last_used_at", "current"),
    find=quoted,
    metavar="ID",
)
UserArgument = Annotated[str, typer.Argument(metavar=USERS.metavar, show_default=False)]
RoleOption = Annotated[Role | None, typer.Option("--role", help="What they may do.")]
BoundOption = Annotated[
    str | None,
    typer.Option("--client", metavar="ID|NAME|none", help=f"Bind them to this client; {STAFF}: to no client."),
]


@sentences
async def list_users(
    *,
    email: Annotated[str | None, typer.Option("--email", help="With this address.")] = None,
    role: RoleOption = None,
    client: ClientOption = None,
    active: Annotated[bool | None, typer.Option("--active/--deactivated", help="Who can log in, or cannot.")] = None,
    limit: LimitOption = None,
    everything: AllOption = False,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """List users, newest first: a table on a terminal, elsewhere a line each with columns between tabs.

    The columns are id, email, role, client_id, created_at, last_login_at, deactivated_at. --json answers one object,
    {"items": […], "next_cursor": …}.
    """
    async with platform(url, state) as api:
        filters = await resolved(api, given(email=email, role=role, client=client, active=active))
        await list_of(api, USERS, filters, extent=Extent(limit, everything, cursor), as_json=as_json)


@sentences
def create(
    email: Annotated[str, typer.Argument(metavar="EMAIL", show_default=False)],
    *,
    role: Annotated[Role, typer.Option("--role", help="What they may do.")] = "viewer",
    client: BoundOption = None,
    stdin: PasswordStdinOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make a user. Asks for the first password, twice, unseen. Prints the id; with --json the user."""
    api = platform(url, state)
    body: Json = {"email": email, "role": role, "password": password_of("Password", stdin=stdin, twice=True)}

    async def make() -> Json:
        async with api:
            made: Json = await api.post(USERS.path, json=body | await _bound(api, client))
            return made

    made = until_signal(make())
    if as_json:
        print(json.dumps(made))
    else:
        print(f"Made user {clean(made['id'])}." if output.is_terminal else clean(made["id"]))


@sentences
async def change(
    user: UserArgument,
    *,
    role: RoleOption = None,
    client: BoundOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Change what a user may do, or the client that they see. The rights they had end within seconds."""
    if role is None and client is None:
        raise WrongUsage("What is to change? Give --role, --client, or both.")
    async with platform(url, state) as api:
        body = given(role=role) | await _bound(api, client)
        changed = await api.patch(f"{USERS.path}/{await user_id(api, user)}", json=body)
    show(changed, as_json=as_json)


@sentences
def reset_password(
    user: UserArgument,
    *,
    stdin: PasswordStdinOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Give a user another password. Asks for it, twice, unseen. All their sessions end."""
    api = platform(url, state)
    password = password_of("New password", stdin=stdin, twice=True)

    async def reset() -> str:
        async with api:
            found = await user_id(api, user)
            await api.call("PUT", f"{USERS.path}/{found}/password", json={"password": password})
            return found

    found = until_signal(reset())
    print(json.dumps({"id": found}) if as_json else columns([found, "password reset"]))


@sentences
def end_sessions(
    session: Annotated[str | None, typer.Argument(metavar="[ID]", help="This one.", show_default=False)] = None,
    *,
    others: Annotated[bool, typer.Option("--others", help="All one's own but the one that asks.")] = False,
    user: Annotated[
        str | None, typer.Option("--user", metavar=USERS.metavar, help="All of this user, as an admin.")
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """End a session: one's own, or as an admin anyone's. Its tokens are refused within seconds.

    Prints the id and `ended`, or `others` or the user's id in place of the session's.
    """
    if [session is not None, others, user is not None].count(True) != 1:
        raise WrongUsage("Which session? Give its id, or --others, or --user.")
    api = platform(url, state)
    which = "all other sessions" if others else f"all sessions of {user}" if user is not None else f"session {session}"
    ask(f"End {clean(which)}", api, yes=yes)

    async def end() -> str:
        async with api:
            if session is not None:
                await api.call("DELETE", f"{SESSIONS.path}/{await quoted(api, session)}")
                return session
            if user is not None:
                owner = await user_id(api, user)
                await api.call("DELETE", f"{USERS.path}/{owner}/sessions")
                return owner
            await api.call("DELETE", SESSIONS.path)
            return "others"

    ended = until_signal(end())
    print(json.dumps({"ended": ended}) if as_json else columns([ended, "ended"]))


async def _bound(api: "Api", client: str | None) -> Json:
    if client is None:
        return {}
    return {"client_id": None if client == STAFF else await id_of(api, "clients", client)}


users = typer.Typer(no_args_is_help=True, help="Make, change and lock out users. For admins.")
users.command("list")(list_users)
users.command("create")(create)
users.command("show")(showing(USERS, "Show all that is known of a user."))
users.command("change")(change)
users.command("deactivate")(
    changing(
        USERS,
        "POST",
        "deactivate",
        "Lock a user out: sessions and API keys end for good, and nothing new begins until `activate`.",
        done="deactivated",
        question="Lock out {}, and end all their sessions and API keys",
    )
)
users.command("activate")(changing(USERS, "POST", "activate", "Let a deactivated user log in again.", done="activated"))
users.command("reset-password")(reset_password)
users.command("sessions")(listing_of(USERS, SESSIONS, "List a user's sessions that go on, newest first."))
users.command("api-keys")(listing_of(USERS, API_KEYS, "List a user's API keys that are good, newest first."))

sessions = typer.Typer(no_args_is_help=True, help="List and end sessions.")
sessions.command("list")(listing(SESSIONS, "List one's own sessions that go on, newest first."))
sessions.command("end")(end_sessions)
