"""What servers say that cannot listen."""

from __future__ import annotations

import os
import socket
import sys

from rtsr.errors import RtsrError


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
