"""HTTP shapes of auth-service. What is secret stays out of their reprs."""

import re
import unicodedata
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import email_validator
from pydantic import (
    UUID7,
    AfterValidator,
    AwareDatetime,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from triton_common.auth import ALL_SCOPES
from triton_common.schemas import Schema, Text

# No mail is sent to these addresses, they are names: an installation may use .local or .internal ones.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()
ALPHABETS: Final = {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN"}  # that share shapes with one another


def normalised_email(value: str) -> str:
    """One spelling for each address: NFKC (full-width letters are plain ones), lower case, an IDNA domain.

    Raises ValueError for a word of several alphabets: with a Cyrillic letter it looks like another's of Latin ones.
    """
    try:
        address = email_validator.validate_email(
            unicodedata.normalize("NFKC", value.strip()), check_deliverability=False, globally_deliverable=False
        )
    except email_validator.EmailNotValidError as error:
        raise ValueError(str(error)) from None
    for part in re.split(r"[@.]", address.normalized):
        if len(ALPHABETS & {unicodedata.name(letter, "").partition(" ")[0] for letter in part}) > 1:
            raise ValueError(f"{part} has letters of several alphabets, and may look like somebody else's address")
    return address.normalized.lower()


def encodable(value: SecretStr) -> SecretStr:
    """Refuses half of a surrogate pair, which JSON can spell and UTF-8 cannot; pydantic does so for `str` alone."""
    try:
        value.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("Input should be valid Unicode") from None
    return value


Email = Annotated[str, Field(max_length=254, examples=["ada@example.com"]), AfterValidator(normalised_email)]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=128), AfterValidator(encodable)]
"""A secret that is given to be compared. Over-long ones are refused here, before anybody hashes them."""

NewPassword = Annotated[
    SecretStr, Field(min_length=12, max_length=128, description="12 to 128 characters"), AfterValidator(encodable)
]
Role = Literal["admin", "editor", "viewer"]
ClientId = UUID7
"""Of jobs-service, whose ids are UUIDv7 all: another kind of UUID is no client's."""


def known_scopes(value: list[str]) -> list[str]:
    """Sorted, each once."""
    if unknown := sorted(set(value) - ALL_SCOPES):
        raise ValueError(f"There is no scope {unknown[0]!r}")
    return sorted(set(value))


Name = Annotated[Text, Field(max_length=100)]
Scopes = Annotated[list[str], Field(min_length=1, max_length=64), AfterValidator(known_scopes)]


class LoginRequest(Schema):
    """Who logs in."""

    email: Email
    password: Secret


class RefreshRequest(Schema):
    """The session's newest refresh token."""

    refresh_token: Secret


class SsoCodeExchange(Schema):
    """The code that single sign-on left in the fragment."""

    code: Secret


class TokenPair(Schema):
    """What a login or a refresh gives."""

    access_token: str = Field(repr=False)
    refresh_token: str = Field(repr=False, description="Good for one use; the answer of /refresh has the next one")
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  a type, no token
    expires_in: int = Field(description="Seconds until the access token expires")


class ServiceTokenPublic(Schema):
    """What client credentials give (RFC 6749 §5.1)."""

    access_token: str = Field(repr=False)
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  a type, no token
    expires_in: int = Field(description="Seconds until the access token expires")
    scope: str


class Me(Schema):
    """Who the token belongs to, and what it allows."""

    id: UUID
    kind: Literal["user", "service", "api_key"]
    email: str | None = Field(description="null for a service account")
    role: str
    client_id: UUID | None
    scopes: list[str]


class PasswordChange(Schema):
    """One's own password."""

    current_password: Secret
    new_password: NewPassword


class PasswordReset(Schema):
    """Somebody's new password."""

    password: NewPassword


class SessionPublic(Schema):
    """A session that has neither ended nor expired."""

    id: UUID
    user_id: UUID
    method: Literal["password", "sso"]
    address: str | None
    user_agent: str | None
    created_at: AwareDatetime
    last_used_at: AwareDatetime = Field(description="Of its login or newest refresh")
    expires_at: AwareDatetime
    current: bool = Field(description="It is the one of the token that asks")


class UserCreate(Schema):
    """A new user."""

    email: Email
    password: NewPassword
    role: Role
    client_id: ClientId | None = Field(default=None, description="Binds the user to this client; null for staff")


