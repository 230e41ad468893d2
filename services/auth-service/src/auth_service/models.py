"""Tables of the database `auth`: passwords, secrets and refresh tokens as hashes only, private keys encrypted."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from triton_common.db import Table, timestamp


class User(Table, table=True):
    """A person. Without a client_id: staff."""

    __tablename__: ClassVar[str] = "users"
    __table_args__ = (CheckConstraint("role IN ('admin', 'editor', 'viewer')", name="role_known"),)

    email: str = Field(unique=True, sa_type=Text)
    password_hash: str = Field(repr=False, sa_type=Text)
    role: str = Field(sa_type=Text)
    client_id: UUID | None = Field(default=None, index=True)


class UserSession(Table, table=True):
    """What a login begins: refresh tokens follow one another in it until it ends or expires."""

    __tablename__: ClassVar[str] = "sessions"
    __table_args__ = (
        CheckConstraint("(ended_at IS NULL) = (end_reason IS NULL)", name="ended_for_a_reason"),
        CheckConstraint("end_reason IN ('logout', 'token_reused')", name="end_reason_known"),
    )

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    expires_at: datetime = timestamp()
    ended_at: datetime | None = timestamp(nullable=True)
    end_reason: str | None = Field(default=None, sa_type=Text)


class RefreshToken(SQLModel, table=True):
    """A refresh token by its SHA-256. Used ones stay as long as their session, so that a second use is noticed."""

    __tablename__: ClassVar[str] = "refresh_tokens"

    token_hash: bytes = Field(primary_key=True, repr=False, sa_type=LargeBinary)
    session_id: UUID = Field(foreign_key="sessions.id", ondelete="CASCADE", index=True)
    created_at: datetime = timestamp(default=True)
    used_at: datetime | None = timestamp(nullable=True)


class ServiceAccount(Table, table=True):
    """A machine that gets tokens by client credentials; its name is the OAuth client_id."""

    __tablename__: ClassVar[str] = "service_accounts"

    name: str = Field(unique=True, sa_type=Text)
    secret_hash: str = Field(repr=False, sa_type=Text)


class SigningKey(SQLModel, table=True):
    """A key pair that signs access tokens. `kid` is the public key's RFC 7638 thumbprint."""

    __tablename__: ClassVar[str] = "signing_keys"

    kid: str = Field(primary_key=True, sa_type=Text)
    public_jwk: dict[str, str | list[str]] = Field(sa_type=JSONB)
    private_key: bytes = Field(repr=False, sa_type=LargeBinary)
    created_at: datetime = timestamp(default=True)
