"""Single sign-on: a login at an OpenID provider, from the way there to the tokens of a session.

What is on its way is a row of sso_logins. No transaction is open while the provider is asked.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from loguru import logger
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit, sessions, users
from auth_service.audit import ANONYMOUS, SYSTEM, Actor, Origin
from auth_service.models import SsoIdentity, SsoLogin, User
from auth_service.oidc import Identity, Provider, ProviderAnswerInvalid, SsoProviderUnavailable
from auth_service.revocations import Revoker
from auth_service.schemas import Role, TokenPair, normalised_email
from auth_service.settings import Settings
from auth_service.throttle import Throttle, TooManyAttempts
from auth_service.tokens import TokenIssuer
from auth_service.users import LastAdmin
from triton_common.auth import Principal
from triton_common.db import Database, transaction
from triton_common.errors import BadRequest, NotFound, Unauthorized, Unprocessable
from triton_common.settings import Environment

ATTEMPT: Final = timedelta(minutes=10)  # to log in at the provider
EXCHANGE: Final = timedelta(seconds=60)  # until the app has exchanged its code
LINKING: Final = 0x73736F  # "sso": a lock. Two first logins of one person make one user

Code = Literal["sso_denied", "sso_refused", "sso_provider_invalid", "sso_provider_unavailable"]
"""What the app is told of a login that failed. Why, the audit log says."""


class SsoNotConfigured(NotFound):
    """This installation has no single sign-on."""


class ReturnToNotAllowed(Unprocessable):
    """A login does not return to that address."""


class SsoLoginInvalid(BadRequest):
    """This login is unknown, over, or took too long; begin it anew."""


class SsoBrowserMismatch(BadRequest):
    """This login was begun in another browser; begin it anew."""


class InvalidSsoCode(Unauthorized):
    """The code is unknown, was used, or is older than a minute."""


class _Refused(Exception):
    """A login that goes back to the app without a code. `reason` is a constant, for the audit log."""

    def __init__(self, code: Code, reason: str, *, user_id: UUID | None = None) -> None:
        self.code: Code = code
        self.reason = reason
        self.user_id = user_id
        super().__init__(reason)


@dataclass(frozen=True)
class SingleSignOn:
    """The provider, and who may come from it as what."""

    provider: Provider
    https_only: bool
    return_origins: frozenset[str]
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


@dataclass(frozen=True)
class Begun:
    """A login on its way: where the browser goes, and what shows it to be the same one when it comes back."""

    url: str
    state: str
    browser: str


@dataclass(frozen=True)
class ProviderAnswer:
    """What the browser brings back from the provider (RFC 6749 §4.1.2, RFC 9207)."""

    code: str | None
    error: str | None
    iss: str | None


def configured(settings: Settings) -> SingleSignOn | None:
    """As the settings say; None without a provider."""
    if settings.sso_discovery_url is None:
        return None
    https_only = settings.environment is not Environment.DEV
    secret = settings.sso_client_secret
    return SingleSignOn(
        provider=Provider(
            settings.sso_discovery_url,
            client_id=settings.sso_client_id,
            client_secret=secret.get_secret_value() if secret else None,
            redirect_uri=settings.sso_redirect_uri,
            scope=settings.sso_scope,
            patience=settings.sso_timeout.total_seconds(),
            https_only=https_only,
        ),
        https_only=https_only,
        return_origins=frozenset(settings.sso_return_origins),
        allowed_domains=frozenset(settings.sso_allowed_domains),
        verified_claim=settings.sso_verified_claim,
        role_claim=settings.sso_role_claim,
        role_map=settings.sso_role_map,
        default_role=settings.sso_default_role,
    )


async def begin(database: Database, sso: SingleSignOn, *, throttle: Throttle, origin: Origin, return_to: str) -> Begun:
    """Begin a login. Raises ReturnToNotAllowed, TooManyAttempts, SsoProviderUnavailable."""
    if not _may_return(return_to, sso.return_origins):
        raise ReturnToNotAllowed("return_to is not at one of AUTH_SSO_RETURN_ORIGINS, or has a fragment.")
    try:
        async with throttle.beginning(address=origin.address):
            return await _begun(database, sso, return_to=return_to)
    except TooManyAttempts as refused:
        if refused.is_news:
            async with transaction(database) as session:
                audit.record(
                    session, "login.throttled", actor=ANONYMOUS, origin=origin, outcome="refused", method="sso"
                )
        raise


async def _begun(database: Database, sso: SingleSignOn, *, return_to: str) -> Begun:
    state, browser, nonce, code_verifier = (secrets.token_urlsafe(32) for _ in range(4))
    url = await sso.provider.login_url(state=state, nonce=nonce, code_verifier=code_verifier)
    async with transaction(database) as session:
        session.add(
            SsoLogin(
                state_hash=_hash(state),
                browser_hash=_hash(browser),
                nonce=nonce,
                code_verifier=code_verifier,
                return_to=return_to,
                expires_at=datetime.now(UTC) + ATTEMPT,
            )
        )
    return Begun(url=url, state=state, browser=browser)


async def finish(
    database: Database,
    sso: SingleSignOn,
    *,
    revoker: Revoker,
    throttle: Throttle,
    origin: Origin,
    state: str,
    browser: str | None,
    answer: ProviderAnswer,
) -> str:
    """Where the browser goes with what it brings from the provider: back to the app, with a code to exchange or an
    error in the fragment, which no server is sent.

    Raises SsoLoginInvalid, SsoBrowserMismatch: then nobody knows what app to go back to.
    """
    login = await _taken_up(database, state=state, browser=browser)
    try:
        identity = await _identity(sso, login, answer)
        code = secrets.token_urlsafe(32)
        async with transaction(database) as session:
            user = await _admitted(session, sso, identity, revoker=revoker, origin=origin)
            row = await session.get_one(SsoLogin, login.id)
            row.exchange_hash, row.user_id, row.expires_at = _hash(code), user.id, datetime.now(UTC) + EXCHANGE
    except _Refused as refused:
        sessions.LOGIN_ATTEMPTS.labels("failed").inc()
        async with transaction(database) as session:
            audit.record(
                session,
                "login.failed",
                actor=ANONYMOUS,
                origin=origin,
                on=("user", str(refused.user_id)) if refused.user_id else None,
                outcome="refused",
                method="sso",
                reason=refused.reason,
            )
        return f"{login.return_to}#{urlencode({'error': refused.code})}"
    await throttle.finished(address=origin.address)
    return f"{login.return_to}#{urlencode({'code': code})}"


async def exchange(database: Database, *, issuer: TokenIssuer, origin: Origin, code: str) -> TokenPair:
    """The tokens of a new session, for a code that is good once. Raises InvalidSsoCode."""
    async with transaction(database) as session:
        pair = await _exchanged(session, issuer=issuer, origin=origin, code=code)
    sessions.LOGIN_ATTEMPTS.labels("succeeded" if pair else "failed").inc()
    if pair is None:  # raised only now: inside, it would bring back the code
        raise InvalidSsoCode
    return pair


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


async def forget_expired(session: AsyncSession) -> None:
    """Delete logins that nobody can finish any more."""
    await session.exec(delete(SsoLogin).where(col(SsoLogin.expires_at) < datetime.now(UTC)))


async def _taken_up(database: Database, *, state: str, browser: str | None) -> SsoLogin:
    """The login of the state, which is used up by that: of two answers of the provider one counts."""
    async with transaction(database) as session:
        of_state = select(SsoLogin).where(SsoLogin.state_hash == _hash(state)).with_for_update()
        login = (await session.exec(of_state)).one_or_none()
        now = datetime.now(UTC)
        if login is None or login.used_at is not None or login.expires_at <= now:
            raise SsoLoginInvalid
        if browser is None or not hmac.compare_digest(login.browser_hash, _hash(browser)):
            raise SsoBrowserMismatch
        login.used_at, login.expires_at = now, now + ATTEMPT  # it is not swept away while the provider is asked
    return login


async def _identity(sso: SingleSignOn, login: SsoLogin, answer: ProviderAnswer) -> Identity:
    try:
        await sso.provider.check_issuer(answer.iss)
        if answer.error == "access_denied":
            raise _Refused("sso_denied", "denied at the provider")
        if answer.error or not answer.code:
            raise _Refused("sso_provider_invalid", "the provider answered with an error")
        return await sso.provider.identify(
            code=answer.code, code_verifier=login.code_verifier, nonce=login.nonce, wanted=sso.wanted
        )
    except ProviderAnswerInvalid as error:
        logger.bind(reason=str(error)).warning("what the identity provider says of a login is not believed")
        raise _Refused("sso_provider_invalid", str(error)) from None
    except SsoProviderUnavailable:
        raise _Refused("sso_provider_unavailable", "the provider did not answer as it should") from None


async def _admitted(
    session: AsyncSession, sso: SingleSignOn, identity: Identity, *, revoker: Revoker, origin: Origin
) -> User:
    """The user who this is: the one linked before, else the one with the verified e-mail address, else a new one."""
    await session.exec(select(func.pg_advisory_xact_lock(LINKING)))
    role = _role(sso, identity.claims)
    known = select(SsoIdentity).where(SsoIdentity.issuer == identity.issuer, SsoIdentity.subject == identity.subject)
    link = (await session.exec(known)).one_or_none()
    if link is None:
        link = await _linked(session, identity, email=_verified_email(sso, identity.claims), role=role, origin=origin)
    link.last_used_at = datetime.now(UTC)
    user = await session.get_one(User, link.user_id)
    if user.deactivated_at is not None:
        raise _Refused("sso_refused", "deactivated", user_id=user.id)
    # of those who have a password, admins here decide
    if sso.role_claim and user.password_hash is None and role != user.role:
        if role is None:
            raise _Refused("sso_refused", "no role", user_id=user.id)
        try:
            await users.give_role(session, revoker=revoker, origin=origin, user_id=user.id, role=role)
        except LastAdmin:
            logger.bind(user_id=str(user.id)).warning("the last admin stays one, whatever the identity provider says")
    return user


async def _linked(
    session: AsyncSession, identity: Identity, *, email: str, role: Role | None, origin: Origin
) -> SsoIdentity:
    user = (await session.exec(select(User).where(User.email == email))).one_or_none()
    if user is None:
        if role is None:
            raise _Refused("sso_refused", "no role")
        user = User(email=email, role=role)
        session.add(user)
        await session.flush()
        audit.record(
            session, "user.created", actor=SYSTEM, origin=origin, on=("user", str(user.id)), role=role, method="sso"
        )
    elif user.deactivated_at is not None:
        raise _Refused("sso_refused", "deactivated", user_id=user.id)
    else:
        # an address that somebody left and somebody else has got must not open the account of the first
        others = (SsoIdentity.user_id == user.id, SsoIdentity.issuer == identity.issuer)
        if (await session.exec(select(SsoIdentity.id).where(*others).limit(1))).first() is not None:
            raise _Refused("sso_refused", "linked to another subject", user_id=user.id)
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


async def _exchanged(session: AsyncSession, *, issuer: TokenIssuer, origin: Origin, code: str) -> TokenPair | None:
    good = (col(SsoLogin.exchange_hash) == _hash(code), col(SsoLogin.expires_at) > datetime.now(UTC))
    login = (await session.exec(select(SsoLogin).where(*good).with_for_update())).one_or_none()
    user_id = login.user_id if login else None
    if login is not None:
        await session.delete(login)
    user = await session.get(User, user_id, with_for_update=True) if user_id else None
    if user is None or user.deactivated_at is not None:
        audit.record(
            session,
            "login.failed",
            actor=ANONYMOUS,
            origin=origin,
            on=("user", str(user_id)) if user_id else None,
            outcome="refused",
            method="sso",
            reason="deactivated" if user else "unknown code",
        )
        return None
    return await sessions.begin(session, user, issuer=issuer, method="sso", origin=origin)


def _verified_email(sso: SingleSignOn, claims: Mapping[str, Any]) -> str:
    # "true" and 1 are how AWS Cognito and Microsoft Entra spell it
    if claims.get(sso.verified_claim) not in (True, "true", "1"):
        raise _Refused("sso_refused", "the e-mail address is not verified")
    try:
        email = normalised_email(claims["email"])
    except (KeyError, ValueError, AttributeError, TypeError):
        raise _Refused("sso_refused", "there is no e-mail address") from None
    if email.rpartition("@")[2] not in sso.allowed_domains:
        raise _Refused("sso_refused", "the e-mail address is of another domain")
    return email


def _role(sso: SingleSignOn, claims: Mapping[str, Any]) -> Role | None:
    """The highest role that the claim stands for, or the default."""
    value: Any = claims.get(sso.role_claim) if sso.role_claim else None
    if value is None and sso.role_claim:  # a path: realm_access.roles
        value = claims
        for name in sso.role_claim.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
    named = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    found = {sso.role_map[name] for name in named if isinstance(name, str) and name in sso.role_map}
    highest: tuple[Role, ...] = ("admin", "editor", "viewer")
    return next((role for role in highest if role in found), sso.default_role)


def _may_return(url: str, origins: frozenset[str]) -> bool:
    """True for an address at one of the origins. Nothing a browser reads otherwise than we do: no backslash, control
    character or space; userinfo makes another origin."""
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url or "#" in url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return f"{parts.scheme}://{parts.netloc}" in origins


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
