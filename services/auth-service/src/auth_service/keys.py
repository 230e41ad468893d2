"""The keys that sign access tokens: encrypted at rest, published as a JWKS before they sign and for as long as a token
of theirs is good."""

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import KeySet, KeySetSerialization, OKPKey
from loguru import logger
from pydantic import SecretStr
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit
from auth_service.audit import SYSTEM
from auth_service.models import SigningKey
from triton_common.auth import ALGORITHM
from triton_common.errors import Conflict, NotFound

LOCK: Final = 0x61757468  # "auth": of processes that make keys or first accounts at once, one does and the others find
NONCE_BYTES: Final = 12  # NIST SP 800-38D §8.2: what AES-GCM is meant for
AT_ONCE: Final = timedelta(seconds=5)  # within which every service hears of a new key, and asks for it
CLOCKS: Final = timedelta(minutes=1)  # beyond its tokens' lifetime a key is published: machines' clocks differ

Status = Literal["next", "signing", "retired"]


class SigningKeyNotFound(NotFound):
    """There is no such signing key."""


class SigningKeyInUse(Conflict):
    """The key signs, or is about to: rotate first."""


class KeyRotationUnderWay(Conflict):
    """The next key is published already and will sign soon."""


class KeyRing:
    """The keys of the database, as this process knows them: the newest whose time has come signs, all verify."""

    def __init__(self, encryption_key: bytes, *, access_lifetime: timedelta) -> None:
        self._encryption_key = encryption_key
        self.access_lifetime = access_lifetime
        self._signing: list[tuple[datetime, OKPKey]] = []  # newest first
        self.published: KeySetSerialization = {"keys": []}
        self.etag = ""

    @property
    def signing(self) -> OKPKey:
        """The key that signs at this moment."""
        now = datetime.now(UTC)
        return next((key for since, key in self._signing if since <= now), self._signing[-1][1])

    def __repr__(self) -> str:
        """Its keys' ids."""
        return f"KeyRing({[key['kid'] for key in self.published['keys']]})"

    def load(self, rows: Sequence[SigningKey]) -> None:
        """Take over the rows, newest first. Raises ValueError, naming AUTH_KEY_SECRET, when it is another one."""
        self._signing = [(row.signs_from, _decrypted(row, self._encryption_key)) for row in rows]
        self.published = KeySet([OKPKey.import_key(row.public_jwk) for row in rows]).as_dict(private=False)
        self.etag = f'"{hashlib.sha256(json.dumps(self.published, sort_keys=True).encode()).hexdigest()[:32]}"'

    def made(self, *, signs_from: datetime) -> SigningKey:
        """A new key, its private part encrypted."""
        key = OKPKey.generate_key("Ed25519", {"use": "sig", "alg": ALGORITHM})
        kid = key.thumbprint()
        nonce = os.urandom(NONCE_BYTES)
        private_jwk = json.dumps(key.as_dict(private=True, kid=kid)).encode()
        return SigningKey(
            kid=kid,
            public_jwk=key.as_dict(private=False, kid=kid),
            private_key=nonce + AESGCM(self._encryption_key).encrypt(nonce, private_jwk, kid.encode()),
            created_at=datetime.now(UTC),
            signs_from=signs_from,
        )


def derive(secret: SecretStr, *, purpose: str) -> bytes:
    """32 bytes for one purpose out of AUTH_KEY_SECRET (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), length=32, salt=None, info=b"triton auth " + purpose.encode()).derive(
        secret.get_secret_value().encode()
    )


async def lock(session: AsyncSession) -> None:
    """Until the transaction ends, nobody else makes or retires keys."""
    await session.exec(select(func.pg_advisory_xact_lock(LOCK)))


async def listed(session: AsyncSession) -> list[SigningKey]:
    """All keys that verify, newest first."""
    verifies = col(SigningKey.verifies_until).is_(None) | (col(SigningKey.verifies_until) > datetime.now(UTC))
    query = select(SigningKey).where(verifies)
    return list((await session.exec(query.order_by(col(SigningKey.signs_from).desc(), col(SigningKey.kid)))).all())


def status_of(key: SigningKey, keys: Sequence[SigningKey]) -> Status:
    """What a key among these does at this moment."""
    now = datetime.now(UTC)
    signing = next((one for one in keys if one.signs_from <= now), keys[-1])
    return "signing" if key is signing else "next" if key.signs_from > now else "retired"


async def load(session: AsyncSession, ring: KeyRing) -> None:
    """Let the ring have the database's keys."""
    ring.load(await listed(session))


