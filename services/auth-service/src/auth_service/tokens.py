"""Tokens as strings: signed access tokens (RFC 9068), and refresh tokens, which are random and say nothing."""

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from joserfc import jwt
from uuid_utils.compat import uuid7

from auth_service.keys import KeyRing
from triton_common.auth import ALGORITHM, TOKEN_TYPE


@dataclass(frozen=True)
class TokenIssuer:
    """Signs access tokens, derives a refresh token's successor, and knows how long each is good."""

    keys: KeyRing = field(repr=False)
    successor_key: bytes = field(repr=False)
    issuer: str
    audience: str
    access_lifetime: timedelta
    session_lifetime: timedelta
    session_idle: timedelta
    refresh_grace: timedelta

    def access_token(
        self,
        *,
        subject: UUID,
        role: str,
        scopes: frozenset[str],
        epoch: int,
        client_id: UUID | None = None,
        session_id: UUID | None = None,
    ) -> str:
        """A JWT for `access_lifetime` from now; `session_id` is None for a machine, which has none."""
        now = int(time.time())
        key = self.keys.signing
        claims: dict[str, str | int] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": str(subject),
            "iat": now,
            "exp": now + self.expires_in,
            "jti": str(uuid7()),
            "role": role,
            "scope": " ".join(sorted(scopes)),
            "epoch": epoch,
        }
        if session_id:
            claims["sid"] = str(session_id)
        if client_id:
            claims["client_id"] = str(client_id)
        header = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": key.kid}
        return jwt.encode(header, claims, key, algorithms=[ALGORITHM])

    @property
    def expires_in(self) -> int:
        """Seconds an access token lives."""
        return int(self.access_lifetime.total_seconds())

    def session_end(self, *, began: datetime, used: datetime) -> datetime:
        """When a session is over that nobody uses again: refreshing moves it, up to its whole lifetime."""
        return min(began + self.session_lifetime, used + self.session_idle)

    def successor(self, refresh_token: str) -> str:
        """The refresh token that follows this one: always the same, and unknown to whoever has only this one.

        So a refresh whose answer was lost is answered again without a token being stored, and the session has one line
        of tokens: of a stolen token and its owner's, the second to be used is noticed.
        """
        digest = hmac.digest(self.successor_key, refresh_token.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def new_refresh_token() -> str:
    """The first refresh token of a session: 256 random bits."""
    return secrets.token_urlsafe(32)


def fingerprint(token: str) -> bytes:
    """What the database knows of a refresh token or an API key. Plain SHA-256: 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode()).digest()
