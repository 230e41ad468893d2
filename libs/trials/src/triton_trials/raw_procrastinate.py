"""What else Triton is compared with: procrastinate, which keeps its jobs in Postgres as Triton does.

`procrastinate --app triton_trials.raw_procrastinate.app worker --concurrency 20`.
"""

import os

from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=os.environ.get("RAW_DATABASE_URL", "")))


@app.task
async def nothing() -> None:
    """No work."""
