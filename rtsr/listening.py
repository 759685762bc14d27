"""What servers say that cannot listen."""

from __future__ import annotations

import os

from rtsr.errors import RtsrError


def cannot_listen(host: str, port: int, error: OSError) -> RtsrError:
    """Return what to raise where an address is not available.

    asyncio says at length what the system says in three words; who looks names up has numbers
    below 0 of its own.
    """
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror or str(error)
    shown = f"[{host}]" if ":" in host else host
    return RtsrError(f"Cannot listen on {shown}:{port}: {reason}.")
