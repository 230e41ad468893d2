"""What is logged of an error that is answered."""

import pytest
from fastapi import FastAPI
from loguru import logger

from triton_common.errors import Conflict, Internal, Unavailable, install_error_handlers


def _raise(error: Exception, *, because: Exception | None = None) -> None:
    raise error from because


@pytest.mark.parametrize(
    ("fail", "level", "traceback"),
    [
        (lambda: _raise(Unavailable(retry_after=2)), "WARNING", False),
        (lambda: _raise(Unavailable(), because=ConnectionError()), "ERROR", True),
        (lambda: _raise(Internal()), "ERROR", True),
        (lambda: _raise(Conflict()), "INFO", False),
    ],
)
async def test_a_traceback_is_logged_of_what_broke_alone(running, fail, level, traceback):
    app = FastAPI()
    install_error_handlers(app)
    app.get("/")(fail)
    records = []
    sink = logger.add(lambda message: records.append(message.record), format="{message}")

    async with running(app) as http:
        answer = await http.get("/")

    logger.remove(sink)
    [record] = [record for record in records if record["extra"].get("code") == answer.json()["code"]]
    assert (record["level"].name, record["exception"] is not None) == (level, traceback)