async def load_or_make(session: AsyncSession, ring: KeyRing) -> None:
    """The same, at a start: the first key is made when there is none. Callers hold the lock."""
    if not await listed(session):
        first = ring.made(signs_from=datetime.now(UTC))
        session.add(first)
        await session.flush()
        audit.record(session, "signing_key.made", actor=SYSTEM, on=("signing_key", first.kid))
    await load(session, ring)


async def rotate(session: AsyncSession, ring: KeyRing, *, lead: timedelta) -> SigningKey:
    """Make the key that signs after `lead`, in which every service reads it; the present ones verify until the last
    token they sign has expired. With no more than AT_ONCE, a next key that waits signs at once.

    Raises KeyRotationUnderWay when there is a next key and time.
    """
    await lock(session)
    keys = await listed(session)
    signs_from = datetime.now(UTC) + lead
    waiting = [key for key in keys if status_of(key, keys) == "next"]
    if waiting and lead > AT_ONCE:
        raise KeyRotationUnderWay(f"{waiting[0].kid} signs from {waiting[0].signs_from.isoformat()} on.")
    made = waiting[0] if waiting else ring.made(signs_from=signs_from)
    made.signs_from = min(made.signs_from, signs_from)
    session.add(made)
    for key in keys:
        if key is not made and (key.verifies_until is None or waiting):
            key.verifies_until = made.signs_from + ring.access_lifetime + CLOCKS
    await session.flush()
    return made


async def rotate_when_due(session: AsyncSession, ring: KeyRing, *, every: timedelta, lead: timedelta) -> bool:
    """Make the next key when the newest will have signed for long enough."""
    await lock(session)
    newest = (await listed(session))[0]
    if newest.signs_from + every - lead > datetime.now(UTC):
        return False
    made = await rotate(session, ring, lead=lead)
    audit.record(session, "signing_key.made", actor=SYSTEM, on=("signing_key", made.kid))
    logger.bind(kid=made.kid, signs_from=made.signs_from.isoformat()).info("next signing key made")
    return True


async def revoke(session: AsyncSession, kid: str) -> None:
    """Take a retired key away before its time: its tokens are refused. Raises SigningKeyNotFound, SigningKeyInUse."""
    await lock(session)
    keys = await listed(session)
    key = next((one for one in keys if one.kid == kid), None)
    if key is None:
        raise SigningKeyNotFound(f"There is no signing key {kid[:64]}.")
    if status_of(key, keys) != "retired":
        raise SigningKeyInUse
    await session.delete(key)


async def forget_expired(session: AsyncSession) -> None:
    """Delete the keys that verify nothing any more."""
    expired = col(SigningKey.verifies_until) < datetime.now(UTC)
    for kid in (await session.exec(select(SigningKey.kid).where(expired).with_for_update(skip_locked=True))).all():
        await session.exec(delete(SigningKey).where(col(SigningKey.kid) == kid))
        audit.record(session, "signing_key.forgotten", actor=SYSTEM, on=("signing_key", kid))


def _decrypted(row: SigningKey, encryption_key: bytes) -> OKPKey:
    nonce, sealed = row.private_key[:NONCE_BYTES], row.private_key[NONCE_BYTES:]
    try:
        private_jwk = AESGCM(encryption_key).decrypt(nonce, sealed, row.kid.encode())
    except InvalidTag:
        raise ValueError("AUTH_KEY_SECRET is not the one that the signing keys are encrypted with") from None
    return OKPKey.import_key(json.loads(private_jwk))
