"""The signing keys: the public ones for everybody, and what admins do with them."""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Path, Response, status

from auth_service import audit, keys
from auth_service.audit import Actor
from auth_service.keys import AT_ONCE, KeyRotationUnderWay, SigningKeyInUse, SigningKeyNotFound
from auth_service.models import SigningKey
from auth_service.routes.state import ADMIN_ERRORS, KeysAdmin, KeysDep, OriginDep, RevokerDep, SettingsDep
from auth_service.schemas import KeyRotation, KeySetPublic, SigningKeyList, SigningKeyPublic
from triton_common.auth import ALGORITHM
from triton_common.db import SessionDep
from triton_common.errors import problems
from triton_common.revocations import Kind

JWKS_MAX_AGE: Final = 300  # seconds a verifier may keep the set; an unknown kid makes it ask sooner

public = APIRouter(prefix="/api/v1/auth", tags=["auth"])
router = APIRouter(prefix="/api/v1/auth/keys", tags=["signing keys"], responses=problems(*ADMIN_ERRORS))


@public.get("/.well-known/jwks.json", responses={304: {"description": "The set is the one of If-None-Match"}})
async def jwks(ring: KeysDep, response: Response, if_none_match: Annotated[str, Header()] = "") -> KeySetPublic:
    """The public keys that verify access tokens, as a JSON Web Key Set."""
    headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE}", "ETag": ring.etag}
    response.headers.update(headers)
    if ring.etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)  # type: ignore[return-value]  # as it is
    return KeySetPublic.model_validate(ring.published)


@router.get("")
async def list_keys(_: KeysAdmin, session: SessionDep) -> SigningKeyList:
    """All keys that verify tokens, newest first."""
    found = await keys.listed(session)
    return SigningKeyList(items=[_public(key, found) for key in found])


@router.post("/rotate", status_code=status.HTTP_201_CREATED, responses=problems(KeyRotationUnderWay))
async def rotate_keys(  # noqa: PLR0917  FastAPI calls it by name
    body: KeyRotation,
    principal: KeysAdmin,
    session: SessionDep,
    ring: KeysDep,
    settings: SettingsDep,
    revoker: RevokerDep,
    origin: OriginDep,
) -> SigningKeyPublic:
    """Make the next signing key: published at once, it signs once every service has read it. The key before verifies
    until its last token has expired."""
    made = await keys.rotate(session, ring, lead=AT_ONCE if body.immediately else settings.key_lead)
    revoker.revoke(session, Kind.KEYS)
    audit.record(session, "signing_key.made", actor=Actor.of(principal), origin=origin, on=("signing_key", made.kid))
    found = await keys.listed(session)
    ring.load(found)
    return _public(made, found)


@router.delete(
    "/{kid}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(SigningKeyNotFound, SigningKeyInUse)
)
async def revoke_key(  # noqa: PLR0917  FastAPI calls it by name
    kid: Annotated[str, Path(max_length=64)],
    principal: KeysAdmin,
    session: SessionDep,
    ring: KeysDep,
    revoker: RevokerDep,
    origin: OriginDep,
) -> None:
    """Take a retired key away before its time, since somebody may have it: every service refuses its tokens within
    seconds. The key that signs is rotated first."""
    await keys.revoke(session, kid)
    revoker.revoke(session, Kind.KEYS)
    audit.record(session, "signing_key.revoked", actor=Actor.of(principal), origin=origin, on=("signing_key", kid))
    await session.flush()
    await keys.load(session, ring)


def _public(key: SigningKey, among: list[SigningKey]) -> SigningKeyPublic:
    return SigningKeyPublic(
        kid=key.kid,
        alg=ALGORITHM,
        status=keys.status_of(key, among),
        created_at=key.created_at,
        signs_from=key.signs_from,
        verifies_until=key.verifies_until,
    )
