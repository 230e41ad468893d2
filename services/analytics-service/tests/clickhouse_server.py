"""ClickHouse's HTTP interface in front of the embedded engine, as far as the driver speaks it: a server by URL that
needs no installation. `python clickhouse_server.py FOLDER` prints its port, and ends with its input.

A call is a connection of its own, whose settings are the call's, as on a server.
"""

import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import chdb

OURS = ("database", "query", "query_id", "session_id", "client_protocol_version", "wait_end_of_query", "compress")
NAME = re.compile(r"Code: (\d+)")
INSERT = re.compile(r"(INSERT\s.*)\bFORMAT\s+(\w+)\s*$", re.DOTALL | re.IGNORECASE)


class Handler(BaseHTTPRequestHandler):
    """One connection of the driver's."""

    protocol_version = "HTTP/1.1"
    folder = ""

    def do_GET(self) -> None:
        """A query in the URL, or whether anybody is there."""
        self.do_POST()

    def do_POST(self) -> None:
        """A statement as the body; or in the URL, and the body is what it inserts."""
        given = parse_qsl(urlsplit(self.path).query, keep_blank_values=True)
        known = {name: value for name, value in given if name in OURS}
        bound = {name.removeprefix("param_"): value for name, value in given if name.startswith("param_")}
        settings = {name: value for name, value in given if name not in OURS and not name.startswith("param_")}
        with tempfile.NamedTemporaryFile(dir=self.folder) as data:
            for chunk in self._body():
                data.write(chunk)
            data.flush()
            sql = known.get("query")
            if sql is None:
                data.seek(0)
                sql = data.read().decode()
            elif insert := INSERT.match(sql):
                sql = f"{insert[1]} FROM INFILE '{data.name}' COMPRESSION 'none' FORMAT {insert[2]}"
            self._answer(*self._run(sql, bound, settings, known.get("database", "default")))

    def _run(self, sql: str, bound: dict[str, str], settings: dict[str, str], database: str) -> tuple[int, bytes]:
        connection = chdb.connect(f"{self.folder}/db")
        try:
            connection.query(f"USE {database}")
            for name in sorted(settings, key="readonly".__eq__):  # after readonly none can be set
                connection.query(f"SET {name} = '{settings[name]}'")
            return 200, connection.query(sql, "TabSeparated", params=bound).bytes()
        except RuntimeError as error:
            return 500, str(error).encode()
        finally:
            connection.close()

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        if status != 200 and (code := NAME.search(content.decode(errors="replace"))):
            self.send_header("X-ClickHouse-Exception-Code", code[1])
        self.send_header("X-ClickHouse-Summary", "{}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    Handler.folder = sys.argv[1]
    keep = chdb.connect(f"{Handler.folder}/db")  # the engine stays open between calls
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.shutdown()
