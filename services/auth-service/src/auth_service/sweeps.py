"""What is done every few seconds: read the keys that other processes made, make the next one when it is time, and
forget what has expired."""

import asyncio
from datetime import timedelta
from typing import Final

from loguru import logger

from auth_service import keys, revocations, sso
from auth_service.keys import KeyRing
from auth_service.revocations import Revoker
from triton_common.db import Database, DatabaseUnavailable, transaction
from triton_common.revocations import Kind

TURN: Final = 5.0  # seconds; as keys.AT_ONCE: a key that is to sign at once is known to every process then


async def run(database: Database, ring: KeyRing, revoker: Revoker, *, rotation: timedelta, lead: timedelta) -> None:
    """Sweep until cancelled."""
    while True:
        await asyncio.sleep(TURN)
        try:
            await sweep(database, ring, revoker, rotation=rotation, lead=lead)
        except DatabaseUnavailable as error:
            logger.bind(reason=error.message).warning("sweep failed: there is no database to work with")
        except Exception as error:  # noqa: BLE001  the next one may go better, and there must be one
            logger.opt(exception=error).error("sweep failed")


async def sweep(database: Database, ring: KeyRing, revoker: Revoker, *, rotation: timedelta, lead: timedelta) -> None:
    """One turn."""
    async with transaction(database) as session:
        if await keys.rotate_when_due(session, ring, every=rotation, lead=lead):
            revoker.revoke(session, Kind.KEYS)
        await keys.forget_expired(session)
        await revocations.forget_expired(session)
        await sso.forget_expired(session)
        await session.flush()
        await keys.load(session, ring)
