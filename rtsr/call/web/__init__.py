"""Calls from browsers: WebRTC through aiortc, and a page to call, watch and steer."""

from __future__ import annotations

from rtsr.errors import MissingDependencyError

try:
    import aiortc as aiortc
    import starlette as starlette
except ModuleNotFoundError:
    raise MissingDependencyError("Taking calls from browsers", "call") from None

from rtsr.call.web.track import UpsampledTrack

__all__ = ["UpsampledTrack"]
