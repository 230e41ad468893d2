"""Stands for auth-service: serves the key that tokens are verified by, and gives workers theirs."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from joserfc.jwk import KeySet

from triton_common.auth import SCOPES_OF_ROLE
from triton_common.testing import KEY, access_token

LIFETIME: Final = 3600  # seconds that a worker's token lasts
DAY: Final = 86_400


def token_of(role: str, *, client_id: str | None = None, lifetime: int = DAY) -> str:
    """A token of somebody with this role."""
    scope = " ".join(sorted(SCOPES_OF_ROLE[role]))
    return access_token({"role": role, "scope": scope, "client_id": client_id, "exp": int(time.time()) + lifetime})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The key set, at whatever path it is asked for."""
        self._answer(KeySet([KEY]).as_dict())

    def do_POST(self) -> None:
        """A service account's token; its secret is nobody's concern here."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = token_of("service", lifetime=LIFETIME)
        self._answer({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME})

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's name
        """Nothing: the base writes each request to stderr."""


class Issuer:
    """As a context it serves, from a thread of its own, at `url`."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="issuer", daemon=True)

    @property
    def url(self) -> str:
        """What services take for auth-service."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
