"""Tables of the database `auth`: passwords, secrets, refresh tokens and API keys as hashes, private keys encrypted."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from triton_common.db import Table, timestamp


def _texts() -> Any:
    """A column of text[], empty unless given."""
    return Field(default_factory=list, sa_type=ARRAY(Text), sa_column_kwargs={"server_default": text("'{}'::text[]")})


def _text(default: str) -> Any:
    """A column of text that rows of an earlier release have the default of."""
    return Field(default=default, sa_type=Text, sa_column_kwargs={"server_default": text(f"'{default}'")})


def _epoch() -> Any:
    """Counts the changes after which tokens issued before are refused."""
    return Field(default=0, sa_column_kwargs={"server_default": text("0")})


class User(Table, table=True):
    """A person. Without a client_id: staff. Without a password: one who comes by single sign-on alone."""

    __tablename__: ClassVar[str] = "users"
    __table_args__ = (CheckConstraint("role IN ('admin', 'editor', 'viewer')", name="role_known"),)

    email: str = Field(unique=True, sa_type=Text)
    password_hash: str | None = Field(default=None, repr=False, sa_type=Text)
    role: str = Field(sa_type=Text)
    client_id: UUID | None = Field(default=None, index=True)
    deactivated_at: datetime | None = timestamp(nullable=True)
    token_epoch: int = _epoch()
    password_changed_at: datetime | None = timestamp(nullable=True)
    last_login_at: datetime | None = timestamp(nullable=True)


class UserSession(Table, table=True):
    """What a login begins: refresh tokens follow one another in it until it ends or expires."""

    __tablename__: ClassVar[str] = "sessions"
    __table_args__ = (
        CheckConstraint("(ended_at IS NULL) = (end_reason IS NULL)", name="ended_for_a_reason"),
        CheckConstraint(
            "end_reason IN ('logout', 'token_reused', 'ended', 'ended_by_admin', 'deactivated', 'password_changed')",
            name="end_reason_known",
        ),
        CheckConstraint("method IN ('password', 'sso')", name="method_known"),
    )

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    expires_at: datetime = timestamp()
    ended_at: datetime | None = timestamp(nullable=True)
    end_reason: str | None = Field(default=None, sa_type=Text)
    method: str = _text("password")
    address: str | None = Field(default=None, sa_type=Text)
    user_agent: str | None = Field(default=None, sa_type=Text)
    last_used_at: datetime = timestamp(default=True)


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
    __table_args__ = (
        CheckConstraint(
            "(previous_secret_hash IS NULL) = (previous_expires_at IS NULL)", name="previous_secret_expires"
        ),
    )

    name: str = Field(unique=True, sa_type=Text)
    secret_hash: str = Field(repr=False, sa_type=Text)
    description: str = _text("")
    scopes: list[str] = Field(
        default_factory=list,
        sa_type=ARRAY(Text),
        sa_column_kwargs={"server_default": text("'{jobs:work,data:read,prospects:read}'::text[]")},
    )
    client_id: UUID | None = None
    deactivated_at: datetime | None = timestamp(nullable=True)
    token_epoch: int = _epoch()
    previous_secret_hash: str | None = Field(default=None, repr=False, sa_type=Text)
    previous_expires_at: datetime | None = timestamp(nullable=True)
    secret_changed_at: datetime | None = timestamp(nullable=True)
    last_used_at: datetime | None = timestamp(nullable=True)


class ApiKey(Table, table=True):
    """A person's key for their own programs, by its SHA-256."""

    __tablename__: ClassVar[str] = "api_keys"

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    name: str = Field(sa_type=Text)
    key_hash: bytes = Field(unique=True, repr=False, sa_type=LargeBinary)
    hint: str = Field(sa_type=Text)
    scopes: list[str] = _texts()
    expires_at: datetime = timestamp()
    last_used_at: datetime | None = timestamp(nullable=True)
    revoked_at: datetime | None = timestamp(nullable=True)


class SigningKey(SQLModel, table=True):
    """A key pair that signs access tokens. `kid` is the public key's RFC 7638 thumbprint."""

    __tablename__: ClassVar[str] = "signing_keys"

    kid: str = Field(primary_key=True, sa_type=Text)
    public_jwk: dict[str, str | list[str]] = Field(sa_type=JSONB)
    private_key: bytes = Field(repr=False, sa_type=LargeBinary)
    created_at: datetime = timestamp(default=True)
    signs_from: datetime = timestamp(default=True)
    verifies_until: datetime | None = timestamp(nullable=True)


