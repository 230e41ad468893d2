"""Access tokens, verified offline: token → Principal. auth-service signs them; nobody asks it about one."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from uuid import UUID

import httpx2
from fastapi import Depends
from fastapi.security import HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import KeySet, KeySetSerialization
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import HTTPConnection

from triton_common.errors import Forbidden, Unauthorized, Unavailable
from triton_common.revocations import Kind, Revocation, Revoked

if TYPE_CHECKING:
    from triton_common.api_keys import ApiKeys

ALGORITHM: Final = "Ed25519"  # RFC 9864's name of what was EdDSA
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105  RFC 9068 §2.1
MAX_TOKEN_BYTES: Final = 8192
API_KEY_PREFIX: Final = "trk_"
LEEWAY: Final = 5  # seconds of clock difference between two machines that keep time by NTP
CACHED_TOKENS: Final = 10_000
REFRESH_SECONDS: Final = 300.0  # the keys' max-age: a new key is known long before it signs (AUTH_KEY_LEAD)
REFETCH_SECONDS: Final = 60.0  # an unknown kid makes us ask again this often at most: no amplification

_READ: Final = frozenset(
    {
        "clients:read",
        "value-propositions:read",
        "prospects:read",
        "data:read",
        "jobs:read",
        "documents:read",
        "agents:read",
    }
)
_WRITE: Final = frozenset(
    {
        "clients:write",
        "value-propositions:write",
        "prospects:write",
        "data:write",
        "jobs:write",
        "webhooks:read",  # an endpoint's URL may hold a token of the receiver's: not for viewers
        "webhooks:write",
    }
)
_SERVICE: Final = frozenset({"jobs:work", "data:read", "prospects:read"})
STAFF_SCOPES: Final = frozenset({"service-accounts:admin", "keys:admin"})
"""Of the whole platform: not for those who are bound to a client, admins and machines alike."""
_ADMIN: Final = frozenset({"users:admin", "audit:read"}) | STAFF_SCOPES
ALL_SCOPES: Final = _READ | _WRITE | _SERVICE | _ADMIN
SCOPES_OF_ROLE: Final[dict[str, frozenset[str]]] = {
    "admin": ALL_SCOPES - {"jobs:work"},  # a person does no worker's work
    "editor": _READ | _WRITE,
    "viewer": _READ,
    "service": _SERVICE,
}


def scopes_of(role: str, *, client_id: UUID | None) -> frozenset[str]:
    """What a role allows: for somebody who is bound to a client, nothing of the whole platform."""
    return SCOPES_OF_ROLE[role] if client_id is None else SCOPES_OF_ROLE[role] - STAFF_SCOPES


class MissingToken(Unauthorized):
    """The request has no bearer token."""


class TokenMalformed(Unauthorized):
    """The token is not a Triton access token."""


class TokenAlgorithmNotAllowed(Unauthorized):
    """The token's signature algorithm is not allowed."""


class TokenKeyUnknown(Unauthorized):
    """The token's signing key is unknown."""


class TokenSignatureInvalid(Unauthorized):
    """The token's signature is not valid."""


class TokenExpired(Unauthorized):
    """The token is expired."""


class TokenNotYetValid(Unauthorized):
    """The token is not valid yet."""


class TokenIssuerInvalid(Unauthorized):
    """The token comes from another issuer."""


class TokenAudienceInvalid(Unauthorized):
    """The token is meant for somebody else."""


class TokenRevoked(Unauthorized):
    """The token was revoked: its session ended, or its account changed."""


class ApiKeyInvalid(Unauthorized):
    """The API key is unknown, expired or revoked."""


class InsufficientScope(Forbidden):
    """The token lacks a scope."""


class KeysUnavailable(Unavailable):
    """The keys that verify tokens cannot be read."""


TOKEN_ERRORS: Final = (
    MissingToken,
    TokenMalformed,
    TokenAlgorithmNotAllowed,
    TokenKeyUnknown,
    TokenSignatureInvalid,
    TokenExpired,
    TokenNotYetValid,
    TokenIssuerInvalid,
    TokenAudienceInvalid,
    TokenRevoked,
    ApiKeyInvalid,
)
"""What every route that asks for a principal may answer: for its `problems(…)`."""


