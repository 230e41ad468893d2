"""The OpenID provider as its client sees it: what it publishes, the way to its login page, and whom it names.

Everything that goes out to the provider goes out here, each time within a deadline.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuthError
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from loguru import logger
from pydantic import BaseModel, ConfigDict, ValidationError

from triton_common.errors import Unavailable

WELL_KNOWN: Final = "/.well-known/openid-configuration"
FRESH: Final = 3600.0  # seconds for which the provider's metadata and keys are taken as read
LEEWAY: Final = 60  # seconds by which its clock may differ from ours
LONGEST: Final = 2**20  # bytes of an answer, unpacked; the largest providers' keys and metadata have a hundredth
# What verifies with a public key. HS256 and the like would take the published key for a shared secret.
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"}
)
# The errors of RFC 6749 §5.2; anything else that a provider sends as `error` is kept out of the log
_TOKEN_ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)


class SsoProviderUnavailable(Unavailable):
    """The identity provider does not answer as it should; try again."""


class ProviderAnswerInvalid(Exception):
    """What the provider says of a login must not be believed. The message is a constant, without a claim or a token."""


@dataclass(frozen=True)
class Identity:
    """Whom the provider names. `claims` are those of the ID token, and of userinfo where that lacked one."""

    issuer: str
    subject: str
    claims: Mapping[str, Any] = field(repr=False)


class _Metadata(BaseModel):
    """OpenID Connect Discovery 1.0 §3, RFC 8414, RFC 9207: what is used of it, with their defaults."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    id_token_signing_alg_values_supported: list[str] = ["RS256"]
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False

    @property
    def algorithms(self) -> list[str]:
        """Those advertised that we take."""
        return sorted(ALGORITHMS.intersection(self.id_token_signing_alg_values_supported))

    @property
    def endpoints(self) -> list[str]:
        """Where a secret goes, or comes from."""
        return [
            url
            for url in (self.authorization_endpoint, self.token_endpoint, self.jwks_uri, self.userinfo_endpoint)
            if url
        ]


