"""The `triton` command with three small parts in place of the platform's: two that listen, one that is done at once."""

import os
import sys
from dataclasses import replace

from triton_cli import main, parts, running, state
from triton_cli.stack import Part

SERVER = """
import http.server, pathlib, signal, sys
print("listening", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.serve_forever()
"""
FAILING = "import sys; print('the first line'); print('no such table: users'); sys.exit(3)"
SLOW_TO_STOP = """
import os, signal, threading, time
def stop(*_):
    def wait():
        while not os.path.exists(os.environ["STAND_IN_SLOW"]):
            time.sleep(0.02)
        server.shutdown()
    threading.Thread(target=wait).start()
signal.signal(signal.SIGTERM, stop)
"""


def server(name: str, port: int, *, layer: int = 0, after: tuple[str, ...] = ()) -> Part:
    """A part that answers HTTP once it is there."""
    return Part(
        name=name,
        layer=layer,
        after=after,
        command=[sys.executable, "-c", SERVER, str(port)],
        ready=parts.answers(f"http://127.0.0.1:{port}/"),
        ports=[port],
    )


def stand_ins(_: state.State, port: int, *, secrets: state.Secrets, agentos: int | None = None) -> list[Part]:
    """`first` before `prepare` before `last`; STAND_IN_BROKEN breaks that, and STAND_IN_SLOW names a file that it waits
    for when it is asked to stop."""
    last = server("last", port + 1, layer=1, after=("prepare",))
    if os.environ.get("STAND_IN_SLOW"):
        last = replace(last, command=[sys.executable, "-c", SLOW_TO_STOP + SERVER, str(port + 1)])
    broken = Part(name="last", layer=1, after=("prepare",), command=[sys.executable, "-c", FAILING], ready=last.ready)
    return [
        server("first", port),
        Part(name="prepare", layer=0, after=("first",), command=[sys.executable, "-c", "print('prepared')"]),
        broken if os.environ.get("STAND_IN_BROKEN") else last,
    ]


if __name__ == "__main__":
    running.parts_of = stand_ins
    main.app()