class Principal(BaseModel):
    """Who asks, as their token says."""

    model_config = ConfigDict(frozen=True)

    subject: str
    kind: Literal["user", "service", "api_key"] = "user"
    role: str
    scopes: frozenset[str]
    client_id: UUID | None = None
    session_id: str | None = None
    token_id: str
    epoch: int = Field(default=0, strict=True, description="Counts the changes of the subject's rights")
    expires_at: int = Field(description="Unix time, seconds")
    token: str = Field(repr=False, exclude=True, description="To call another service in the caller's name")

    @property
    def is_staff(self) -> bool:
        """Bound to no client: sees all of them."""
        return self.client_id is None

    def can_see(self, client_id: UUID) -> bool:
        """Whether objects of this client exist for the principal."""
        return self.client_id is None or self.client_id == client_id

    def is_covered_by(self, revoked: Revoked) -> bool:
        """Whether it has been revoked."""
        return revoked.covers(
            subject=self.subject, epoch=self.epoch, session_id=self.session_id, token_id=self.token_id
        )


KeysProvider = Callable[[], Awaitable[KeySetSerialization]]
"""Answers the present JWKS; raises KeysUnavailable."""


def remote_keys(url: str) -> KeysProvider:
    """Reads a JWKS over HTTP."""

    async def read() -> KeySetSerialization:
        try:
            async with httpx2.AsyncClient(timeout=3, trust_env=False) as http:
                answer = await http.get(url)
                answer.raise_for_status()
                keys: KeySetSerialization = answer.json()
                return keys
        except (httpx2.HTTPError, ValueError) as error:
            raise KeysUnavailable("auth-service does not answer; try again.", retry_after=2) from error

    return read


class TokenVerifier:
    """Verifies access tokens against a key set, and remembers those it has verified until they expire."""

    def __init__(self, keys: KeysProvider, *, issuer: str, audience: str, api_keys: "ApiKeys | None" = None) -> None:
        self._api_keys = api_keys
        self._revoked = Revoked()
        self._refreshing: asyncio.Task[None] | None = None
        self._read_keys = keys
        self._issuer = issuer
        self._audience = audience
        self._keys: KeySet | None = None
        self._fetched = -REFETCH_SECONDS
        self._up_to_date = False
        self._fetching: asyncio.Task[None] | None = None
        self._fetch_again = False
        self._verified: OrderedDict[str, Principal] = OrderedDict()  # the longest unused first

    async def __aenter__(self) -> Self:
        """Read the keys early, so that the first request need not wait; when there are none, it tries again."""
        try:
            await self._fetch()
        except Unavailable:
            logger.warning("no keys yet: auth-service does not answer")
        self._refreshing = asyncio.create_task(self._refresh(), name="signing keys")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Forget every token."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        self._verified.clear()

    def revoke(self, revocations: Sequence[Revocation]) -> None:
        """From now on refuse what they are about. They leave the memory of verified tokens, so that finding a token
        there costs no look at what is revoked."""
        for revocation in revocations:
            self._revoked.add(revocation)
        self._revoked.forget_expired()
        if self._api_keys is not None:
            self._api_keys.forget(self._revoked)
        if any(revocation.kind is Kind.KEYS for revocation in revocations):
            self._verified.clear()
            self._fetch_again = self._fetching is not None  # what is being read may be what was before
            self._begin_to_fetch()
            return
        targets = {revocation.target for revocation in revocations}
        met = [
            token
            for token, principal in self._verified.items()
            if principal.session_id in targets or principal.subject in targets or principal.token_id in targets
        ]
        for token in met:
            if self._verified[token].is_covered_by(self._revoked):
                del self._verified[token]

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._fetch()
            except Unavailable as error:
                logger.bind(code=error.code).warning("the signing keys could not be read again")

    async def verify(self, token: str) -> Principal:
        """The token's principal. Raises an Unauthorized that says what is wrong, or KeysUnavailable."""
        if known := self.known(token):
            return known
        if self._api_keys is not None and token.startswith(API_KEY_PREFIX):
            return await self._api_keys.principal(token)
        principal = await self._verify(token)
        if principal.is_covered_by(self._revoked):
            raise TokenRevoked
        self._verified[token] = principal
        while len(self._verified) > CACHED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    def known(self, token: str) -> Principal | None:
        """The principal of a token that was verified before and has not expired: half a microsecond, no waiting."""
        principal = self._verified.get(token)
        if principal is None:
            return None
        if principal.expires_at <= time.time():
            del self._verified[token]
            return None
        self._verified.move_to_end(token)
        return principal

    async def _verify(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise TokenMalformed
        kid = _checked_header(token)
        keys = await self._keys_with(kid)
        try:
            decoded = jwt.decode(token, keys, algorithms=[ALGORITHM])
        except BadSignatureError as error:
            raise TokenSignatureInvalid from error
        except (JoseError, ValueError) as error:
            raise TokenMalformed from error
        return self._principal(decoded.claims, token)

    async def _keys_with(self, kid: str) -> KeySet:
        if self._keys is None or (not _has(self._keys, kid) and time.monotonic() - self._fetched > REFETCH_SECONDS):
            await self._fetch()
        if self._keys is not None and _has(self._keys, kid):
            return self._keys
        if not self._up_to_date:  # its key may be a new one
            raise KeysUnavailable("auth-service did not answer; try again.", retry_after=int(REFETCH_SECONDS))
        raise TokenKeyUnknown

    async def _fetch(self) -> None:
        """Read the keys; whoever comes meanwhile waits for the same answer, or the same failure."""
        await asyncio.shield(self._begin_to_fetch())

    def _begin_to_fetch(self) -> "asyncio.Task[None]":
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._read())
            self._fetching.add_done_callback(self._fetch_is_over)
        return self._fetching

    async def _read(self) -> None:
        if self._keys is not None:  # before asking: a dead auth-service is not asked by every request
            self._fetched = time.monotonic()
        self._up_to_date = False
        keys = KeySet.import_key_set(await self._read_keys())
        if self._keys is not None and not {key.kid for key in self._keys.keys} <= {key.kid for key in keys.keys}:
            self._verified.clear()  # by a key that is gone, perhaps
        self._keys = keys
        self._fetched = time.monotonic()
        self._up_to_date = True

    def _fetch_is_over(self, fetching: "asyncio.Task[None]") -> None:
        self._fetching = None
        if self._fetch_again:
            self._fetch_again = False
            self._begin_to_fetch()
        if not fetching.cancelled():
            fetching.exception()  # seen by whoever waited; nobody may be left to

    def _principal(self, claims: dict[str, Any], token: str) -> Principal:
        # joserfc's decode checks the signature alone; each claim has its own answer here
        now = time.time()
        if claims.get("iss") != self._issuer:
            raise TokenIssuerInvalid
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise TokenAudienceInvalid
        try:
            expires_at, issued_at = claims["exp"], claims["iat"]
            not_before = claims.get("nbf", issued_at)
        except KeyError as error:
            raise TokenMalformed from error
        if not all(type(moment) is int for moment in (expires_at, issued_at, not_before)):
            raise TokenMalformed
        if expires_at <= now:
            raise TokenExpired
        if max(issued_at, not_before) > now + LEEWAY:
            raise TokenNotYetValid
        try:
            return Principal(
                subject=claims["sub"],
                role=claims["role"],
                scopes=frozenset(claims["scope"].split()),
                client_id=claims.get("client_id"),
                session_id=claims.get("sid"),
                token_id=claims["jti"],
                kind="service" if claims["role"] == "service" else "user",
                epoch=claims.get("epoch", 0),
                expires_at=expires_at,
                token=token,
            )
        except (KeyError, AttributeError, ValidationError) as error:
            raise TokenMalformed from error


