"""``rtsr call web``: calls from browsers over HTTP, one WebSocket a page, and ``/metrics``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from rtsr.call.encoders import DEFAULT_BITRATE
from rtsr.call.engine import BusyError, CallEngine
from rtsr.call.logs import log_task_failures
from rtsr.call.metrics import CONTENT_TYPE, exposition
from rtsr.call.web.access import COOKIE, Access
from rtsr.call.web.peer import LONGEST_OFFER, WebCall
from rtsr.call.web.view import describe, snapshot
from rtsr.errors import ArgumentError, RtsrError

__all__ = ["CallServer"]

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
_LONGEST_MESSAGE = 4096
# No script, style or connection but the page's own.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; media-src 'self' blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]


class CallServer:
    """The web application; :attr:`app` goes to any ASGI server.

    Args:
        engine: where the calls go; started and stopped with the application.
        access: decides which requests are authorised.
        bitrate: of Opus, where the browser asks for none.
    """

    def __init__(
        self, engine: CallEngine, access: Access, *, bitrate: int = DEFAULT_BITRATE
    ) -> None:
        self._engine = engine
        self._access = access
        self._bitrate = bitrate
        self._calls: dict[str, WebCall] = {}
        page = resources.files("rtsr.call.web").joinpath("page")
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/calls", self._guarded(self._offer), methods=["POST"]),
                Route("/calls/{name}", self._guarded(self._hang_up), methods=["DELETE"]),
                Route("/metrics", self._guarded(self._metrics, reads=True)),
                WebSocketRoute("/calls/{name}/view", self._view),
                Mount("/page", StaticFiles(directory=str(page))),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        log_task_failures(asyncio.get_running_loop())
        async with self._engine:
            try:
                yield
            finally:
                for call in list(self._calls.values()):
                    await call.close()

    def _refusal(self, request: Request | WebSocket, reads: bool) -> Response | None:
        """Return the response to an unauthorised request; ``None`` if it is authorised."""
        headers = request.headers
        if not self._access.knows_host(headers):
            return _error(421, "This server does not go by that name.")
        if not self._access.has_token(headers, request.cookies.get(COOKIE), None):
            return _error(401, "Open the address that rtsr printed; it carries the token.")
        if not reads and not self._access.is_same_origin(headers):
            return _error(403, "Only the page of this server may do that.")
        return None

    def _guarded(self, handler: Handler, reads: bool = False) -> Handler:
        async def guarded(request: Request) -> Response:
            refusal = self._refusal(request, reads)
            if refusal is not None:
                return refusal
            try:
                response = await handler(request)
            except BusyError as error:
                return _error(503, str(error), {"Retry-After": "10"})
            except RtsrError as error:
                return _error(400, str(error))
            except Exception:
                _log.exception("a request failed")
                return _error(500, "Something went wrong here; the log knows what.")
            response.headers.update(_HEADERS)
            return response

        return guarded

    async def _page(self, request: Request) -> Response:
        if not self._access.knows_host(request.headers):
            return _error(421, "This server does not go by that name.")
        given = request.query_params.get("token")
        if given is not None and self._access.has_token({}, None, given):
            answer: Response = RedirectResponse("/", 303, headers=_HEADERS)
            secure = request.url.scheme == "https"
            answer.set_cookie(
                COOKIE, given, httponly=True, samesite="strict", secure=secure, path="/"
            )
            return answer
        if not self._access.has_token(request.headers, request.cookies.get(COOKIE), None):
            return _error(401, "Open the address that rtsr printed; it carries the token.")
        page = resources.files("rtsr.call.web").joinpath("page", "index.html")
        return Response(page.read_bytes(), media_type="text/html", headers=_HEADERS)

    async def _offer(self, request: Request) -> Response:
        offer = await _json(request, LONGEST_OFFER + _LONGEST_MESSAGE)
        sdp, bitrate = offer.get("sdp"), offer.get("bitrate", self._bitrate)
        if not isinstance(sdp, str) or offer.get("type", "offer") != "offer":
            raise ArgumentError('A call begins with an offer: {"type": "offer", "sdp": ...}.')
        if not isinstance(bitrate, int) or isinstance(bitrate, bool):
            raise ArgumentError("The bitrate is a whole number of bits per second.")
        name = secrets.token_urlsafe(9)
        call, answer = await WebCall.answer(self._engine, name, sdp, self._forget, bitrate=bitrate)
        self._calls[name] = call
        return JSONResponse({"type": "answer", "sdp": answer, "call": name})

    async def _hang_up(self, request: Request) -> Response:
        call = self._calls.get(request.path_params["name"])
        if call is None:
            return _error(404, "There is no such call, or it is over.")
        await call.close()
        return Response(status_code=204)

    async def _metrics(self, request: Request) -> Response:
        return Response(exposition(self._engine), headers={"Content-Type": CONTENT_TYPE})

    async def _view(self, socket: WebSocket) -> None:
        refusal = self._refusal(socket, reads=False)
        call = self._calls.get(socket.path_params["name"])
        if refusal is not None or call is None:
            await socket.close(4401 if refusal is not None else 4404)
            return
        await socket.accept()
        reading = asyncio.ensure_future(self._turn_knobs(socket, call))
        try:
            await socket.send_json(describe(call, self._engine))
            while call.name in self._calls and not reading.done():
                # The arithmetic is done beside the event loop, where no packet waits for it.
                seen = await asyncio.to_thread(snapshot, call, self._engine)
                await socket.send_json(seen)
                await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(RuntimeError):
                await socket.close(1000)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _turn_knobs(self, socket: WebSocket, call: WebCall) -> None:
        """Take ``{"set": {"wet": 0.5}}`` until the page goes away."""
        while True:
            text = await socket.receive_text()
            try:
                _turn(call, _object(text))
            except RtsrError as error:
                await socket.send_json({"error": str(error)})

    def _forget(self, call: WebCall) -> None:
        self._calls.pop(call.name, None)


def _turn(call: WebCall, message: Mapping[str, Any]) -> None:
    wanted = message.get("set")
    if not isinstance(wanted, dict) or call.line is None:
        raise ArgumentError('A page sends {"set": {"wet": 0.5}}.')
    for name, value in wanted.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ArgumentError(f"Control {name!r} takes a number.")
        call.line.path.stream.controls.set(name, value)


async def _json(request: Request, longest: int) -> dict[str, Any]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > longest:
            raise ArgumentError(f"A request has at most {longest // 1024} kB.")
    return _object(bytes(body).decode("utf-8", "replace"))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if len(text) <= LONGEST_OFFER + _LONGEST_MESSAGE else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ArgumentError("A message is one JSON object.")
    return value


def _error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers={**_HEADERS, **(headers or {})})
