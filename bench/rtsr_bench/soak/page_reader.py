"""A program that has the page of ``rtsr live`` open, as a browser would.

    python -m rtsr_bench.soak.page_reader ADDRESS

Reads until SIGINT or the end of the session, then prints the number of looks.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def main(address: str) -> None:
    """Open the page at its printed address and take what it sends."""
    parts = urlsplit(address)
    bearer = {"Authorization": f"Bearer {parse_qs(parts.query)['token'][0]}"}
    # Where the terminal's programs are started in the background, SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    looks = 0
    with (
        contextlib.suppress(KeyboardInterrupt, ConnectionClosed),
        connect(f"ws://{parts.netloc}/view", additional_headers=bearer) as view,
    ):
        for message in view:
            looks += json.loads(message)["kind"] == "now"
    print(looks)


if __name__ == "__main__":
    main(sys.argv[1])