class UserUpdate(Schema):
    """What changes of a user; what is left out stays. Tokens issued before are refused from then on."""

    role: Role | None = None
    client_id: ClientId | None = None

    @field_validator("role")
    @classmethod
    def has_a_role(cls, value: str | None) -> str | None:
        """A user always has one."""
        if value is None:
            raise ValueError("Input should be 'admin', 'editor' or 'viewer'")
        return value


class UserPublic(Schema):
    """A user."""

    id: UUID
    email: str
    role: Role
    client_id: UUID | None
    created_at: AwareDatetime
    deactivated_at: AwareDatetime | None
    last_login_at: AwareDatetime | None
    has_password: bool = Field(description="false for one who comes by single sign-on alone")


class PageQuery(Schema):
    """A page of a list; a parameter that is unknown is refused, so that a misspelt condition is not taken for none."""

    limit: int = Field(default=50, ge=1, le=200, description="Items a page")
    cursor: str | None = Field(default=None, max_length=500, description="next_cursor of the page before")


class UserFilter(PageQuery):
    """Which users: those that meet all conditions that are given."""

    email: Email | None = None
    role: Role | None = None
    client_id: UUID | None = None
    active: bool | None = Field(default=None, description="false: those who are deactivated")


class ApiKeyCreate(Schema):
    """A new API key."""

    name: Name
    scopes: Scopes = Field(description="Some of one's own")
    expires_at: AwareDatetime | None = Field(default=None, description="90 days from now, unless given")


class ApiKeyPublic(Schema):
    """An API key, without itself."""

    id: UUID
    user_id: UUID
    name: str
    hint: str = Field(description="How it begins")
    scopes: list[str]
    created_at: AwareDatetime
    expires_at: AwareDatetime
    last_used_at: AwareDatetime | None = Field(description="Within a minute or two")


class ApiKeyCreated(ApiKeyPublic):
    """A new API key, which is shown this once."""

    key: str = Field(repr=False)


class KeyPrincipal(Schema):
    """Whose an API key is: what other services ask for."""

    subject: str
    kind: Literal["api_key"]
    role: str
    scopes: list[str]
    client_id: UUID | None
    token_id: str
    epoch: int
    expires_at: int


class ServiceAccountCreate(Schema):
    """A new service account."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")] = Field(
        description="The OAuth client_id"
    )
    description: str = Field(default="", max_length=500)
    scopes: Scopes
    client_id: ClientId | None = Field(default=None, description="Binds the account to this client")


class ServiceAccountUpdate(Schema):
    """What changes of a service account; what is left out stays. Tokens issued before are refused from then on."""

    description: str | None = Field(default=None, max_length=500)
    scopes: Scopes | None = None

    @model_validator(mode="after")
    def says_something(self) -> "ServiceAccountUpdate":
        """null is no value here."""
        if any(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("leave out what stays as it is")
        return self


class SecretRotation(Schema):
    """How a service account's secret is replaced."""

    keep_old_for_seconds: int = Field(
        default=0, ge=0, le=7 * 86_400, description="How long the old secret works beside the new one"
    )


class ServiceAccountPublic(Schema):
    """A service account, without its secret."""

    id: UUID
    name: str
    description: str
    scopes: list[str]
    client_id: UUID | None
    created_at: AwareDatetime
    deactivated_at: AwareDatetime | None
    secret_changed_at: AwareDatetime | None
    previous_expires_at: AwareDatetime | None = Field(description="Until then the secret before works too")
    last_used_at: AwareDatetime | None


class ServiceAccountSecret(ServiceAccountPublic):
    """A service account with a new secret, which is shown this once."""

    client_secret: str = Field(repr=False)


class KeyRotation(Schema):
    """How the signing key is replaced."""

    immediately: bool = Field(default=False, description="In seconds, not after AUTH_KEY_LEAD")


class SigningKeyPublic(Schema):
    """A signing key, without its private part."""

    kid: str
    alg: str
    status: Literal["next", "signing", "retired"]
    created_at: AwareDatetime
    signs_from: AwareDatetime
    verifies_until: AwareDatetime | None = Field(description="null while it signs")


class SigningKeyList(Schema):
    """All keys that verify tokens, newest first."""

    items: list[SigningKeyPublic]


class KeySetPublic(Schema):
    """A JSON Web Key Set (RFC 7517 §5)."""

    keys: list[dict[str, Any]]
