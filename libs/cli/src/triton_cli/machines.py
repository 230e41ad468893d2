"""`triton service-accounts`, `triton api-keys` and `triton keys`: what programs log in with, and what tokens are signed
with. A new secret is all that stands on stdout, once."""

import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    UrlOption,
    YesOption,
    clean,
    columns,
    output,
    platform,
    say,
    sentences,
    until_signal,
)
from triton_cli.filters import Json, duration, id_of, quoted
from triton_cli.lists import Noun, ask, cells_of, changing, given, listing, show, showing, table_of
from triton_cli.state import WrongUsage

if TYPE_CHECKING:
    from triton_cli.api import Api


async def _account_id(api: "Api", text: str) -> str:
    return await id_of(api, "auth/service-accounts", text)


async def _api_key_id(api: "Api", text: str) -> str:
    return await id_of(api, "auth/api-keys", text)


ACCOUNTS: Final = Noun(
    path="/api/v1/auth/service-accounts",
    columns=("id", "name", "scopes", "client_id", "created_at", "last_used_at", "deactivated_at"),
    shown=("id", "name", "scopes", "client_id", "last_used_at", "deactivated_at"),
    find=_account_id,
    metavar="ID|NAME",
)
API_KEYS: Final = Noun(
    path="/api/v1/auth/api-keys",
    columns=("id", "name", "hint", "scopes", "created_at", "expires_at", "last_used_at"),
    shown=("id", "name", "scopes", "expires_at", "last_used_at"),
    find=_api_key_id,
    metavar="ID|NAME",
)
KEYS: Final = Noun(
    path="/api/v1/auth/keys",
    columns=("kid", "alg", "status", "created_at", "signs_from", "verifies_until"),
    shown=("kid", "status", "created_at", "verifies_until"),
    find=quoted,
    metavar="KID",
)
AccountArgument = Annotated[str, typer.Argument(metavar=ACCOUNTS.metavar, show_default=False)]
DescriptionOption = Annotated[str | None, typer.Option("--description", help="What it is for.")]


def scopes(texts: list[str] | None) -> list[str] | None:
    """The scopes that are named, by themselves or with commas or blanks between."""
    named = [scope for text in texts or () for scope in text.replace(",", " ").split()]
    return list(dict.fromkeys(named)) or None


ScopesOption = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="SCOPE", callback=scopes, help="One, or several, with commas between or repeated."),
]


