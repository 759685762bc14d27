"""Calls from telephones: a bridge between two SIP legs, one of them full-band."""

from __future__ import annotations

from rtsr.errors import MissingDependencyError

try:
    import aiortc as aiortc
    import aiosipua as aiosipua
except ModuleNotFoundError:
    raise MissingDependencyError("Taking calls from telephones", "call") from None