class Provider:
    """The provider of one installation. Its metadata and keys are read when first needed, and kept for an hour."""

    def __init__(
        self,
        discovery_url: str,
        *,
        client_id: str,
        client_secret: str | None,
        redirect_uri: str,
        scope: str,
        patience: float,
        https_only: bool,
    ) -> None:
        """`patience` is how many seconds one call may take, from connecting to the last byte."""
        self._discovery_url = discovery_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._scope = scope
        self._patience = patience
        self._https_only = https_only
        self._tls = ssl.create_default_context()  # made once: it reads all root certificates
        self._metadata: _Metadata | None = None
        self._keys: KeySet | None = None
        self._metadata_read_at = self._keys_read_at = 0.0

    async def login_url(self, *, state: str, nonce: str, code_verifier: str) -> str:
        """Where the browser goes to log in. Raises SsoProviderUnavailable."""
        metadata = await self._discovered()
        client = AsyncOAuth2Client(self._client_id, code_challenge_method="S256", verify=self._tls)
        url, _ = client.create_authorization_url(
            metadata.authorization_endpoint,
            state=state,
            nonce=nonce,
            code_verifier=code_verifier,
            redirect_uri=self._redirect_uri,
            scope=self._scope,
        )
        return str(url)

    async def check_issuer(self, iss: str | None) -> None:
        """Whether the answer in the browser is this provider's (RFC 9207). Raises ProviderAnswerInvalid,
        SsoProviderUnavailable."""
        metadata = await self._discovered()
        if iss is None and metadata.authorization_response_iss_parameter_supported:
            raise ProviderAnswerInvalid("the answer does not name its issuer")
        if iss is not None and iss != metadata.issuer:
            raise ProviderAnswerInvalid("the answer is of another issuer")

    async def identify(self, *, code: str, code_verifier: str, nonce: str, wanted: frozenset[str]) -> Identity:
        """Whom the provider gave the code for; userinfo is asked when the ID token lacks a `wanted` claim.

        Raises ProviderAnswerInvalid, SsoProviderUnavailable.
        """
        metadata = await self._discovered()
        tokens = await self._redeem(metadata, code=code, code_verifier=code_verifier)
        id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise ProviderAnswerInvalid("there is no ID token")
        claims = await self._verified(metadata, id_token, nonce=nonce)
        subject = claims["sub"]
        # OpenID Connect Core §2: at most 255 ASCII characters
        if not (isinstance(subject, str) and 0 < len(subject) <= 255 and subject.isascii() and subject.isprintable()):
            raise ProviderAnswerInvalid("the ID token has no proper subject")
        if not wanted <= claims.keys() and metadata.userinfo_endpoint and isinstance(access_token, str):
            info = await self._get(metadata.userinfo_endpoint, headers={"Authorization": f"Bearer {access_token}"})
            if not isinstance(info, dict) or info.get("sub") != subject:  # §5.3.2
                raise ProviderAnswerInvalid("userinfo is of somebody else")
            if {"email"} <= info.keys() & claims.keys() and info["email"] != claims["email"]:
                raise ProviderAnswerInvalid("userinfo has another e-mail address")  # of which is one verified?
            claims = info | claims
        return Identity(metadata.issuer, subject, claims)

    async def _discovered(self) -> _Metadata:
        if self._metadata is None or time.monotonic() - self._metadata_read_at > FRESH:
            try:
                metadata = _Metadata.model_validate(await self._get(self._discovery_url))
            except ValidationError:
                raise self._wrong("metadata lacks a field") from None
            if metadata.issuer.rstrip("/") + WELL_KNOWN != self._discovery_url:  # Discovery §4.3
                raise self._wrong("metadata is of another issuer")
            if self._https_only and not all(url.startswith("https://") for url in metadata.endpoints):
                raise self._wrong("an endpoint is not https")
            if not metadata.algorithms:
                raise self._wrong("no signing algorithm in common")
            self._metadata, self._metadata_read_at = metadata, time.monotonic()
        return self._metadata

    async def _key_set(self, metadata: _Metadata, *, anew: bool = False) -> KeySet:
        if self._keys is None or anew or time.monotonic() - self._keys_read_at > FRESH:
            published = await self._get(metadata.jwks_uri)
            listed = published.get("keys") if isinstance(published, dict) else None
            if not isinstance(listed, list):
                raise self._wrong("no key set")
            keys = []
            for key in listed:
                try:
                    if key["kty"] != "oct" and key.get("use", "sig") == "sig":
                        keys += KeySet.import_key_set({"keys": [key]}).keys
                except (JoseError, ValueError, KeyError, TypeError, AttributeError):
                    continue  # of a kind that we do not know, and need not: RFC 7517 §5
            self._keys, self._keys_read_at = KeySet(keys), time.monotonic()
        return self._keys

    async def _redeem(self, metadata: _Metadata, *, code: str, code_verifier: str) -> Mapping[str, Any]:
        methods = metadata.token_endpoint_auth_methods_supported
        post = "client_secret_post" in methods and "client_secret_basic" not in methods
        method = ("client_secret_post" if post else "client_secret_basic") if self._client_secret else "none"
        try:
            async with self._calling(method) as http:
                tokens: dict[str, Any] = await http.fetch_token(
                    metadata.token_endpoint, grant_type="authorization_code", code=code, code_verifier=code_verifier
                )
        except OAuthError as error:
            known = error.error if error.error in _TOKEN_ERRORS else "another error"
            raise ProviderAnswerInvalid(f"the code was refused: {known}") from None
        return tokens

    async def _verified(self, metadata: _Metadata, id_token: str, *, nonce: str) -> dict[str, Any]:
        """The claims of an ID token that is the provider's, for us, for this login, and good still."""
        registry = JWSRegistry(algorithms=metadata.algorithms, strict_check_header=False)
        try:
            try:
                token = jwt.decode(id_token, await self._key_set(metadata), registry=registry)
            except InvalidKeyIdError:  # a new key
                token = jwt.decode(id_token, await self._key_set(metadata, anew=True), registry=registry)
            CodeIDToken(
                token.claims,
                token.header,
                options={
                    "iss": {"essential": True, "value": metadata.issuer},
                    "aud": {"essential": True, "value": self._client_id},
                },
                params={"client_id": self._client_id, "nonce": nonce},
            ).validate(int(time.time()), LEEWAY)
        except JoseError as error:
            raise ProviderAnswerInvalid(f"the ID token is not good: {error.error}") from None
        except (ValueError, TypeError):
            raise ProviderAnswerInvalid("the ID token is not good: malformed") from None
        return dict(token.claims)

    async def _get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Any:
        async with self._calling("none") as http:
            answer = await http.request("GET", url, headers=headers, withhold_token=True)
            answer.raise_for_status()
            return answer.json()

    @asynccontextmanager
    async def _calling(self, method: str) -> AsyncIterator[AsyncOAuth2Client]:
        """A client for one call: authlib's keeps the tokens it was given, which must not meet another person's."""
        try:
            async with (
                asyncio.timeout(self._patience),
                _Client(
                    self._client_id,
                    self._client_secret,
                    token_endpoint_auth_method=method,
                    redirect_uri=self._redirect_uri,
                    verify=self._tls,
                    timeout=self._patience,
                ) as http,
            ):
                yield http
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise self._wrong(type(error).__name__) from None

    def _wrong(self, reason: str) -> SsoProviderUnavailable:
        logger.bind(reason=reason).warning("the identity provider does not answer as it should")
        return SsoProviderUnavailable(retry_after=5)


class _AnswerTooLong(ValueError):
    """The provider's answer has more than LONGEST bytes."""


class _Client(AsyncOAuth2Client):  # type: ignore[misc]  # authlib has no types
    """Reads no answer without end into memory."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The answer with its body. Raises _AnswerTooLong."""
        answer = await super().send(request, **options | {"stream": True})
        body = bytearray()
        try:
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > LONGEST:
                    raise _AnswerTooLong
        finally:
            await answer.aclose()
        headers = {name: value for name, value in answer.headers.items() if name in ("content-type", "location")}
        return httpx2.Response(answer.status_code, headers=headers, content=bytes(body), request=request)
