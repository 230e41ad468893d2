"""The users of single sign-on: whom of ours the identity provider names, and in what role they come."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

from loguru import logger
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit, users
from auth_service.audit import SYSTEM, Actor, Origin
from auth_service.models import SsoIdentity, User
from auth_service.oidc import Identity
from auth_service.revocations import Revoker
from auth_service.schemas import Role, normalised_email
from auth_service.users import LastAdmin
from triton_common.auth import Principal

LINKING: Final = 0x73736F  # "sso": a lock. Two first logins of one person make one user

Code = Literal["sso_denied", "sso_refused", "sso_provider_invalid", "sso_provider_unavailable"]
"""What the app is told of a login that failed. Why, the audit log says."""


class SsoRefused(Exception):
    """A login that goes back to the app without a code. `reason` is a constant, for the audit log."""

    def __init__(self, code: Code, reason: str, *, user_id: UUID | None = None) -> None:
        self.code: Code = code
        self.reason = reason
        self.user_id = user_id
        super().__init__(reason)


@dataclass(frozen=True)
class Admission:
    """Who may come, and as what."""

    allowed_domains: frozenset[str]
    verified_claim: str
    role_claim: str | None
    role_map: Mapping[str, Role]
    default_role: Role | None

    @property
    def wanted(self) -> frozenset[str]:
        """The claims that decide."""
        role = {self.role_claim} if self.role_claim else set()
        return frozenset({"email", self.verified_claim} | role)

    async def admit(self, session: AsyncSession, identity: Identity, *, revoker: Revoker, origin: Origin) -> User:
        """The user who this is: the one linked before, else the one with the verified address, else a new one. Raises
        SsoRefused."""
        role = self._role(identity.claims)
        link = await _link(session, identity)
        if link is None:
            # others wait while one person is taken in; the pool's two seconds are short for that on a busy machine
            await session.exec(select(func.set_config("lock_timeout", "10s", True)))  # for this transaction
            await session.exec(select(func.pg_advisory_xact_lock(LINKING)))
            link = await _link(session, identity) or await _linked(
                session, identity, email=self._verified_email(identity.claims), role=role, origin=origin
            )
        link.last_used_at = datetime.now(UTC)
        user = await session.get_one(User, link.user_id)
        if user.deactivated_at is not None:
            raise SsoRefused("sso_refused", "deactivated", user_id=user.id)
        # of those who have a password, admins here decide
        if self.role_claim and user.password_hash is None and role != user.role:
            if role is None:
                raise SsoRefused("sso_refused", "no role", user_id=user.id)
            try:
                await users.give_role(session, revoker=revoker, origin=origin, user_id=user.id, role=role)
            except LastAdmin:
                logger.bind(user_id=str(user.id)).warning(
                    "the last admin stays one, whatever the identity provider says"
                )
        return user

    def _verified_email(self, claims: Mapping[str, Any]) -> str:
        # "true" and 1 are how AWS Cognito and Microsoft Entra spell it
        if claims.get(self.verified_claim) not in (True, "true", "1"):
            raise SsoRefused("sso_refused", "the e-mail address is not verified")
        try:
            email = normalised_email(claims["email"])
        except (KeyError, ValueError, AttributeError, TypeError):
            raise SsoRefused("sso_refused", "there is no proper e-mail address") from None
        if email.rpartition("@")[2] not in self.allowed_domains:
            raise SsoRefused("sso_refused", "the e-mail address is of another domain")
        return email

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest role that the claim stands for, or the default."""
        value: Any = claims.get(self.role_claim) if self.role_claim else None
        if value is None and self.role_claim:  # a path: realm_access.roles
            value = claims
            for name in self.role_claim.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
        named = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        found = {self.role_map[name] for name in named if isinstance(name, str) and name in self.role_map}
        highest: tuple[Role, ...] = ("admin", "editor", "viewer")
        return next((role for role in highest if role in found), self.default_role)


async def unlink(session: AsyncSession, *, by: Principal, origin: Origin, user_id: UUID) -> None:
    """Forget who a user is at the provider: the next login links anew, by e-mail. Raises UserNotFound."""
    user = await users.get(session, by=by, user_id=user_id, change=True)
    await session.exec(delete(SsoIdentity).where(col(SsoIdentity.user_id) == user.id))
    audit.record(
        session,
        "user.sso_unlinked",
        actor=Actor.of(by),
        origin=origin,
        on=("user", str(user.id)),
        client_id=user.client_id,
    )


async def _link(session: AsyncSession, identity: Identity) -> SsoIdentity | None:
    known = select(SsoIdentity).where(SsoIdentity.issuer == identity.issuer, SsoIdentity.subject == identity.subject)
    return (await session.exec(known)).one_or_none()


async def _linked(
    session: AsyncSession, identity: Identity, *, email: str, role: Role | None, origin: Origin
) -> SsoIdentity:
    user = (await session.exec(select(User).where(User.email == email))).one_or_none()
    if user is None:
        if role is None:
            raise SsoRefused("sso_refused", "no role")
        user = User(email=email, role=role)
        session.add(user)
        await session.flush()
        audit.record(
            session, "user.created", actor=SYSTEM, origin=origin, on=("user", str(user.id)), role=role, method="sso"
        )
    elif user.deactivated_at is not None:
        raise SsoRefused("sso_refused", "deactivated", user_id=user.id)
    else:
        # an address that somebody left and somebody else has got must not open the account of the first
        others = (SsoIdentity.user_id == user.id, SsoIdentity.issuer == identity.issuer)
        if (await session.exec(select(SsoIdentity.id).where(*others).limit(1))).first() is not None:
            raise SsoRefused("sso_refused", "linked to another subject", user_id=user.id)
    link = SsoIdentity(user_id=user.id, issuer=identity.issuer, subject=identity.subject, email=email)
    session.add(link)
    audit.record(
        session,
        "user.sso_linked",
        actor=SYSTEM,
        origin=origin,
        on=("user", str(user.id)),
        client_id=user.client_id,
        issuer=identity.issuer,
    )
    return link
