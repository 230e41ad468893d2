"""What is done every few seconds: read the keys that other processes made, make the next one when it is time, and
forget what has expired."""

import asyncio
from datetime import timedelta
from typing import Final

from loguru import logger

from auth_service import keys, revocations
from auth_service.keys import KeyRing
from triton_common.db import Database, DatabaseUnavailable, transaction

TURN: Final = 5.0  # seconds; as keys.AT_ONCE: a key that is to sign at once is known to every process then


async def run(database: Database, ring: KeyRing, *, rotation: timedelta, lead: timedelta) -> None:
    """Sweep until cancelled."""
    while True:
        await asyncio.sleep(TURN)
        try:
            await sweep(database, ring, rotation=rotation, lead=lead)
        except DatabaseUnavailable as error:
            logger.bind(reason=error.message).warning("sweep failed: there is no database to work with")
        except Exception as error:  # noqa: BLE001  the next one may go better, and there must be one
            logger.opt(exception=error).error("sweep failed")


async def sweep(database: Database, ring: KeyRing, *, rotation: timedelta, lead: timedelta) -> None:
    """One turn."""
    async with transaction(database) as session:
        await keys.rotate_when_due(session, ring, every=rotation, lead=lead)
        await keys.forget_expired(session)
        await revocations.forget_expired(session)
        await session.flush()
        await keys.load(session, ring)
