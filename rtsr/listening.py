"""What servers need to listen, and what they say that cannot."""

from __future__ import annotations

import os
import socket
import sys

from rtsr.errors import RtsrError

#: No server has more connections at a time than this.
MOST_CONNECTIONS = 512


def cannot_listen(host: str, port: int, error: OSError) -> RtsrError:
    """Return what to raise where an address is not available.

    asyncio says at length what the system says in three words. Who looks names up has numbers of
    its own, and Windows has others than C.
    """
    reason = error.strerror or str(error)
    if error.errno and not isinstance(error, socket.gaierror) and sys.platform != "win32":
        reason = os.strerror(error.errno)
    shown = f"[{host}]" if ":" in host else host
    return RtsrError(f"Cannot listen on {shown}:{port}: {reason}.")


def room_for_connections(share: float) -> int:
    """Return how many connections a server may have: 512, or a share of the files it may open."""
    try:
        import resource
    except ModuleNotFoundError:
        return MOST_CONNECTIONS
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if may_open < 0 else min(MOST_CONNECTIONS, int(may_open * share))
