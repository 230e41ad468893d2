"""Single sign-on: a login at an OpenID provider, from the way there to the tokens of a session.

What is on its way is a row of sso_logins. No transaction is open while the provider is asked.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode, urlsplit

from loguru import logger
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit, logins, sessions
from auth_service.audit import ANONYMOUS, Origin
from auth_service.models import SsoLogin, User
from auth_service.oidc import Identity, Provider, ProviderAnswerInvalid, SsoProviderUnavailable
from auth_service.revocations import Revoker
from auth_service.schemas import TokenPair
from auth_service.settings import Settings
from auth_service.sso_users import Admission, SsoRefused
from auth_service.throttle import Throttle, TooManyAttempts
from auth_service.tokens import TokenIssuer
from triton_common.db import Database, transaction
from triton_common.errors import BadRequest, NotFound, Unauthorized, Unprocessable
from triton_common.settings import Environment

ATTEMPT: Final = timedelta(minutes=10)  # to log in at the provider
EXCHANGE: Final = timedelta(seconds=60)  # until the app has exchanged its code


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


@dataclass(frozen=True)
class SingleSignOn:
    """The provider, who may come from it as what, and where to."""

    provider: Provider
    admission: Admission
    https_only: bool
    return_origins: frozenset[str]


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
        admission=Admission(
            allowed_domains=frozenset(settings.sso_allowed_domains),
            verified_claim=settings.sso_verified_claim,
            role_claim=settings.sso_role_claim,
            role_map=settings.sso_role_map,
            default_role=settings.sso_default_role,
        ),
        https_only=https_only,
        return_origins=frozenset(settings.sso_return_origins),
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
            user = await sso.admission.admit(session, identity, revoker=revoker, origin=origin)
            row = await session.get_one(SsoLogin, login.id)
            row.exchange_hash, row.user_id, row.expires_at = _hash(code), user.id, datetime.now(UTC) + EXCHANGE
    except SsoRefused as refused:
        logins.ATTEMPTS.labels("failed").inc()
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
    logins.ATTEMPTS.labels("succeeded" if pair else "failed").inc()
    if pair is None:  # raised only now: inside, it would bring back the code
        raise InvalidSsoCode
    return pair


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
            raise SsoRefused("sso_denied", "denied at the provider")
        if answer.error or not answer.code:
            raise SsoRefused("sso_provider_invalid", "the provider answered with an error")
        return await sso.provider.identify(
            code=answer.code, code_verifier=login.code_verifier, nonce=login.nonce, wanted=sso.admission.wanted
        )
    except ProviderAnswerInvalid as error:
        logger.bind(reason=str(error)).warning("what the identity provider says of a login is not believed")
        raise SsoRefused("sso_provider_invalid", str(error)) from None
    except SsoProviderUnavailable:
        raise SsoRefused("sso_provider_unavailable", "the provider did not answer as it should") from None


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
