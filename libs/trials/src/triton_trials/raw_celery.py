"""What Triton's drain rate is compared with: Celery on Redis with a result backend, all at its defaults.

`celery -A triton_trials.raw_celery worker -c 2`.
"""

import os

from celery import Celery

app = Celery("raw", broker=os.environ.get("RAW_REDIS_URL"), backend=os.environ.get("RAW_REDIS_URL"))


@app.task  # type: ignore[untyped-decorator]
def nothing() -> None:
    """No work."""