@sentences
async def create_account(
    name: Annotated[str, typer.Argument(help="The OAuth client_id: a-z, 0-9 and -.", show_default=False)],
    *,
    scope: ScopesOption = None,
    description: DescriptionOption = None,
    client: Annotated[str | None, typer.Option("--client", metavar="ID|NAME", help="Bind it to this client.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make a service account. Prints its secret, this once; with --json the account and the secret."""
    body: Json = given(name=name, scopes=_needed(scope), description=description)
    async with platform(url, state) as api:
        if client is not None:
            body["client_id"] = await id_of(api, "clients", client)
        made = await api.post(ACCOUNTS.path, json=body)
    _show_secret(made, "client_secret", f"Made service account {made['name']}, {made['id']}.", as_json=as_json)


@sentences
async def change_account(
    account: AccountArgument,
    *,
    scope: ScopesOption = None,
    description: DescriptionOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Change what a service account may do, or is for. With other scopes the tokens it has end within seconds."""
    body = given(scopes=scope, description=description)
    if not body:
        raise WrongUsage("What is to change? Give --scope, --description, or both.")
    async with platform(url, state) as api:
        changed = await api.patch(f"{ACCOUNTS.path}/{await _account_id(api, account)}", json=body)
    show(changed, as_json=as_json)


@sentences
def rotate_secret(
    account: AccountArgument,
    *,
    keep_old: Annotated[
        float | None,
        typer.Option("--keep-old", parser=duration, metavar="TIME", help="The old one works as long: 10m, 2d."),
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Give a service account another secret, and print it, this once. The old one ends at once, or after --keep-old."""
    api = platform(url, state)
    if not keep_old:
        ask(f"End the present secret of {clean(account)} at once, without --keep-old", api, yes=yes)

    async def rotate() -> Json:
        async with api:
            path = f"{ACCOUNTS.path}/{await _account_id(api, account)}/rotate-secret"
            rotated: Json = await api.post(path, json={"keep_old_for_seconds": int(keep_old or 0)})
            return rotated

    made = until_signal(rotate())
    _show_secret(made, "client_secret", f"{made['name']} has another secret.", as_json=as_json)


@sentences
async def create_api_key(
    name: Annotated[str, typer.Argument(help="What it is for.", show_default=False)],
    *,
    scope: ScopesOption = None,
    expires_in: Annotated[
        float | None,
        typer.Option("--expires-in", parser=duration, metavar="TIME", help="30d, 12h.", show_default="90d"),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make an API key for one's own programs, which send it as a bearer token or take it from TRITON_API_KEY.

    Prints the key, this once; with --json what is known of it too.
    """
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    body: Json = {"name": name, "scopes": _needed(scope)}
    if expires_in is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(seconds=expires_in)).isoformat()
    async with platform(url, state) as api:
        made = await api.post(API_KEYS.path, json=body)
    told = f"Made API key {made['name']}, {made['id']}, good until {made['expires_at']}."
    _show_secret(made, "key", told, as_json=as_json)


@sentences
async def list_keys(as_json: JsonOption = False, url: UrlOption = None, state: StateOption = DEFAULT_STATE) -> None:
    """List the keys that verify access tokens, newest first: a table on a terminal, elsewhere a line each with columns
    between tabs: kid, alg, status, created_at, signs_from, verifies_until. --json answers {"items": […]}."""
    async with platform(url, state) as api:
        found = await api.get(KEYS.path)
    if as_json:
        print(json.dumps(found))
    elif output.is_terminal:
        output.print(table_of(found["items"], KEYS.shown))
    else:
        print("".join(f"{columns(cells_of(key, KEYS.columns))}\n" for key in found["items"]), end="")


@sentences
async def rotate_keys(
    *,
    immediately: Annotated[bool, typer.Option("--now", help="In seconds, not once every service has read it.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make the next signing key. Tokens of the one before stay good until they expire."""
    async with platform(url, state) as api:
        made = await api.post(f"{KEYS.path}/rotate", json={"immediately": immediately})
    show(made, as_json=as_json)


def _needed(scope: list[str] | None) -> list[str]:
    if not scope:
        raise WrongUsage("What may it do? Give at least one --scope, as jobs:read.")
    return scope


def _show_secret(made: Json, name: str, told: str, *, as_json: bool) -> None:
    print(json.dumps(made) if as_json else clean(made[name]), flush=True)
    say(f"{told} The secret is shown this once: keep it where it is to be used.")


accounts = typer.Typer(no_args_is_help=True, help="Make and change the accounts that machines log in with. For admins.")
accounts.command("list")(listing(ACCOUNTS, "List service accounts, newest first."))
accounts.command("create")(create_account)
accounts.command("show")(showing(ACCOUNTS, "Show all that is known of a service account."))
accounts.command("change")(change_account)
accounts.command("rotate-secret")(rotate_secret)
accounts.command("deactivate")(
    changing(
        ACCOUNTS,
        "POST",
        "deactivate",
        "Let a service account get no more tokens. Those it has end within seconds.",
        done="deactivated",
        question="Lock out the service account {}",
    )
)
accounts.command("activate")(
    changing(ACCOUNTS, "POST", "activate", "Let a deactivated service account get tokens again.", done="activated")
)

api_keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys of one's own.")
api_keys.command("list")(listing(API_KEYS, "List one's own API keys that are good, newest first."))
api_keys.command("create")(create_api_key)
api_keys.command("revoke")(
    changing(
        API_KEYS,
        "DELETE",
        "",
        "Revoke an API key of one's own; as an admin anyone's, by its id. It is refused within seconds.",
        done="revoked",
        question="Revoke the API key {} for good",
    )
)

keys = typer.Typer(no_args_is_help=True, help="List, rotate and revoke the keys that sign access tokens. For admins.")
keys.command("list")(list_keys)
keys.command("rotate")(rotate_keys)
keys.command("revoke")(
    changing(
        KEYS,
        "DELETE",
        "",
        "Revoke a retired signing key before its time: somebody may have it. Tokens it signed end within seconds.",
        done="revoked",
        question="Revoke signing key {} for good, and end the tokens it signed",
    )
)
