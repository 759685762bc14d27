"""`rtsr call web` as a program of its own, and a client for its few addresses."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

TOKEN = "a-token-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class WebServer:
    """Where the server is, and how to ask it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.netloc = urlsplit(address).netloc
        self.port = urlsplit(address).port

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request; the token is sent unless headers are given."""
        connection = http.client.HTTPConnection(self.netloc, timeout=60)
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body)
        connection.request(method, path, data, BEARER if headers is None else headers)
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answer

    def metric(self, name: str) -> float:
        """One value of /metrics."""
        status, _, text = self.ask("GET", "/metrics")
        assert status == 200
        line = next(each for each in text.decode().splitlines() if each.startswith(name + " "))
        return float(line.split()[1])


@contextlib.contextmanager
def running_server(*options: str, number: signal.Signals = signal.SIGTERM) -> Iterator[WebServer]:
    """The server on a free port, ended with a signal."""
    command = [sys.executable, "-m", "rtsr", "call", "web", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--token", TOKEN, "--deadline-ms", "200", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("rtsr call web: "), process.communicate()
        server = WebServer(line.split()[-1].split("?")[0].rstrip("/"))
        while True:
            with contextlib.suppress(OSError):
                if server.ask("GET", "/metrics")[0] == 200:
                    break
        yield server
    finally:
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert "Traceback" not in errors, errors
        assert process.returncode == 0
