"""The keys that sign access tokens: made at the first start, encrypted at rest, published as a JWKS."""

import json
import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import KeySet, KeySetSerialization, OKPKey
from pydantic import SecretStr
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service.models import SigningKey
from triton_common.auth import ALGORITHM

NONCE_BYTES: Final = 12  # NIST SP 800-38D §8.2: what AES-GCM is meant for


@dataclass(frozen=True)
class KeyRing:
    """The newest key signs; all of them verify."""

    signing: OKPKey = field(repr=False)
    published: KeySetSerialization


def derive(secret: SecretStr, *, purpose: str) -> bytes:
    """32 bytes for one purpose out of AUTH_KEY_SECRET (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), length=32, salt=None, info=b"triton auth " + purpose.encode()).derive(
        secret.get_secret_value().encode()
    )


async def load_or_make(session: AsyncSession, *, secret: SecretStr) -> KeyRing:
    """The key ring of the database; its first key is made when there is none.

    Callers hold the start-up lock, so that processes that start at once make one key. Raises ValueError, naming
    AUTH_KEY_SECRET, when the private key was encrypted with another secret.
    """
    encryption_key = derive(secret, purpose="signing keys")
    rows = (await session.exec(select(SigningKey).order_by(col(SigningKey.created_at).desc()))).all()
    if not rows:
        rows = [_make(encryption_key)]
        session.add_all(rows)
    return KeyRing(
        signing=_decrypted(rows[0], encryption_key),
        published=KeySet([OKPKey.import_key(row.public_jwk) for row in rows]).as_dict(private=False),
    )


def _make(encryption_key: bytes) -> SigningKey:
    key = OKPKey.generate_key("Ed25519", {"use": "sig", "alg": ALGORITHM})
    kid = key.thumbprint()
    nonce = os.urandom(NONCE_BYTES)
    private_jwk = json.dumps(key.as_dict(private=True, kid=kid)).encode()
    return SigningKey(
        kid=kid,
        public_jwk=key.as_dict(private=False, kid=kid),
        private_key=nonce + AESGCM(encryption_key).encrypt(nonce, private_jwk, kid.encode()),
    )


def _decrypted(row: SigningKey, encryption_key: bytes) -> OKPKey:
    nonce, sealed = row.private_key[:NONCE_BYTES], row.private_key[NONCE_BYTES:]
    try:
        private_jwk = AESGCM(encryption_key).decrypt(nonce, sealed, row.kid.encode())
    except InvalidTag:
        raise ValueError("AUTH_KEY_SECRET is not the one that the signing keys are encrypted with") from None
    return OKPKey.import_key(json.loads(private_jwk))