def _checked_header(token: str) -> str:
    """The key's id, of a header that asks for our algorithm and type and carries no key of its own."""
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError) as error:
        raise TokenMalformed from error
    if header.get("alg") != ALGORITHM:
        raise TokenAlgorithmNotAllowed
    if header.get("typ") != TOKEN_TYPE or {"jku", "jwk", "x5u", "x5c"} & header.keys():
        raise TokenMalformed
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise TokenMalformed
    return kid


def _has(keys: KeySet, kid: str) -> bool:
    return any(key.kid == kid for key in keys.keys)


class _Bearer(HTTPBearer):
    """The scheme of OpenAPI and the dependency in one, since each dependency below another costs as much as a route."""

    def __init__(self, *, scope: str | None = None) -> None:
        super().__init__(
            auto_error=False,
            scheme_name="bearer",
            bearerFormat="JWT",
            description="The access_token of POST /api/v1/auth/login",
        )
        self._scope = scope

    async def __call__(self, request: HTTPConnection) -> Principal:  # type: ignore[override]  # FastAPI asks for no type
        scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
        if scheme.lower() != "bearer" or not token:
            raise MissingToken("Send Authorization: Bearer with the access_token of POST /api/v1/auth/login.")
        verifier: TokenVerifier = request.app.state.verifier
        principal = verifier.known(token) or await verifier.verify(token)
        request.state.principal = principal  # who it was that is refused, for the audit log
        if self._scope is not None and self._scope not in principal.scopes:
            raise InsufficientScope(f"This needs the scope {self._scope}.")
        return principal


CurrentPrincipal = Annotated[Principal, Depends(_Bearer())]
"""Who asks; 401 when nobody does."""


def require(scope: str) -> Any:
    """A dependency: the principal, whose token must have this scope."""
    if scope not in ALL_SCOPES:
        raise ValueError(f"{scope} is no scope")
    return Depends(_Bearer(scope=scope))
