"""A page in the browser that shows and steers a live session or a call.

HTTP and one WebSocket per page, no build step. :mod:`rtsr.call.web` puts calls on it.
"""

from __future__ import annotations

from rtsr.errors import MissingDependencyError

try:
    import starlette as starlette
    import uvicorn as uvicorn
    import websockets as websockets
except ModuleNotFoundError:
    raise MissingDependencyError("Serving a page", "page") from None
