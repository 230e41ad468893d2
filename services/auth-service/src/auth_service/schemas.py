"""HTTP shapes of auth-service. What is secret stays out of their reprs."""

import unicodedata
from typing import Annotated, Any, Literal
from uuid import UUID

import email_validator
from pydantic import AfterValidator, AwareDatetime, Field, SecretStr

from triton_common.schemas import Schema

# No mail is sent to these addresses, they are names: an installation may use .local or .internal ones.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def normalised_email(value: str) -> str:
    """One spelling for each address: NFKC (full-width letters are plain ones), lower case, an IDNA domain."""
    try:
        address = email_validator.validate_email(
            unicodedata.normalize("NFKC", value.strip()), check_deliverability=False, globally_deliverable=False
        )
    except email_validator.EmailNotValidError as error:
        raise ValueError(str(error)) from None
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


class LoginRequest(Schema):
    """Who logs in."""

    email: Email
    password: Secret


class RefreshRequest(Schema):
    """The session's newest refresh token."""

    refresh_token: Secret


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
    email: str | None = Field(description="null for a service account")
    role: str
    client_id: UUID | None
    scopes: list[str]


class UserCreate(Schema):
    """A new user."""

    email: Email
    password: NewPassword
    role: Role
    client_id: UUID | None = Field(default=None, description="Binds the user to this client; null for staff")


class UserPublic(Schema):
    """A user."""

    id: UUID
    email: str
    role: Role
    client_id: UUID | None
    created_at: AwareDatetime


class KeySetPublic(Schema):
    """A JSON Web Key Set (RFC 7517 §5)."""

    keys: list[dict[str, Any]]
