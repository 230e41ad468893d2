"""What runs compose, for tests: `compose.py STATE.json ARGS…`, a stand-in whose Postgres and ClickHouse are real ones.

STATE.json has the services that run, the address and password of a Postgres, and the folder of ClickHouse's engine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from triton_common.embedded import postgres_program

state = json.loads(Path(sys.argv[1]).read_text())
match sys.argv[2:]:
    case ["ps", "--services", *_]:
        sys.stdout.write("".join(f"{service}\n" for service in state["running"]))
    case ["up", "-d", "--wait", *services]:
        Path(sys.argv[1]).write_text(json.dumps(state | {"running": services}))
    case ["exec", "-T", "postgres", program, "-U", "postgres", *arguments]:
        where = ["-h", "127.0.0.1", "-p", str(state["port"]), "-U", "triton"]
        environment = os.environ | {"PGPASSWORD": state["password"]}
        command = [str(postgres_program(program)), *where, *arguments]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    case ["exec" | "run" as verb, *options, "analytics-service", "python", "-m", module, what]:
        assert options == (["-T"] if verb == "exec" else ["--rm", "-T", "--no-deps"])
        kept = {name: v for name, v in os.environ.items() if name not in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV")}
        environment = kept | {"CLICKHOUSE_URL": f"chdb://{state['clickhouse']}", "ANALYTICS_SPOOL_DIR": state["spool"]}
        command = ["uv", "run", "--frozen", "--quiet", "python", "-m", module, what]
        sys.exit(subprocess.run(command, env=environment, cwd=state["checkout"], check=False).returncode)
    case other:
        sys.exit(f"{other} is nothing that a backup asks of compose")
