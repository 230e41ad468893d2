"""The keys that ids of the source are hashed with: one for each client and kind of id, so that nothing can be joined
across clients, nor a member's id with a claim's of the same text."""

import hmac
from typing import Final
from uuid import UUID

from pydantic import SecretStr

from analytics_service.datasets import HASHED_KINDS

BLOCK: Final = 64  # bytes; SHA-256's, to which HMAC pads its key (RFC 2104)


def key_of(secret: SecretStr, client_id: UUID, kind: str) -> bytes:
    """The HMAC-SHA-256 key of a client's ids of one kind."""
    return hmac.digest(secret.get_secret_value().encode(), f"{kind}:{client_id}".encode(), "sha256")


def padded_keys(secret: SecretStr, client_id: UUID) -> list[dict[str, str]]:
    """For each kind of id, in hexadecimal: HMAC's inner and outer key, ready to be put before what is hashed."""
    keys = {kind: key_of(secret, client_id, kind).ljust(BLOCK, b"\0") for kind in HASHED_KINDS}
    return [{"kind": kind, "inner": _xor(key, 0x36), "outer": _xor(key, 0x5C)} for kind, key in keys.items()]


def _xor(key: bytes, byte: int) -> str:
    return bytes(octet ^ byte for octet in key).hex()