class RevocationRecord(Table, table=True):
    """Something that was taken back, to be told to every service; see triton_common.revocations."""

    __tablename__: ClassVar[str] = "revocations"
    __table_args__ = (
        CheckConstraint("kind IN ('session', 'subject', 'token', 'keys')", name="kind_known"),
        Index("ix_revocations_unpublished", "id", postgresql_where=text("published_at IS NULL")),
    )

    kind: str = Field(sa_type=Text)
    target: str = Field(sa_type=Text)
    epoch: int = 0
    expires_at: datetime = timestamp()
    published_at: datetime | None = timestamp(nullable=True)


class AuditEvent(SQLModel, table=True):
    """Who did what. Its id is made where it happened, so that one sent twice is stored once. A trigger keeps rows as
    they are but for `seq` and `hash`, which are filled once."""

    __tablename__: ClassVar[str] = "audit_events"
    __table_args__ = (
        CheckConstraint("actor_kind IN ('user', 'service', 'api_key', 'anonymous', 'system')", name="actor_kind_known"),
        CheckConstraint("outcome IN ('succeeded', 'refused', 'failed')", name="outcome_known"),
        CheckConstraint("(seq IS NULL) = (hash IS NULL)", name="sealed_whole"),
        UniqueConstraint("seq"),
        Index("ix_audit_events_at", "at", "id"),
        Index("ix_audit_events_actor", text("coalesce(actor_id, actor_kind)"), "at", "id"),
        Index("ix_audit_events_action", "action", "at", "id"),
        Index("ix_audit_events_object_kind", "object_kind", "at", "id"),
        Index("ix_audit_events_object_id", "object_id", "at", "id", postgresql_where=text("object_id IS NOT NULL")),
        Index("ix_audit_events_client_id", "client_id", "at", "id", postgresql_where=text("client_id IS NOT NULL")),
        Index("ix_audit_events_request_id", "request_id", "at", "id"),
        Index("ix_audit_events_not_succeeded", "outcome", "at", "id", postgresql_where=text("outcome <> 'succeeded'")),
        Index("ix_audit_events_unsealed", "recorded_at", "id", postgresql_where=text("seq IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    at: datetime = timestamp()
    recorded_at: datetime = timestamp(default=True)
    source: str = Field(sa_type=Text)
    actor_kind: str = Field(sa_type=Text)
    actor_id: str | None = Field(default=None, sa_type=Text)
    action: str = Field(sa_type=Text)
    object_kind: str | None = Field(default=None, sa_type=Text)
    object_id: str | None = Field(default=None, sa_type=Text)
    client_id: UUID | None = None
    address: str | None = Field(default=None, sa_type=Text)
    request_id: str = Field(default="", sa_type=Text)
    outcome: str = Field(sa_type=Text)
    details: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    seq: int | None = Field(default=None, sa_type=BigInteger)
    hash: bytes | None = Field(default=None, sa_type=LargeBinary)


class SsoIdentity(Table, table=True):
    """A user at an OpenID provider."""

    __tablename__: ClassVar[str] = "sso_identities"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    issuer: str = Field(sa_type=Text)
    subject: str = Field(sa_type=Text)
    email: str = Field(sa_type=Text)
    last_used_at: datetime = timestamp(default=True)


class SsoLogin(Table, table=True):
    """One try to log in at a provider, from the redirect there to the exchange of the code we give."""

    __tablename__: ClassVar[str] = "sso_logins"

    state_hash: bytes = Field(unique=True, repr=False, sa_type=LargeBinary)
    browser_hash: bytes = Field(repr=False, sa_type=LargeBinary)
    nonce: str = Field(repr=False, sa_type=Text)
    code_verifier: str = Field(repr=False, sa_type=Text)
    return_to: str = Field(sa_type=Text)
    expires_at: datetime = timestamp()
    exchange_hash: bytes | None = Field(default=None, unique=True, repr=False, sa_type=LargeBinary)
    user_id: UUID | None = Field(default=None, foreign_key="users.id", ondelete="CASCADE")
    used_at: datetime | None = timestamp(nullable=True)
