"""JSON from pages and programs: one object, of bounded length."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from rtsr.errors import ArgumentError

__all__ = ["LONGEST_MESSAGE", "body_object", "json_object"]

#: Characters of a message on a WebSocket.
LONGEST_MESSAGE = 4096


async def body_object(request: Request, longest: int) -> dict[str, Any]:
    """Return the object in a request's body of at most ``longest`` bytes.

    Raises:
        ArgumentError: it is longer, or something else.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > longest:
            raise ArgumentError(f"A request has at most {longest // 1024} kB.")
    return json_object(bytes(body).decode("utf-8", "replace"), longest)


def json_object(text: str, longest: int = LONGEST_MESSAGE) -> dict[str, Any]:
    """Return the object that a text is.

    Raises:
        ArgumentError: it is longer than ``longest`` characters, or something else.
    """
    if len(text) > longest:
        raise ArgumentError(f"A message has at most {longest} characters.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ArgumentError("A message is one JSON object.")
    return value
